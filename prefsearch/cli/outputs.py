"""Validation of output paths before work begins: no output may overwrite an input.

A file path must not be a folder or a device, a folder path not a file, and both must be writable;
the checks create nothing. Paths are compared as the disk resolves them: through symbolic and hard
links, and `..` behind a folder that does not exist yet.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from prefsearch.config.checks import shown

_MOST_FILES = 100_000
"""Of an input folder; no more are looked at."""
Inputs = Mapping[str, str | Sequence[str] | None]
"""What is read, by the name of its setting; what is not on the disk is ignored."""


@dataclass(frozen=True)
class Output:
    """An output file or folder of a command.

    Attributes:
        setting: The setting that holds the path.
        place: The path.
        names: Files that will be written in a folder; "." also forbids the folder as an input.
            None: the path is a file.
        replaced: Whether the folder is replaced as a whole.
    """

    setting: str
    place: str
    names: tuple[str, ...] | None = None
    replaced: bool = False

    @property
    def replaced_folders(self) -> list[str]:
        """The folder, if it is replaced as a whole."""
        return [self.place] if self.replaced else []

    @property
    def files(self) -> list[Path]:
        """The files that will be written."""
        names = (".",) if self.names is None else self.names
        return [Path(self.place, name) for name in names]


@runtime_checkable
class HasOutputs(Protocol):
    """Arguments that name where a command writes."""

    def outputs(self) -> list[Output]:
        """The output files and folders, as the arguments are now."""
        ...


def resolve_outputs(args: HasOutputs) -> list[Output]:
    """Expands and validates the output paths of a command.

    Args:
        args: A dataclass instance with `outputs()`, a list of `Output`.

    Raises:
        ValueError: Naming the setting, what was found and what is required.
    """
    expand_home(args, *(output.setting for output in args.outputs()))
    outputs = args.outputs()
    check_outputs(outputs)
    return outputs


def expand_home(config: object, *settings: str) -> None:
    """Replaces `~` at the beginning of paths in a configuration by the home folder.

    Args:
        config: A dataclass instance, frozen or not.
        settings: Of paths; those that are unset stay so.

    Raises:
        ValueError: If there is no such user.
    """
    for setting in settings:
        found = getattr(config, setting)
        if found:
            object.__setattr__(config, setting, home_expanded(found, setting))


def home_expanded(path: str, setting: str) -> str:
    """A path with the home folder for a leading `~`.

    Raises:
        ValueError: If there is no such user.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        user = expanded.partition("/")[0]
        raise ValueError(
            f"{setting}: found {shown(path)}, and no home folder of {shown(user)}; required: a "
            f"path. For a name that begins with ~ write --{setting} ./{path}"
        )
    return expanded


def check_outputs(outputs: Sequence[Output]) -> None:
    """Checks that outputs are writable and do not overlap.

    Raises:
        ValueError: Naming the setting, what was found and what is required.
    """
    for output in outputs:
        _check_output(output)
    for one in (output for output in outputs if output.names is None):
        file = Path(os.path.realpath(one.place))
        for other in outputs:
            if other is not one and Path(os.path.realpath(other.place)).is_relative_to(file):
                raise ValueError(
                    f"{other.setting}: found {shown(other.place)}, which the file {one.setting} "
                    f"({shown(one.place)}) is in the way of; required: another place"
                )


def _check_output(output: Output) -> None:
    wanted = "a file" if output.names is None else "a folder"
    if not output.place.strip():
        _refuse(output, "an empty text", wanted)
    if output.names is None and output.place.endswith(("/", os.sep)):
        _refuse(output, "a folder by its end", "a file, without / at its end")
    place = Path(os.path.realpath(output.place))
    mode = _mode(output, Path(output.place))  # of /dev/stdout, which no path leads to
    mode = _mode(output, place) if mode is None else mode
    if output.names is None or mode is not None:
        _check_kind(output, place, mode, folder=output.names is not None)
    for file in output.files if output.names else ():
        if file != Path(output.place):
            real = Path(os.path.realpath(file))
            _check_kind(output, real, _mode(output, real), folder=False)
    _check_above(output, place if mode is not None and stat.S_ISDIR(mode) else place.parent)


def _check_kind(output: Output, place: Path, mode: int | None, *, folder: bool) -> None:
    """Raises if a path exists and is of the wrong kind."""
    if mode is None or (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        return
    kind = "a file" if stat.S_ISREG(mode) else "a pipe or device"
    found = "a folder" if stat.S_ISDIR(mode) else kind
    here = "" if str(place) == os.path.realpath(output.place) else f"{place}, "
    _refuse(output, f"{here}{found}", "a new or empty folder" if folder else "a file")


def _check_above(output: Output, folder: Path) -> None:
    """Checks that a folder can be created and written to."""
    while (mode := _mode(output, folder)) is None:
        folder = folder.parent
    if not stat.S_ISDIR(mode):
        _refuse(output, f"{folder}, which is no folder, above it", "folders above it")
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        reason = error.strerror or str(error)
        _refuse(output, f"{folder}, which cannot be written to ({reason})", "one that "
                "this user can write to")  # fmt: skip


def _mode(output: Output, place: Path) -> int | None:
    """File mode of a path; None if it does not exist."""
    try:
        return os.stat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name that is too long, a circle of links
        reason = getattr(error, "strerror", None) or str(error)
        _refuse(output, f"a path that cannot be used ({reason})", "a path that can")
        raise AssertionError from error


def _refuse(output: Output, found: str, required: str) -> None:
    place = f"{shown(output.place)}, " if output.place.strip() else ""
    raise ValueError(
        f"{output.setting}: found {place}{found}; required: {required}. Choose another with "
        f"--{output.setting}"
    )


def own_place(source: str) -> list[Path]:
    """The path that a source is, with the home folder for a leading `~`."""
    return [Path(os.path.expanduser(source))] if source else []


def require_kept(
    inputs: Inputs,
    *,
    files: Iterable[str | os.PathLike[str]] = (),
    folders: Iterable[str | os.PathLike[str]] = (),
    setting: str = "out",
    places: Callable[[str], Iterable[Path]] = own_place,
) -> None:
    """Checks that no output overwrites an input.

    Args:
        inputs: What is read.
        files: Files that will be written.
        folders: Folders that will be replaced as a whole.
        setting: Which names the output.
        places: The files and folders that a source stands for.

    Raises:
        ValueError: Naming the output and the input.
    """
    outputs = [(file, Path(os.path.realpath(file))) for file in files]
    existing = [(file, real) for file, real in outputs if real.exists()]
    replaced = [(folder, Path(os.path.realpath(folder))) for folder in folders]
    for name, sources in inputs.items():
        for source in [sources] if isinstance(sources, str) else sources or ():
            for path in filter(_lies_there, places(source)):
                for file, real in existing:
                    if any(_is_same(real, one) for one in _files_of(path)):
                        _refuse_input(setting, str(file), name, source)
                for folder, real in replaced:
                    if Path(os.path.realpath(path)).is_relative_to(real):
                        _refuse_input(setting, str(folder), name, source)


def require_outside(
    inputs: Inputs, folder: str | os.PathLike[str], *, setting: str = "out"
) -> None:
    """Checks that an output folder is not inside an input.

    Args:
        inputs: Folders that are read.
        folder: The output.
        setting: Which names the output.

    Raises:
        ValueError: Naming the output and the input.
    """
    real = Path(os.path.realpath(folder))
    for name, sources in inputs.items():
        for source in [sources] if isinstance(sources, str) else sources or ():
            for path in own_place(source):
                if real.is_relative_to(os.path.realpath(path)):
                    raise ValueError(
                        f"{setting}: found {shown(str(folder))}, which lies in {shown(source)}, "
                        f"read as {name}; required: another place. Choose one with --{setting}"
                    )


def _refuse_input(setting: str, output: str, name: str, source: str) -> None:
    raise ValueError(
        f"{setting}: found {shown(output)}, which would be written over and is read as {name} "
        f"({shown(source)}); required: another place. Choose one with --{setting}"
    )


def _lies_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text that is no path
        return False


def _files_of(path: Path) -> Iterator[Path]:
    """A file or folder, and the files in it."""
    yield path
    left = _MOST_FILES
    for folder, below, names in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names[:left]:
            yield Path(folder, name)
        left -= len(names)
        if left <= 0:
            return


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # a link to nowhere, or a folder that may not be entered
        return False

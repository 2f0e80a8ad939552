"""Refuses to write over what a command reads, before anything is written.

Two paths are the same file where they are so to the disk: by links of either kind, too, and by `..`
behind a folder that is yet to be made.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prefsearch.config.checks import shown

_MOST_FILES = 100_000
"""Of an input folder; no more are looked at."""
Inputs = Mapping[str, str | Sequence[str] | None]
"""What is read, by the name of its setting; what is not on the disk is passed over."""


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
    """Checks that no output takes the place of an input.

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
                        _refuse(setting, str(file), name, source)
                for folder, real in replaced:
                    if Path(os.path.realpath(path)).is_relative_to(real):
                        _refuse(setting, str(folder), name, source)


def require_outside(
    inputs: Inputs, folder: str | os.PathLike[str], *, setting: str = "out"
) -> None:
    """Checks that a folder that will be written in lies in no input.

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


def _refuse(setting: str, output: str, name: str, source: str) -> None:
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

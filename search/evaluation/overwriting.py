"""Refuses to write over what a command reads, before anything is written.

Two paths are the same file where they are so to the disk: by links of either kind, too.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from search.evaluation.settings import shown

_MOST_FILES = 100_000
"""Of an input folder; no more are looked at."""
_FILE_PREFIX, _FUNCTION_PREFIX = "answers:", "python:"


def require_kept(
    inputs: Mapping[str, str | Sequence[str] | None],
    *,
    files: Iterable[str | os.PathLike[str]] = (),
    folders: Iterable[str | os.PathLike[str]] = (),
    setting: str = "out",
) -> None:
    """Checks that no output takes the place of an input.

    Args:
        inputs: What is read, by the name of its setting: files, folders, `answers:FILE` or
            `python:FILE.py:name`; what is not on the disk, such as a hub id, is passed over.
        files: Files that will be written.
        folders: Folders that will be replaced as a whole.
        setting: Which names the output.

    Raises:
        ValueError: Naming the output and the input.
    """
    outputs = [Path(file) for file in files]
    existing = [file for file in outputs if file.exists()]
    replaced = [Path(folder).resolve() for folder in folders]
    for name, sources in inputs.items():
        for source in [sources] if isinstance(sources, str) else sources or ():
            path = _path_of(source)
            if path is None:
                continue
            for file in existing:
                if any(_is_same(file, one) for one in _files_of(path)):
                    _refuse(setting, str(file), name, source)
            for folder in replaced:
                if path.resolve().is_relative_to(folder):
                    _refuse(setting, str(folder), name, source)


def _refuse(setting: str, output: str, name: str, source: str) -> None:
    raise ValueError(
        f"{setting}: found {shown(output)}, which would be written over and is read as {name} "
        f"({shown(source)}); required: another place. Choose one with --{setting}"
    )


def _path_of(source: str) -> Path | None:
    """Where an input lies on the disk, if it does."""
    if source.startswith(_FUNCTION_PREFIX):
        source = source.removeprefix(_FUNCTION_PREFIX).rpartition(":")[0]
    path = Path(source.removeprefix(_FILE_PREFIX))
    try:
        return path if source and path.exists() else None
    except (OSError, ValueError):  # a text that is no path
        return None


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

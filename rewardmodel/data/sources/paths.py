"""Paths of user data, looked at before anything is opened; reads no file."""

import os
from pathlib import Path

from prefsearch.config.checks import closest
from prefsearch.storage.text_files import UnreadableFile, refuse_special
from rewardmodel.data.rows import PreferenceDataError

FILE_KINDS = (".jsonl", ".json", ".parquet", ".csv", ".txt")


def file_kind(path: Path) -> str:
    """Return the file kind from the name, compression aside."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def checked_path(source: str | os.PathLike[str]) -> Path:
    """The path that a source may be.

    Raises:
        PreferenceDataError: It looks like a path and nothing lies there, it is no regular file and
            no folder, or it cannot be looked at.
    """
    if os.fspath(source) in ("", "-"):
        raise PreferenceDataError(
            f"found {os.fspath(source)!r} as data; required is a file, a folder or a dataset id, "
            "since data may be read twice. Write standard input to a file and name that."
        )
    path = Path(source)
    try:
        path = path.expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user behind ~
        raise PreferenceDataError(
            f"{path} cannot be looked at ({error}); required is a file or folder that this user "
            "can read. Check the path and its permissions."
        ) from error
    refuse_special_data(path)
    if not path.exists() and _looks_local(source):
        raise _missing_path(path)
    return path


def refuse_special_data(path: Path) -> None:
    """Refuses a path at which something else than a file or a folder lies."""
    try:
        refuse_special(path, folders=True)
    except UnreadableFile as error:
        raise PreferenceDataError(str(error)) from error


def _looks_local(source: str | os.PathLike[str]) -> bool:
    """Tell a mistyped path from a hub id (`name` or `owner/name`)."""
    text = os.fspath(source)
    return (
        not isinstance(source, str)
        or text.startswith(("/", ".", "~"))
        or text.count("/") > 1
        or "\\" in text
        or file_kind(Path(text)) in FILE_KINDS
        or ("/" in text and Path(text).parent.is_dir())
    )


def _missing_path(path: Path) -> PreferenceDataError:
    parent = path.parent
    while not parent.is_dir():
        if parent == parent.parent:
            break
        parent = parent.parent
    wanted = path.relative_to(parent).parts[0]
    names = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    stems = {Path(name).stem: name for name in names}
    close = closest(wanted, names, count=3) or [
        stems[stem] for stem in closest(Path(wanted).stem, stems, count=3)
    ]
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"found {names[:10]}."
    return PreferenceDataError(f"{path} does not exist: {parent} holds no {wanted!r}; {hint}")

"""Atomic folder writes: write under a temporary name, flush, rename."""

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import flush_folder
from prefsearch.storage.scratch_files import (
    partial_folder,
    remove_leftovers,
    replaced_folder,
)

Kind = Literal["model", "value_head"]
# What tells a folder's kind, and what else it may hold if it is to be replaced.
_MARKS: dict[Kind, tuple[set[str], str]] = {
    "model": (
        {"config.json", "adapter_config.json"},
        r"(?!value_head).+\.(safetensors|json|jinja|model)|(vocab|merges|added_tokens)\.txt|README\.md"
        r"|\.gitattributes|additional_chat_templates",
    ),
    "value_head": ({"value_head.json"}, r"value_head\.(json|safetensors)"),
}
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextlib.contextmanager
def new_folder(target: Path, *, over: Kind | None = "model") -> Iterator[Path]:
    """Context manager: a temporary folder that replaces `target` on success.

    A folder that has the name already stays until its successor is whole on the disk; the two then
    change places at once.

    Args:
        target: The folder to make.
        over: The kind that a folder of that name must be, and hold nothing else, or it is not
            replaced. None replaces whatever is there.

    Raises:
        ValueError: If the name belongs to a file, or to a folder that may not be replaced.
        StorageError: If the disk is full or cannot be written; nothing is left behind.
    """
    with naming_path(target, "write"):
        remove_leftovers(target.parent)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; required: a folder's name. Choose another one")
    held = {path.name for path in target.iterdir()} if target.is_dir() else set[str]()
    if held and over is not None:
        _require_kind(target, held, over)
    scratch = partial_folder(target)
    try:
        with naming_path(target, "write"):
            scratch.mkdir(parents=True)
            yield scratch
            flush_tree(scratch)
            place_folder(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _require_kind(target: Path, held: set[str], over: Kind) -> None:
    """Raises if a folder to replace is of another kind or has extra files."""
    marks, allowed = _MARKS[over]
    what = over.replace("_", " ")
    more = sorted(name for name in held if not re.fullmatch(allowed, name))
    if not held & marks:
        found = f"{', '.join(sorted(held)[:5])} and no {what}"
    elif more:
        found = f"{', '.join(more[:5])} beside a {what}"
    else:
        return
    raise ValueError(
        f"{target} holds {found}; required: a new folder, or a {what}'s to replace. Choose another "
        "one"
    )


def place_folder(scratch: Path, target: Path) -> None:
    """Renames a folder to its final name, removing the one it replaces.

    Raises:
        OSError: If it cannot be renamed.
    """
    # Through links, so that a link to a folder on another disk survives.
    target = Path(os.path.realpath(target))
    if not target.exists():
        os.replace(scratch, target)
    elif _exchange(scratch, target):
        flush_folder(target.parent)
        shutil.rmtree(scratch, ignore_errors=True)
    else:  # `remove_leftovers` puts it back if the process is killed between the two
        former = replaced_folder(target)
        os.replace(target, former)
        os.replace(scratch, target)
        flush_folder(target.parent)
        shutil.rmtree(former, ignore_errors=True)
    flush_folder(target.parent)


def remove_folder(target: Path) -> None:
    """Removes a folder atomically, even if the process is killed."""
    if target.is_dir():
        former = partial_folder(target)
        with naming_path(target, "remove"):
            os.replace(target, former)
        shutil.rmtree(former, ignore_errors=True)


def flush_tree(folder: Path) -> None:
    """Flushes all files of a folder to disk.

    Raises:
        OSError: If one cannot be read or written out.
    """
    for path in folder.rglob("*"):
        if path.is_dir():
            flush_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    flush_folder(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths atomically; False where unsupported."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = (_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other))
    if rename(*names, _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # not on this file system
        return False
    raise OSError(code, os.strerror(code), str(other))

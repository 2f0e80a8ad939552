"""Errors of reading and writing files, with path, cause and remedy."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_REMEDIES = {
    errno.ENOSPC: "free some space there, or choose a folder on another disk",
    errno.EDQUOT: "your quota is used up: remove files, or choose a folder on another disk",
    errno.EACCES: "make it accessible to this user, or choose another folder",
    errno.EPERM: "make it accessible to this user, or choose another folder",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.ENOTDIR: "a part of the path is a file: choose a path whose parents are folders",
    errno.EEXIST: "a part of the path is a file: choose a path whose parents are folders",
    errno.EISDIR: "the path is a folder: name a file inside it",
    errno.ENOENT: "check the path: the file or one of its folders is missing",
    errno.ENAMETOOLONG: "choose a shorter name",
}
# Libraries turn errors of the disk into their own: safetensors keeps the text, torch names its
# writer.
_DISK_FULL = re.compile(r"No space left on device|os error 28|Disk quota exceeded|os error 122")
_WRITE_FAILED = re.compile(
    r"inline_container|PytorchStreamWriter failed|file write failed|I/O error|os error \d+"
)
_NEARLY_FULL = 2**20  # bytes free, below which a write that failed had no space


class StorageError(OSError):
    """A file could not be read or written; the message names path, cause and remedy.

    `errno` and `filename` are those of the operating system's error.
    """


@contextmanager
def naming_path(path: Path, verb: str) -> Generator[None]:
    """Context manager that re-raises disk errors as `StorageError`.

    That is an operating-system error, or what safetensors, torch or pyarrow make of one.

    Args:
        path: named in the message.
        verb: what the block does to it, as in "could not VERB it".

    Raises:
        StorageError: with path, cause and remedy.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        code = _disk_error(error, path)
        if code is None:
            raise
        cause = (error.strerror if isinstance(error, OSError) else None) or os.strerror(code)
        remedy = _REMEDIES.get(code, "check the disk and the path, then try again")
        raise StorageError(code, f"could not {verb} it: {cause}; {remedy}", str(path)) from error


def _disk_error(error: Exception, path: Path) -> int | None:
    """The number of the operating system's error that an exception stands for, or None."""
    if isinstance(error, OSError):
        known = _DISK_FULL.search(str(error)) and errno.ENOSPC
        return error.errno or known or errno.EIO
    text = str(error)
    if isinstance(error, ValueError | TypeError) or not _WRITE_FAILED.search(text):
        return errno.ENOSPC if _DISK_FULL.search(text) else None
    return errno.ENOSPC if _DISK_FULL.search(text) or _is_full(path) else errno.EIO


def _is_full(path: Path) -> bool:
    """Whether the disk that holds a path is nearly full."""
    place = next((above for above in (path, *path.parents) if above.exists()), None)
    return place is not None and shutil.disk_usage(place).free < _NEARLY_FULL

"""Names of temporary files and folders, and cleanup after killed processes.

A file or folder that is being written has a temporary name beside its final one. The name holds the
host and the process that writes, so leftovers of a dead process can be distinguished from files
that a living one is writing.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

_WRITER = r"(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}"
# Earlier releases wrote no host and process.
_FILE = re.compile(rf"\.(?:prefsearch-{_WRITER}|[0-9a-f]{{32}})\.tmp")
_FOLDER = re.compile(rf"(?P<target>.+)\.(?P<kind>partial|replaced)-(?:{_WRITER}|[0-9a-f]+)")


def temporary_file(target: Path) -> Path:
    """The name under which the content of `target` is written, in the same folder."""
    return target.with_name(f".prefsearch-{_writer()}.tmp")


def partial_folder(target: Path) -> Path:
    """The name under which the folder `target` is put together, beside it."""
    return target.with_name(f"{target.name}.partial-{_writer()}")


def replaced_folder(target: Path) -> Path:
    """The name of the former folder `target` between two renames, beside it."""
    return target.with_name(f"{target.name}.replaced-{_writer()}")


def is_scratch(path: Path) -> bool:
    """Whether a name is one that this module gives."""
    return bool(_FILE.fullmatch(path.name) or _FOLDER.fullmatch(path.name))


def remove_leftovers(folder: Path, *, living: bool = False) -> None:
    """Removes temporary files that killed processes of this host left in a folder.

    A folder that was taken out of its place and had no successor yet is put back.

    Args:
        folder: Its own entries are looked at, not those of the folders in it.
        living: Also remove what belongs to other hosts and to processes that are alive, for a
            caller that holds a lock on the folder.
    """
    for path in list(_scratch_in(folder)):
        found = _FILE.fullmatch(path.name) or _FOLDER.fullmatch(path.name)
        if found is None or not (living or _is_dead(found["host"], found["process"])):
            continue
        target = None if "target" not in found.groupdict() else folder / found["target"]
        if target is not None and found["kind"] == "replaced" and not target.exists():
            with contextlib.suppress(OSError):
                path.rename(target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


@functools.lru_cache(maxsize=256)
def remove_leftovers_once(folder: Path) -> None:
    """Does `remove_leftovers` at the first call for a folder; a process writes to few of them."""
    remove_leftovers(folder)


def _scratch_in(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from (Path(e.path) for e in entries if is_scratch(Path(e.path)))


def _is_dead(host: str | None, process: str | None) -> bool:
    return process is not None and host == _host() and not psutil.pid_exists(int(process))


def _writer() -> str:
    return f"{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]

"""File locks that give one process exclusive use of a run directory.

The lock is the operating system's, on an open file: it is gone with the process, however that
ends, so no stale lock has to be removed by hand. Who holds it is written beside it, for the message
alone.
"""

import json
import os
import socket
import threading
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import write_json_atomic

LOCK, OWNER = ".run.lock", ".run.owner.json"

_held: "weakref.WeakValueDictionary[str, FileLock]" = weakref.WeakValueDictionary()
_guard = threading.Lock()


class RunBusyError(ValueError):
    """Another process works in the run's folder; the message names it."""


def lock_run(folder: Path) -> Any:
    """Locks a run directory until the lock is released or garbage-collected.

    A process that holds the lock already gets the same object.

    Args:
        folder: The run's folder, which is there.

    Raises:
        RunBusyError: If another process holds the lock.
        StorageError: If the lock file cannot be made.
    """
    path = Path(os.path.realpath(folder)) / LOCK
    with _guard:
        held = _held.get(str(path))
        if held is not None and held.is_locked and path.exists():
            return held
        lock = FileLock(path, timeout=0, mode=0o644)
        with naming_path(path, "lock"):
            try:
                lock.acquire()
            except Timeout:
                raise RunBusyError(
                    f"{folder} is in use by {_describe_owner(folder)}; required: one process a "
                    "run. Wait until it has ended, or choose another folder with --out"
                ) from None
        _held[str(path)] = lock
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json_atomic(folder / OWNER, owner)
    return lock


def _describe_owner(folder: Path) -> str:
    """Describes the process that holds the lock."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

"""Ends a process before an event of the file system, and compares what two runs have left.

In a fork of this process an audit hook counts the events below a folder (a file opened for writing,
a folder made, a name given or taken away, data forced to the disk) and ends the fork by SIGKILL
before the k-th.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

_ARGUMENTS = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,),
              "os.truncate": (0,), "os.link": (0, 1), "os.symlink": (0, 1)}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TIMES = ("seconds", "since", "environment", "configuration", "files", "sha256")
DRAWN = (".html", ".svg", ".png", ".pdf")
UNCOMPARED = {".run.lock", ".run.owner.json", "environment.json"}


class Killer:
    """Counts the events below a folder, and ends the process before a given one."""

    def __init__(
        self,
        folder: Path,
        *,
        at: int | None = None,
        torn: bool = False,
        before: Callable[[int], None] | None = None,
        after_step: Callable[[str], None] | None = None,
    ) -> None:
        """Starts to watch this process.

        Args:
            folder: Events below it, and of it, count.
            at: The number of the event to end before; None only counts.
            torn: At a forced write, cut the file to half first, as a crash of the machine may.
            before: Called before each event, with its number.
            after_step: Called before the first event after a step of the run is done, with the
                step's name.
        """
        self.folder, self.at, self.torn = str(folder), at, torn
        self.before, self.after_step = before, after_step
        self.count = 0
        self._quiet = False
        self._done: str | None = None
        self._fsync = os.fsync
        os.fsync = self._forced  # which raises no event of its own
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            name, _, flags = arguments
            if isinstance(name, str | bytes) and isinstance(flags, int) and flags & _WRITING:
                self._meet(name)
        elif event in _ARGUMENTS:
            for position in _ARGUMENTS[event]:
                if self._meet(arguments[position], arguments[-1]):
                    break
            if event == "os.rename" and not self._quiet:
                target = Path(os.fsdecode(arguments[1]))
                if target.parent.name == "steps" and target.suffix == ".json":
                    self._done = target.stem

    def _meet(self, name: Any, folder: Any = -1) -> bool:
        if isinstance(name, int):
            return False
        path = os.fsdecode(name)
        if not os.path.isabs(path):
            base = os.getcwd()
            if isinstance(folder, int) and folder >= 0:
                with contextlib.suppress(OSError):
                    base = os.readlink(f"/proc/self/fd/{folder}")
            path = os.path.join(base, path)
        if not os.path.normpath(path).startswith(self.folder):
            return False
        self._count()
        return True

    def _forced(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.startswith(self.folder):
                dying = self.at is not None and self.count + 1 == self.at
                if self.torn and dying and os.path.isfile(path):
                    os.truncate(path, os.path.getsize(path) // 2)
                self._count()
        self._fsync(descriptor)

    def _count(self) -> None:
        if self._quiet:
            return
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._quiet = True  # what is done here is no event
        try:
            done, self._done = self._done, None
            if done is not None and self.after_step is not None:
                self.after_step(done)
            if self.before is not None:
                self.before(self.count)
        finally:
            self._quiet = False


def in_child(
    work: Callable[[], int],
    watch: Path,
    log: Path,
    *,
    at: int | None = None,
    torn: bool = False,
    before: Callable[[int], None] | None = None,
    after_step: Callable[[str], None] | None = None,
) -> tuple[int, int]:
    """Does something in a fork of this process.

    Args:
        work: What to do; returns the exit code.
        watch: The folder whose events count.
        log: Where output and errors go.
        at: See `Killer`, as are the other three.
        torn: See there.
        before: See there.
        after_step: See there.

    Returns:
        The exit status, negative for a signal; and the events that were counted, if it ended.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reading)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            killer = Killer(watch, at=at, torn=torn, before=before, after_step=after_step)
            code = work()
            os.write(writing, str(killer.count).encode())
        except Exception:  # noqa: BLE001 the fork must not go on as its parent
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        counted = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(counted or 0)


def left_by(folder: Path) -> dict[str, Any]:
    """What a run has left: of each file its content, without times."""
    return {
        path.relative_to(folder).as_posix(): _content(path, str(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNCOMPARED
    }


def _content(path: Path, folder: str) -> Any:
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8").replace(folder, "RUN")
        # The folder that a run was copied from when it was killed.
        text = text.replace(str(Path(folder).with_name("whole")), "RUN")
        if path.suffix == ".json":
            return _untimed(json.loads(text))
        return [_untimed(json.loads(line)) for line in text.split("\n") if line]
    if path.suffix == ".yaml":
        return _untimed(yaml.safe_load(path.read_text(encoding="utf-8")))
    if path.suffix in (*DRAWN, ".md"):
        return "a page, which shows times"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if not str(k).endswith(_TIMES)}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Where two runs differ, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = sorted({*found, *expected})
        return [
            line
            for name in names
            for line in (
                differences(found[name], expected[name], f"{where}/{name}")
                if name in found and name in expected
                else [f"{where}/{name} is {'more' if name in found else 'missing'}"]
            )
        ]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for i, (f, e) in pairs for line in differences(f, e, f"{where}[{i}]")]
    if found == expected:
        return []
    return [f"{where}: {str(found)[:80]} for {str(expected)[:80]}"]

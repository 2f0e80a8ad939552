"""Kills a command at each event of the file system in turn, resumes it, and compares what is left.

A server process imports what the command needs and forks for every run, so that a run costs its own
time alone. In the fork an audit hook counts the events below the run's folder (a file opened for
writing, a folder made, a name given or taken away, data forced to the disk) and ends the process by
SIGKILL before the k-th. The run is then resumed to its end; all that it has left must be what an
uninterrupted run leaves, but for times.
"""

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(__file__).resolve().parent.parent
_ARGUMENTS = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,),
              "os.truncate": (0,), "os.link": (0, 1), "os.symlink": (0, 1)}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TIMES = ("seconds", "since", "environment", "configuration", "files")
_DRAWN = (".html", ".svg", ".png", ".pdf")
_UNCOMPARED = {".run.lock", ".run.owner.json", "environment.json"}


class Killer:
    """Counts the events below a folder, and ends the process before a given one."""

    def __init__(self, folder: Path, *, at: int | None = None, torn: bool = False) -> None:
        """Starts to watch this process.

        Args:
            folder: Events below it, and of it, count.
            at: The number of the event to end before; None only counts.
            torn: At a forced write, cut the file to half first, as a crash of the machine may.
        """
        self.folder, self.at, self.torn = str(folder), at, torn
        self.count = 0
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
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(
    work: Callable[[], int], watch: Path, log: Path, *, at: int | None = None, torn: bool = False
) -> tuple[int, int]:
    """Does something in a fork of this process.

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
            killer = Killer(watch, at=at, torn=torn)
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
        path.relative_to(folder).as_posix(): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _UNCOMPARED
    }


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _untimed(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_untimed(json.loads(line)) for line in lines if line]
    if path.suffix == ".yaml":
        return _untimed(yaml.safe_load(path.read_text(encoding="utf-8")))
    if path.suffix in (*_DRAWN, ".md"):
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


def sweep(job: dict[str, Any]) -> None:
    """Runs, kills and resumes as a job says; prints one line of JSON for each kill."""
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    for name in job["imports"]:
        importlib.import_module(name)
    import prefsearch

    base = Path(job["folder"])
    log = base / "log.txt"

    def run(out: str, *more: str) -> Callable[[], int]:
        return lambda: prefsearch.main([*job["command"], "--out", str(base / out), *more])

    began = time.perf_counter()
    status, events = in_child(run("whole"), base / "whole", log)
    _say(status=status, events=events, log=log.read_text()[-1500:] if status else "",
         seconds=round(time.perf_counter() - began, 2))  # fmt: skip
    if status:
        return
    expected = left_by(base / "whole")
    _, again = in_child(run("whole", *job["resume"]), base / "whole", log)
    same = differences(left_by(base / "whole"), expected)
    _say(kill="none, resumed when done", torn=False, problems=same[:5], events=again)
    for number, torn in chosen(events, job["kills"]):
        killed = base / "killed"
        shutil.rmtree(killed, ignore_errors=True)
        status, _ = in_child(run("killed"), killed, log, at=number, torn=torn)
        problems = [] if status == -signal.SIGKILL else [f"ended with {status} instead of a kill"]
        status, _ = in_child(run("killed", *job["resume"]), killed, log)
        if status:
            problems.append(f"resuming ended with {status}: {log.read_text()[-600:]}")
        else:
            problems += differences(left_by(killed), expected)[:5]
        _say(kill=number, torn=torn, problems=problems)


def fill(job: dict[str, Any]) -> None:
    """Runs a command on disks that are too small, resumes it on a large one; prints as `sweep`.

    The disk is a tmpfs in a mount namespace of this process's own.
    """
    base, disk = Path(job["folder"]), Path(job["folder"]) / "disk"
    log = base / "log.txt"
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", "size=200m", "tmpfs", disk)

    def run(*more: str) -> tuple[int, int]:
        command = [*job["command"], "--out", str(disk / "run"), *more]
        return in_child(lambda: prefsearch.main(command), disk, log)

    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    for name in job["imports"]:
        importlib.import_module(name)
    import prefsearch

    status, _ = run()
    _say(status=status, events=0, log=log.read_text()[-1500:] if status else "")
    if status:
        return
    expected = left_by(disk / "run")
    # What is on the disk for a moment, such as checkpoints on the way, is not counted.
    pages = shutil.disk_usage(disk).used // 4096
    for share in job["kills"]:
        shutil.rmtree(disk / "run")
        size = max(2, int(share * pages)) * 4096
        _mount("-o", f"remount,size={size}", disk)
        status, _ = run()
        said = log.read_text()
        problems = [] if status == 2 else [f"ended with {status}: {said[-600:]}"]
        if (
            "No space left on device" not in said
            or str(disk) not in said
            or "free some" not in said
        ):
            problems.append(f"printed {said[-600:]!r}")
        if "Traceback" in said:
            problems.append(f"printed a traceback: {said[-1500:]}")
        _mount("-o", "remount,size=200m", disk)
        status, _ = run(*job["resume"])
        if status:
            problems.append(f"resuming ended with {status}: {log.read_text()[-600:]}")
        else:
            problems += differences(left_by(disk / "run"), expected)[:5]
        _say(kill=share, torn=False, problems=problems)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "emptied": lambda path: _rewrite(path, b""),
    "cut to half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a list": lambda path: _rewrite(path, b"[]\n"),
    "null": lambda path: _rewrite(path, b"null\n"),
    "another mapping": lambda path: _rewrite(path, b'{"other": 1}\n'),
    "a flipped byte": lambda path: _flip(path),
    "not UTF-8": lambda path: _rewrite(path, b"\xff\xfe\x00\x80" * 8),
    "removed": lambda path: path.unlink(),
    "a folder": lambda path: _become_folder(path),
}
"""What may happen to a file."""


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 0x20
    path.write_bytes(bytes(data))


def spoil(job: dict[str, Any]) -> None:
    """Damages the files of a run one by one, resumes it, and prints what came of it as `sweep`.

    A resumed run must end as the whole one did, or with an error that names the file, and then
    nothing may have changed.
    """
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    for name in job["imports"]:
        importlib.import_module(name)
    import prefsearch

    base = Path(job["folder"])
    log, out = base / "log.txt", base / "run"

    def run(*more: str, at: int | None = None) -> tuple[int, int]:
        command = [*job["command"], "--out", str(out), *more]
        return in_child(lambda: prefsearch.main(command), out, log, at=at)

    status, events = run()
    _say(status=status, events=events, log=log.read_text()[-1500:] if status else "")
    if status:
        return
    expected = left_by(out)
    kept = base / "kept"
    shutil.copytree(out, kept)
    for stage in ("whole", "half"):
        if stage == "half":
            shutil.rmtree(out)
            run(at=int(0.6 * events))
            shutil.rmtree(kept)
            shutil.copytree(out, kept)
        files = sorted(path.relative_to(kept) for path in kept.rglob("*") if path.is_file())
        cases = [(file, name) for file in files for name in DAMAGES]
        if job["kills"] is not None:
            count = job["kills"]
            cases = [cases[i * len(cases) // count] for i in range(min(count, len(cases)))]
        for file, name in cases:
            shutil.rmtree(out)
            shutil.copytree(kept, out)
            DAMAGES[name](out / file)
            before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
            status, _ = run(*job["resume"])
            said = log.read_text()
            problems: list[str] = []
            if status == 0:
                problems += differences(left_by(out), expected)[:5]
            elif status != 2:
                problems.append(f"ended with {status}: {said[-900:]}")
            else:
                if not any(name in "".join(said.split()) for name in file.parts[-2:]):
                    problems.append(f"did not name the file: {said[-600:]}")
                after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
                changed = {
                    p.name
                    for p in before.keys() | after.keys()
                    if before.get(p) != after.get(p) and ".partial-" not in str(p)
                }
                changed -= {*_UNCOMPARED, file.name, "summary.json"}
                # Figures and pages are drawn anew at each start.
                changed = {name for name in changed if not name.endswith(_DRAWN)}
                if changed:
                    problems.append(f"changed {sorted(changed)}")
            if "Traceback" in said:
                problems.append(f"printed a traceback: {said[-1500:]}")
            _say(kill=f"{stage}: {file} {name}", torn=False, status=status, problems=problems,
                 said=said.strip()[-300:] if status else "")  # fmt: skip


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def chosen(events: int, kills: int | None) -> list[tuple[int, bool]]:
    """The kills to try: all events, whole and torn, or so many of them, spread evenly."""
    every = [(number, torn) for number in range(1, events + 1) for torn in (False, True)]
    if kills is None or kills >= len(every):
        return every
    return [every[(2 * i + 1) * len(every) // (2 * kills)] for i in range(kills)]


def _say(**facts: Any) -> None:
    os.write(3, (json.dumps(facts) + "\n").encode())


def sweep_command(
    command: Sequence[str],
    folder: Path,
    *,
    kills: int | Sequence[float] | None,
    imports: Sequence[str],
    resume: Sequence[str] = ("--resume", "true"),
    mode: Literal["kill", "fill", "spoil"] = "kill",
) -> list[dict[str, Any]]:
    """Sweeps a command of `prefsearch` in a process of its own.

    Args:
        command: Without `--out` and `--resume`.
        folder: To work in, where the command finds its data.
        kills: How many; None for one before every event. Of full disks, their sizes as shares of
            what the run leaves.
        imports: What is imported before the first fork.
        resume: The flags that resume a run.
        mode: Kill the process, fill the disk under it, or damage what a run has left.

    Returns:
        What each run found, the uninterrupted one first.
    """
    job = {"command": [*command], "folder": str(folder), "kills": kills, "imports": [*imports],
           "resume": [*resume], "mode": mode}  # fmt: skip
    apart = ["unshare", "--user", "--map-root-user", "--mount"] if mode == "fill" else []
    said = folder / "sweep.jsonl"
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
             "HF_DATASETS_CACHE": str(folder / "cache")}  # fmt: skip
    with said.open("wb") as file:
        ended = subprocess.run(
            [*apart, "bash", "-c", 'exec "$0" -m tests.killed_runs "$1" 3>&1 1>&2',
             sys.executable, json.dumps(job)],
            cwd=ROOT, env=known, stdout=file, stderr=subprocess.PIPE, timeout=7200,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    return [json.loads(line) for line in said.read_text().split("\n") if line]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    {"kill": sweep, "fill": fill, "spoil": spoil}[given["mode"]](given)

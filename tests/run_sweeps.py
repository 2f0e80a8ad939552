"""Interrupts a command in every way, resumes it, and compares it with an uninterrupted run.

A server process imports what the command needs and forks for every run, so that a run costs its
own time alone. `sweep` kills before an event of the file system; `sweep_steps` does so for long
commands, and resumes only until the interrupted step is done; `fill` fills the disk under the run;
`spoil` damages what a run has left.
"""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from tests.fakes import save_blank
from tests.killed_runs import DRAWN, UNCOMPARED, differences, in_child, left_by

ROOT = Path(__file__).resolve().parent.parent


def sweep(task: dict[str, Any]) -> None:
    """Runs, kills and resumes as a task says; prints one line of JSON for each kill."""
    base = Path(task["folder"])
    log = base / "log.txt"
    run = _runner(task)
    began = time.perf_counter()
    status, events = in_child(run("whole"), base / "whole", log)
    _report(status=status, events=events, log=log.read_text()[-1500:] if status else "",
         seconds=round(time.perf_counter() - began, 2))  # fmt: skip
    if status:
        return
    expected = left_by(base / "whole")
    _, again = in_child(run("whole", *task["resume"]), base / "whole", log)
    same = differences(left_by(base / "whole"), expected)
    _report(kill="none, resumed when done", torn=False, problems=same[:5], events=again)
    for number, torn in chosen(events, task["kills"]):
        killed = base / "killed"
        shutil.rmtree(killed, ignore_errors=True)
        status, _ = in_child(run("killed"), killed, log, at=number, torn=torn)
        problems = [] if status == -signal.SIGKILL else [f"ended with {status} instead of a kill"]
        status, _ = in_child(run("killed", *task["resume"]), killed, log)
        if status:
            problems.append(f"resuming ended with {status}: {log.read_text()[-600:]}")
        else:
            problems += differences(left_by(killed), expected)[:5]
        _report(kill=number, torn=torn, problems=problems)


def sweep_steps(task: dict[str, Any]) -> None:
    """Kills a long command before events, resumes it until the step is done, and prints as `sweep`.

    Steps depend on nothing but what the ones before have left, so a run that is as it should be
    when a step is done will be so when it ends. The run that is killed waits at each event for its
    folder to be copied: that is what a kill would leave there.
    """
    base = Path(task["folder"])
    log, out, killed = base / "log.txt", base / "whole", base / "killed"
    run = _runner(task)
    states = base / "states"
    states.mkdir()

    def keep(step: str) -> None:
        (states / f"{step}.json").write_text(json.dumps(left_by(out)))

    status, events = in_child(run("whole"), out, log, after_step=keep)
    _report(status=status, events=events, log=log.read_text()[-1500:] if status else "")
    if status:
        return
    wanted = {number for number, torn in chosen(events, task["kills"]) if not torn}
    shutil.rmtree(out)
    asking, ask = os.pipe()
    answering, answer = os.pipe()

    def wait(number: int) -> None:
        if number in wanted:
            os.write(ask, f"{number}\n".encode())
            os.read(answering, 1)

    reader = os.fdopen(asking, "r")
    child = os.fork()
    if child == 0:
        in_child(run("whole"), out, base / "slow-log.txt", before=wait)
        os.write(ask, b"0\n")
        os._exit(0)
    for line in reader:
        number = int(line)
        if number == 0:
            break
        shutil.rmtree(killed, ignore_errors=True)
        if out.is_dir():
            shutil.copytree(out, killed)
        problems = _resume_step(run("killed", *task["resume"]), killed, states, log)
        _report(kill=number, torn=False, problems=problems)
        os.write(answer, b"x")
    os.waitpid(child, 0)


def _resume_step(run: Callable[[], int], killed: Path, states: Path, log: Path) -> list[str]:
    """Resumes a killed run until one step more is done; what is wrong with it then."""

    def stop(step: str) -> None:
        (states / "reached").write_text(step)
        os.kill(os.getpid(), signal.SIGKILL)

    (states / "reached").write_text("")
    status, _ = in_child(run, killed, log, after_step=stop)
    step = (states / "reached").read_text()
    if status == 0 and not step:
        return []  # all steps were done
    if not step:
        return [f"resuming ended with {status}: {log.read_text()[-600:]}"]
    return differences(left_by(killed), json.loads((states / f"{step}.json").read_text()))[:5]


def _runner(task: dict[str, Any]) -> Callable[..., Callable[[], int]]:
    """Imports what a task needs; gives functions that run its command into a folder."""
    os.chdir(task["folder"])
    sys.path.insert(0, task["folder"])
    for name in task["imports"]:
        importlib.import_module(name)
    Figure.savefig = save_blank  # compared are only the names of figures
    from prefsearch.cli import entry

    def run(out: str, *more: str) -> Callable[[], int]:
        folder = Path(task["folder"]) / out
        return lambda: entry.main([*task["command"], "--out", str(folder), *more])

    return run


def fill(task: dict[str, Any]) -> None:
    """Runs a command on disks that are too small, resumes it on a large one; prints as `sweep`.

    The disk is a tmpfs in a mount namespace of this process's own.
    """
    base, disk = Path(task["folder"]), Path(task["folder"]) / "disk"
    log = base / "log.txt"
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", "size=200m", "tmpfs", disk)

    start = _runner(task)

    def run(*more: str) -> tuple[int, int]:
        return in_child(start("disk/run", *more), disk, log)

    status, _ = run()
    _report(status=status, events=0, log=log.read_text()[-1500:] if status else "")
    if status:
        return
    expected = left_by(disk / "run")
    # What is on the disk for a moment, such as checkpoints on the way, is not counted.
    pages = shutil.disk_usage(disk).used // 4096
    for share in task["kills"]:
        shutil.rmtree(disk / "run")
        size = max(2, int(share * pages)) * 4096
        _mount("-o", f"remount,size={size}", disk)
        status, _ = run()
        output = log.read_text()
        problems = [] if status == 2 else [f"ended with {status}: {output[-600:]}"]
        if (
            "No space left on device" not in output
            or str(disk) not in output
            or "free some" not in output
        ):
            problems.append(f"printed {output[-600:]!r}")
        if "Traceback" in output:
            problems.append(f"printed a traceback: {output[-1500:]}")
        _mount("-o", "remount,size=200m", disk)
        status, _ = run(*task["resume"])
        if status:
            problems.append(f"resuming ended with {status}: {log.read_text()[-600:]}")
        else:
            problems += differences(left_by(disk / "run"), expected)[:5]
        _report(kill=share, torn=False, problems=problems)


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


def spoil(task: dict[str, Any]) -> None:
    """Damages the files of a run one by one, resumes it, and prints what came of it as `sweep`.

    A resumed run must end as the whole one did, or with an error that names the file, and then
    nothing may have changed.
    """
    base = Path(task["folder"])
    log, out = base / "log.txt", base / "run"
    start = _runner(task)

    def run(*more: str, at: int | None = None) -> tuple[int, int]:
        return in_child(start("run", *more), out, log, at=at)

    status, events = run()
    _report(status=status, events=events, log=log.read_text()[-1500:] if status else "")
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
        for file, name in damaged(files, task["kills"], stage):
            shutil.rmtree(out)
            shutil.copytree(kept, out)
            DAMAGES[name](out / file)
            before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
            status, _ = run(*task["resume"])
            output = log.read_text()
            problems: list[str] = []
            if status == 0:
                problems += differences(left_by(out), expected)[:5]
            elif status != 2:
                problems.append(f"ended with {status}: {output[-900:]}")
            else:
                if not any(name in "".join(output.split()) for name in file.parts[-2:]):
                    problems.append(f"did not name the file: {output[-600:]}")
                after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
                changed = {
                    p.name
                    for p in before.keys() | after.keys()
                    if before.get(p) != after.get(p) and ".partial-" not in str(p)
                }
                changed -= {*UNCOMPARED, file.name, "summary.json"}
                # Figures and pages are drawn anew at each start.
                changed = {name for name in changed if not name.endswith(DRAWN)}
                if changed:
                    problems.append(f"changed {sorted(changed)}")
            if "Traceback" in output:
                problems.append(f"printed a traceback: {output[-1500:]}")
            _report(kill=f"{stage}: {file} {name}", torn=False, status=status, problems=problems,
                 output=output.strip()[-300:] if status else "")  # fmt: skip


def damaged(files: Sequence[Path], kills: int | None, stage: str) -> list[tuple[Path, str]]:
    """The damages to try: every kind to every file, or each kind once over both stages."""
    if kills is None:
        return [(file, name) for file in files for name in DAMAGES]
    names = [*DAMAGES][stage == "half" :: 2]
    read = [file for file in files if file.suffix not in DRAWN]
    return [(read[i * len(read) // len(names)], name) for i, name in enumerate(names)]


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def chosen(events: int, kills: int | None) -> list[tuple[int, bool]]:
    """The kills to try: all events, whole and torn, or so many of them, spread evenly."""
    every = [(number, torn) for number in range(1, events + 1) for torn in (False, True)]
    if kills is None or kills >= len(every):
        return every
    return [every[(2 * i + 1) * len(every) // (2 * kills)] for i in range(kills)]


def _report(**facts: Any) -> None:
    os.write(3, (json.dumps(facts) + "\n").encode())


def sweep_command(
    command: Sequence[str],
    folder: Path,
    *,
    kills: int | Sequence[float] | None,
    imports: Sequence[str],
    resume: Sequence[str] = ("--resume", "true"),
    mode: Literal["kill", "steps", "fill", "spoil"] = "kill",
) -> list[dict[str, Any]]:
    """Sweeps a command of `prefsearch` in a process of its own.

    Args:
        command: Without `--out` and `--resume`.
        folder: To work in, where the command finds its data.
        kills: How many; None for one before every event. Of damages, None for each kind to each
            file, else each kind once. Of full disks, their sizes as shares of
            what the run leaves.
        imports: What is imported before the first fork.
        resume: The flags that resume a run.
        mode: Kill the process, do so for each step alone, fill the disk under it, or damage what a
            run has left.

    Returns:
        What each run found, the uninterrupted one first.
    """
    task = {"command": [*command], "folder": str(folder), "kills": kills, "imports": [*imports],
           "resume": [*resume], "mode": mode}  # fmt: skip
    apart = ["unshare", "--user", "--map-root-user", "--mount"] if mode == "fill" else []
    output = folder / "sweep.jsonl"
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
             "HF_DATASETS_CACHE": str(folder / "cache")}  # fmt: skip
    with output.open("wb") as file:
        ended = subprocess.run(
            [*apart, "bash", "-c", 'exec "$0" -m tests.run_sweeps "$1" 3>&1 1>&2',
             sys.executable, json.dumps(task)],
            cwd=ROOT, env=known, stdout=file, stderr=subprocess.PIPE, timeout=7200,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    return [json.loads(line) for line in output.read_text().split("\n") if line]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    {"kill": sweep, "steps": sweep_steps, "fill": fill, "spoil": spoil}[given["mode"]](given)

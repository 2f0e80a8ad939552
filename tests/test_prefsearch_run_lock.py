"""One run, one process: who holds a run's folder, and how it becomes free."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefsearch.run.directory import RunBusyError, RunDirectory
from prefsearch.run.lock import lock_run

ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import os, signal, sys
from prefsearch.run.directory import RunDirectory
run = RunDirectory.open(sys.argv[1], {"size": 3}, resume=True)
run.finish("first", {"loss": 1.0}, records=[{"prompt": 0}])
if "fork" in sys.argv and os.fork() == 0:
    signal.pause()
print("held", flush=True)
sys.stdin.readline()
"""


def hold(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A process that holds a run and waits."""
    command = [sys.executable, "-c", HOLDER, str(folder), *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("words", [(), ("fork",)])
def test_a_run_in_use_is_refused_and_free_once_its_process_is_killed(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder = tmp_path / "run"
    holder = hold(folder, *words)
    try:
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(
            RunBusyError, match=rf"is in use by process {holder.pid} on .*; required: one process"
        ):
            RunDirectory.open(folder, {"size": 3}, resume=True)
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # A child that was forked and lives on does not hold the run.
        run = RunDirectory.open(folder, {"size": 3}, resume=True)
        assert run.result("first") == {"loss": 1.0}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_a_process_may_open_its_own_run_again_and_frees_it_with_the_object(tmp_path: Path) -> None:
    first = RunDirectory.open(tmp_path / "run", {}, resume=False)
    assert lock_run(first.path) is lock_run(first.path)
    again = RunDirectory.open(tmp_path / "run", {}, resume=True)
    del first, again
    holder = hold_nothing = subprocess.run(
        [sys.executable, "-c", "import sys; from prefsearch.run.lock import lock_run;"
         "from pathlib import Path; lock_run(Path(sys.argv[1]))", str(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert holder.returncode == 0, hold_nothing.stderr


def test_two_processes_that_begin_one_run_at_once_are_one_and_a_refusal(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    assert all(process.stdout is not None for process in started)
    said = [process.stdout.readline() for process in started if process.stdout is not None]
    assert sorted(said) == ["", "held\n"]
    refused = started[said.index("")]
    assert "RunBusyError" in refused.communicate()[1]
    kept = started[said.index("held\n")]
    kept.communicate("\n")
    assert kept.returncode == 0

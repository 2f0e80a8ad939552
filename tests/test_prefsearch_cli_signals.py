"""Commands end by signals, and by pipes that nobody reads, in one line and without a traceback."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest

from prefsearch.cli import entry, signals
from prefsearch.cli.commands import Command, Group
from prefsearch.cli.entry import run_command
from prefsearch.cli.signals import GracefulExit, keeping_handlers
from tests.fakes import demo_words, local_command

ROOT = Path(__file__).resolve().parent.parent
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@dataclass
class Resumed:
    """A command that is resumed.

    Attributes:
        out: Folder of the run.
        resume: Go on.
    """

    out: str = "runs/x"
    resume: bool = False


@dataclass
class Short:
    """A command that is not resumed.

    Attributes:
        out: A file.
    """

    out: str = "x"


def start(command: list[str], *, ignored: int | None = None) -> subprocess.Popen[str]:
    """Starts a command as a terminal does: signals at their defaults, whatever pytest has."""

    def prepare() -> None:
        for number in CODES:
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=prepare,
    )


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def maps(process: subprocess.Popen[str], library: str) -> bool:
    """Whether a process has a library in its memory, that is, imports it."""
    return library in Path(f"/proc/{process.pid}/maps").read_text()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    errors = process.communicate(timeout=60)[1]
    assert "Traceback" not in errors
    return process.returncode, errors


def raised_in(run: Callable[[object], None], config: type = Resumed, *words: str) -> int:
    return run_command("prefsearch run", local_command(config, run), words)


def send(number: int) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize("number", CODES, ids=lambda number: signal.Signals(number).name)
def test_a_signal_while_torch_is_imported_ends_at_once(number: int, tmp_path: Path) -> None:
    command = start([sys.executable, "-m", "prefsearch", "demo", "--out", str(tmp_path / "run")])
    wait_for(lambda: maps(command, "libtorch_cpu"))
    command.send_signal(number)
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    line = f"stopped by {name}. Nothing was written; start it again with the same command\n"
    assert ended(command) == (CODES[number], line)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_stopped_names_the_remedy_and_leaves_no_litter(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = start([sys.executable, "-m", "prefsearch", *demo_words(out)])
    wait_for(lambda: (out / "checkpoints" / "init").exists() or command.poll() is not None)
    time.sleep(0.5)  # into the trainer
    command.send_signal(signal.SIGINT)
    line = f"stopped by Ctrl-C. Go on with the same command and --resume; what is done is in {out}"
    code, errors = ended(command)
    assert (code, errors.splitlines()[-1]) == (130, line)
    assert not list(out.rglob("*.partial-*"))


def test_what_is_ignored_at_the_start_stays_ignored() -> None:
    code = (
        "import os, signal\nfrom prefsearch.cli.signals import GracefulExit\n"
        "with GracefulExit(): os.kill(os.getpid(), signal.SIGHUP); print('on')"
    )
    command = start([sys.executable, "-c", code], ignored=signal.SIGHUP)
    assert command.communicate(timeout=60)[0] == "on\n"
    assert command.returncode == 0


def test_a_second_signal_ends_at_once() -> None:
    code = (
        "import os, signal, time\nfrom prefsearch.cli.signals import GracefulExit\n"
        "with GracefulExit():\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "    finally: print('cleaning', flush=True); time.sleep(60)"
    )
    command = start([sys.executable, "-c", code])
    assert command.stdout.readline() == "cleaning\n"
    command.send_signal(signal.SIGINT)
    assert ended(command)[0] == 130


@pytest.mark.parametrize("number", CODES, ids=lambda number: signal.Signals(number).name)
def test_handlers_are_put_back_and_the_line_names_the_signal(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {n: signal.getsignal(n) for n in CODES}
    if before[number] in (signal.SIG_IGN, None):
        pytest.skip("pytest itself was started with this signal ignored")
    out = str(tmp_path / "run")
    assert raised_in(lambda _: send(number), Resumed, "--out", out) == CODES[number]
    line = f"Nothing was written to {out}; start it again with the same command"
    assert line in capsys.readouterr().err
    assert raised_in(lambda _: send(number), Short) == CODES[number]
    assert "Start it again with the same command" in capsys.readouterr().err
    assert {n: signal.getsignal(n) for n in CODES} == before


@pytest.mark.parametrize("error", [RuntimeError("engine"), ImportError("torch"), SystemExit(1)])
def test_an_error_that_a_signal_became_is_still_the_signal(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> None:
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt as interrupt:
            raise error from interrupt  # as libraries do in the middle of their work

    assert raised_in(run, Short) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM. Start it again with the same command\n"


class Finalized:
    def __del__(self) -> None:
        send(signal.SIGTERM)


def in_a_finalizer() -> None:
    Finalized()


def in_a_bare_except() -> None:
    with contextlib.suppress(BaseException):
        send(signal.SIGTERM)


def in_the_callback_of_a_weak_reference() -> None:
    held = Resumed()
    watched = weakref.ref(held, lambda _: send(signal.SIGTERM))
    del held
    assert watched() is None


@pytest.mark.parametrize(
    "where", [in_a_finalizer, in_a_bare_except, in_the_callback_of_a_weak_reference]
)
def test_a_signal_that_is_lost_on_the_way_comes_again(
    where: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned: list[bool] = []

    def run(_: object) -> None:
        try:
            where()
            time.sleep(30)
        finally:
            time.sleep(0.2)  # in which it does not come a third time
            cleaned.append(True)

    began = time.monotonic()
    assert raised_in(run, Short) == 143
    assert time.monotonic() - began < 10
    assert cleaned == [True]
    assert capsys.readouterr().err == "stopped by SIGTERM. Start it again with the same command\n"


def test_exits_and_interrupts_of_the_code_keep_their_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def leave(_: object) -> None:
        raise SystemExit(2)  # as `prefsearch.distributed` does where the main process failed

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as left:
        raised_in(leave, Short)
    assert left.value.code == 2
    assert raised_in(interrupt, Short) == 130
    assert capsys.readouterr().err.startswith("stopped by Ctrl-C. ")


def test_only_the_main_process_of_several_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert raised_in(lambda _: send(signal.SIGTERM), Short) == 143
    assert capsys.readouterr().err == ""


def test_an_unrelated_error_is_not_taken() -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        raised_in(fail, Short)
    assert raised_in(lambda _: (_ for _ in ()).throw(BrokenPipeError("a socket")), Short) == 2


def test_a_library_that_takes_signals_gives_them_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with keeping_handlers():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_bars_are_taken_off_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm.auto import tqdm

    bar = tqdm(total=3, file=sys.stderr, leave=False)
    assert raised_in(lambda _: send(signal.SIGTERM), Short) == 143
    assert bar.disable
    assert capsys.readouterr().err.split("\r")[-1].startswith("stopped by SIGTERM")


@pytest.mark.parametrize("words", ["--help", "tree show --help"])
def test_a_closed_pipe_ends_silently(words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = printing(words, closed)
    assert (done.returncode in (0, 141), done.stderr) == (True, "")


def printing(words: str, output: IO[str]) -> subprocess.CompletedProcess[str]:
    """The command with an output."""
    command = [sys.executable, "-m", "prefsearch", *words.split()]
    return subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)


def test_what_rich_makes_of_a_closed_pipe_is_one_too() -> None:
    code = textwrap.dedent("""
        import os, sys
        from dataclasses import dataclass
        from rich.console import Console
        from prefsearch.cli.entry import run_command
        from tests.fakes import local_command
        @dataclass
        class Args:
            \"\"\"No arguments.\"\"\"
        def run(_):
            for _ in range(100_000): Console().print("x" * 50)
        sys.exit(run_command("prefsearch run", local_command(Args, run), []))
    """)
    command = start([sys.executable, "-c", code])
    assert command.stdout.readline()
    command.stdout.close()
    assert (command.wait(timeout=60), command.stderr.read()) == (141, "")


def test_a_closed_output_is_none_at_all() -> None:
    shell = f"exec {sys.executable} -m prefsearch --help >&-"
    done = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_below_the_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = printing("--help", full)
    assert done.returncode == 2
    assert done.stderr.startswith("error: [Errno 28]")
    assert done.stderr.count("\n") == 1


def test_processes_end_when_their_launcher_is_killed() -> None:
    """A launcher that is killed cannot tell its processes; they see it by themselves."""
    worker = (
        "import time\nfrom prefsearch.cli.signals import GracefulExit\n"
        "with GracefulExit(): print('up', flush=True); time.sleep(60)"
    )
    launcher = textwrap.dedent(f"""
        import os, subprocess, sys
        started = [
            subprocess.Popen(
                [sys.executable, "-c", {worker!r}], env={{**os.environ, "LOCAL_RANK": rank}}
            )
            for rank in "01"
        ]
        [one.wait() for one in started]
    """)
    command = start([sys.executable, "-c", launcher])
    assert [command.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    workers = psutil.Process(command.pid).children(recursive=True)
    assert len(workers) == 2
    command.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def test_only_processes_of_a_launcher_watch_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[None] = []
    monkeypatch.setattr(signals, "end_with_parent", lambda: watched.append(None))
    for name in signals._LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    with GracefulExit():
        pass
    assert watched == []
    monkeypatch.setenv("LOCAL_RANK", "0")
    with GracefulExit():
        pass
    assert len(watched) == 1


def test_a_missing_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = Command("policies.cli.demo_args:DemoArgs", "no_such_package:run")
    monkeypatch.setitem(entry.COMMANDS, "demo", Group("", {"": missing}))
    monkeypatch.chdir(tmp_path)
    assert entry.main(["demo"]) == 2
    assert capsys.readouterr().err == "error: No module named 'no_such_package'\n"

"""Clean exit on signals and broken pipes, without a traceback.

Ctrl-C, SIGTERM and SIGHUP end a command with one line on how to continue and exit code 128 plus the
signal's number, as in shells. The first signal raises an exception, so that half-written files are
removed; a second ends the process at once. An exception that a finalizer or a bare except of a
library swallows is raised again. Signals ignored at the start (SIGHUP under nohup) stay ignored.
"""

import _thread
import contextlib
import functools
import os
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self, TextIO

SIGNALS = {
    number: name
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
}
_CLOSED_PIPE = 141
"""The exit code of what SIGPIPE ended."""
_LAUNCHED = ("LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Set by torchrun, accelerate and MPI in the processes that they start."""
_INTERVAL = 0.5
"""Seconds between two looks at whether the parent lives."""
_PATIENCE = 10.0
"""Seconds that a process has to end orderly once its launcher is gone."""


class Stopped(KeyboardInterrupt):
    """Raised on a termination signal; like KeyboardInterrupt, not an Exception."""


class GracefulExit:
    """Context manager that turns signals and broken pipes into a message and an exit code.

    Within it the first signal raises `Stopped`; the context lets no exception out after one.
    `SystemExit` without a signal passes, and so do errors.

    Attributes:
        value: The exit code, 0 unless the command was ended.
        settings: Of the command, once they are read; `resume` and `out` decide how to continue.
    """

    def __init__(self) -> None:
        self.value = 0
        self.settings: object = None
        self._signal: int | None = None
        self._raises = True
        self._again = False
        self._raised: weakref.ref[Stopped] | None = None
        self._previous: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # None: set by C code, which knows why.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._receive)
        sys.unraisablehook = self._unraisable
        if any(name in os.environ for name in _LAUNCHED):
            end_with_parent()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._raised = None  # what is let go of from here on has done its work
        self._raises = False
        if isinstance(error, KeyboardInterrupt) and self._signal is None:
            self._signal = int(signal.SIGINT)  # raised by the code itself
        if self._signal is not None and error is not None:
            self.value = 128 + self._signal
            self._write_line()
        elif _closed_output(error):
            self.value = _CLOSED_PIPE
            _discard_output()
        sys.unraisablehook = self._hook
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        return self.value != 0

    def takes(self, error: BaseException) -> bool:
        """Whether an error results from a signal or a broken pipe."""
        return self._signal is not None or _closed_output(error)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Signals in the block end the process: for imports, which may swallow an exception."""
        self._raises = False
        try:
            yield
        finally:
            self._raises = True

    def flush(self) -> None:
        """Writes what is left to be shown, while a closed pipe can still be handled."""
        if sys.stdout is not None:
            sys.stdout.flush()

    def end_at_once(self) -> None:
        """Lets signals from here on end the process, as it ends anyway: after the context."""
        for number in self._previous:
            signal.signal(number, lambda number, _: os._exit(128 + number))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        expected, self._again = self._signal is None or self._again, False
        self._signal = number
        if not expected:
            _leave(number)
        if not self._raises:
            self._write_line()
            _leave(number)
        stopped = Stopped(SIGNALS[number])
        self._raised = weakref.ref(stopped, self._lost)
        try:
            raise stopped
        finally:
            del stopped  # or this frame would keep it, and it would never be seen to be lost

    def _lost(self, raised: "weakref.ref[Stopped]") -> None:
        """Sends the signal again where its exception went before it ended the context."""
        if raised is self._raised:
            _thread.start_new_thread(self._send_again, (raised,))

    def _send_again(self, raised: "weakref.ref[Stopped]") -> None:
        time.sleep(0.05)  # for the finalizer to end
        if raised is self._raised and self._signal is not None:
            self._again = True
            # To the main thread itself, which may be waiting for something.
            signal.pthread_kill(threading.main_thread().ident or 0, self._signal)

    def _unraisable(self, lost: "sys.UnraisableHookArgs") -> None:
        """Suppresses the report of an exception that is raised again."""
        if not isinstance(lost.exc_value, Stopped):
            self._hook(lost)

    def _write_line(self) -> None:
        """Writes the line, in the main process of several."""
        if os.environ.get("RANK", "0") != "0" or self._signal is None:
            return
        close_bars()
        name = SIGNALS[self._signal]
        cause = "Ctrl-C" if name == "SIGINT" else name
        with contextlib.suppress(OSError, ValueError):  # there may be no terminal any more
            sys.stderr.write(f"stopped by {cause}. {self._advice()}\n")
            sys.stderr.flush()

    def _advice(self) -> str:
        args = self.settings
        if args is None:
            return "Nothing was written; start it again with the same command"
        out = str(getattr(args, "out", ""))
        if not hasattr(args, "resume"):
            return "Start it again with the same command"
        if not (Path(out) / "config.yaml").is_file():
            return f"Nothing was written to {out}; start it again with the same command"
        return f"Go on with the same command and --resume; what is done is in {out}"


def _leave(number: int) -> NoReturn:
    """Exits the process, restoring the cursor."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h")
    os._exit(128 + number)


def close_bars() -> None:
    """Closes progress bars before their loops are garbage-collected."""
    ours = sys.modules.get("prefsearch.progress")
    if ours is not None:
        ours.close_bars()
    module = sys.modules.get("tqdm")  # the trainers'
    for bar in list(getattr(getattr(module, "tqdm", None), "_instances", ())):
        with contextlib.suppress(Exception):
            bar.close()


def _closed_output(error: BaseException | None) -> bool:
    """Whether an error means a broken output pipe, which rich turns into SystemExit."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    if not isinstance(error, BrokenPipeError):
        return False
    return _reader_is_gone(sys.stdout) or _reader_is_gone(sys.stderr)  # no other pipe or socket


def _discard_output() -> None:
    """Redirects closed outputs to the null device, so that Python exits quietly."""
    for stream in filter(_reader_is_gone, (sys.stdout, sys.stderr)):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _reader_is_gone(stream: TextIO) -> bool:
    """Whether a stream is a broken pipe."""
    try:
        stream.flush()
        watched = select.poll()
        watched.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in watched.poll(0))
    except BrokenPipeError:
        return True
    except (OSError, ValueError, AttributeError):  # closed, none, or a system without poll
        return False


def open_missing_streams() -> None:
    """Replaces missing standard streams by the null device."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Context manager that restores signal handlers, for libraries that install their own."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


@functools.cache
def end_with_parent() -> None:
    """Ends this process when its parent dies, even by SIGKILL.

    The parent is watched: Linux's own `PR_SET_PDEATHSIG` means the thread that started the child,
    and launchers may start children from threads that end. A second call does nothing.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)  # it may be waiting for another process in C code
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()

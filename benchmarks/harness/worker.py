"""Worker processes that exchange one JSON object a line, so that sides are timed one at a time.

Each side of a benchmark runs in a process of its own and waits for its next request while another
is timed. A side's libraries are imported in its process only; this file needs the standard library.
"""

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
"""A JSON object."""
ROOT = Path(__file__).resolve().parents[2]


class WorkerError(RuntimeError):
    """A worker did not start, failed, or was stopped.

    Attributes:
        limit: Whether it went over a limit of time or memory.
    """

    def __init__(self, message: str, *, limit: bool = False) -> None:
        super().__init__(message)
        self.limit = limit


class Worker:
    """The parent's end of a worker process.

    Attributes:
        versions: Packages of the process.
        closed: Whether it has ended.
    """

    def __init__(
        self,
        python: Path | str,
        module: str,
        options: Json,
        *,
        limit_megabytes: float = math.inf,
        start_seconds: float = 300.0,
    ) -> None:
        """Starts the process and waits until its libraries are loaded.

        Args:
            python: Its interpreter.
            module: Run as `python -m module`; it calls `serve`.
            options: Given to the module; `threads` is the number of cores it may use.
            limit_megabytes: Of resident memory.
            start_seconds: Until it must be ready.

        Raises:
            WorkerError: If it does not start.
        """
        if not Path(python).exists():
            raise WorkerError("not installed; run bash benchmarks/peers.sh")
        self.closed, self._limit = False, limit_megabytes
        threads = str(options["threads"])
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_WAIT_POLICY": "PASSIVE",  # a waiting thread must not spin while others are timed
            "OMP_NUM_THREADS": threads,
            "NUMBA_NUM_THREADS": threads,
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
        }
        # A file, since a pipe that is not read while the worker is busy would fill up.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", module, json.dumps(dict(options))],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.versions: dict[str, str] = self.request("versions", seconds=start_seconds)["versions"]

    def request(self, task: str, *, seconds: float = 300.0, **arguments: object) -> Json:
        """Sends one task and waits for its reply.

        Raises:
            WorkerError: If the task fails, goes over the seconds or the memory, or the process
                ends. The process is closed.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        until = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # the missing reply is reported below
            stdin.write(json.dumps({"task": task, **arguments}).encode() + b"\n")
            stdin.flush()
        while not select.select([stdout], [], [], min(0.2, max(0.0, until - time.monotonic())))[0]:
            held = memory_of_process(self._process.pid).get("VmRSS", 0.0)
            reason = ""
            if held > self._limit:
                reason = f"memory: stopped at {held:.0f} MB; the limit is {self._limit:.0f} MB"
            elif time.monotonic() > until:
                reason = f"time: {task} stopped after the {seconds:.1f} s left"
            if reason:
                self.close()
                raise WorkerError(reason, limit=True)
        line = stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ["no message"]
            self.close()
            # 137: stopped by the system for its memory, which may come before our limit.
            raise WorkerError(f"ended with status {code}: {last[0][:300]}", limit=code in (-9, 137))
        reply = json.loads(line)
        if "error" in reply:
            self.close()
            raise WorkerError(reply["error"])
        return reply

    def close(self) -> None:
        """Lets the process end, and ends it if it does not."""
        if self.closed:
            return
        self.closed = True
        for stream in (self._process.stdin, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def serve(open_side: Callable[[Json], Callable[[Json], object]]) -> None:
    """The worker's end: replies to each line of its input until that is closed.

    Args:
        open_side: Takes the options and returns a function from a request to its reply.
    """
    # Libraries may print to standard output; replies have a channel of their own.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    options = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options["threads"]])
    handle = open_side(options)
    for line in sys.stdin:
        try:
            reply = handle(json.loads(line))
        except Exception as error:  # noqa: BLE001 (reported by the parent)
            reply = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        print(json.dumps(reply), file=replies, flush=True)


def memory_of_process(pid: int | str = "self") -> dict[str, float]:
    """Sizes of a process in MB by their names in /proc; empty where there is none."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if rest.endswith("kB"):
                found[name] = int(rest.split()[0]) * 1024 / 1e6
    return found

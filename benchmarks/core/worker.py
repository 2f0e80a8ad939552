"""Both ends of a side's process: it waits for one line of JSON, works, and answers with one.

A side is timed while all others wait for their next line. This file does not know which cells are
chosen nor what is made of the times; it imports a side's libraries only inside its process.

    python -m benchmarks.core.worker SIDE OPTIONS    # as JSON; started by `Worker`
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.grid import Cell

ROOT = Path(__file__).resolve().parents[2]
SIDES = {
    "prefsearch": ("benchmarks.core.torch_side", "PrefsearchSide"),
    "mctx": ("benchmarks.core.mctx_side", "MctxSide"),
    "lightzero": ("benchmarks.core.torch_side", "LightZeroSide"),
}
WIDTH = 8  # D, of the latent state


class WorkerStoppedError(RuntimeError):
    """A side's process was ended for a limit, or ended itself; the message says why."""

    def __init__(self, message: str, *, limit: bool) -> None:
        super().__init__(message)
        self.limit = limit


def write_weights(path: Path, *, num_actions: int, batch: int, seed: int) -> None:
    """Draws the model of A actions and B observations, and saves them for all sides."""
    draw = np.random.default_rng([seed, num_actions])

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * draw.standard_normal(shape)).astype(np.float32)

    np.savez(
        path,
        mixing=normal(WIDTH, WIDTH, scale=WIDTH**-0.5),
        actions=normal(num_actions, WIDTH),
        heads=normal(WIDTH, 2 + num_actions, scale=WIDTH**-0.5),
        bias=normal(2 + num_actions, scale=0.1),
        observation=normal(batch, WIDTH),
    )


class Worker:
    """The parent's end of a side's process."""

    def __init__(
        self,
        side: str,
        python: Sequence[str],
        *,
        options: Mapping[str, Any],
        limit_megabytes: float,
        start_seconds: float = 180.0,
    ) -> None:
        """Starts the process and waits until its libraries are loaded.

        Raises:
            WorkerStoppedError: If they cannot be.
        """
        self.closed, self._limit = False, limit_megabytes
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_WAIT_POLICY": "PASSIVE",  # a waiting thread must not spin while others are timed
            "NUMBA_NUM_THREADS": str(options["threads"]),
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [*python, "-m", "benchmarks.core.worker", side, json.dumps(dict(options))],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.versions: dict[str, str] = self.ask("versions", seconds=start_seconds)["versions"]

    def ask(self, task: str, *, seconds: float, **arguments: Any) -> dict[str, Any]:
        """Hands over one task and waits for its answer.

        Raises:
            WorkerStoppedError: If the process goes over the seconds or the memory, and is ended
                for it, or ends by itself.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        until = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            stdin.write(json.dumps({"task": task, **arguments}).encode() + b"\n")
            stdin.flush()
        while not select.select([stdout], [], [], min(0.2, max(0.0, until - time.monotonic())))[0]:
            held = _status(self._process.pid).get("VmRSS", 0.0)
            if held > self._limit:
                self.close()
                raise WorkerStoppedError(
                    f"memory: stopped at {held:.0f} MB; the limit is {self._limit:.0f} MB",
                    limit=True,
                )
            if time.monotonic() > until:
                self.close()
                raise WorkerStoppedError(
                    f"time: {task} stopped after the {seconds:.1f} s left", limit=True
                )
        line = stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ["no message"]
            self.close()
            # 137: the system's own memory guard, which comes before ours on a small machine.
            killed = code in (-9, 137)
            raise WorkerStoppedError(f"ended with status {code}: {last[0][:300]}", limit=killed)
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self.closed = True
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _status(pid: int | str = "self") -> dict[str, float]:
    """Sizes of a process in MB by their names in /proc; empty where there is none."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if rest.endswith("kB"):
                found[name] = int(rest.split()[0]) * 1024 / 1e6
    return found


def measure_memory(run: Callable[[], None]) -> float | None:
    """Runs once; MB that the process held at its peak above what it held before.

    Freed memory is first given back to the system and the high-water mark reset. None where the
    system keeps no such marks (not Linux).
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status()["VmRSS"]
    except (OSError, KeyError):
        return None
    run()
    return max(0.0, _status()["VmHWM"] - before)


def _answer(side: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Carries out one task of the protocol."""
    match request["task"]:
        case "versions":
            return {"versions": side.versions()}
        case "prepare":
            side.prepare(Cell(**request["cell"]), _read(request["weights"]))
            return {
                "first_seconds": _seconds(side.search),
                "first_model_seconds": _seconds(side.evaluate),
            }
        case "calibrate":
            return {"seconds": _seconds(side.search), "model_seconds": _seconds(side.evaluate)}
        case "memory":
            cell, weights = Cell(**request["cell"]), _read(request["weights"])
            if hasattr(side, "planned_megabytes"):
                return {"megabytes": side.planned_megabytes()}
            # What is loaded or compiled once must not count: first a search of another shape.
            few = max(2, request["least_simulations"])
            few = few if few < cell.simulations else cell.simulations + 1
            side.prepare(replace(cell, simulations=few), weights)
            side.search()
            side.prepare(cell, weights)
            return {"megabytes": measure_memory(side.search)}
        case "time":
            run = side.search if request["what"] == "search" else side.evaluate
            inner = request["inner"]
            began = time.perf_counter()
            for _ in range(inner):
                run()
            return {"milliseconds": 1e3 * (time.perf_counter() - began) / inner}
        case "visits":
            return {"visits": side.visits()}
        case unknown:
            raise ValueError(f"task: found {unknown!r}; required one of this function's")


def _read(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def task_of(cell: Cell, weights: Path) -> dict[str, Any]:
    """The arguments of the task `prepare`."""
    return {"cell": asdict(cell), "weights": str(weights)}


def main() -> None:
    """The side's end: answers until its input is closed."""
    # Libraries print where they like; answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, options = sys.argv[1], json.loads(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))[: options["threads"]]
        os.sched_setaffinity(0, allowed)
    module, side_class = SIDES[name]
    side = getattr(importlib.import_module(module), side_class)(options)
    for line in sys.stdin:
        answers.write(json.dumps(_answer(side, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

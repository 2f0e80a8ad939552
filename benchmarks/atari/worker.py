"""Both ends of a side's process of the Atari benchmark: one line of JSON asks, one answers.

A side is timed while all others wait for their next line. This file does not know which cells are
chosen nor what is made of the times; a side's libraries are imported only inside its process.

    python -m benchmarks.atari.worker SIDE THREADS      # started by `Worker`
"""

import contextlib
import gc
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.atari.cells import Cell

ROOT = Path(__file__).resolve().parents[2]
PEER_PYTHON = ROOT / ".bench" / "lightzero_env" / "bin" / "python"
SIDES = {
    "prefsearch": ("benchmarks.atari.ours", "OurSide", Path(sys.executable)),
    "lightzero": ("benchmarks.atari.lightzero", "LightZeroSide", PEER_PYTHON),
    "lightzero, one process": ("benchmarks.atari.lightzero", "OneProcessSide", PEER_PYTHON),
}


class SideFailedError(RuntimeError):
    """A side could not be started or could not do a task; the message says why."""


class Worker:
    """The parent's end of a side's process."""

    def __init__(self, side: str, *, threads: int) -> None:
        """Starts the process and waits until its libraries are loaded.

        Raises:
            SideFailedError: If they cannot be.
        """
        python = SIDES[side][2]
        if not python.exists():
            raise SideFailedError("not installed; run bash benchmarks/peers.sh")
        # A file: nobody reads a pipe of warnings while a side works, and it would fill up.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", "benchmarks.atari.worker", side, str(threads)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_WAIT_POLICY": "PASSIVE",  # a waiting thread must not spin beside the timed
                "OMP_NUM_THREADS": str(threads),
                "NUMBA_NUM_THREADS": str(threads),
                "CUDA_VISIBLE_DEVICES": "",
                "WANDB_MODE": "disabled",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.versions: dict[str, str] = self.ask("versions")["versions"]

    def ask(self, task: str, *, seconds: float = 300.0, **arguments: Any) -> dict[str, Any]:
        """Hands over one task and waits for its answer.

        Raises:
            SideFailedError: If the task fails, takes longer, or the process ends.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            stdin.write(json.dumps({"task": task, **arguments}).encode() + b"\n")
            stdin.flush()
        ready = select.select([stdout], [], [], seconds)[0]
        line = stdout.readline() if ready else b""
        if not line:
            code = self._process.poll()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ["no message"]
            self.close()
            reason = f"ended with status {code}: {last[0][:300]}"
            raise SideFailedError(reason if ready else f"{task} took longer than {seconds:.0f} s")
        answer = json.loads(line)
        if "error" in answer:
            raise SideFailedError(answer["error"])
        return answer

    def close(self) -> None:
        """Lets the process end, and ends it if it does not."""
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def network_facts(
    network: Any, first: Callable[[], Any], next_: Callable[[], Any]
) -> dict[str, Any]:
    """Parameters of a network, and multiply-adds of one row, seen and imagined.

    Counted are convolutions, linear layers and LSTMs.
    """
    import torch
    from torch import nn

    counted = 0

    def count(module: Any, given: Any, output: Any) -> None:
        nonlocal counted
        match module:
            case nn.Conv2d():
                counted += output.shape[2:].numel() * module.weight.numel()
            case nn.Linear():
                counted += module.weight.numel()
            case _:
                counted += sum(
                    p.numel() for name, p in module.named_parameters() if "weight" in name
                )

    found: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters())}
    layers = (nn.Conv2d, nn.Linear, nn.LSTM, nn.LSTMCell)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, layers)]
    network.eval()
    for name, run in (("multiply_adds_seen", first), ("multiply_adds_imagined", next_)):
        counted = 0
        with torch.no_grad():
            run()
        found[name] = counted
    for hook in hooks:
        hook.remove()
    return found


def cell_arguments(cell: Cell) -> dict[str, Any]:
    """The arguments of the task `prepare`."""
    return {"cell": asdict(cell)}


def _answer(side: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Carries out one task of the protocol."""
    match request["task"]:
        case "versions":
            return {"versions": side.versions()}
        case "prepare":
            facts = side.prepare(Cell(**request["cell"]))
            side.run()  # what is loaded or compiled once is not timed
            gc.collect()
            return {"facts": facts}
        case "time":
            began, cpu, units = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - began < request["at_least"]:
                units += side.run()
            return {
                "units": units,
                "seconds": time.perf_counter() - began,
                "cpu_seconds": time.process_time() - cpu,  # children's not counted
            }
        case "profile":
            return {"profile": side.profile(Cell(**request["cell"]), request["at_least"])}
        case "close":
            side.close()
            return {}
        case unknown:
            raise ValueError(f"task: found {unknown!r}; required one of this function's")


def main() -> None:
    """The side's end: answers until its input is closed."""
    # Libraries print where they like; answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, threads = sys.argv[1], int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    module, side_class, _ = SIDES[name]
    side = getattr(importlib.import_module(module), side_class)({"threads": threads})
    for line in sys.stdin:
        try:
            answer = _answer(side, json.loads(line))
        except Exception as error:  # noqa: BLE001 (told to the parent, which goes on without it)
            answer = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    side.close()


if __name__ == "__main__":
    main()

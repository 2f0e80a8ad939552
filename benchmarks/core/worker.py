"""The worker process of a side of the planning-core benchmark, and the model that all sides get."""

import contextlib
import ctypes
import gc
import importlib
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.grid import Cell
from benchmarks.harness.worker import Json, memory_of_process, serve

SIDES = {
    "prefsearch": ("benchmarks.core.torch_side", "PrefsearchSide"),
    "mctx": ("benchmarks.core.mctx_side", "MctxSide"),
    "lightzero": ("benchmarks.core.torch_side", "LightZeroSide"),
}
WIDTH = 8  # D, of the latent state


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


def task_of(cell: Cell, weights: Path) -> Json:
    """The arguments of the tasks `prepare` and `memory`."""
    return {"cell": asdict(cell), "weights": str(weights)}


def measure_memory(run: Callable[[], None]) -> float | None:
    """Runs once; MB that the process held at its peak above what it held before.

    Freed memory is first returned to the system and the high-water mark reset. None where the
    system keeps no such marks (not Linux).
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = memory_of_process()["VmRSS"]
    except (OSError, KeyError):
        return None
    run()
    return max(0.0, memory_of_process()["VmHWM"] - before)


def open_side(options: Json) -> Callable[[Json], Json]:
    """Imports a side; returns what carries out its tasks."""
    module, name = SIDES[options["side"]]
    side = getattr(importlib.import_module(module), name)(options)

    def handle(request: Json) -> Json:
        match request["task"]:
            case "versions":
                return {"versions": side.versions()}
            case "prepare":
                side.prepare(Cell(**request["cell"]), _read(request["weights"]))
                return {"seconds": _seconds(side.search), "model_seconds": _seconds(side.evaluate)}
            case "calibrate":
                return {"seconds": _seconds(side.search), "model_seconds": _seconds(side.evaluate)}
            case "memory":
                return {"megabytes": _memory(side, Cell(**request["cell"]), request["weights"])}
            case "time":
                run = side.search if request["what"] == "search" else side.evaluate
                began = time.perf_counter()
                for _ in range(request["inner"]):
                    run()
                return {"milliseconds": 1e3 * (time.perf_counter() - began) / request["inner"]}
            case "visits":
                return {"visits": side.visits()}
            case unknown:
                raise ValueError(f"task: found {unknown!r}; required one of this function's")

    return handle


def _memory(side: Any, cell: Cell, path: str) -> float | None:
    if hasattr(side, "planned_megabytes"):
        return side.planned_megabytes()
    # What is loaded or compiled once must not count, hence first a search of another shape.
    weights = _read(path)
    side.prepare(replace(cell, simulations=2 if cell.simulations > 2 else 3), weights)
    side.search()
    side.prepare(cell, weights)
    return measure_memory(side.search)


def _read(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    serve(open_side)

"""The worker process of a side of the Atari benchmark."""

import gc
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.atari.cells import Cell
from benchmarks.harness.worker import ROOT, Json, serve

PEER_PYTHON = ROOT / ".bench" / "lightzero_env" / "bin" / "python"
SIDES = {
    "prefsearch": ("benchmarks.atari.ours", "OurSide", Path(sys.executable)),
    "lightzero": ("benchmarks.atari.lightzero", "LightZeroSide", PEER_PYTHON),
    "lightzero, one process": ("benchmarks.atari.lightzero", "OneProcessSide", PEER_PYTHON),
}


def network_facts(network: Any, first: Callable[[], object], next_: Callable[[], object]) -> Json:
    """Parameters of a network, and multiply-adds of one row, seen and imagined.

    Counted are convolutions, linear layers and LSTMs.
    """
    import torch
    from torch import nn

    counted = 0

    def count(module: Any, given: object, output: Any) -> None:
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

    found: Json = {"parameters": sum(p.numel() for p in network.parameters())}
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


def open_side(options: Json) -> Callable[[Json], Json]:
    """Imports a side; returns what carries out its tasks."""
    module, name, _ = SIDES[options["side"]]
    side = getattr(importlib.import_module(module), name)(options)

    def handle(request: Json) -> Json:
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
                    "cpu_seconds": time.process_time() - cpu,  # without child processes
                }
            case "profile":
                return {"profile": side.profile(Cell(**request["cell"]), request["at_least"])}
            case "close":
                side.close()
                return {}
            case unknown:
                raise ValueError(f"task: found {unknown!r}; required one of this function's")

    return handle


if __name__ == "__main__":
    serve(open_side)

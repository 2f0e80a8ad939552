"""Times training with `torch.compile` beside the same training without, in turn.

    python benchmarks/atari/compile.py                     # docs/results/atari_compile.json
    python benchmarks/atari/compile.py --rounds 2 --only small

Cells: `small` is configs/atari_bridge/ale_cpu.yaml; `residual` is EfficientZero's plan at the sizes
of benchmarks/atari/atari.py (16 channels, 64x64 gray, batch of 64). On both sides self-play,
batches with their reanalysis and updates are those of `prefsearch atari train`, batches made in
turn with updates, so that both networks may be compiled. A round times play, then updates, of each
side; ratios are of times of one round. The first round, in which everything compiles, is reported
by itself; torch's cache of compiled code is a new one, and is reset before each cell.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.cli.train import compile_networks
from atari_bridge.environments.factory import open_environment
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.training.loop import Training
from benchmarks.atari.shipped import shipped_job
from benchmarks.harness.results import Results, benchmark_parser
from benchmarks.harness.timing import interleaved, paired_ratio
from benchmarks.harness.worker import Json
from prefsearch.distributed import open_accelerator

NAME = "atari_compile"
CELLS: Mapping[str, tuple[str, Json]] = {
    "small": ("ale_cpu", {}),
    "residual": (
        "efficientzero",
        {
            "num_envs": 8,
            "num_simulations": 16,
            "image_size": 64,
            "grayscale": True,
            "channels": 16,
            "support": 50,
            "support_bins": 101,
            "batch_size": 64,
            "reanalyze_policy": 0.25,
            "precision": "no",
        },
    ),
}
PARTS = ("play", "batches", "updates")


class Side:
    """One run, with or without `torch.compile`."""

    def __init__(self, job: AtariTrainArgs, *, compiled: bool, rows: int) -> None:
        settings = job.agent
        settings = replace(settings, length=replace(settings.length, overlap=False))
        self._environment: VectorEnvironment = open_environment(settings.environment)
        self._training = Training(settings, self._environment, open_accelerator(job.precision))
        while self._training.counters.decisions < rows:
            self._training.play()
        if compiled:
            compile_networks(self._training)

    def run(self, *, moves: int, updates: int) -> dict[str, float]:
        """Seconds of each part: so many moves of all environments, then so many updates."""
        training = self._training
        before = vars(training.clock).copy()
        for _ in range(moves):
            training.play()
        training.learn(updates)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {part: vars(training.clock)[part] - before[part] for part in PARTS}

    def close(self) -> None:
        """Ends the emulators."""
        self._environment.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--only", choices=tuple(CELLS), help="one cell; nothing is written")
    parser.add_argument("--rounds", type=int, default=8, help="after the one that compiles")
    parser.add_argument("--rows", type=int, default=800, help="decisions played beforehand")
    parser.add_argument("--moves", type=int, default=20, help="of all environments, a round")
    parser.add_argument("--updates", type=int, default=10, help="a round")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    out = None if options.only else options.out
    file = Results(NAME, arguments, out, seeds=[0], rounds=options.rounds)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    names = [options.only] if options.only else list(CELLS)
    found = {name: measure(name, options) for name in names}
    print(json.dumps(found, indent=2))
    settings = {key: value for key, value in vars(options).items() if key not in ("only", "out")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    file.publish({"settings": settings, "device": device, "cells": found})


def measure(name: str, options: argparse.Namespace) -> Json:
    """Both sides of a cell.

    Returns:
        For each part the median milliseconds of a decision, a batch or an update on each side, and
        the median and range over rounds of plain over compiled time; and the seconds that the first
        round cost.
    """
    torch.compiler.reset()  # all networks share what is compiled, and how often it may be
    config, changes = CELLS[name]
    job = shipped_job(config, "unused", changes)
    sides = {
        side: Side(job, compiled=side == "compiled", rows=options.rows)
        for side in ("plain", "compiled")
    }
    first: dict[str, float] = {}
    times: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number, side in interleaved(sides, options.rounds + 1):
        started = time.perf_counter()
        seconds = sides[side].run(moves=options.moves, updates=options.updates)
        if number:
            times[side].append(seconds)
        else:
            first[side] = time.perf_counter() - started
    for side in sides.values():
        side.close()
    moves, updates = options.moves * job.agent.environment.num_envs, options.updates
    units = {"play": moves, "batches": updates, "updates": updates}
    return {
        "config": f"atari_bridge/{config}",
        "changed": dict(changes),
        "first_round_seconds": first,
        "parts": {
            part: _compare([[one[part] for one in times[side]] for side in sides], units[part])
            for part in PARTS
        },
    }


def _compare(times: Sequence[Sequence[float]], units: int) -> Json:
    plain, compiled = times
    ratio = paired_ratio(plain, compiled)
    return {
        "plain_milliseconds": 1e3 * statistics.median(plain) / units,
        "compiled_milliseconds": 1e3 * statistics.median(compiled) / units,
        "plain_over_compiled": ratio["median"],
        "range": [ratio["low"], ratio["high"]],
    }


if __name__ == "__main__":
    main()

"""What `torch.compile` gains: a run with it beside the same run without, in turn.

    python benchmarks/atari/compile.py                     # docs/results/atari_compile.json
    python benchmarks/atari/compile.py --rounds 2 --only small

Cells: `small` is configs/atari_bridge/ale_cpu.yaml; `residual` is EfficientZero's plan at the sizes
of benchmarks/atari/atari.py (16 channels, 64x64 gray, batch of 64). On both sides self-play,
batches with their reanalysis and updates are those of `prefsearch atari train`, batches made in
turn with updates, so that both networks may be compiled. A round times play, then updates, of one
side and then of the other, which side begins changing from round to round; what is compared is the
time of the same round. The first round, in which everything compiles, is reported by itself;
torch's cache of compiled code is a fresh one, and what a cell compiled is forgotten before the
next.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.cli.train import compile_networks
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.environments.opening import open_environment
from atari_bridge.training.loop import Training
from benchmarks.harness.documents import update
from benchmarks.harness.provenance import ROOT, provenance
from prefsearch.cli.command_line import parse
from prefsearch.cli.entry import shipped_configurations
from prefsearch.distributed import open_accelerator
from prefsearch.storage.files import write_json_atomic

OUT = ROOT / "docs" / "results" / "atari_compile.json"

CELLS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "small": ("atari_bridge/ale_cpu", {}),
    "residual": (
        "atari_bridge/efficientzero",
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
    """One run, with or without `torch.compile`.

    Args:
        job: Its settings.
        compiled: Whether its networks are compiled.
        rows: Decisions that are played before anything is timed.
    """

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


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=tuple(CELLS), help="one cell; nothing is written")
    parser.add_argument("--rounds", type=int, default=8, help="after the one that compiles")
    parser.add_argument("--rows", type=int, default=800, help="decisions played beforehand")
    parser.add_argument("--moves", type=int, default=20, help="of all environments, a round")
    parser.add_argument("--updates", type=int, default=10, help="a round")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    own = parser.parse_args()
    torch.set_num_threads(own.threads)
    command = ["python", "benchmarks/atari/compile.py", *sys.argv[1:]]
    about = provenance("atari_compile", command, seeds=[0], rounds=own.rounds)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    found = {
        name: measure(name, own.rounds, rows=own.rows, moves=own.moves, updates=own.updates)
        for name in ([own.only] if own.only else CELLS)
    }
    result = {
        "provenance": about,
        "settings": {name: value for name, value in vars(own).items() if name != "only"},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cells": found,
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if own.only is None:
        write_json_atomic(OUT, result)
        update(OUT)


def measure(name: str, rounds: int, *, rows: int, moves: int, updates: int) -> dict[str, Any]:
    """Both sides of a cell.

    Returns:
        For each part the median milliseconds of a decision, a batch or an update on each side, and
        the median and range over rounds of plain over compiled time; and the seconds that the first
        round cost.
    """
    torch.compiler.reset()  # all networks share what is compiled, and how often it may be
    config, changed = CELLS[name]
    words = [word for key, value in changed.items() for word in (f"--{key}", str(value))]
    job = parse(
        AtariTrainArgs,
        ["--config", str(shipped_configurations()[config]), "--out", "unused", *words],
        prog="atari_compile",
    )
    sides = {compiled: Side(job, compiled=compiled, rows=rows) for compiled in (False, True)}
    first: dict[bool, float] = {}
    times: list[dict[bool, dict[str, float]]] = []
    for number in range(rounds + 1):
        this: dict[bool, dict[str, float]] = {}
        for compiled in (False, True) if number % 2 else (True, False):
            started = time.perf_counter()
            this[compiled] = sides[compiled].run(moves=moves, updates=updates)
            if number == 0:
                first[compiled] = time.perf_counter() - started
        if number:
            times.append(this)
    for side in sides.values():
        side.close()
    units = {"play": moves * job.agent.environment.num_envs, "batches": updates, "updates": updates}
    return {
        "config": config,
        "changed": dict(changed),
        "first_round_seconds": {"plain": first[False], "compiled": first[True]},
        "parts": {part: _compare(times, part, units[part]) for part in PARTS},
    }


def _compare(
    times: list[dict[bool, dict[str, float]]], part: str, units: int
) -> dict[str, float | list[float]]:
    ratios = [both[False][part] / both[True][part] for both in times]
    plain, compiled = (
        statistics.median(both[side][part] for both in times) for side in (False, True)
    )
    return {
        "plain_milliseconds": 1e3 * plain / units,
        "compiled_milliseconds": 1e3 * compiled / units,
        "plain_over_compiled": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
    }


if __name__ == "__main__":
    main()

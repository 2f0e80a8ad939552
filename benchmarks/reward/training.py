"""Times the training of reward models against plain `trl.RewardTrainer`, on the CPU, in float32.

    python benchmarks/reward/training.py                  # the 4M model's grid, three rounds
    python benchmarks/reward/training.py --models 30M     # the goal's cell alone
    python benchmarks/reward/training.py --quick          # tiny model, one round: a smoke test
    python benchmarks/reward/training.py --out docs/results/reward_training.json

In every cell all sides get the same token ids, weights, seed and optimizer (AdamW), a batch of 8
pairs, no dropout. First the gate: losses of all sides, step by step in one order of rows and two
pairs a step, may differ by less than 1e-5, over 50 steps in the first cell of fixed and of drawn
lengths and over 4 steps in the others. Then all sides train in turn, round after round, each on
the same rows from the same weights; a ratio is of two times of one round, median and range over
rounds are given. Peak memory is that of a process for each side, above what it held when training
began.

Sides: `trl` with its defaults (activations computed twice); `trl, no
checkpointing`; `trl, sorted`, the same in length-grouped order; `plain`, ours without sharing;
`prefix` and `packed`, the prompt once. Where lengths vary, ours are length-grouped; in the cells of
fixed lengths there is nothing to sort.
"""

import argparse
import copy
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting takes no CPU time

import torch
from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedModel
from transformers.trainer_callback import PrinterCallback
from trl import RewardConfig, RewardTrainer

from benchmarks.harness.documents_numbers import interval
from benchmarks.harness.results import (
    Results,
    benchmark_parser,
    measure_in_process,
    require_positive,
    select_cells,
    table,
    wide_console,
)
from benchmarks.harness.timing import clock_ratios, interleaved, spread, time_call
from benchmarks.harness.worker import Json
from benchmarks.reward.reward_models import (
    LIKE,
    PAD,
    SIZES,
    classifier,
    draw_pairs,
    drawn_lengths,
    fixed_lengths,
)
from rewardmodel.training.batching.layout_choice import choose_layout
from rewardmodel.training.batching.length_sampler import LengthGroupedOrder
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.trainer import ComparisonTrainer

NAME = "reward_training"
SIDES = ("trl", "trl, no checkpointing", "trl, sorted", "plain", "prefix", "packed")
PEERS = {
    "times_trl": "trl",
    "times_trl_without_checkpointing": "trl, no checkpointing",
    "times_trl_sorted": "trl, sorted",
}
GRID = ((64, 64), (192, 48), (256, 64), (512, 48), (128, 256), (32, 256))
GOAL_CELL = (256, 64)
GOAL_ONLY = ("30M",)  # a run over all cells would take hours
FEW_STEPS = 4  # of the gate, in cells that do not run it whole
MEMORY_CELLS = (GOAL_CELL, None)  # each side takes a process, which is slow
BATCH = 8
GATE_BATCH = 2
GATE = 1e-5
GOAL = 1.5  # times TRL's pairs a second where the prompt is at least four times the response


@dataclass(frozen=True)
class Cell:
    """One model and one kind of lengths.

    Attributes:
        name: Shown.
        size: Of the model.
        pairs: Token ids and what they share.
        fixed: Prompt and response length, where all rows have the same.
    """

    name: str
    size: str
    pairs: list[tuple[list[list[int]], int]]
    fixed: tuple[int, int] | None


class Tokenizer:
    """The part of a tokenizer that TRL uses when rows are tokenized."""

    pad_token, eos_token, pad_token_id, eos_token_id = "<pad>", "<end>", PAD, 2
    model_input_names = ("input_ids",)
    chat_template = None

    def get_vocab(self) -> dict[str, int]:
        """The two named tokens."""
        return {self.pad_token: 0, self.eos_token: 2}

    def save_pretrained(self, folder: str) -> None:
        """Nothing to save."""


def cells(options: argparse.Namespace) -> list[Cell]:
    """The cells of a run."""
    made = []
    grid = ((24, 6), (6, 12)) if options.quick else GRID
    for size in options.models:
        vocabulary = SIZES[size]["vocab_size"]
        for prompt, response in (GOAL_CELL,) if size in GOAL_ONLY else grid:
            lengths = fixed_lengths(options.pairs, prompt, response)
            pairs = draw_pairs(lengths, vocabulary, seed=options.seed)
            made.append(Cell(f"{size} {prompt}/{response}", size, pairs, (prompt, response)))
        for name in () if options.quick or size in GOAL_ONLY else LIKE:
            lengths = drawn_lengths(options.pairs, name, seed=options.seed)
            pairs = draw_pairs(lengths, vocabulary, seed=options.seed)
            made.append(Cell(f"{size} {name}", size, pairs, None))
    return made


def make_trainer(
    cell: Cell, side: str, model: PreTrainedModel, *, steps: int, folder: str, gate: bool
) -> Any:
    """A trainer of one side.

    Args:
        cell: The rows.
        side: In `SIDES`.
        model: Trained in place.
        steps: Updates.
        folder: For what trainers write.
        gate: Whether all sides take the rows in one order, few at a time.
    """
    batch = GATE_BATCH if gate else BATCH
    arguments = RewardConfig(
        output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=1e-5,
        lr_scheduler_type="constant", max_length=None, save_strategy="no", use_cpu=True, bf16=False,
        activation_checkpointing=side == "trl", report_to="none", logging_steps=10**6, seed=0,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    lengths = [sum(map(len, sequences)) - shared for sequences, shared in cell.pairs]
    common: Json = {"args": arguments, "processing_class": Tokenizer()}
    if side.startswith("trl"):
        rows = {
            "chosen_ids": [sequences[0] for sequences, _ in cell.pairs],
            "rejected_ids": [sequences[1] for sequences, _ in cell.pairs],
        }
        trainer: Any = RewardTrainer(model=model, train_dataset=Dataset.from_dict(rows), **common)
        if gate or side == "trl, sorted":
            grouped = not gate
            order = LengthGroupedOrder(lengths, rows=batch, seed=0, grouped=grouped)
            trainer._get_train_sampler = lambda *_: order
    else:
        rows = {
            "sequences": [sequences for sequences, _ in cell.pairs],
            "shared": [shared for _, shared in cell.pairs],
            "length": lengths,
            "probability": [1.0] * len(cell.pairs),
        }
        objective = LossConfig(layout=side, group_by_length=not gate)  # type: ignore[arg-type]
        layout = choose_layout(model, objective, pad_id=PAD, max_tokens=2048, checkpointing=False)
        trainer = ComparisonTrainer(
            model=model, train_dataset=Dataset.from_dict(rows), layout=layout,
            objective=objective, **common,
        )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def losses(cell: Cell, side: str, model: PreTrainedModel, *, steps: int) -> list[float]:
    """The loss of each step, all sides' rows in one order."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(cell, side, model, steps=steps, folder=folder, gate=True)
        found: list[float] = []
        compute = trainer.compute_loss

        def noted(*args: Any, **kwargs: Any) -> Any:
            loss = compute(*args, **kwargs)
            found.append(float(loss.detach()))
            return loss

        trainer.compute_loss = noted
        trainer.train()
    return found


def timed(cell: Cell, side: str, model: PreTrainedModel, *, steps: int) -> dict[str, float]:
    """Seconds of training, wall and CPU."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(cell, side, model, steps=steps, folder=folder, gate=False)
        return time_call(trainer.train)


def memory_of(cell: Cell, side: str) -> float:
    """Peak resident MiB of a few updates over what the process held before."""
    model = classifier(cell.size)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(cell, side, model, steps=4, folder=folder, gate=False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        trainer.train()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def run_cell(cell: Cell, options: argparse.Namespace, console: Console, *, gate_steps: int) -> Json:
    """Gate, times and memory of one cell."""
    start = classifier(cell.size)
    with console.status(f"{cell.name}: losses"):
        found = {
            side: losses(cell, side, copy.deepcopy(start), steps=gate_steps)
            for side in SIDES
            if side not in ("trl, sorted", "trl")  # the same sums, in another order or twice
        }
    reference = found["trl, no checkpointing"]
    apart = {
        side: max(abs(a - b) for a, b in zip(own, reference, strict=True))
        for side, own in found.items()
    }
    steps = max(2, options.pairs // BATCH)
    times: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for side in SIDES:
        with console.status(f"{cell.name}: warm-up, {side}"):
            timed(cell, side, copy.deepcopy(start), steps=2)
    for number, side in interleaved(SIDES, options.rounds):
        with console.status(f"{cell.name}: round {number + 1} of {options.rounds}, {side}"):
            times[side].append(timed(cell, side, copy.deepcopy(start), steps=steps))
    memory: dict[str, float] = {}
    if cell.fixed in MEMORY_CELLS or options.quick:
        with console.status(f"{cell.name}: memory"):
            for side in SIDES:
                memory[side] = measure_in_process(
                    memory_of,
                    cell,
                    side,
                    module="benchmarks.reward.training",
                    threads=options.threads,
                )
    rows = {}
    for side in SIDES:
        rows[side] = {
            "pairs_a_second": spread([steps * BATCH / t["wall"] for t in times[side]]),
            "cpu_seconds": spread([t["cpu"] for t in times[side]]),
            **{name: clock_ratios(times[peer], times[side]) for name, peer in PEERS.items()},
            "peak_mib": round(memory[side], 1) if side in memory else None,
            "loss_apart": apart.get(side),
        }
    tokens = sum(sum(map(len, s)) for s, _ in cell.pairs)
    shared = sum(shared for _, shared in cell.pairs)
    return {
        "cell": cell.name,
        "fixed": cell.fixed,
        "pairs": len(cell.pairs),
        "rounds": options.rounds,
        "updates": steps,  # of a timed sample
        "floor": tokens / (tokens - shared),  # how many times fewer tokens sharing computes
        "gate_steps": gate_steps,
        "largest_loss": max(reference),
        "gate_passed": max(apart.values()) < GATE,
        "sides": rows,
    }


def show(found: Sequence[Json], console: Console) -> None:
    """Prints pairs a second as multiples of TRL's without checkpointing, and memory."""
    lines = [
        [
            row["cell"],
            f"{row['floor']:.2f}",
            "passed" if row["gate_passed"] else "FAILED",
            *(
                interval(own["times_trl_without_checkpointing"]["cpu"])
                + ("" if own["peak_mib"] is None else f" | {own['peak_mib']:.0f}")
                for own in row["sides"].values()
            ),
        ]
        for row in found
    ]
    title = "Pairs a second, times TRL's without checkpointing (CPU time) | peak MiB"
    console.print(table(title, ("cell", "at most", "loss gate", *SIDES), lines))


def lost(found: Sequence[Json]) -> list[str]:
    """The cells in which the default layout is slower than a side of TRL's."""
    return [
        f"{row['cell']}: {ratio['cpu']['median']:.2f} {name.replace('_', ' ')}"
        for row in found
        for name, ratio in row["sides"]["prefix"].items()
        if name.startswith("times_") and ratio["cpu"]["median"] < 1
    ]


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=["4M"])
    parser.add_argument("--only", nargs="+", help="cells whose names contain one of these words")
    parser.add_argument("--pairs", type=int, default=32, help="a cell and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gate-steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="micro model, one round")
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.pairs, options.rounds, options.gate_steps = ["micro"], 16, 1, 5
    require_positive(parser, options, "pairs", "rounds", "gate_steps", "threads")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; 1 if a gate failed."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    wanted = select_cells(cells(options), options.only)
    console, found = wide_console(), []
    file = Results(NAME, arguments, options.out, seeds=[options.seed])
    settings = {k: getattr(options, k) for k in ("models", "threads", "seed")}
    whole: set[tuple[str, bool]] = set()
    for cell in wanted:
        kind = (cell.size, cell.fixed is None)
        few = kind in whole or cell.size in GOAL_ONLY
        steps = min(FEW_STEPS, options.gate_steps) if few else options.gate_steps
        whole.add(kind)
        found.append(run_cell(cell, options, console, gate_steps=steps))
        summary = {"batch": BATCH, "cells": found, "lost": lost(found)}
        file.write({"settings": settings, **summary})
    file.publish()
    show(found, console)
    for line in lost(found):
        console.print(f"lost: {line}")
    return 0 if all(row["gate_passed"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())

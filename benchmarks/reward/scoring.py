"""Times the scoring of many responses to one prompt against plain forward passes, on the CPU.

    python benchmarks/reward/scoring.py                  # all cells of the 4M model
    python benchmarks/reward/scoring.py --models 30M     # its goal cell alone; minutes
    python benchmarks/reward/scoring.py --quick          # tiny model, one round: a smoke test
    python benchmarks/reward/scoring.py --out docs/results/reward_scoring.json

All sides get the same weights and the same texts, in which a word is a token, tokenize them
themselves and end with float32 scores; nothing of the texts is kept from one run to the next. First
the gate, which warms up, too: token ids are the same, and scores of all sides differ by less than
1e-4. Then all sides run in turn, round after round; a ratio is of two times of one round, median
and range over rounds are given. Peak memory is of a process of its own a side, over what it held
before. `at most` is how many times fewer tokens sharing computes; more than that is due to smaller
forward passes.

Sides: `ours`, `SequenceRewardModel.score`; `plain`, whole texts right-padded, 64 a forward pass, in
the order they came in; `sorted`, the same by length, 16 a pass; `own cache`, what a good user
writes: the prompt once, its cache repeated, one pass over the responses. In the encoder's cell
nothing can be shared: ours must notice that and not be slower than `plain`.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # a waiting thread must not count as CPU time
    os.execv(sys.executable, [sys.executable, *sys.argv])
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness.documents import update
from benchmarks.harness.provenance import provenance
from benchmarks.reward.reward_models import SIZES, ratios, spread
from benchmarks.reward.scoring_sides import (
    SIDES,
    Cell,
    Subject,
    build_subject,
    draw_texts,
    same_ids,
    unequal_lengths,
)
from prefsearch.storage.files import write_json_atomic

GRID = ((64, 64), (256, 48), (512, 48), (128, 256), (32, 256))
COUNTS = (4, 16, 64)
GATE = 1e-4
GOAL = 5.0  # times as fast as `plain` in the goal cell
GOAL_CELL = (64, 256, 48)
GOAL_ONLY = ("30M",)  # a run over all cells would take an hour
HEAVY, HEAVY_ROUNDS = 8_000, 3  # cells of more tokens have fewer rounds; not the goal cell
# A server that has imported everything and used no thread yet makes the measured processes.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["benchmarks.reward.scoring"])


def is_goal(cell: Cell) -> bool:
    """Whether the goal is about this cell."""
    count, prompt, response = GOAL_CELL
    shape = (len(cell.responses), cell.prompt_tokens, set(cell.response_tokens))
    return shape == (count, prompt, {response}) and not cell.encoder and cell.size != "micro"


def cells(options: argparse.Namespace) -> list[Cell]:
    """The cells of a run."""
    counts, grid = ((4, 8), ((24, 6), (6, 12))) if options.quick else (COUNTS, GRID)
    most, prompt, response = (8, 24, 6) if options.quick else GOAL_CELL
    made = []
    for size in options.models:
        few = size in GOAL_ONLY
        shapes = [GOAL_CELL] if few else [(n, p, r) for p, r in grid for n in counts]
        for n, p, r in shapes:
            texts = draw_texts(size, p, [r] * n, seed=options.seed)
            memory = (n, p, r) == GOAL_CELL
            made.append(Cell(f"{size} {n} x {p}/{r}", size, *texts, memory=memory))
        if few:
            continue
        lengths = unequal_lengths(most, response, seed=options.seed)
        texts = draw_texts(size, prompt, lengths, seed=options.seed)
        name = f"{size} {most} x {prompt}/unequal, about {response}"
        made.append(Cell(name, size, *texts, memory=not options.quick))
        n = most // 4
        texts = draw_texts(size, prompt, [response] * n, seed=options.seed)
        made.append(Cell(f"{size} encoder {n} x {prompt}/{response}", size, *texts, encoder=True))
    return made


def timed(subject: Subject, cell: Cell, side: str) -> dict[str, float]:
    """Seconds of scoring all responses once, wall and CPU."""
    cpu, wall = time.process_time(), time.perf_counter()
    SIDES[side](subject, cell)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def measure_memory(cell: Cell, side: str, *, threads: int) -> float:
    """MiB that one side takes at most, in a process of its own."""
    with PROCESSES.Pool(1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.apply(memory_of, (cell, side))


def memory_of(cell: Cell, side: str) -> float:
    """Peak resident MiB of scoring once over what the process held before."""
    subject = build_subject(cell)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    SIDES[side](subject, cell)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def run_cell(cell: Cell, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Gate, times and memory of one cell."""
    subject = build_subject(cell)
    with console.status(f"{cell.name}: scores"):
        scores = {side: SIDES[side](subject, cell) for side in cell.sides}  # and a warm-up
    apart = {side: float((own - scores["plain"]).abs().max()) for side, own in scores.items()}
    ids_agree = same_ids(subject, cell)
    light = cell.tokens <= HEAVY or is_goal(cell)
    rounds = options.rounds if light else min(options.rounds, HEAVY_ROUNDS)
    times: dict[str, list[dict[str, float]]] = {side: [] for side in cell.sides}
    for round_ in range(rounds):
        for side in cell.sides if round_ % 2 else cell.sides[::-1]:
            with console.status(f"{cell.name}: round {round_ + 1} of {rounds}, {side}"):
                times[side].append(timed(subject, cell, side))
    memory: dict[str, float] = {}
    if cell.memory:
        with console.status(f"{cell.name}: memory"):
            memory = {
                side: measure_memory(cell, side, threads=options.threads) for side in cell.sides
            }
    lengths, count = cell.response_tokens, len(cell.responses)
    return {
        "cell": cell.name,
        "parameters": sum(weight.numel() for weight in subject.model.parameters()),
        "encoder": cell.encoder,
        "responses": count,
        "prompt_tokens": cell.prompt_tokens,
        "response_tokens": spread(lengths),
        "floor": cell.floor,
        "goal_cell": is_goal(cell),
        "same_ids": ids_agree,
        "largest_score": float(scores["plain"].abs().max()),
        "scores_deviation": float(scores["plain"].std(correction=0)),  # must be far above the gate
        # Written so that a score that is not finite fails.
        "gate_passed": ids_agree and all(one < GATE for one in apart.values()),
        "rounds": rounds,
        "load_average": os.getloadavg()[0],  # above 2 or so, others were computing too
        "sides": {
            side: {
                "responses_a_second": spread([count / one["wall"] for one in own]),
                "cpu_seconds": spread([one["cpu"] for one in own]),
                "wall_seconds": spread([one["wall"] for one in own]),
                "times": {other: ratios(times[other], own) for other in times if other != side},
                "peak_mib": round(memory[side], 1) if memory else None,
                "scores_apart": apart[side],
            }
            for side, own in times.items()
        },
    }


def show(found: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints how many times as fast as each other side ours is, responses a second and memory."""
    others = [side for side in SIDES if side != "ours"]
    table = Table(title="How many times as fast ours is: CPU time and its range; wall time")
    for name in ("cell", "at most", "gate", *(f"than {side}" for side in others),
                 "responses a second", "peak MiB: ours, " + ", ".join(others)):  # fmt: skip
        table.add_column(name)
    for row in found:
        sides = row["sides"]
        told = []
        for side in others:
            ratio = sides["ours"]["times"].get(side)
            told.append("" if ratio is None else _range(ratio["cpu"])
                        + f"; {ratio['wall']['median']:.2f}")  # fmt: skip
        peaks = [own["peak_mib"] for own in sides.values()]
        table.add_row(
            row["cell"],
            f"{row['floor']:.2f}",
            "passed" if row["gate_passed"] else "FAILED",
            *told,
            f"{sides['ours']['responses_a_second']['median']:.1f}",
            "" if None in peaks else ", ".join(f"{peak:.0f}" for peak in peaks),
        )
    console.print(table)


def _range(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def lost(found: Sequence[dict[str, Any]]) -> list[str]:
    """The cells in which ours is slower than another side, by CPU or by wall time."""
    return [
        f"{row['cell']}: as fast as {side} times {times['cpu']['median']:.2f} by CPU time, "
        f"{times['wall']['median']:.2f} by wall time"
        for row in found
        for side, times in row["sides"]["ours"]["times"].items()
        if min(ratio["median"] for ratio in times.values()) < 1
    ]


def goals(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether ours is as much faster than `plain` as it should be, by both clocks."""
    told = []
    for row in found:
        if row["goal_cell"]:
            times = row["sides"]["ours"]["times"]["plain"]
            told.append(
                {
                    "goal": f"{row['cell']}: at least {GOAL:.0f} times as fast as plain",
                    "found": times,
                    "met": all(ratio["median"] >= GOAL for ratio in times.values()),
                }
            )
    return told


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=["4M"])
    parser.add_argument("--only", nargs="+", help="cells whose names hold one of these words")
    parser.add_argument("--rounds", type=int, help="default 5; large cells: at most 3")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="micro model, one round")
    parser.add_argument("--out", type=Path, help="JSON file; default: none")
    options = parser.parse_args(arguments)
    if options.quick:
        options.models = ["micro"]
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: found {getattr(options, name)}; required: at least 1")
    return options


def main(arguments: list[str]) -> int:
    """Runs the benchmark; 1 if a gate failed."""
    options = parse_options(arguments)
    wanted = cells(options)
    if options.only:
        names = ", ".join(cell.name for cell in wanted)
        wanted = [cell for cell in wanted if any(word in cell.name for word in options.only)]
        if not wanted:
            raise SystemExit(f"--only: no cell's name holds {options.only}; there are: {names}")
    torch.set_num_threads(options.threads)
    # Without a terminal rich takes 80 columns, which is too few for the table.
    console = Console(width=None if sys.stdout.isatty() else 160)
    found: list[dict[str, Any]] = []
    command = ["python", "benchmarks/reward/scoring.py", *arguments]
    about = provenance("reward_scoring", command, seeds=[options.seed])
    for cell in wanted:
        found.append(run_cell(cell, options, console))
        if options.out:
            settings = {k: getattr(options, k) for k in ("models", "rounds", "threads", "seed")}
            write_json_atomic(
                options.out,
                {
                    "provenance": about,
                    "settings": settings,
                    "gate": GATE,
                    "cells": found,
                    "goals": goals(found),
                    "lost": lost(found),
                },
            )
    if options.out:
        update(options.out)
    show(found, console)
    for goal in goals(found):
        told = ", ".join(f"{_range(ratio)} {clock} time" for clock, ratio in goal["found"].items())
        console.print(f"{'met' if goal['met'] else 'NOT met'}: {goal['goal']}: {told}")
    for line in lost(found):
        console.print(f"lost: {line}")
    return 0 if all(row["gate_passed"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

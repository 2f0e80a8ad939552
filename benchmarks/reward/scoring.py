"""Times the scoring of many responses to one prompt against plain forward passes, on the CPU.

    python benchmarks/reward/scoring.py                  # all cells of the 4M model
    python benchmarks/reward/scoring.py --models 30M     # its goal cell alone; minutes
    python benchmarks/reward/scoring.py --quick          # tiny model, one round: a smoke test
    python benchmarks/reward/scoring.py --out docs/results/reward_scoring.json

All sides get the same weights and the same texts, in which a word is a token, tokenize them
themselves and end with float32 scores; nothing is cached between runs. First the gate, which is
also the warm-up: token ids are the same, and scores of all sides differ by less than 1e-4. Then all
sides run in turn, round after round; a ratio is of two times of one round, with its median and
range over rounds. Peak memory is that of a process for each side, above what it held before.
`at most` is how many times fewer tokens sharing computes; a ratio above it is due to smaller
forward passes.

Sides: `ours`, `SequenceRewardModel.score`; `plain`, whole texts right-padded, 64 a forward pass, in
the given order; `sorted`, the same by length, 16 a pass; `own cache`, written by hand: the prompt
once, its cache repeated, one pass over the responses. In the encoder's cell nothing can be shared,
and ours must not be slower than `plain`.
"""

import argparse
import os
import resource
import sys
from collections.abc import Sequence

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting takes no CPU time

import torch
from rich.console import Console

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
from benchmarks.reward.reward_models import SIZES
from benchmarks.reward.scoring_sides import (
    SIDES,
    Cell,
    build_subject,
    draw_texts,
    same_ids,
    unequal_lengths,
)

NAME = "reward_scoring"
GRID = ((64, 64), (256, 48), (512, 48), (128, 256), (32, 256))
COUNTS = (4, 16, 64)
GATE = 1e-4
GOAL = 5.0  # times as fast as `plain` in the goal cell
GOAL_CELL = (64, 256, 48)
GOAL_ONLY = ("30M",)  # a run over all cells would take an hour
HEAVY, HEAVY_ROUNDS = 8_000, 3  # cells of more tokens have fewer rounds; not the goal cell


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


def memory_of(cell: Cell, side: str) -> float:
    """Peak resident MiB of scoring once over what the process held before."""
    subject = build_subject(cell)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    SIDES[side](subject, cell)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def run_cell(cell: Cell, options: argparse.Namespace, console: Console) -> Json:
    """Gate, times and memory of one cell."""
    subject = build_subject(cell)
    with console.status(f"{cell.name}: scores"):
        scores = {side: SIDES[side](subject, cell) for side in cell.sides}  # and a warm-up
    apart = {side: float((own - scores["plain"]).abs().max()) for side, own in scores.items()}
    ids_agree = same_ids(subject, cell)
    light = cell.tokens <= HEAVY or is_goal(cell)
    rounds = options.rounds if light else min(options.rounds, HEAVY_ROUNDS)
    times: dict[str, list[dict[str, float]]] = {side: [] for side in cell.sides}
    for number, side in interleaved(cell.sides, rounds):
        with console.status(f"{cell.name}: round {number + 1} of {rounds}, {side}"):
            times[side].append(time_call(lambda side=side: SIDES[side](subject, cell)))
    memory: dict[str, float] = {}
    if cell.memory:
        with console.status(f"{cell.name}: memory"):
            for side in cell.sides:
                memory[side] = measure_in_process(
                    memory_of,
                    cell,
                    side,
                    module="benchmarks.reward.scoring",
                    threads=options.threads,
                )
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
        "load_average": os.getloadavg()[0],  # above 2 or so, other programs were running too
        "sides": {
            side: {
                "responses_a_second": spread([count / one["wall"] for one in own]),
                "cpu_seconds": spread([one["cpu"] for one in own]),
                "wall_seconds": spread([one["wall"] for one in own]),
                "times": {
                    other: clock_ratios(times[other], own) for other in times if other != side
                },
                "peak_mib": round(memory[side], 1) if memory else None,
                "scores_apart": apart[side],
            }
            for side, own in times.items()
        },
    }


def show(found: Sequence[Json], console: Console) -> None:
    """Prints how many times as fast as each other side ours is, responses a second and memory."""
    others = [side for side in SIDES if side != "ours"]
    lines = []
    for row in found:
        sides = row["sides"]
        ratios = [sides["ours"]["times"].get(side) for side in others]
        peaks = [own["peak_mib"] for own in sides.values()]
        lines.append(
            [
                row["cell"],
                f"{row['floor']:.2f}",
                "passed" if row["gate_passed"] else "FAILED",
                *(
                    f"{interval(ratio['cpu'])}; {ratio['wall']['median']:.2f}" if ratio else ""
                    for ratio in ratios
                ),
                f"{sides['ours']['responses_a_second']['median']:.1f}",
                "" if None in peaks else ", ".join(f"{peak:.0f}" for peak in peaks),
            ]
        )
    columns = ("cell", "at most", "gate", *(f"than {side}" for side in others))
    columns += ("responses a second", "peak MiB: ours, " + ", ".join(others))
    title = "How many times as fast ours is: CPU time and its range; wall time"
    console.print(table(title, columns, lines))


def lost(found: Sequence[Json]) -> list[str]:
    """The cells in which ours is slower than another side, by CPU or by wall time."""
    return [
        f"{row['cell']}: as fast as {side} times {times['cpu']['median']:.2f} by CPU time, "
        f"{times['wall']['median']:.2f} by wall time"
        for row in found
        for side, times in row["sides"]["ours"]["times"].items()
        if min(ratio["median"] for ratio in times.values()) < 1
    ]


def goals(found: Sequence[Json]) -> list[Json]:
    """Whether ours is as much faster than `plain` as it should be, by both clocks."""
    return [
        {
            "goal": f"{row['cell']}: at least {GOAL:.0f} times as fast as plain",
            "found": times,
            "met": all(ratio["median"] >= GOAL for ratio in times.values()),
        }
        for row in found
        if row["goal_cell"]
        for times in [row["sides"]["ours"]["times"]["plain"]]
    ]


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=["4M"])
    parser.add_argument("--only", nargs="+", help="cells whose names contain one of these words")
    parser.add_argument("--rounds", type=int, help="default 5; large cells: at most 3")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="micro model, one round")
    options = parser.parse_args(arguments)
    if options.quick:
        options.models = ["micro"]
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    require_positive(parser, options, "rounds", "threads")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; 1 if a gate failed."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    wanted = select_cells(cells(options), options.only)
    torch.set_num_threads(options.threads)
    console, found = wide_console(), []
    file = Results(NAME, arguments, options.out, seeds=[options.seed])
    settings = {k: getattr(options, k) for k in ("models", "rounds", "threads", "seed")}
    for cell in wanted:
        found.append(run_cell(cell, options, console))
        summary = {"cells": found, "goals": goals(found), "lost": lost(found)}
        file.write({"settings": settings, "gate": GATE, **summary})
    file.publish()
    show(found, console)
    for goal in goals(found):
        times = ", ".join(f"{interval(own)} {clock} time" for clock, own in goal["found"].items())
        console.print(f"{'met' if goal['met'] else 'NOT met'}: {goal['goal']}: {times}")
    for line in lost(found):
        console.print(f"lost: {line}")
    return 0 if all(row["gate_passed"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())

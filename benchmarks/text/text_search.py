"""Times search over text against other ways to compute the same prefixes, on the CPU.

    bash benchmarks/peers.sh                        # once, for llm-reasoners; optional
    python benchmarks/text/text_search.py                # all cells, five rounds
    python benchmarks/text/text_search.py --quick        # few simulations, one round: a smoke test
    python benchmarks/text/text_search.py --cells search-8 decision --rounds 9

Models have random weights. In every cell all sides get the same models, prompts, planner (without
noise), simulations and K; they are run once for their token counts and then timed in turn, round
after round. CPU time of the process over all threads is compared; a ratio is of two times of one
round, and its median and range over rounds are given. Root visits of the sides that must make the
same decisions are compared.

Cells: `search-8` and `search-1`, one search of 8 prompts or 1 over ranked tokens, a head on hidden
states as leaf value; `decision`, the same for 1 prompt with a second model as leaf value, beside
llm-reasoners where it is installed; `best-of`, whole responses sampled and scored; `segments`, a
search of 8 prompts over blocks of sampled tokens; `unequal`, responses of very unequal lengths.
"""

import argparse
import contextlib
import json
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting takes no CPU time

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.harness.provenance import same_sources
from benchmarks.harness.results import (
    Results,
    benchmark_parser,
    require_positive,
    table,
    wide_console,
)
from benchmarks.harness.worker import Json, Worker, WorkerError
from benchmarks.text.models import SIZES, Subject, build_subject, draw_prompts, saved_subject
from benchmarks.text.reasoners import PYTHON
from benchmarks.text.run import Cell, Outcome, goals, run_cell, with_ratios
from benchmarks.text.sampling import BestOf, Unequal
from benchmarks.text.searches import TITLES, Searches

CELLS = ("search-8", "search-1", "decision", "best-of", "segments", "unequal")
NAME = "text_search"  # of the results; those of one thread have the same sources
REASONERS = "llm-reasoners"
PER_CELL = ("cells", "rounds")  # settings that may differ between the cells of one file
USUAL = {"model": "tiny", "simulations": 64, "prompt_tokens": 128}


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line; `--quick` replaces the sizes that were not given."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--model", choices=list(SIZES), help="default tiny (6.6M; quick: micro)")
    parser.add_argument("--planner", choices=("gumbel", "muzero"), default="gumbel")
    parser.add_argument("--simulations", type=int, help="a search over tokens, default 64")
    parser.add_argument("--num-actions", type=int, default=8, help="K")
    parser.add_argument("--prompt-tokens", type=int, help="default 128")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    options = parser.parse_args(arguments)
    quick = {"model": "micro", "simulations": 8, "prompt_tokens": 24, "rounds": 1}
    for name, value in (quick if options.quick else {**USUAL, "rounds": 5}).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    require_positive(
        parser, options, "simulations", "num_actions", "prompt_tokens", "rounds", "threads"
    )
    return options


def usual_sizes(options: argparse.Namespace) -> bool:
    """Whether this run has the sizes that the goals are about."""
    return options.num_actions == 8 and all(getattr(options, n) == v for n, v in USUAL.items())


def kept_cells(options: argparse.Namespace, settings: Json) -> Json:
    """Cells in `--out`, of the same code and settings, that are not run now."""
    if options.out is None or not options.out.is_file():
        return {}
    earlier = json.loads(options.out.read_text(encoding="utf-8"))
    same = {k: v for k, v in settings.items() if k not in PER_CELL}
    if {k: v for k, v in earlier["settings"].items() if k not in PER_CELL} != same:
        return {}
    if not same_sources(earlier, NAME):
        return {}
    return {row["cell"]: row for row in earlier["cells"] if row["cell"] not in options.cells} | {
        REASONERS: earlier[REASONERS]
    }


def build_cell(name: str, subject: Subject, options: argparse.Namespace) -> Cell:
    """A cell by its name in `CELLS`."""
    tokens, simulations = options.prompt_tokens, options.simulations

    def prompts(count: int, length: int) -> list[str]:
        return draw_prompts(subject, count, length, seed=options.seed)

    if name in ("search-8", "search-1", "decision", "segments"):
        count = 8 if name in ("search-8", "segments") else 1
        blocks, second_model = name == "segments", name == "decision"
        number = max(1, simulations // 2) if blocks else simulations
        title = f"{count} x {tokens} tokens, {number} blocks of 12"
        if not blocks:
            values = "a second model" if second_model else "a head"
            title = f"{count} x {tokens} tokens, {number} simulations, "
            title += f"K {options.num_actions}, {values}"
        searches = Searches(
            subject,
            prompts(count, tokens),
            number,
            options.num_actions,
            planner=options.planner,
            second_model=second_model,
            blocks=blocks,
        )
        return searches.cell(name, title)
    if name == "best-of":
        count, new = (8, 8) if options.quick else (64, 64)
        best = BestOf(subject, prompts(1, 2 * tokens)[0], count, new)
        return best.cell(name, f"{count} responses of {new} tokens to {2 * tokens}, and scores")
    count, rows, new = (16, 8, 16) if options.quick else (256, 64, 128)
    ends = len(subject.policy.encoder.tokenizer) // 25
    unequal = Unequal(subject, prompts(1, tokens)[0], count, rows, new, ends)
    return unequal.cell(name, f"{count} responses of up to {new} tokens, {rows} rows")


def add_reasoners(
    cell: Cell, subject: Subject, options: argparse.Namespace, stack: contextlib.ExitStack
) -> str:
    """Adds a side to the cell "decision"; returns its versions, or why it is left out."""
    disable_progress_bar()
    folder = stack.enter_context(saved_subject(subject))
    # Each continues down to a depth limit: about as many nodes as simulations of ours.
    iterations = max(1, options.simulations // 4)
    task = {
        "folder": str(folder),
        "prompt": draw_prompts(subject, 1, options.prompt_tokens, seed=options.seed)[0],
        "iterations": iterations,
        "num_actions": options.num_actions,
        "threads": options.threads,
    }
    try:
        worker = Worker(PYTHON, "benchmarks.text.reasoners", task)
    except WorkerError as error:
        return f"left out: {error}"
    stack.callback(worker.close)

    def run() -> Outcome:
        found = worker.request("decide", seconds=3600.0)
        return Outcome(parts={"process": found.pop("cpu_seconds")}, counts=found)

    cell.sides[REASONERS] = run
    cell.titles[REASONERS] = f"llm-reasoners, its HFModel, {iterations} iterations"
    return ", ".join(f"{name} {version}" for name, version in worker.versions.items())


def show_cell(console: Console, row: Json) -> None:
    """Prints one cell's table."""
    lines = []
    for measured in row["sides"].values():
        low, high = measured["cpu_range"]
        times, counts = measured["times_yardstick"], measured["counts"]
        after = measured["times_yardstick_after_prompts"]
        lines.append(
            [
                measured["title"],
                f"{measured['cpu_seconds']:.3f}",
                f"{low:.3f}-{high:.3f}",
                f"{measured['wall_seconds']:.3f}",
                f"{times['median']:.2f}",
                f"{times['low']:.2f}-{times['high']:.2f}",
                "" if after is None else f"{after:.2f}",
                f"{counts['policy_tokens']}",
                f"{counts['value_tokens']}",
            ]
        )
    columns = ("side", "CPU s", "range", "wall s", "times", "range", "after prompts")
    columns += ("policy tokens", "value tokens")
    console.print(table(f"{row['cell']}: {row['title']}", columns, lines))
    for side, why in row["failed"].items():
        console.print(f"  FAILED: {side}: {why}")
    for measured in row["sides"].values():
        parts = {k: v for k, v in measured["parts_cpu_seconds"].items() if k != "process"}
        if parts:
            shown = ", ".join(f"{name} {seconds:.3f}" for name, seconds in parts.items())
            console.print(f"  {measured['title']}: CPU s {shown}")
    for group in row["agreement"]:
        if group["prompts_alike"] is not None:
            share, sides = group["prompts_alike"], ", ".join(group["sides"])
            console.print(f"  same decisions for {share:.0%} of the prompts: {sides}")


def main(arguments: list[str] | None = None) -> Json:
    """Measures, shows and writes."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    console = wide_console(140)
    subject = build_subject(options.model, seed=options.seed)
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    kept = kept_cells(options, settings)
    file = Results(NAME, arguments, options.out, seeds=[options.seed], rounds=options.rounds)
    results: Json = {
        "settings": settings,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "parameters": subject.parameters,
        "titles": TITLES,
        REASONERS: kept.pop(REASONERS, "its cell was not run, or --quick left it out"),
        "cells": list(kept.values()),
        "goals": [],
    }
    for name in options.cells:
        with contextlib.ExitStack() as stack:
            cell = build_cell(name, subject, options)
            if name == "decision" and not options.quick:
                results[REASONERS] = add_reasoners(cell, subject, options, stack)
            status = stack.enter_context(console.status(name))
            row = run_cell(cell, subject, rounds=options.rounds, report=status.update)
        row |= {key: file.provenance[key] for key in ("command", "commit")}
        row["load_average"] = os.getloadavg()[0]  # above 2 or so, other programs were running too
        length = options.prompt_tokens * (2 if name == "best-of" else 1)
        for measured in row["sides"].values():
            measured["counts"]["prompt_tokens"] = cell.prompts * length
        results["cells"].append(with_ratios(row))
        results["cells"].sort(key=lambda row: CELLS.index(row["cell"]))
        show_cell(console, row)
        results["goals"] = goals(results["cells"]) if usual_sizes(options) else []
        file.write(results)
    for goal in results["goals"]:
        low, high = goal["range"]
        met = "met" if goal["met"] else "NOT met"
        after = goal["after_prompts"]
        more = "" if after is None else f"; {after:.2f} without the prompts"
        console.print(f"{met}: {goal['goal']}: {goal['found']:.2f} [{low:.2f}, {high:.2f}]{more}")
    console.print(f"llm-reasoners: {results[REASONERS]}")
    file.publish()
    return results


if __name__ == "__main__":
    main()

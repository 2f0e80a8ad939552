"""Times search over text against other ways to compute the same prefixes, on the CPU.

    bash benchmarks/peers.sh                        # once, for llm-reasoners; optional
    python benchmarks/text/text_search.py                # all cells, five rounds
    python benchmarks/text/text_search.py --quick        # few simulations, one round: a smoke test
    python benchmarks/text/text_search.py --cells search-8 decision --rounds 9

Models have random weights. In every cell all sides get the same models, prompts, planner (without
noise), simulations and slots; they are run once for their token counts and then timed in turn,
round after round. What is compared is CPU time of the process over all threads; a ratio is of two
times of one round, and its median and range over rounds are given. Root visits of the sides that
must decide alike are compared.

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
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "OMP_WAIT_POLICY" not in os.environ:
    # A thread that waits must not spin: it would count as CPU time. Read when torch is loaded.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.execv(sys.executable, [sys.executable, *sys.argv])
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from rich.console import Console
from rich.status import Status
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from benchmarks.harness.documents import update
from benchmarks.harness.provenance import provenance, require_sources, same_sources
from benchmarks.text.cells import TITLES, Cell, Outcome, Searches, search_cell
from benchmarks.text.models import (
    SIZES,
    Subject,
    build_subject,
    draw_prompts,
    saved_subject,
)
from benchmarks.text.reasoners import ReasonersSide
from benchmarks.text.run import goals, run_cell, with_ratios
from benchmarks.text.sampling import BestOf, Unequal
from benchmarks.text.segments import SegmentSearches, segment_cell
from prefsearch.storage.files import write_json_atomic

CELLS = ("search-8", "search-1", "decision", "best-of", "segments", "unequal")
NAME = "text_search"  # of the results; those of one thread have the same sources
REASONERS = "llm-reasoners"
PER_CELL = ("cells", "rounds")  # settings that may differ between the cells of one file
USUAL = {"model": "tiny", "simulations": 64, "prompt_tokens": 128}


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line; `--quick` replaces the sizes that were not given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--model", choices=list(SIZES), help="default tiny (6.6M; quick: micro)")
    parser.add_argument("--planner", choices=("gumbel", "muzero"), default="gumbel")
    parser.add_argument("--simulations", type=int, help="a search over tokens, default 64")
    parser.add_argument("--slots", type=int, default=8, help="K")
    parser.add_argument("--prompt-tokens", type=int, help="default 128")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument(
        "--out", type=Path, help="JSON; cells there of the same settings stay; default: none"
    )
    options = parser.parse_args(arguments)
    quick = {"model": "micro", "simulations": 8, "prompt_tokens": 24, "rounds": 1}
    for name, value in (quick if options.quick else {**USUAL, "rounds": 5}).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in ("simulations", "slots", "prompt_tokens", "rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: found {getattr(options, name)}; required: 1")
    return options


def usual_sizes(options: argparse.Namespace) -> bool:
    """Whether this run has the sizes that the goals are about."""
    return options.slots == 8 and all(getattr(options, n) == v for n, v in USUAL.items())


def kept_cells(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run of the same code and settings wrote of the cells not run now."""
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

    if name in ("search-8", "search-1", "decision"):
        count = 8 if name == "search-8" else 1
        searches = Searches(
            subject,
            prompts(count, tokens),
            simulations,
            options.slots,
            planner=options.planner,
            second_model=name == "decision",
        )
        values = "a second model" if name == "decision" else "a head"
        title = f"{count} x {tokens} tokens, {simulations} simulations, K {options.slots}, {values}"
        return search_cell(name, title, searches, ("rerun", "copy", "copy, batched", "paths"))
    if name == "segments":
        half = max(1, simulations // 2)
        searches = SegmentSearches(
            subject, prompts(8, tokens), half, options.slots, planner=options.planner
        )
        return segment_cell(name, f"8 x {tokens} tokens, {half} blocks of 12", searches)
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
    """Gives the cell "decision" one more side; says why it could not, or its versions."""
    disable_progress_bar()
    folder = stack.enter_context(saved_subject(subject))
    # Each goes on down to a depth limit: about as many nodes as simulations of ours.
    iterations = max(1, options.simulations // 4)
    try:
        side = ReasonersSide(
            folder,
            prompt=draw_prompts(subject, 1, options.prompt_tokens, seed=options.seed)[0],
            iterations=iterations,
            slots=options.slots,
            threads=options.threads,
        )
    except RuntimeError as error:
        return f"left out: {error}"
    stack.callback(side.close)

    def run() -> Outcome:
        found = side.decide()
        return Outcome(parts={"process": found.pop("cpu_seconds")}, counts=found)

    cell.sides[REASONERS] = run
    cell.titles[REASONERS] = f"llm-reasoners, its HFModel, {iterations} iterations"
    return ", ".join(f"{name} {version}" for name, version in side.versions.items())


def show_cell(console: Console, row: dict[str, Any]) -> None:
    """Prints one cell's table."""
    table = Table(title=f"{row['cell']}: {row['title']}", title_justify="left")
    table.add_column("side")
    for column in ("CPU s", "range", "wall s", "times", "range", "after prompts", "policy tokens",
                   "value tokens"):  # fmt: skip
        table.add_column(column, justify="right")
    for measured in row["sides"].values():
        low, high = measured["cpu_range"]
        times, counts = measured["times_yardstick"], measured["counts"]
        after = measured["times_yardstick_after_prompts"]
        table.add_row(
            measured["title"],
            f"{measured['cpu_seconds']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{measured['wall_seconds']:.3f}",
            f"{times['median']:.2f}",
            f"{times['low']:.2f}-{times['high']:.2f}",
            "" if after is None else f"{after:.2f}",
            f"{counts['policy_tokens']}",
            f"{counts['value_tokens']}",
        )
    console.print(table)
    for side, why in row["failed"].items():
        console.print(f"  FAILED: {side}: {why}")
    for measured in row["sides"].values():
        parts = {k: v for k, v in measured["parts_cpu_seconds"].items() if k != "process"}
        if parts:
            told = ", ".join(f"{name} {seconds:.3f}" for name, seconds in parts.items())
            console.print(f"  {measured['title']}: CPU s {told}")
    for group in row["agreement"]:
        if group["prompts_alike"] is not None:
            share, sides = group["prompts_alike"], ", ".join(group["sides"])
            console.print(f"  same decisions for {share:.0%} of the prompts: {sides}")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, shows and writes."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    # Without a terminal rich takes 80 columns, which is too few for the tables.
    console = Console(width=None if sys.stdout.isatty() else 140)
    subject = build_subject(options.model, seed=options.seed)
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    kept = kept_cells(options, settings)
    results: dict[str, Any] = {
        "provenance": provenance(
            NAME,
            ["python", "benchmarks/text/text_search.py", *(arguments or sys.argv[1:])],
            seeds=[options.seed],
            rounds=options.rounds,
        ),
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
            status: Status = stack.enter_context(console.status(name))
            row = run_cell(cell, subject, rounds=options.rounds, say=status.update)
        row["command"] = results["provenance"]["command"]
        row["commit"] = results["provenance"]["commit"]
        row["load_average"] = os.getloadavg()[0]  # above 2 or so, others were computing too
        length = options.prompt_tokens * (2 if name == "best-of" else 1)
        for measured in row["sides"].values():
            measured["counts"]["prompt_tokens"] = cell.prompts * length
        results["cells"].append(with_ratios(row))
        results["cells"].sort(key=lambda row: CELLS.index(row["cell"]))
        show_cell(console, row)
        results["goals"] = goals(results["cells"]) if usual_sizes(options) else []
        if options.out is not None:
            require_sources(NAME, results["provenance"]["source_digest"])
            write_json_atomic(options.out, results)
    for goal in results["goals"]:
        low, high = goal["range"]
        met = "met" if goal["met"] else "NOT met"
        after = goal["after_prompts"]
        more = "" if after is None else f"; {after:.2f} without the prompts"
        console.print(f"{met}: {goal['goal']}: {goal['found']:.2f} [{low:.2f}, {high:.2f}]{more}")
    console.print(f"llm-reasoners: {results[REASONERS]}")
    if options.out is not None:
        update(options.out)
        console.print(f"wrote {options.out}")
    return results


if __name__ == "__main__":
    main()

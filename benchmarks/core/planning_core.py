"""Times our batched tree search against mctx and LightZero's C++ trees, in one interleaved run.

    bash benchmarks/peers.sh                              # once: the peers, into .bench/
    python benchmarks/core/planning_core.py --quick       # B 1 and 256, A 18, S 16 and 50: minutes
    python benchmarks/core/planning_core.py --resume      # the whole grid, keeping finished cells

Every side plans with the same small model (8 float32 latents, tanh dynamics, linear heads) from the
same observations, noise off. Sides are processes that live as long as the run; while one is timed
the others wait for input. A cell first runs twice on each side (the first time compiles, and is
kept apart) and once more for its memory; then all sides are timed in turn, round after round. A
side that is missing or goes over the limits of time or memory is skipped, with the reason in the
results. Results are written after each cell to `docs/results/planning_core.json`, with a picture.

In the results, `milliseconds` are of one search of all B trees from the observation to the decision
and `model_milliseconds` of the model's calls outside a search, each the mean within a sample of
about 0.03 s. Ratios are peer / prefsearch. `megabytes` is the high-water mark of a new process
above its size before the search; for mctx, what XLA laid out. `agreement` is the share of rows
whose root visits equal mctx's: float32 sums differ in their last bits, and mctx breaks muzero's
ties by noise. LightZero's muzero uses bounds over the whole tree and other values of unvisited
actions; its gumbel search is not the published algorithm and a reference for speed only.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.core import grid
from benchmarks.core.grid import Cell
from benchmarks.core.report import NAMES, OURS, summarize
from benchmarks.core.run import Benchmark
from benchmarks.core.show import cell_line, draw, print_report
from benchmarks.harness.results import (
    Results,
    benchmark_parser,
    load_cells,
    require_positive,
    wide_console,
)
from benchmarks.harness.worker import ROOT, Json, WorkerError

BENCH = ROOT / ".bench"
NAME = "planning_core"
SETTINGS = ("sides", "repeats", "threads", "model_threads", "budget_seconds", "memory_gb", "seed")


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = benchmark_parser(__doc__, NAME)
    add = parser.add_argument
    add("--quick", action="store_true", help=f"the sub-grid {grid.QUICK}")
    add("--cells", nargs="+", metavar="BxAxS", help="these cells, such as 256x18x200")
    add("--algorithms", nargs="+", default=list(grid.ALGORITHMS), choices=grid.ALGORITHMS)
    add("--batches", nargs="+", type=int, default=list(grid.BATCHES))
    add("--actions", nargs="+", type=int, default=list(grid.ACTIONS))
    add("--simulations", nargs="+", type=int, default=list(grid.SIMULATIONS))
    add("--sides", nargs="+", default=list(NAMES), choices=list(NAMES))
    add("--repeats", type=int, default=5, help="rounds")
    add("--threads", type=int, default=2, help="cores each side may use")
    add("--model-threads", type=int, default=1, help="torch threads; more slow tiny models")
    add("--budget-seconds", type=float, default=60.0, help="of a cell on one side")
    add("--memory-gb", type=float, default=12.0, help="of a side's process")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="keep finished cells of the same code and settings")
    add("--plot-actions", type=int, default=18, help="the A that the picture shows")
    add("--mctx-python", type=Path, default=BENCH / "mctx" / "bin" / "python")
    add("--lightzero", type=Path, default=BENCH / "lightzero")
    options = parser.parse_args(arguments)
    if OURS not in options.sides:
        parser.error(f"--sides: found {options.sides}; required {OURS} among them")
    require_positive(parser, options, "repeats", "threads", "model_threads")
    return options


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """The cells of a command line.

    Raises:
        ValueError: On numbers below 1, or a text that is not a cell.
    """
    if options.cells:
        return grid.parse_cells(options.cells, options.algorithms)
    if options.quick:
        return grid.choose_cells(options.algorithms, **grid.QUICK)
    return grid.choose_cells(
        options.algorithms, options.batches, options.actions, options.simulations
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the cells, and writes results, picture and tables."""
    options = parse_options(arguments)
    file = Results(NAME, arguments, options.out, seeds=[options.seed], rounds=options.repeats)
    results = _run(options, file)
    draw(results["cells"], options.out.with_suffix(".png"), actions=options.plot_actions)
    file.publish(results)
    print_report(results, wide_console(200).print)
    failed = [
        Cell.of(row).name
        for row in results["cells"]
        if not row["sides"][OURS].get("over_limit", True)
    ]
    if failed:
        sys.exit(f"{OURS} failed in {len(failed)} cells, first {failed[0]}; see Skipped")


def _run(options: argparse.Namespace, file: Results) -> Json:
    """Measures all cells that are not kept, writing after each."""
    cells = cells_of(options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = Benchmark(options, Path(folder), commit=file.provenance["commit"])
        except WorkerError as error:  # a peer would be skipped
            sys.exit(f"{OURS} cannot be timed: {error}")
        try:
            settings = {name: getattr(options, name) for name in SETTINGS}
            expected = {"settings": settings, "versions": run.versions}
            rows = load_cells(NAME, options.out, expected) if options.resume else []
            for row in rows:
                run.learn(Cell.of(row), row)
            done = {Cell.of(row) for row in rows}
            results = {
                **expected,
                "missing": run.missing,
                "cold_start_seconds": run.cold_start_seconds,
                "cells": rows,
            }
            results = summarize(results)
            for number, cell in enumerate(cells, start=1):
                if cell in done:
                    continue
                row = run.measure(cell)
                run.learn(cell, row)
                minutes = (time.monotonic() - began) / 60
                print(f"[{number}/{len(cells)} {minutes:.1f} min] {cell_line(row)}", flush=True)
                results = summarize({**results, "cells": [*results["cells"], row]})
                file.write(results)
        finally:
            run.close()
    return results


if __name__ == "__main__":
    main()

"""Times our batched tree search against mctx and LightZero's C++ trees, in one interleaved run.

    bash benchmarks/peers.sh                         # once: the peers, from PyPI, into .bench/
    python benchmarks/core/planning_core.py --quick       # B 1 and 256, A 18, S 16 and 50: minutes
    python benchmarks/core/planning_core.py --targets     # the cells that the targets name
    python benchmarks/core/planning_core.py --resume      # the whole grid, keeping finished cells

Every side plans with the same small model (D = 8, float32) from the same observations, noise off.
Sides are processes that live as long as the run; while one is timed the others wait for input. A
cell first runs twice on each side (the first time compiles, and is kept apart) and once more for
its memory; then all sides are timed in turn, round after round. A side that is missing, or would go
over the limits of time or memory, is written down as skipped with the reason. Results are written
after each cell to `docs/results/planning_core.json`, with a picture beside it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.core import grid
from benchmarks.core.grid import Cell
from benchmarks.core.report import NAMES, OURS, summarize
from benchmarks.core.run import MOST_REPEATS, SAMPLE_SECONDS, Benchmark
from benchmarks.core.show import cell_line, draw, print_report
from benchmarks.core.worker import ROOT, WIDTH, WorkerStoppedError
from benchmarks.harness.documents import update
from benchmarks.harness.provenance import provenance, require_sources, source_digest
from prefsearch.storage.files import write_json_atomic

BENCH = ROOT / ".bench"
NAME = "planning_core"
SETTINGS = (
    "sides",
    "repeats",
    "threads",
    "model_threads",
    "budget_seconds",
    "memory_gb",
    "backend",
    "leaves_per_step",
    "seed",
)
METHOD = {
    "model": f"hidden' = tanh(hidden W + e[action]), {WIDTH} float32 latents; value, reward and "
    "logits linear in the hidden state; discount 0.997; all actions valid; noise off",
    "times": "milliseconds of one search of all B trees from the observation to the decision; each "
    f"time is the mean over repeats within a sample of about {SAMPLE_SECONDS} s (at most "
    f"{MOST_REPEATS}); sides are timed in turn in every round",
    "model_milliseconds": "one root and as many step calls as the search makes, same shapes, "
    "outside a search: torch calls for prefsearch and LightZero, one compiled fori_loop for mctx",
    "compile_seconds": "first search beyond the second, in the cell",
    "cold_start_seconds": "first searches of prefsearch in this run, which compile kernels not yet "
    "on the disk; in no cell's budget",
    "ratios": "peer / prefsearch; low and high are over the rounds' paired ratios",
    "memory": "MB of one search: for prefsearch and LightZero the high-water mark (VmHWM) of a new "
    "process above its VmRSS before the cell's first search, after a search of another shape; for "
    "mctx the temporaries and outputs that XLA laid out, which agreed with its high-water mark",
    "exponents": "least squares of log median time on log simulations (or batch), one slope for "
    "each algorithm, A and side over all finished cells, a level for each batch (or budget)",
    "agreement": "share of the batch's rows whose root visit counts equal mctx's; float32 sums "
    "differ in their last bits, and mctx breaks muzero's ties by noise below 1e-7",
    "mctx": "jitted for the cell's shapes; gives back action, weights, root value and visits, not "
    "the tree, so XLA may drop what they do not need",
    "lightzero": "ctree extensions of the PyPI wheel, driven as LightZero's own search does; its "
    "muzero scores with bounds over the whole tree and other values of unvisited actions; its "
    "gumbel search is not the published algorithm, so it is a speed reference only",
}


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What two runs must share for their cells to stand in one table."""
    return {name: getattr(options, name) for name in SETTINGS}


def kept_rows(path: Path, expected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The finished cells of an earlier run; none where there was no run.

    Args:
        path: Its results.
        expected: `settings` and `versions` of this run.

    Raises:
        ValueError: If one of them differs, or the source files do.
    """
    if not path.is_file():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))
    kept = {**earlier, "source files": earlier.get("provenance", {}).get("source_digest")}
    for name, value in {**expected, "source files": source_digest(NAME)}.items():
        if kept.get(name) != value:
            raise ValueError(
                f"{path.name} was measured with other {name}: found {kept.get(name)}, required "
                f"{value} to continue it. Run without --resume to begin anew, or set another --out"
            )
    return earlier["cells"]


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help=f"the sub-grid {grid.QUICK}")
    add("--targets", action="store_true", help="the cells that the targets name")
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
    add("--backend", default=None, help="handed to our planners; not passed if left out")
    add("--leaves-per-step", type=int, default=None, help="likewise")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="keep finished cells of the same code and settings")
    add("--report", action="store_true", help="measure nothing; tables and picture of --out")
    add("--plot-actions", type=int, default=18, help="the A that the picture shows")
    add("--out", type=Path, default=ROOT / "docs" / "results" / "planning_core.json")
    add("--mctx-python", type=Path, default=BENCH / "mctx" / "bin" / "python")
    add("--lightzero", type=Path, default=BENCH / "lightzero")
    options = parser.parse_args(arguments)
    if OURS not in options.sides:
        parser.error(f"--sides: found {options.sides}; required {OURS} among them")
    if min(options.repeats, options.threads, options.model_threads) < 1:
        parser.error("--repeats, --threads and --model-threads: required at least 1")
    return options


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """The cells a command line asks for.

    Raises:
        ValueError: On numbers below 1, or a text that is no cell.
    """
    if options.cells:
        return grid.parse_cells(options.cells, options.algorithms)
    if options.targets:
        wide = grid.choose_cells(options.algorithms, [256], [18], grid.SIMULATIONS)
        single = grid.choose_cells(["gumbel"], [1], grid.ACTIONS, grid.SIMULATIONS)
        single = [cell for cell in single if cell.algorithm in options.algorithms]
        return sorted({*wide, *single}, key=lambda cell: (cell.edges, cell))
    if options.quick:
        return grid.choose_cells(options.algorithms, **grid.QUICK)
    return grid.choose_cells(
        options.algorithms, options.batches, options.actions, options.simulations
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the cells, and writes results, picture and tables."""
    options = parse_options(arguments)
    wide = max(200, Console().width)  # the table of cells needs it; no markup: ranges are [a, b]
    console = Console(width=wide, markup=False)
    if options.report:
        results = summarize(json.loads(options.out.read_text(encoding="utf-8")))
    else:
        results = _run(options, sys.argv[1:] if arguments is None else arguments)
    picture = options.out.with_suffix(".png")
    drawn = draw(results["cells"], picture, actions=options.plot_actions)
    write_json_atomic(options.out, results)
    update(options.out)
    print_report(results, console.print)
    print(f"wrote {options.out.name}" + (f" and {picture.name}" if drawn else ""))
    failed = [s for s in results["skipped"] if s["side"] == OURS and "ended with" in s["reason"]]
    if failed:
        sys.exit(f"{OURS} failed in {len(failed)} cells, first {failed[0]['cell']}; see Skipped")


def _run(options: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measures all cells that are not kept, writing after each."""
    cells = cells_of(options)
    began = time.monotonic()
    about = provenance(
        NAME,
        ["python", "benchmarks/core/planning_core.py", *words],
        seeds=[options.seed],
        rounds=options.repeats,
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = Benchmark(options, Path(folder), commit=about["commit"])
        except WorkerStoppedError as error:  # a peer's would be a skip; ours ends the run
            sys.exit(f"{OURS} cannot be timed: {error}")
        try:
            expected = {"settings": settings_of(options), "versions": run.versions}
            rows = kept_rows(options.out, expected) if options.resume else []
            for row in rows:
                run.learn(Cell.of(row), row)
            done = {Cell.of(row) for row in rows}
            results: dict[str, Any] = {
                "provenance": about,
                **expected,
                "missing": run.missing,
                "cold_start_seconds": run.cold_start_seconds,
                "method": METHOD,
                "cells": rows,
            }
            results = summarize(results)
            for number, cell in enumerate(cells, start=1):
                if cell in done:
                    continue
                row = run.measure(cell)
                require_sources(NAME, about["source_digest"])
                run.learn(cell, row)
                minutes = (time.monotonic() - began) / 60
                print(f"[{number}/{len(cells)} {minutes:.1f} min] {cell_line(row)}", flush=True)
                results = summarize({**results, "cells": [*results["cells"], row]})
                write_json_atomic(options.out, results)
        finally:
            run.close()
    return results


if __name__ == "__main__":
    main()

"""Speed of play, search and learning on Atari, beside LightZero, on one and two processors.

    bash benchmarks/peers.sh                                # LightZero into .bench/, once
    python benchmarks/atari/atari.py                              # all cells, 3 rounds
    python benchmarks/atari/atari.py --only update --rounds 1 --seconds 1
    python benchmarks/atari/atari.py --resume                     # continues a run that was stopped

Each side has a process of its own, bound to as many processors as the cell has threads; the sides
take turns in every round while the others wait, and a ratio is of two rates of one round. Cells:
decisions a second of random play in the environments alone; of play with a search for every
decision; roots a second of large batches of searches, as reanalysis makes them; updates a second on
a constant batch; and where the time of our own training goes. Both sides search by PUCT as
EfficientZero's tree does, with noise at the root, and have networks of the same plan: 64x64 gray, 4
frames, 16 channels, 1 block, 101 bins, the LSTM of 512 where there is a value prefix. Parameters
and multiply-adds a row of each side are recorded as `networks` in the JSON.

`lightzero` is LightZero 0.2.0 with its own code and configurations, environments in processes of
their own; `lightzero, one process` has them one after another in one. Its play is timed without its
collector's bookkeeping, ours with the rows that a replay takes. Its updates also compute the
statistics that it logs. Updates without the consistency loss have no image augmentation, which its
value-prefix policy does not support without that loss.

Each finished cell is written to `--out` at once. A side that cannot do a cell is left out of it,
with the reason under `missing`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from benchmarks.atari.cells import UNITS, Cell, grid
from benchmarks.atari.report import OURS, lost, network_differences, show, side_rows
from benchmarks.atari.worker import SIDES
from benchmarks.harness.results import (
    Results,
    benchmark_parser,
    load_cells,
    require_positive,
    select_cells,
    wide_console,
)
from benchmarks.harness.timing import interleaved
from benchmarks.harness.worker import Json, Worker, WorkerError

NAME = "atari_speed"
ONE_PROCESS = "lightzero, one process"


class Sides:
    """The worker processes of all sides for one number of threads, started at their first use."""

    def __init__(self, names: list[str], *, threads: int) -> None:
        self.names, self._threads = names, threads
        self._workers: dict[str, Worker] = {}
        self._failed: dict[str, str] = {}  # sides that cannot be started
        self.versions: dict[str, dict[str, str]] = {}

    def get(self, name: str) -> Worker:
        """A side's process, started anew if it was closed.

        Raises:
            WorkerError: If it cannot be started, now or before.
        """
        if name in self._failed:
            raise WorkerError(self._failed[name])
        if name not in self._workers or self._workers[name].closed:
            options = {"side": name, "threads": self._threads}
            try:
                worker = Worker(SIDES[name][2], "benchmarks.atari.worker", options)
            except WorkerError as error:
                self._failed[name] = str(error)
                raise
            self._workers[name], self.versions[name] = worker, worker.versions
        return self._workers[name]

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers.values():
            worker.close()


def run_cell(cell: Cell, sides: Sides, options: argparse.Namespace, console: Console) -> Json:
    """Measures one cell on all sides that can do it; `missing` has the others with the reason."""
    missing: dict[str, str] = {}

    def request(name: str, task: str, **arguments: Any) -> Json | None:
        """The reply, or None with the reason noted and the side's process ended."""
        try:
            with console.status(f"{cell.name}: {task}, {name}"):
                return sides.get(name).request(task, **arguments)
        except WorkerError as error:
            missing[name] = str(error)
            return None

    row = {"cell": cell.name, "unit": UNITS[cell.kind], "settings": asdict(cell)}
    if cell.kind == "step":
        seconds = 5 * options.seconds
        found = None
        if OURS in sides.names:
            found = request(OURS, "profile", cell=asdict(cell), at_least=seconds)
        return {**row, **(found or {}), "missing": missing}
    names = [name for name in sides.names if name != ONE_PROCESS or cell.kind == "environment"]
    prepared = {name: request(name, "prepare", cell=asdict(cell)) for name in names}
    facts = {name: reply["facts"] for name, reply in prepared.items() if reply is not None}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in facts}
    for _, name in interleaved(times, options.rounds):
        reply = request(name, "time", at_least=options.seconds)
        if reply is None:
            del times[name]
        else:
            times[name].append(reply)
    for name in list(times):
        request(name, "close")
    with_cpu = cell.kind in ("search", "update")  # no side has child processes there
    measured = {"facts": facts, "times": times, "sides": side_rows(times, with_cpu=with_cpu)}
    return {**row, **measured, "missing": missing}


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--only", nargs="+", help="cells whose names contain one of these words")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="at least, a side and round")
    parser.add_argument("--resume", action="store_true", help="keep the cells that --out has")
    parser.add_argument("--list", action="store_true", help="name the cells and do nothing")
    options = parser.parse_args(arguments)
    require_positive(parser, options, "rounds")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options, console = parse_options(arguments), wide_console()
    wanted = select_cells(grid(options.threads), options.only)
    if options.list:
        for cell in wanted:
            console.print(cell.name)
        return
    settings = {name: getattr(options, name) for name in ("sides", "rounds", "seconds")}
    found = load_cells(NAME, options.out, {"settings": settings}) if options.resume else []
    done = {row["cell"] for row in found}
    file = Results(NAME, arguments, options.out, seeds=[0], rounds=options.rounds)
    for threads in dict.fromkeys(cell.threads for cell in wanted):
        sides = Sides(options.sides, threads=threads)
        try:
            for cell in wanted:
                if cell.threads != threads or cell.name in done:
                    continue
                found.append(run_cell(cell, sides, options, console))
                results = {"settings": settings, "versions": sides.versions, "cells": found}
                summary = {"lost": lost(found), "networks": network_differences(found)}
                file.write({**results, **summary})
        finally:
            sides.close()
    file.publish()
    show(found, console)


if __name__ == "__main__":
    main()

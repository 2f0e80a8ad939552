"""Speed of play, search and learning on Atari, beside LightZero, on one and two processors.

    bash benchmarks/peers.sh                                # LightZero into .bench/, once
    python benchmarks/atari/atari.py                              # all cells, 3 rounds
    python benchmarks/atari/atari.py --only update --rounds 1 --seconds 1
    python benchmarks/atari/atari.py --resume                     # goes on where a run was stopped

Each side has a process of its own, held to as many processors as the cell has threads; all wait
while one works, the sides take turns in every round, and a ratio is of two rates of one round.
Cells: decisions a second of random play in the environments alone; of play with a search for every
decision; roots a second of large batches of searches, as reanalysis makes them; updates a second on
a batch that stands still; and where the time of our own training goes. Both sides search PUCT as
EfficientZero's tree does it, with noise at the root, and have networks of the same plan: 64x64
gray, 4 frames, 16 channels, 1 block, 101 bins, the LSTM of 512 where there is a value prefix. What
differs in size is told: parameters and multiply-adds a row of each side, `networks` in the JSON.

`lightzero` is LightZero 0.2.0 with its own code and configurations, environments in processes of
their own; `lightzero, one process` has them one after another in one. Its play is timed without its
collector's bookkeeping, ours with the rows that a replay takes. Its updates also compute the
statistics that it logs, for it cannot do without. Where updates have no consistency loss they
augment no images, for its value-prefix policy cannot augment without one.

Each finished cell is written to `--out` at once. A side that cannot do a cell is left out of it,
and the cell says why.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console

from benchmarks.atari.cells import UNITS, Cell, grid
from benchmarks.atari.report import OURS, lost, network_differences, show, side_rows
from benchmarks.atari.worker import SIDES, SideFailedError, Worker, cell_arguments
from benchmarks.harness.documents import update
from benchmarks.harness.provenance import provenance, require_sources, same_sources
from prefsearch.storage.files import write_json_atomic

OUT = Path(__file__).resolve().parents[2] / "docs" / "results" / "atari_speed.json"
NAME = "atari_speed"
ONE_PROCESS = "lightzero, one process"


class Sides:
    """The processes of all sides for one number of threads, started when first asked for."""

    def __init__(self, names: list[str], *, threads: int) -> None:
        """Starts nothing."""
        self.names, self._threads = names, threads
        self._workers: dict[str, Worker] = {}
        self.failed: dict[str, str] = {}  # why a side has no process
        self.versions: dict[str, dict[str, str]] = {}

    def get(self, name: str) -> Worker:
        """A side's process.

        Raises:
            SideFailedError: If it cannot be started, now or before.
        """
        if name in self.failed:
            raise SideFailedError(self.failed[name])
        if name not in self._workers:
            try:
                self._workers[name] = worker = Worker(name, threads=self._threads)
            except SideFailedError as error:
                self.failed[name] = str(error)
                raise
            self.versions[name] = worker.versions
        return self._workers[name]

    def drop(self, name: str) -> None:
        """Ends a side's process; it is started anew when asked for."""
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.close()

    def close(self) -> None:
        """Ends all processes."""
        for name in list(self._workers):
            self.drop(name)


def run_cell(
    cell: Cell, sides: Sides, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Measures one cell on all sides that can do it; `missing` says why others are left out."""
    missing: dict[str, str] = {}

    def ask(name: str, task: str, **asked: Any) -> dict[str, Any] | None:
        """The answer, or None with the reason noted and the side's process ended."""
        try:
            with console.status(f"{cell.name}: {task}, {name}"):
                return sides.get(name).ask(task, **asked)
        except SideFailedError as error:
            missing[name] = str(error)
            sides.drop(name)
            return None

    row = {"cell": cell.name, "unit": UNITS[cell.kind], "settings": asdict(cell)}
    if cell.kind == "step":
        asked = {**cell_arguments(cell), "at_least": 5 * options.seconds}
        found = (ask(OURS, "profile", **asked) if OURS in sides.names else None) or {}
    else:
        names = [name for name in sides.names if name != ONE_PROCESS or cell.kind == "environment"]
        found = timed(cell, names, ask, options)
    return {**row, **found, "missing": missing}


def timed(
    cell: Cell, names: list[str], ask: Callable[..., Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Prepares the sides, then times them in turn, round after round."""
    prepared = {name: ask(name, "prepare", **cell_arguments(cell)) for name in names}
    facts = {name: answer["facts"] for name, answer in prepared.items() if answer is not None}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in facts}
    for round_ in range(options.rounds):
        for name in list(times) if round_ % 2 == 0 else list(times)[::-1]:
            answer = ask(name, "time", at_least=options.seconds)
            if answer is None:
                del times[name]
            else:
                times[name].append(answer)
    for name in list(times):
        ask(name, "close")
    with_cpu = cell.kind in ("search", "update")  # no side has child processes there
    return {"facts": facts, "times": times, "sides": side_rows(times, with_cpu=with_cpu)}


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="cells whose names hold one of these words")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="at least, a side and round")
    parser.add_argument("--resume", action="store_true", help="keep the cells that --out has")
    parser.add_argument("--list", action="store_true", help="name the cells and do nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    return {"sides": options.sides, "rounds": options.rounds, "seconds": options.seconds}


def kept_cells(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Cells of an earlier run with the same settings, if going on was asked for.

    Raises:
        ValueError: If that run had other settings or source files.
    """
    if not options.resume or not options.out.exists():
        return []
    old: Mapping[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    if not same_sources(old, NAME):
        raise ValueError(
            f"{options.out}: measured with other source files. Leave --resume out to begin anew"
        )
    if old["settings"] != settings_of(options):
        raise ValueError(
            f"{options.out}: found settings {old['settings']}; required "
            f"{settings_of(options)}. Go on with those, or leave --resume out"
        )
    return list(old["cells"])


def main(arguments: list[str]) -> int:
    """Runs the benchmark."""
    options, console = parse_options(arguments), Console()
    wanted = [
        cell
        for cell in grid(options.threads)
        if not options.only or any(word in cell.name for word in options.only)
    ]
    if options.list:
        for cell in wanted:
            console.print(cell.name, highlight=False)
        return 0
    found = kept_cells(options)
    done = {row["cell"] for row in found}
    about: dict[str, Any] = {
        "provenance": provenance(
            NAME,
            ["python", "benchmarks/atari/atari.py", *arguments],
            seeds=[0],
            rounds=options.rounds,
        ),
        "settings": settings_of(options),
    }
    sides: Sides | None = None
    try:
        for threads in dict.fromkeys(cell.threads for cell in wanted):
            sides = Sides(options.sides, threads=threads)
            for cell in wanted:
                if cell.threads != threads or cell.name in done:
                    continue
                found.append(run_cell(cell, sides, options, console))
                written = {**about, "versions": sides.versions, "cells": found}
                require_sources(NAME, about["provenance"]["source_digest"])
                summary = {"lost": lost(found), "networks": network_differences(found)}
                write_json_atomic(options.out, {**written, **summary})
            sides.close()
    finally:
        if sides is not None:
            sides.close()
    update(options.out)
    show(found, console)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One run of the planning-core benchmark: the sides' processes, and how a cell is measured.

This file does not know where results go nor what is made of them.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.core.grid import Cell, Cost, reason_to_skip
from benchmarks.core.report import OURS, side_summary
from benchmarks.core.worker import Worker, WorkerStoppedError, task_of, write_weights

SAMPLE_SECONDS = 0.03  # a timed sample repeats short searches until it lasts about so long
MOST_REPEATS = 50
# Above these no root visits are compared: large answers, and float32 ties that grow with the tree.
MOST_COMPARED = {"numbers": 20_000, "simulations": 200}


class Benchmark:
    """A run: the sides' processes, what they cost so far, and how one cell is measured."""

    def __init__(
        self, options: argparse.Namespace, folder: Path, *, commit: str | None = None
    ) -> None:
        self.options, self._folder, self._commit = options, folder, commit
        self._workers: dict[str, Worker] = {}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.costs: dict[str, dict[Cell, Cost]] = {side: {} for side in options.sides}
        for side in options.sides:
            try:
                self.versions[side] = self._worker(side).versions
            except (OSError, WorkerStoppedError) as error:
                if side == OURS:
                    raise
                # An OSError's own text names a path of this machine.
                text = str(error) if isinstance(error, WorkerStoppedError) else "not installed"
                self.missing[side] = f"{text}; see benchmarks/peers.sh"

        self.cold_start_seconds = self._start_cold()

    def _start_cold(self) -> float:
        """Our first searches of one tree and of many: kernels not yet on the disk are compiled.

        That happens once for an installation, so it counts in no cell's budget.
        """
        seconds = 0.0
        least = self.options.leaves_per_step or 1
        for algorithm, batch in product(self.options.algorithms, (1, 256)):
            cell = Cell(algorithm, batch, 6, max(4, least))
            task = task_of(cell, self._weights(cell))
            found = self._worker(OURS).ask("prepare", seconds=900.0, **task)
            seconds += found["first_seconds"]
        return seconds

    def _weights(self, cell: Cell) -> Path:
        """The model and the observations of a cell's shape, drawn once for all sides."""
        path = self._folder / f"{cell.actions}x{cell.batch}.npz"
        if not path.is_file():
            seed = self.options.seed
            write_weights(path, num_actions=cell.actions, batch=cell.batch, seed=seed)
        return path

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def learn(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Remembers what a cell cost, to foretell larger ones."""
        for side, measured in row["sides"].items():
            if "median" in measured:
                cost = Cost(
                    measured["median"] / 1e3, measured["compile_seconds"], measured["megabytes"]
                )
            elif measured["over_limit"]:
                cost = Cost(None, over=measured["skipped"])
            else:
                continue
            self.costs.setdefault(side, {})[cell] = cost

    def measure(self, cell: Cell) -> dict[str, Any]:
        """One cell on all sides: warm-up, agreement, then rounds in which all sides take turns."""
        options = self.options
        weights = self._weights(cell)
        skipped: dict[str, dict[str, Any]] = {}
        live: dict[str, Timing] = {}
        for side in options.sides:
            reason = self.missing.get(side)
            over = reason is None
            reason = reason or reason_to_skip(
                cell,
                self.costs[side],
                budget_seconds=options.budget_seconds,
                limit_megabytes=options.memory_gb * 1e3,
            )
            if reason is None:
                try:
                    live[side] = self._warm_up(side, cell, weights)
                    continue
                except WorkerStoppedError as error:
                    reason, over = str(error), error.limit
            skipped[side] = {"skipped": reason, "over_limit": over}
        agreement = self._agreement(cell, live)
        for _ in range(options.repeats):
            for side in [side for side in live if live[side].going]:
                try:
                    live[side].take_turn(self._worker(side))
                except WorkerStoppedError as error:
                    live[side].stop(error)
        sides: dict[str, Any] = {}
        for side in options.sides:
            if side in live and live[side].times["search"]:
                sides[side] = side_summary(live[side].measured(), cell)
            elif side in live:
                sides[side] = {
                    "skipped": live[side].stopped or "no time left for a timed search",
                    "over_limit": live[side].over_limit,
                }
            else:
                sides[side] = skipped[side]
        return {
            **asdict(cell),
            "agreement": agreement,
            "commit": self._commit,
            "load_average": os.getloadavg()[0],  # above 2 or so, others were computing too
            "sides": sides,
        }

    def _worker(self, side: str) -> Worker:
        """A side's process, started again if it was ended for a limit."""
        if side not in self._workers or self._workers[side].closed:
            self._workers[side] = self._start(side)
        return self._workers[side]

    def _start(self, side: str) -> Worker:
        options = self.options
        python = options.mctx_python if side == "mctx" else sys.executable
        handed = ("threads", "model_threads", "backend", "leaves_per_step")
        return Worker(
            side,
            [str(python)],
            options={
                **{name: getattr(options, name) for name in handed},
                "lightzero": str(options.lightzero),
            },
            limit_megabytes=options.memory_gb * 1e3,
        )

    def _warm_up(self, side: str, cell: Cell, weights: Path) -> "Timing":
        """First and second search of a cell, and its memory."""
        worker = self._worker(side)
        began = time.monotonic()
        budget = self.options.budget_seconds
        first = worker.ask("prepare", seconds=budget, **task_of(cell, weights))
        left = max(1.0, budget - (time.monotonic() - began))
        second = worker.ask("calibrate", seconds=left)
        left = budget - (time.monotonic() - began)
        return Timing(left, first, second, self._memory(side, cell, weights))

    def _memory(self, side: str, cell: Cell, weights: Path) -> dict[str, Any]:
        """MB of one search; outside the budget, since it says nothing of time.

        A new process finds them for sides that keep memory from search to search; mctx's own one
        knows what XLA laid out. None, and a note, where it could not be told.
        """
        own = side != "mctx"
        worker = None
        try:
            worker = self._start(side) if own else self._worker(side)
            found = worker.ask(
                "memory",
                seconds=2 * self.options.budget_seconds,
                least_simulations=self.options.leaves_per_step or 1,
                **task_of(cell, weights),
            )["megabytes"]
            return {"megabytes": found, "memory_note": "" if found is not None else "not told"}
        except WorkerStoppedError as error:
            if not own:
                raise
            return {"megabytes": None, "memory_note": str(error)}
        finally:
            if own and worker is not None:
                worker.close()

    def _agreement(self, cell: Cell, live: Mapping[str, "Timing"]) -> float | None:
        """Share of rows with equal root visits, ours and mctx's; None where not compared."""
        small = (
            cell.batch * cell.actions <= MOST_COMPARED["numbers"]
            and cell.simulations <= MOST_COMPARED["simulations"]
        )
        if not small or OURS not in live or "mctx" not in live:
            return None
        visits: list[Any] = []
        for side in (OURS, "mctx"):
            try:
                asked = self._worker(side).ask("visits", seconds=self.options.budget_seconds)
            except WorkerStoppedError as error:
                live[side].stop(error)
                return None
            visits.append(asked["visits"])
        return sum(a == b for a, b in zip(*visits, strict=True)) / cell.batch


class Timing:
    """The times of one side in one cell, and the seconds it has left."""

    def __init__(
        self,
        left: float,
        first: Mapping[str, float],
        second: Mapping[str, float],
        memory: Mapping[str, Any],
    ) -> None:
        self.going, self.stopped, self.over_limit = True, "", True
        self.times: dict[str, list[float]] = {"search": [], "model": []}
        self._left, self._memory = left, memory
        self._compile = max(0.0, first["first_seconds"] - second["seconds"])
        self._inner = {
            "search": _repeats_within(second["seconds"]),
            "model": _repeats_within(second["model_seconds"]),
        }
        self._last = {"search": second["seconds"], "model": second["model_seconds"]}

    def take_turn(self, worker: Worker) -> None:
        """One round, unless the seconds left would not hold it."""
        expected = sum(self._last[what] * self._inner[what] for what in self.times)
        if expected > self._left:
            self.going = False
            self.stopped = f"time: {self._left:.1f} s left of the budget, {expected:.1f} s needed"
            return
        began = time.monotonic()
        taken = {
            what: worker.ask(
                "time", what=what, inner=self._inner[what], seconds=max(1.0, self._left)
            )["milliseconds"]
            for what in self.times
        }
        for what, milliseconds in taken.items():
            self.times[what].append(milliseconds)
            self._last[what] = milliseconds / 1e3
        self._left -= time.monotonic() - began

    def stop(self, error: WorkerStoppedError) -> None:
        """Takes no more turns, and remembers why; times taken before it stay."""
        self.going, self.stopped, self.over_limit = False, str(error), error.limit

    def measured(self) -> dict[str, Any]:
        """All that was measured, for `side_summary`."""
        return {
            "milliseconds": self.times["search"],
            "model_milliseconds": self.times["model"],
            "rounds": len(self.times["search"]),
            "searches_per_time": self._inner["search"],
            "compile_seconds": self._compile,
            **self._memory,
        }


def _repeats_within(seconds: float) -> int:
    return min(MOST_REPEATS, max(1, round(SAMPLE_SECONDS / max(seconds, 1e-9))))

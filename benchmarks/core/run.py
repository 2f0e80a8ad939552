"""One run of the planning-core benchmark: the sides' worker processes, and one cell's times."""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path

from benchmarks.core.grid import Cell, reason_to_skip
from benchmarks.core.report import OURS, side_summary
from benchmarks.core.worker import task_of, write_weights
from benchmarks.harness.timing import interleaved
from benchmarks.harness.worker import Json, Worker, WorkerError

SAMPLE_SECONDS = 0.03  # a timed sample repeats short searches until it lasts about so long
MOST_REPEATS = 50
# Above these no root visits are compared: large replies, and float32 ties that grow with the tree.
MOST_COMPARED = {"numbers": 20_000, "simulations": 200}


class Benchmark:
    """The sides' processes, and how one cell is measured.

    Attributes:
        missing: Sides that could not be started, with the reason.
        versions: Packages of each side.
        cold_start_seconds: Of our first searches, which compile kernels that are not on the disk.
    """

    def __init__(
        self, options: argparse.Namespace, folder: Path, *, commit: str | None = None
    ) -> None:
        """Starts the sides.

        Raises:
            WorkerError: If ours does not start.
        """
        self.options, self._folder, self._commit = options, folder, commit
        self._workers: dict[str, Worker] = {}
        self._over: dict[str, dict[Cell, str]] = {side: {} for side in options.sides}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        for side in options.sides:
            try:
                self.versions[side] = self._worker(side).versions
            except WorkerError as error:
                if side == OURS:
                    raise
                self.missing[side] = str(error)
        self.cold_start_seconds = 0.0
        for algorithm, batch in product(options.algorithms, (1, 256)):
            cell = Cell(algorithm, batch, 6, 4)
            task = task_of(cell, self._weights(cell))
            reply = self._worker(OURS).request("prepare", seconds=900.0, **task)
            self.cold_start_seconds += reply["seconds"]

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def learn(self, cell: Cell, row: Json) -> None:
        """Notes which sides went over a limit, so that larger cells are skipped."""
        for side, measured in row["sides"].items():
            if measured.get("over_limit"):
                self._over.setdefault(side, {})[cell] = measured["skipped"]

    def measure(self, cell: Cell) -> Json:
        """One cell on all sides: warm-up, agreement, then rounds in which the sides take turns."""
        options = self.options
        sides: Json = {}
        live: dict[str, Timing] = {}
        for side in options.sides:
            reason = self.missing.get(side)
            over = reason is None
            reason = reason or reason_to_skip(cell, self._over[side])
            if reason is None:
                try:
                    live[side] = self._warm_up(side, cell)
                except WorkerError as error:
                    reason, over = str(error), error.limit
            sides[side] = {"skipped": reason, "over_limit": over}
        agreement = self._agreement(cell, live)
        for _, side in interleaved(live, options.repeats):
            if live[side].going:
                try:
                    live[side].take_turn(self._worker(side))
                except WorkerError as error:
                    live[side].stop(error)
        for side, timing in live.items():
            sides[side] = timing.result(cell)
        return {
            **asdict(cell),
            "agreement": agreement,
            "commit": self._commit,
            "load_average": os.getloadavg()[0],  # above 2 or so, other programs were running too
            "sides": sides,
        }

    def _worker(self, side: str) -> Worker:
        """A side's process, started again if it was closed."""
        if side not in self._workers or self._workers[side].closed:
            self._workers[side] = self._start(side)
        return self._workers[side]

    def _start(self, side: str) -> Worker:
        options = self.options
        return Worker(
            options.mctx_python if side == "mctx" else sys.executable,
            "benchmarks.core.worker",
            {
                "side": side,
                "threads": options.threads,
                "model_threads": options.model_threads,
                "lightzero": str(options.lightzero),
            },
            limit_megabytes=options.memory_gb * 1e3,
        )

    def _weights(self, cell: Cell) -> Path:
        """The model and the observations of a cell's shape, drawn once for all sides."""
        path = self._folder / f"{cell.actions}x{cell.batch}.npz"
        if not path.is_file():
            seed = self.options.seed
            write_weights(path, num_actions=cell.actions, batch=cell.batch, seed=seed)
        return path

    def _warm_up(self, side: str, cell: Cell) -> "Timing":
        """First and second search of a cell, and its memory."""
        worker = self._worker(side)
        began = time.monotonic()
        budget = self.options.budget_seconds
        first = worker.request("prepare", seconds=budget, **task_of(cell, self._weights(cell)))
        left = max(1.0, budget - (time.monotonic() - began))
        second = worker.request("calibrate", seconds=left)
        left = budget - (time.monotonic() - began)
        return Timing(left, first, second, self._memory(side, cell))

    def _memory(self, side: str, cell: Cell) -> Json:
        """MB of one search, outside the budget of time; None, with a note, where not known.

        Sides that keep memory from search to search are measured in a new process; mctx's own
        process knows what XLA laid out.
        """
        own = side != "mctx"
        worker = None
        try:
            worker = self._start(side) if own else self._worker(side)
            task = task_of(cell, self._weights(cell))
            reply = worker.request("memory", seconds=2 * self.options.budget_seconds, **task)
            found = reply["megabytes"]
            return {"megabytes": found, "memory_note": "" if found is not None else "not known"}
        except WorkerError as error:
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
        visits: list[object] = []
        for side in (OURS, "mctx"):
            try:
                reply = self._worker(side).request("visits", seconds=self.options.budget_seconds)
            except WorkerError as error:
                live[side].stop(error)
                return None
            visits.append(reply["visits"])
        return sum(a == b for a, b in zip(*visits, strict=True)) / cell.batch


class Timing:
    """The times of one side in one cell, and the seconds it has left."""

    def __init__(
        self,
        left: float,
        first: Mapping[str, float],
        second: Mapping[str, float],
        memory: Json,
    ) -> None:
        self.going = True
        self._stopped, self._over_limit = "no time left for a timed search", True
        self._left, self._memory = left, memory
        self._compile = max(0.0, first["seconds"] - second["seconds"])
        self._last = {"search": second["seconds"], "model": second["model_seconds"]}
        self._inner = {what: _repeats_within(seconds) for what, seconds in self._last.items()}
        self._times: dict[str, list[float]] = {"search": [], "model": []}

    def take_turn(self, worker: Worker) -> None:
        """One round, unless the seconds left are too few."""
        expected = sum(self._last[what] * self._inner[what] for what in self._times)
        if expected > self._left:
            self.going = False
            self._stopped = f"time: {self._left:.1f} s left of the budget, {expected:.1f} s needed"
            return
        began = time.monotonic()
        taken = {
            what: worker.request(
                "time", what=what, inner=self._inner[what], seconds=max(1.0, self._left)
            )["milliseconds"]
            for what in self._times
        }
        for what, milliseconds in taken.items():
            self._times[what].append(milliseconds)
            self._last[what] = milliseconds / 1e3
        self._left -= time.monotonic() - began

    def stop(self, error: WorkerError) -> None:
        """Takes no more turns; times taken before stay."""
        self.going, self._stopped, self._over_limit = False, str(error), error.limit

    def result(self, cell: Cell) -> Json:
        """What was measured, or why nothing was."""
        if not self._times["search"]:
            return {"skipped": self._stopped, "over_limit": self._over_limit}
        measured = {
            "milliseconds": self._times["search"],
            "model_milliseconds": self._times["model"],
            "rounds": len(self._times["search"]),
            "searches_per_time": self._inner["search"],
            "compile_seconds": self._compile,
            **self._memory,
        }
        return side_summary(measured, cell)


def _repeats_within(seconds: float) -> int:
    return min(MOST_REPEATS, max(1, round(SAMPLE_SECONDS / max(seconds, 1e-9))))

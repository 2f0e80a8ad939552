"""The cells of the planning-core benchmark, and which of them a side can afford.

This file does not know what is timed. It orders cells so that smaller ones come first, and says
from their measurements whether a larger one would go over a limit of time or memory.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

ALGORITHMS = ("muzero", "gumbel")
BATCHES = (1, 16, 256, 1024)
ACTIONS = (6, 18, 64, 362)
SIMULATIONS = (16, 50, 200, 800)
# The sub-grid of --quick: the headline's batch and a single tree, two budgets.
QUICK: dict[str, tuple[int, ...]] = {
    "batches": (1, 256),
    "actions": (18,),
    "simulations": (16, 50),
}
# Assumed growth of time along an axis until two cells on it have been measured: what one more
# tree or simulation costs at the least, and half of a pass over all actions.
_GROWTH = {"batch": 1.0, "actions": 0.5, "simulations": 1.0}
_STEEPEST = 3.0
# Below this a peak is allocator noise and says nothing of larger cells.
_TELLING_MEGABYTES = 32.0


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid: B trees of A actions, S simulations, one algorithm."""

    algorithm: str
    batch: int
    actions: int
    simulations: int

    @property
    def edges(self) -> int:
        """Edges of all trees, which memory is proportional to."""
        return self.batch * self.actions * (self.simulations + 1)

    @property
    def name(self) -> str:
        """Such as `muzero B256 A18 S200`."""
        return f"{self.algorithm} B{self.batch} A{self.actions} S{self.simulations}"

    def within(self, other: "Cell") -> bool:
        """Whether this cell is no larger than another of its algorithm along every axis."""
        return (
            self.algorithm == other.algorithm
            and self.batch <= other.batch
            and self.actions <= other.actions
            and self.simulations <= other.simulations
        )

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Cell":
        """The cell of a row of the results."""
        return cls(row["algorithm"], row["batch"], row["actions"], row["simulations"])


@dataclass(frozen=True)
class Cost:
    """What one cell cost one side.

    Attributes:
        seconds: of one search; None where it was not finished.
        first_seconds: of the first search beyond a later one: compilation. 0 where none.
        megabytes: memory one search took at its peak; None where unknown.
        over: why the cell was not measured because of a limit; empty where it was.
    """

    seconds: float | None
    first_seconds: float = 0.0
    megabytes: float | None = None
    over: str = ""


def choose_cells(
    algorithms: Sequence[str],
    batches: Sequence[int],
    actions: Sequence[int],
    simulations: Sequence[int],
) -> list[Cell]:
    """All combinations, each once, smaller trees first so that they foretell the larger.

    Raises:
        ValueError: On an unknown algorithm or a number below 1.
    """
    unknown = sorted(set(algorithms) - set(ALGORITHMS))
    if unknown:
        raise ValueError(f"algorithms: found {unknown}; required some of {list(ALGORITHMS)}")
    if any(number < 1 for number in (*batches, *actions, *simulations)):
        raise ValueError(
            f"found batches {list(batches)}, actions {list(actions)}, simulations "
            f"{list(simulations)}; required whole numbers of at least 1"
        )
    cells = {Cell(*values) for values in product(algorithms, batches, actions, simulations)}
    return sorted(cells, key=lambda cell: (cell.edges, cell))


def parse_cells(texts: Iterable[str], algorithms: Sequence[str]) -> list[Cell]:
    """Cells written as `BxAxS`, such as `256x18x200`, of each algorithm.

    Raises:
        ValueError: Where a text is not three whole numbers.
    """
    cells: set[Cell] = set()
    for text in texts:
        parts = text.split("x")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise ValueError(f"cell: found {text!r}; required BxAxS, such as 256x18x200")
        batch, actions, simulations = map(int, parts)
        cells.update(choose_cells(algorithms, [batch], [actions], [simulations]))
    return sorted(cells, key=lambda cell: (cell.edges, cell))


def predict_seconds(cell: Cell, costs: Mapping[Cell, Cost]) -> tuple[float, Cell] | None:
    """Foretells one search from smaller cells that differ along one axis only.

    Along each axis the nearest smaller cell is scaled by the growth between the two nearest (an
    assumed one where there is one only). The least of the axes counts, in doubt for measuring:
    a search that runs into the limit is stopped there.

    Returns:
        Seconds, and the cell they were foretold from; None where no such cell was measured.
    """
    found: list[tuple[float, Cell]] = []
    for axis, assumed in _GROWTH.items():
        size = getattr(cell, axis)
        line = sorted(
            (getattr(other, axis), cost.seconds, other)
            for other, cost in costs.items()
            if cost.seconds is not None
            and getattr(other, axis) < size
            and other.within(cell)
            and sum(getattr(other, name) != getattr(cell, name) for name in _GROWTH) == 1
        )
        if not line:
            continue
        near, seconds, source = line[-1]
        growth = assumed
        if len(line) > 1:
            before, earlier, _ = line[-2]
            growth = math.log(seconds / earlier) / math.log(near / before)
        growth = min(max(growth, 0.0), _STEEPEST)
        found.append((seconds * (size / near) ** growth, source))
    return min(found) if found else None


def predict_megabytes(cell: Cell, costs: Mapping[Cell, Cost]) -> tuple[float, Cell] | None:
    """Foretells memory from the largest smaller cell, in proportion to the trees' edges."""
    known = [
        (other.edges, other, cost.megabytes)
        for other, cost in costs.items()
        if cost.megabytes is not None
        and cost.megabytes >= _TELLING_MEGABYTES
        and other.within(cell)
    ]
    if not known:
        return None
    edges, source, megabytes = max(known)
    return megabytes * cell.edges / edges, source


def reason_to_skip(
    cell: Cell, costs: Mapping[Cell, Cost], *, budget_seconds: float, limit_megabytes: float
) -> str | None:
    """Why one side should not even begin a cell, or None if it should.

    Args:
        cell: The cell.
        costs: What this side's earlier cells cost.
        budget_seconds: Of a cell on one side. It must hold the compilation, seen in the smaller
            cell, and three searches: the first, the one whose memory is read, one that is timed.
        limit_megabytes: Of memory.
    """
    for other in sorted(costs, key=lambda other: other.edges):
        if costs[other].over and other != cell and other.within(cell):
            return f"larger than {other.name}, which was over a limit: {costs[other].over}"
    seconds = predict_seconds(cell, costs)
    if seconds is not None:
        needed = costs[seconds[1]].first_seconds + 3 * seconds[0]
        if needed > budget_seconds:
            return (
                f"time: foretold {seconds[0]:.1f} s a search from {seconds[1].name}, {needed:.0f} "
                f"s with compilation and warm-up; the limit is {budget_seconds:g} s"
            )
    megabytes = predict_megabytes(cell, costs)
    if megabytes is not None and megabytes[0] > limit_megabytes:
        return (
            f"memory: foretold {megabytes[0]:.0f} MB from {megabytes[1].name}; the limit is "
            f"{limit_megabytes:.0f} MB"
        )
    return None

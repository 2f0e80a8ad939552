"""The cells of the planning-core benchmark."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.harness.worker import Json

ALGORITHMS = ("muzero", "gumbel")
BATCHES = (1, 16, 256, 1024)
ACTIONS = (6, 18, 64, 362)
SIMULATIONS = (16, 50, 200, 800)
# Of --quick: the headline's batch and a single tree, two budgets.
QUICK: dict[str, tuple[int, ...]] = {"batches": (1, 256), "actions": (18,), "simulations": (16, 50)}


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
        """The cell in a line."""
        return f"{self.algorithm} B{self.batch} A{self.actions} S{self.simulations}"

    def within(self, other: "Cell") -> bool:
        """Whether this cell is at most as large as another one of the same algorithm."""
        return self.algorithm == other.algorithm and all(
            getattr(self, axis) <= getattr(other, axis)
            for axis in ("batch", "actions", "simulations")
        )

    @classmethod
    def of(cls, row: Json) -> "Cell":
        """The cell that a row of results is about."""
        return cls(row["algorithm"], row["batch"], row["actions"], row["simulations"])


def choose_cells(
    algorithms: Sequence[str],
    batches: Sequence[int],
    actions: Sequence[int],
    simulations: Sequence[int],
) -> list[Cell]:
    """All combinations, each once, smaller trees first.

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


def reason_to_skip(cell: Cell, over: Mapping[Cell, str]) -> str | None:
    """Why a side should not begin a cell: a smaller one went over a limit."""
    for other in sorted(over, key=lambda other: other.edges):
        if other != cell and other.within(cell):
            return f"larger than {other.name}, which was over a limit: {over[other]}"
    return None

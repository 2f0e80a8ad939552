"""Several seeds of one benchmark, each run once, by one process or by several side by side.

Start the same command twice and each process takes the seeds that the other is not at: a seed is
locked while it runs, and the system takes the lock off a process that ends, however it ends. What
is finished is not done again. Whoever finds nothing left to do waits for the others, so that each
process ends with all seeds and writes the same results.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

Result = TypeVar("Result")


def each_seed(
    seeds: Sequence[int], folder: Path, work: Callable[[int], Result]
) -> dict[int, Result]:
    """Runs `work` for every seed and returns what each left, in the order of the seeds.

    Args:
        seeds: All that are wanted.
        folder: Where the locks lie; one a benchmark.
        work: Runs a seed, or reads what an earlier run of it has left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, Result] = {}
    for wait in (False, True):
        for seed in seeds:
            if seed not in found:
                with _locked(folder / f"seed-{seed}.lock", wait=wait) as mine:
                    if mine:
                        found[seed] = work(seed)
    return {seed: found[seed] for seed in seeds}


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds a lock; gives False where another process has it and `wait` is off."""
    with path.open("a") as file:
        mine = _take(file, wait=wait)
        try:
            yield mine
        finally:
            if mine:
                fcntl.flock(file, fcntl.LOCK_UN)


def _take(file: IO[str], *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True

"""Several seeds of one benchmark, each run once, by one process or by several side by side.

Start the same command twice and each process takes the seeds that the other does not run: a seed is
locked while it runs, and the system releases the lock of a process that ends. Finished seeds are
not run again. A process with nothing left to run waits for the others, so that each ends with all
seeds and writes the same results.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

Result = TypeVar("Result")


def each_seed(
    seeds: Sequence[int], folder: Path, work: Callable[[int], Result]
) -> dict[int, Result]:
    """Runs `work` for every seed and returns the results, in the order of the seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, Result] = {}
    for wait in (False, True):
        for seed in seeds:
            lock = FileLock(folder / f"seed-{seed}.lock")
            if seed in found:
                continue
            try:
                held = lock.acquire(blocking=wait)
            except Timeout:
                continue
            with held:
                found[seed] = work(seed)
    return {seed: found[seed] for seed in seeds}

"""Interleaved timing: sides take turns in rounds, and ratios are of times of the same round."""

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

CLOCKS = ("cpu", "wall")
Seconds = Mapping[str, float]
"""CPU and wall-clock seconds, by `CLOCKS`."""


def interleaved(sides: Collection[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Round and side, all sides in each round, in reverse order in every other round.

    Args:
        sides: By name. A side that is removed meanwhile is left out of the later rounds.
        rounds: How many.
    """
    for number in range(rounds):
        for side in list(sides)[:: -1 if number % 2 else 1]:
            yield number, side


def time_call(run: Callable[[], object]) -> dict[str, float]:
    """CPU and wall-clock seconds of one call; CPU seconds are of this process over all threads."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """How many times as long one side took: median and range over rounds."""
    return spread([a / b for a, b in zip(slower, faster, strict=True)])


def clock_ratios(slower: Sequence[Seconds], faster: Sequence[Seconds]) -> dict[str, dict]:
    """`paired_ratio` by CPU and by wall time."""
    return {
        clock: paired_ratio([one[clock] for one in slower], [one[clock] for one in faster])
        for clock in CLOCKS
    }

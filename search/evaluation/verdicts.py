"""What an interval decides, what many of them decide together, and how many seeds would decide.

A comparison gains where its interval lies above zero, loses where it lies below, and is undecided
elsewhere. Of twenty comparisons without any difference one is decided wrongly at 95 %, so a table
says how many it makes and which stand when all are asked at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from search.evaluation.intervals import SeedInterval
from search.evaluation.metrics import Interval, finite

Verdict = Literal["gains", "loses", "is undecided"]
_MOST_SEEDS = 10_000


def verdict(interval: Interval | None) -> Verdict | None:
    """What an interval of a difference decides; None where nothing was compared."""
    if interval is None:
        return None
    if interval.low > 0:
        return "gains"
    return "loses" if interval.high < 0 else "is undecided"


def holm(p_values: Sequence[float], *, level: float = 0.05) -> list[bool]:
    """Which of several hypotheses are rejected so that any false rejection has chance `level`.

    Source: Holm 1979.
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def count_verdicts(comparisons: Mapping[str, SeedInterval | None]) -> str:
    """A sentence for below a table: how many comparisons were made, and which stand together.

    Args:
        comparisons: each comparison's 95 % interval by its name; None where nothing was compared.
    """
    made = {name: value for name, value in comparisons.items() if value is not None}
    if not made:
        return "Nothing was compared."
    words = [verdict(value) for value in made.values()]
    stand = holm([value.p_value for value in made.values()])
    named = [name for name, stands in zip(made, stand, strict=True) if stands]
    together = ", ".join(named) if named else "none"
    return (
        f"{len(made)} comparison{'s' if len(made) > 1 else ''}, each at 95 %: "
        f"{words.count('gains')} gain, {words.count('loses')} lose, "
        f"{words.count('is undecided')} undecided. All asked at once (Holm's correction at 5 %), "
        f"these stand: {together}."
    )


def power(seeds: int, *, deviation: float, difference: float, confidence: float = 0.95) -> float:
    """Chance that Student's interval over so many seeds excludes zero.

    Args:
        seeds: S, at least 2.
        deviation: standard deviation of the seeds' means.
        difference: true difference.
        confidence: of the interval.
    """
    degrees = seeds - 1
    critical = float(stats.t.ppf((1 + confidence) / 2, degrees))
    distance = abs(difference) / deviation * seeds**0.5 if deviation > 0 else np.inf
    if distance > critical + 40:  # scipy's noncentral t overflows far out
        return 1.0
    above, below = (
        stats.nct.sf(critical, degrees, distance),
        stats.nct.cdf(-critical, degrees, distance),
    )
    return float(above + below)


def seeds_needed(
    pilot: ArrayLike, *, difference: float, chance: float = 0.8, confidence: float = 0.95
) -> int:
    """Seeds whose interval excludes zero with a given chance if the true difference is so large.

    The deviation is the pilot's, and of three seeds a rough guess: with it the answer is uncertain
    by a factor of several.

    Args:
        pilot: [S] differences of the seeds already run, S at least 2.
        difference: smallest difference worth deciding, in the same unit.
        chance: power aimed at, in (0, 1).
        confidence: of the interval.

    Returns:
        The smallest such number, at least 2; 10,000 where even that many are too few.

    Raises:
        ValueError: fewer than two pilot seeds, no difference, or a chance out of range.

    Source: the noncentral t, Johnson and Welch 1940.
    """
    means = finite(pilot, "pilot").ravel()
    if means.size < 2:
        raise ValueError(
            f"pilot holds {means.size} seed(s), required at least 2: one seed says nothing of how "
            "much seeds differ; run another"
        )
    if difference == 0 or not np.isfinite(difference):
        raise ValueError(f"difference is {difference}, required a finite number other than 0")
    if not 0 < chance < 1:
        raise ValueError(f"chance is {chance}, required inside (0, 1), such as 0.8")
    deviation = float(means.std(ddof=1))
    low, high = 1, 2  # too few; perhaps enough
    while power(high, deviation=deviation, difference=difference, confidence=confidence) < chance:
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            return _MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        enough = (
            power(middle, deviation=deviation, difference=difference, confidence=confidence)
            >= chance
        )
        low, high = (low, middle) if enough else (middle, high)
    return high


def describe_need(comparisons: Mapping[str, SeedInterval | None], *, difference: float) -> str:
    """A sentence on how many seeds would decide the comparisons that are undecided.

    Args:
        comparisons: each comparison's interval over seeds by its name.
        difference: smallest difference worth deciding.
    """
    undecided = [
        value
        for value in comparisons.values()
        if value is not None and verdict(value) == "is undecided" and len(value.by_seed) > 1
    ]
    if not undecided:
        return ""
    needed = sorted(seeds_needed(value.by_seed, difference=difference) for value in undecided)
    span = str(needed[0]) if needed[0] == needed[-1] else f"{needed[0]} to {needed[-1]}"
    return (
        f"Undecided: by the spread of these seeds, {span} seeds would decide a true difference of "
        f"{difference:g} in four of five tries (median {needed[len(needed) // 2]})."
    )

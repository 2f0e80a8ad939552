"""Significance of differences, correction for multiple comparisons, and power analysis.

A comparison gains where its interval lies above zero, loses where it lies below, and is undecided
elsewhere, and wherever what was sampled does not vary. Of twenty comparisons without any difference
one is decided wrongly at 95 %, so a table states how many it makes and which stand when all are
tested at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from prefsearch.statistics.intervals import Interval, finite
from prefsearch.statistics.seed_intervals import SeedInterval, equal_values

Verdict = Literal["gains", "loses", "is undecided"]
_MOST_SEEDS = 10_000
_FEW_SEEDS = 200  # with more the noncentral t and its average over the variance agree to 1e-4
_MIDPOINTS = (np.arange(400) + 0.5) / 400


def verdict(interval: Interval | None) -> Verdict | None:
    """Verdict of the interval of a difference; None without a comparison."""
    if interval is None:
        return None
    if isinstance(interval, SeedInterval) and interval.p_value == 1:
        return "is undecided"
    if interval.low > 0:
        return "gains"
    return "loses" if interval.high < 0 else "is undecided"


def holm(p_values: Sequence[float], *, level: float = 0.05) -> list[bool]:
    """Holm correction: which hypotheses are rejected at family-wise error rate `level`.

    Source: Holm 1979.
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def count_verdicts(comparisons: Mapping[str, SeedInterval | None]) -> str:
    """Table note: number of comparisons, and those significant after correction.

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
        f"{words.count('is undecided')} undecided. Significant after Holm's "
        f"correction at 5 %: {together}."
    )


def power(
    seeds: float,
    *,
    deviation: float,
    difference: float,
    confidence: float = 0.95,
    shared_error: float = 0.0,
    shared_degrees: float = np.inf,
) -> float:
    """Power: probability that the interval over so many seeds excludes zero.

    Args:
        seeds: S, at least 2; infinity gives the power that no number of seeds exceeds.
        deviation: standard deviation of the seeds' means, without what shared prompts bring.
        difference: true difference.
        confidence: of the interval.
        shared_error: standard error from the prompts that all seeds share, which more seeds do not
            lessen; the same in every repetition.
        shared_degrees: its degrees of freedom, the number of shared clusters less one.

    Source: the noncentral t, Johnson and Welch 1940; with shared prompts Howe's interval, whose
        seeds' part is averaged over the chi-square of its variance.
    """
    distance, degrees = abs(difference), seeds - 1
    quantile = (1 + confidence) / 2
    if shared_error == 0 and (np.isinf(seeds) or deviation == 0):
        return 1.0 if difference else 1 - confidence
    critical = float(stats.t.ppf(quantile, degrees))
    if shared_error == 0 and seeds <= _FEW_SEEDS:
        noncentral = distance / deviation * seeds**0.5
        if noncentral > critical + 40:  # scipy's noncentral t overflows far out
            return 1.0
        above = float(stats.nct.sf(critical, degrees, noncentral))
        below = float(stats.nct.cdf(-critical, degrees, noncentral))
        return above if np.isnan(below) else above + below  # too small to be computed
    own = deviation / seeds**0.5
    spread = np.ones(1) if np.isinf(seeds) else stats.chi2.ppf(_MIDPOINTS, degrees) / degrees  # [C]
    fixed = shared_error * float(stats.t.ppf(quantile, shared_degrees))
    half, error = np.hypot(fixed, critical * own * np.sqrt(spread)), np.hypot(shared_error, own)
    above = stats.norm.sf((half - distance) / error)
    return float((above + stats.norm.cdf((-half - distance) / error)).mean())


def upper_deviation(deviation: float, degrees: float, *, assurance: float = 0.8) -> float:
    """Upper confidence bound of a standard deviation that was estimated with so many degrees.

    Args:
        deviation: as estimated.
        degrees: of freedom.
        assurance: share of estimates whose bound is at least the truth.

    Source: the chi-square of a variance; its use for planning: Browne 1995.
    """
    return deviation * float(degrees / stats.chi2.ppf(1 - assurance, degrees)) ** 0.5


def seeds_needed(
    pilot: ArrayLike,
    *,
    difference: float,
    chance: float = 0.8,
    confidence: float = 0.95,
    assurance: float = 0.8,
    shared_error: float = 0.0,
    shared_degrees: float = np.inf,
) -> int | None:
    """Number of seeds needed to detect a difference with the given power.

    The deviation of three seeds is a rough guess, and seeds that are planned by it fall short of
    the chance more often than not. It is therefore taken at its upper confidence bound: the share
    `assurance` of pilots leads to numbers that have the chance or more.

    Args:
        pilot: [S] differences of the seeds already run, S at least 2.
        difference: smallest difference worth deciding, in the same unit.
        chance: power aimed at, in (0, 1).
        confidence: of the interval.
        assurance: confidence of the bounds of both parts of the error, in (0, 1).
        shared_error: standard error from prompts that the seeds share (`SeedInterval.shared_error`)
            and that further seeds would share as well; taken at its upper bound, too.
        shared_degrees: its degrees of freedom.

    Returns:
        The smallest such number, at least 2; 10,000 where even that many are too few; None where no
        number of seeds is enough, since the shared prompts alone are too few.

    Raises:
        ValueError: fewer than two pilot seeds or seeds without any spread, no difference, or a
            share out of range.

    Source: as of `power` and `upper_deviation`.
    """
    means = finite(pilot, "pilot").ravel()
    if means.size < 2:
        raise ValueError(
            f"pilot holds {means.size} seed(s), required at least 2: one seed says nothing of how "
            "much seeds differ; run another"
        )
    if equal_values(means):
        raise ValueError(
            f"pilot holds {means.size} seeds that are all {means[0]:g}, required at least two "
            "different ones: how much seeds differ is unknown; run more, or check that their seeds "
            "differ"
        )
    if difference == 0 or not np.isfinite(difference):
        raise ValueError(f"difference is {difference}, required a finite number other than 0")
    for name, share in (("chance", chance), ("confidence", confidence), ("assurance", assurance)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}, required inside (0, 1), such as 0.8")
    deviation = upper_deviation(float(means.std(ddof=1)), means.size - 1, assurance=assurance)
    shared = shared_error
    if np.isfinite(shared_degrees):
        shared = upper_deviation(shared_error, shared_degrees, assurance=assurance)

    def enough(seeds: float) -> bool:
        reached = power(
            seeds,
            deviation=deviation,
            difference=difference,
            confidence=confidence,
            shared_error=shared,
            shared_degrees=shared_degrees,
        )
        return reached >= chance

    if not enough(np.inf):
        return None
    low, high = 1, 2  # too few; perhaps enough
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            return _MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def describe_required_seeds(
    comparisons: Mapping[str, SeedInterval | None], *, difference: float
) -> str:
    """Describes how many seeds the inconclusive comparisons need.

    Where seeds share prompts, more of them on the same prompts lessen one part of the error alone;
    where the other part is too large for the difference, more prompts are required. No number is
    smaller than that of the seeds that were run, and none is given where these do not differ.

    Args:
        comparisons: each comparison's interval over seeds by its name.
        difference: smallest difference worth deciding.
    """
    undecided = [
        value
        for value in comparisons.values()
        if value is not None and verdict(value) == "is undecided" and len(value.by_seed) > 1
    ]
    known = [value for value in undecided if not value.equal_seeds]
    found = [(_seeds_for(value, difference=difference), len(value.by_seed)) for value in known]
    needed = sorted(max(seeds, run) for seeds, run in found if seeds is not None)
    notes: list[str] = []
    if needed:
        span = f"{needed[0]:,}" if needed[0] == needed[-1] else f"{needed[0]:,} to {needed[-1]:,}"
        notes.append(
            f"with the deviation between seeds at its upper 80 % confidence bound, {span} seeds "
            f"would decide a true difference of {difference:g} in four of five tries or more "
            f"(median {needed[len(needed) // 2]:,})"
        )
    if few := len(known) - len(needed):
        notes.append(
            f"for {_comparisons(few)} no number of seeds on the same prompts would decide a true "
            f"difference of {difference:g}: more prompts are needed"
        )
    if unknown := len(undecided) - len(known):
        notes.append(
            f"for {_comparisons(unknown)} the number of seeds needed is unknown, since the seeds "
            "run do not differ"
        )
    return f"Undecided: {'; '.join(notes)}." if notes else ""


def _seeds_for(value: SeedInterval, *, difference: float) -> int | None:
    return seeds_needed(
        value.by_seed,
        difference=difference,
        shared_error=value.shared_error,
        shared_degrees=max(1, value.shared - 1),
    )


def _comparisons(count: int) -> str:
    return f"{count} comparison{'s' if count > 1 else ''}"

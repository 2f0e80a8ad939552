"""Confidence intervals of binary outcomes and of their paired differences.

Student's t needs means that are nearly normal and a spread that was seen. Of values that are right
or wrong neither holds where one of the two is rare: twenty answers without a mistake have no
spread, and yet show little of the rate of mistakes. P is prompts, G clusters of prompts.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prefsearch.statistics.intervals import Interval, wilson_interval

Array = NDArray[np.float64]


def effective_clusters(labels: Sequence[Hashable]) -> float:
    """Effective number of clusters: P² / Σ size².

    It counts all prompts of a cluster as one, which is the safe side: where values hardly vary,
    how far prompts of one cluster agree cannot be estimated.

    Args:
        labels: [P] cluster of each prompt.

    Source: Kish 1965.
    """
    sizes: dict[Hashable, int] = {}
    for label in labels:
        sizes[label] = sizes.get(label, 0) + 1
    return len(labels) ** 2 / sum(size**2 for size in sizes.values())


def proportion_interval(
    values: Array, labels: Sequence[Hashable], *, confidence: float
) -> Interval:
    """Mean of binary values with Wilson's interval over the effective clusters.

    Args:
        values: [P], each 0 or 1.
        labels: [P] cluster of each.
        confidence: coverage aimed at, in (0, 1).
    """
    total = effective_clusters(labels)
    return wilson_interval(float(values.mean()) * total, total, confidence=confidence)


def difference_interval(
    values: Array, labels: Sequence[Hashable], *, confidence: float
) -> Interval:
    """Mean of paired differences of binary outcomes, with its interval.

    It is built of Wilson's intervals of the shares of 1 and of -1, whose distances from the shares
    are put together as standard errors of correlated shares are. It holds zero wherever the exact
    sign test does not reject. Where all values are 0 or 1 it holds Wilson's interval of their
    share, so it covers that, too.

    Args:
        values: [P], each -1, 0 or 1.
        labels: [P] cluster of each.
        confidence: coverage aimed at, in (0, 1).

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial
        proportions based on paired data", method 10 in spirit; half a prompt is added to each of
        the three outcomes in the correlation, which none of them may lack.
    """
    up, down = ((values == sign).astype(np.float64) for sign in (1, -1))
    better, worse = (
        proportion_interval(part, labels, confidence=confidence) for part in (up, down)
    )
    total = effective_clusters(labels)
    p, q = ((part.estimate * total + 0.5) / (total + 1.5) for part in (better, worse))
    # Shares that exclude each other are correlated negatively, which widens their difference.
    tie = math.sqrt(p * q / ((1 - p) * (1 - q)))

    def width(one: float, other: float) -> float:
        return math.sqrt(one**2 + other**2 + 2 * tie * one * other)

    estimate = better.estimate - worse.estimate
    low = estimate - width(better.estimate - better.low, worse.high - worse.estimate)
    high = estimate + width(better.high - better.estimate, worse.estimate - worse.low)
    if sign_test(values, labels) > 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(estimate, max(-1.0, low), min(1.0, high))


def sign_test(values: Array, labels: Sequence[Hashable]) -> float:
    """Two-sided p-value of the exact sign test over clusters.

    Args:
        values: [P], each -1, 0 or 1.
        labels: [P] cluster of each; a cluster counts once, with the sign of its sum.
    """
    sums: dict[Hashable, float] = {}
    for label, value in zip(labels, values, strict=True):
        sums[label] = sums.get(label, 0.0) + float(value)
    above, below = (sum(sign * total > 0 for total in sums.values()) for sign in (1, -1))
    return min(1.0, 2 * float(stats.binom.cdf(min(above, below), above + below, 0.5)))

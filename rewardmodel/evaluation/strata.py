"""Accuracy by subset, by the annotators' confidence, and by the model's own certainty.

Letters: P pairs, all with a better reply. An oriented margin is the better reply's score minus the
other's; `groups` are indices of prompts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefsearch.statistics.intervals import Interval
from rewardmodel.evaluation.clustered import Floats, Integers, clustered_accuracy

_MOST_VALUES = 12
_COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Stratum:
    """Accuracy over a part of the pairs.

    Attributes:
        name: A subset's name, a value, or a range such as `[0.2, 0.5]`.
        middle: Mean of the quantity that divides the pairs; None for names.
        pairs: How many.
        prompts: Distinct prompts among them.
        accuracy: Over them, a margin of 0 counting half.
    """

    name: str
    middle: float | None
    pairs: int
    prompts: int
    accuracy: Interval


@dataclass(frozen=True)
class SelectivePoint:
    """Accuracy on the pairs that the model is surest of.

    Attributes:
        coverage: Share of the pairs answered; pairs as sure as the last are answered, too.
        threshold: The least certainty among them.
        accuracy: Over them.
    """

    coverage: float
    threshold: float
    accuracy: Interval


@dataclass(frozen=True)
class RiskCoverage:
    """Accuracy against the share of pairs answered, surest first.

    Attributes:
        points: In order of growing coverage.
        area: Area under the curve of the error rate over coverage (AURC), lower is better; of a
            random certainty the error rate of all pairs.

    Source: El-Yaniv and Wiener 2010; Geifman et al. 2019 (the area).
    """

    points: tuple[SelectivePoint, ...]
    area: float


def by_name(names: Sequence[str], oriented: Floats, groups: Integers) -> tuple[Stratum, ...]:
    """Accuracy of each name's pairs, in order of the names' first appearance."""
    array = np.array(names, dtype=object)
    return tuple(
        _stratum(str(name), None, oriented, groups, array == name) for name in dict.fromkeys(names)
    )


def by_value(values: Floats, oriented: Floats, groups: Integers) -> tuple[Stratum, ...]:
    """Accuracy by a quantity [P]: each of at most 12 distinct values alone, more in five bins."""
    distinct = np.unique(values)
    if len(distinct) <= _MOST_VALUES:
        return tuple(
            _stratum(f"{value:g}", float(value), oriented, groups, values == value)
            for value in distinct
        )
    return by_quantile(values, oriented, groups)


def by_quantile(
    values: Floats, oriented: Floats, groups: Integers, *, bins: int = 5
) -> tuple[Stratum, ...]:
    """Accuracy by a quantity [P] in bins of about equal counts, equal values together."""
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    index = np.searchsorted(edges, values, side="left")
    strata: list[Stratum] = []
    for bin_index in np.unique(index):
        where = index == bin_index
        low, high = values[where].min(), values[where].max()
        middle = float(values[where].mean())
        strata.append(_stratum(f"[{low:.3g}, {high:.3g}]", middle, oriented, groups, where))
    return tuple(strata)


def risk_coverage(oriented: Floats, certainty: Floats, groups: Integers) -> RiskCoverage:
    """Accuracy where only the pairs of highest `certainty` [P] are answered."""
    order = np.argsort(-certainty, kind="stable")
    ranked = certainty[order]
    points: list[SelectivePoint] = []
    for coverage in _COVERAGES:
        threshold = float(ranked[math.ceil(coverage * len(ranked)) - 1])
        where = certainty >= threshold
        accuracy = clustered_accuracy(oriented[where], groups[where])
        point = SelectivePoint(float(where.mean()), threshold, accuracy)
        if not points or point.coverage > points[-1].coverage:
            points.append(point)
    wrong = 1.0 - ((oriented > 0) + 0.5 * (oriented == 0))
    # Equally sure pairs come in no order: each counts as their mean, so the area has none either.
    _, place = np.unique(certainty, return_inverse=True)
    wrong = (np.bincount(place, weights=wrong) / np.bincount(place))[place]
    errors = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    return RiskCoverage(tuple(points), float(errors.mean()))


def _stratum(
    name: str,
    middle: float | None,
    oriented: Floats,
    groups: Integers,
    where: NDArray[np.bool_],
) -> Stratum:
    return Stratum(
        name=name,
        middle=middle,
        pairs=int(where.sum()),
        prompts=len(np.unique(groups[where])),
        accuracy=clustered_accuracy(oriented[where], groups[where]),
    )

"""Confidence intervals of means over seeds, or over the prompts of a single seed.

A seed trains its own policy and reward model, and two prompts of one seed share them. So it is
seeds, not prompts, that are sampled independently: an interval over the prompts of all seeds
together treats S models as if they were S times P, and covers far less often than it claims. The
mean of one seed already holds the chance of its prompts, and the variance between the seeds' means
holds both. Student's t over these means is therefore all that is needed where each seed has
prompts of its own; where seeds share prompts, what the means have in common is added.

A resampling interval is of no use here: three seeds can be drawn with replacement in ten ways.

What does not vary has no interval. Seeds with equal means do not show how much other seeds would
differ: their p-value is 1, and they get the interval of one seed. Equal values of one seed decide
only where they are binary, whose spread is known from their mean; for other equal values
both ends are the estimate, the p-value is 1, and `scope` marks the interval as unknown.

Letters: S seeds, P prompts of a seed, G clusters of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from prefsearch.statistics.binary_outcomes import (
    difference_interval,
    proportion_interval,
    sign_test,
)
from prefsearch.statistics.intervals import Interval, finite

Array = NDArray[np.float64]
Kind = Literal["any", "share", "score"]
# Differences so much smaller than the values are rounding.
_ROUNDING, _TINY = 1e-10, 1e-12


@dataclass(frozen=True)
class SeedInterval(Interval):
    """Mean over seeds with its confidence interval and sample sizes.

    Attributes:
        by_seed: [S] each seed's own mean; the estimate is their mean, every seed weighing the same.
        prompts: [S] values under each seed.
        clusters: [S] independent groups of them; as many as prompts where no clusters are given.
        shared: clusters that several seeds have in common.
        standard_error: of the estimate.
        degrees: degrees of freedom of Student's t; where seeds share prompts, those of the t with
            the interval's width.
        item: what a value belongs to, in the plural: prompts, or games.
        between_error: the part of the standard error that comes from the seeds, and that more seeds
            lessen; 0 of one seed.
        shared_error: the part that comes from the clusters that seeds share, and that only more
            prompts lessen. The squares of both parts add up to that of the standard error, except
            where seeds do not differ.
        exact_p: p-value of the exact sign test, of one seed's differences of right and wrong; None
            elsewhere.
    """

    by_seed: tuple[float, ...]
    prompts: tuple[int, ...]
    clusters: tuple[int, ...]
    shared: int
    standard_error: float
    degrees: float
    item: str = "prompts"
    between_error: float = 0.0
    shared_error: float = 0.0
    exact_p: float | None = None

    def __str__(self) -> str:
        """Format as an interval, or as the estimate alone where the interval is unknown."""
        if self.unknown:
            return f"{self.estimate:.3g} [unknown]"
        return Interval.__str__(self)

    @property
    def equal_seeds(self) -> bool:
        """Whether there are several seeds, whose means do not differ."""
        return len(self.by_seed) > 1 and equal_values(np.array(self.by_seed))

    @property
    def unknown(self) -> bool:
        """Whether all values are equal, so that the spread is unknown."""
        return self.low == self.high

    @property
    def unit(self) -> str:
        """The unit of sampling: seeds, or prompts (or clusters of prompts) of one seed."""
        if len(self.by_seed) > 1:
            return "seeds"
        return self.item if self.clusters == self.prompts else f"clusters of {self.item}"

    @property
    def scope(self) -> str:
        """What was sampled, for a caption: "over 3 seeds of 48 prompts"."""
        grouped = self.clusters != self.prompts
        inside = f"{_span(self.prompts)} {self.item}"
        if grouped:
            inside += f" in {_span(self.clusters)} clusters"
        unknown = "; all values are equal, so the interval is unknown" if self.unknown else ""
        if len(self.by_seed) == 1:
            return f"over {inside} of one seed; nothing is known of other seeds{unknown}"
        if self.shared:
            inside += f", {self.shared} {'clusters' if grouped else self.item} in several seeds"
        if self.equal_seeds:
            unknown = f"; the seeds do not differ, and nothing is known of others{unknown}"
        return f"over {len(self.by_seed)} seeds of {inside}{unknown}"

    @property
    def p_value(self) -> float:
        """Two-sided, of the estimate's being zero; 1 where what was sampled does not vary."""
        if self.exact_p is not None:
            return self.exact_p
        if self.unknown or self.equal_seeds or self.standard_error == 0:
            return 1.0
        return float(2 * special.stdtr(self.degrees, -abs(self.estimate) / self.standard_error))


def interval_over_seeds(
    values: Sequence[ArrayLike],
    *,
    clusters: Sequence[Sequence[Hashable]] | None = None,
    item: str = "prompts",
    kind: Kind = "any",
    confidence: float = 0.95,
) -> SeedInterval:
    """Mean over seeds, with Student's interval over seeds, or of one seed over its prompts.

    For a difference give the differences of the same prompts. For a statistic that is no mean, give
    each seed's own as one value; `jackknife_values` gives values whose mean it is.

    With two seeds or more, the variance is that of the seeds' means, with S - 1 degrees of freedom.
    Seeds weigh the same whatever their number of prompts. Where clusters appear under several
    seeds, the mean covariance of two seeds' means is added, which the variance between the means
    cannot show; half the width is then the root of the sum of both parts' squares (Howe's sum,
    which is not narrower than it claims, as Satterthwaite's is with two or three seeds). Seeds
    whose means are equal get the widest interval that one of them has by itself, and p-value 1.

    With one seed the interval is over its clusters, with G - 1 degrees of freedom; it does not
    cover other seeds, and `scope` states that. Of binary values it is not
    Student's; see `kind`.

    Args:
        values: S arrays [P], each the values of one seed; P may differ.
        clusters: S sequences [P] of labels. Prompts of one label are no independent samples (one
            prompt in other words); the same label under several seeds is the same cluster.
            None: every prompt is a cluster of its own, and no two seeds share one.
        item: what a value belongs to, in the plural.
        kind: "share", shares of right answers: of one seed whose values are all 0 or 1 the interval
            is Wilson's. "score", numbers of any size, of which 0 and 1 are no special ones. "any",
            as found: of one seed whose values are all -1, 0 or 1 the interval is that of a
            difference of right and wrong, which covers a share, too, but may go below 0.
        confidence: coverage aimed at, in (0, 1).

    Raises:
        ValueError: no seed, a seed without values, one seed with fewer than two clusters, labels
            that do not fit the values, a value that is not finite, or `confidence` out of range.

    Source: Student 1908; one seed: the ratio estimator over clusters, Cochran 1977, chapter 6;
        where seeds share prompts: Howe 1974; binary values: `binary_outcomes`.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, required inside (0, 1), such as 0.95")
    arrays = [finite(array, f"values[{s}]").ravel() for s, array in enumerate(values)]
    if not arrays or not all(array.size for array in arrays):
        raise ValueError(
            f"found {[array.size for array in arrays]} {item} by seed, required at least one seed "
            f"and at least one of the {item} under each"
        )
    labels = _labels(arrays, clusters)
    sizes = tuple(len(set(named)) for named in labels)
    means = np.array([array.mean() for array in arrays])  # [S]
    shared, common, between = 0, 0.0, 0.0
    if len(arrays) == 1 and sizes[0] < 2:
        raise ValueError(
            f"found {arrays[0].size} {item} in {sizes[0]} cluster under one seed: an interval "
            f"needs at least 2 independent {item}, or at least 2 seeds; evaluate more"
        )
    if len(arrays) > 1 and clusters is not None:
        common, shared = _common_variance(arrays, labels)
    if equal_values(means):  # as the mean of one seed is
        alone = [
            _over_prompts(array, named, kind=kind, confidence=confidence)
            for array, named in zip(arrays, labels, strict=True)
        ]
        width = max(alone, key=lambda one: one.above + one.below)
    else:
        between = float(means.var(ddof=1)) / len(arrays)
        width = _over_means(between, len(arrays), common, shared, confidence=confidence)
    estimate = float(means.mean())
    return SeedInterval(
        estimate,
        estimate - width.below,
        estimate + width.above,
        by_seed=tuple(float(mean) for mean in means),
        prompts=tuple(array.size for array in arrays),
        clusters=sizes,
        shared=shared,
        standard_error=width.error,
        degrees=width.degrees,
        item=item,
        between_error=float(np.sqrt(between)),
        shared_error=float(np.sqrt(common)),
        exact_p=width.exact_p if len(arrays) == 1 else None,
    )


class _Width(NamedTuple):
    """Distances of both ends of an interval from the estimate, and the standard error."""

    below: float
    above: float
    error: float
    degrees: float
    exact_p: float | None = None


def _over_prompts(
    array: Array, labels: Sequence[Hashable], *, kind: Kind, confidence: float
) -> _Width:
    """The interval of one seed over its clusters of prompts; none where it has but one."""
    groups = len(set(labels))
    if groups < 2:
        return _Width(0.0, 0.0, 0.0, 0.0)
    sums = np.array(list(_cluster_sums(array, labels).values()))  # [G]
    equal = equal_values(array)
    error = 0.0 if equal else float(np.sqrt(sums @ sums * groups / (groups - 1)))
    known = {"any": (-1.0, 0.0, 1.0), "share": (0.0, 1.0), "score": ()}[kind]
    if not np.isin(array, known).all():
        half = error * _student((1 + confidence) / 2, groups - 1)
        return _Width(half, half, error, groups - 1.0)
    if kind == "share":
        exact, found = None, proportion_interval(array, labels, confidence=confidence)
    else:
        found = difference_interval(array, labels, confidence=confidence)
        exact = sign_test(array, labels)
        if equal and exact > 1 - confidence:
            exact = 1.0
    below, above = found.estimate - found.low, found.high - found.estimate
    return _Width(below, above, error, groups - 1.0, exact)


def _over_means(
    between: float, seeds: int, common: float, shared: int, *, confidence: float
) -> _Width:
    """The interval over seeds, from both parts of the variance of the mean of their means."""
    quantile = (1 + confidence) / 2
    degrees = float(seeds - 1)
    error = float(np.sqrt(between + common))
    half = float(np.sqrt(between)) * _student(quantile, degrees)
    if common > 0:
        width = float(np.sqrt(common)) * _student(quantile, max(1, shared - 1))
        half = float(np.hypot(half, width))
        degrees = _degrees_of(half / error, quantile, degrees, float(max(1, shared - 1)))
    return _Width(half, half, error, degrees)


def seed_interval_from(value: Mapping[str, Any]) -> SeedInterval:
    """Rebuilds an interval from its JSON form; unknown keys are ignored.

    Older files name the standard error alone. Its parts follow from the seeds' means.
    """
    known = {field.name: value[field.name] for field in fields(SeedInterval) if field.name in value}
    for name in ("by_seed", "prompts", "clusters"):
        known[name] = tuple(known[name])
    if "between_error" not in known and len(known["by_seed"]) > 1:
        between = float(np.var(known["by_seed"], ddof=1)) / len(known["by_seed"])
        known["between_error"] = float(np.sqrt(between))
        if known["shared"]:
            rest = max(0.0, known["standard_error"] ** 2 - between)
            known["shared_error"] = float(np.sqrt(rest))
    return SeedInterval(**known)


def jackknife_values(statistic: Callable[[Array], ArrayLike], columns: ArrayLike) -> Array:
    """Values [P] of one seed whose mean is a smooth statistic of its means, prompt by prompt.

    A statistic of means, such as a score read off a curve at a mean cost, moves with the costs as
    well as with the scores; the spread of these values is how much.

    Args:
        statistic: of means [..., K] to numbers [...], such as a curve read at a point.
        columns: [P, K] what the means are of.

    Returns:
        [P]; the statistic of all prompts plus P - 1 times what leaving each one out takes away.

    Source: the jackknife, Tukey 1958; Efron and Tibshirani 1993, chapter 11.
    """
    array = finite(columns, "columns")
    prompts = array.shape[0]
    whole = float(np.asarray(statistic(array.mean(axis=0)[None]))[0])
    if prompts < 2:
        return np.array([whole])
    left = np.asarray(statistic((array.sum(axis=0) - array) / (prompts - 1)), dtype=np.float64)
    return whole + (prompts - 1) * (left.mean() - left)


def equal_values(values: Array) -> bool:
    """Whether values differ by no more than rounding."""
    return float(np.ptp(values)) <= _ROUNDING * float(np.abs(values).max()) + _TINY


def _labels(
    arrays: Sequence[Array], clusters: Sequence[Sequence[Hashable]] | None
) -> list[list[Hashable]]:
    """A label for every value; its own where none were given."""
    if clusters is None:
        return [list(range(array.size)) for array in arrays]
    found, wanted = [len(named) for named in clusters], [array.size for array in arrays]
    if found != wanted:
        raise ValueError(
            f"clusters has {found} labels by seed and values {wanted} entries: give every value "
            "the label of its cluster"
        )
    return [list(named) for named in clusters]


def _cluster_sums(array: Array, labels: Sequence[Hashable]) -> dict[Hashable, float]:
    """Contribution of each cluster to the deviation of a seed's mean."""
    sums: dict[Hashable, float] = {}
    for label, deviation in zip(labels, (array - array.mean()) / array.size, strict=True):
        sums[label] = sums.get(label, 0.0) + float(deviation)
    return sums


def _common_variance(
    arrays: Sequence[Array], labels: Sequence[Sequence[Hashable]]
) -> tuple[float, int]:
    """Mean covariance of two seeds' means, from the clusters they share, and how many these are.

    Var(mean of means) = E[between / S] + mean covariance: where seeds share nothing the first term
    is all, and where they share prompts the second is what those prompts have brought to each.
    """
    seen: dict[Hashable, int] = {}
    for named in labels:
        for label in set(named):
            seen[label] = seen.get(label, 0) + 1
    shared = {label for label, times in seen.items() if times > 1}
    if not shared:
        return 0.0, 0
    sums = [_cluster_sums(array, named) for array, named in zip(arrays, labels, strict=True)]
    products = 0.0
    for label in shared:
        here = np.array([found[label] for found in sums if label in found])
        products += float(here.sum() ** 2 - here @ here)
    pairs = len(arrays) * (len(arrays) - 1)
    covariance = products / pairs * len(seen) / max(1, len(seen) - 1)
    return max(0.0, covariance), len(shared)


def _student(quantile: float, degrees: float) -> float:
    """The quantile of Student's t."""
    return float(special.stdtrit(degrees, quantile))


def _degrees_of(ratio: float, quantile: float, few: float, many: float) -> float:
    """The degrees of freedom, between `few` and `many`, at which the quantile of t is `ratio`."""
    low, high = sorted((few, many))

    def excess(degrees: float) -> float:
        return _student(quantile, degrees) - ratio

    if excess(low) <= 0 or excess(high) >= 0:
        return low if excess(low) <= 0 else high
    return float(optimize.root_scalar(excess, bracket=(low, high)).root)


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"

"""Intervals over seeds, then over prompts: how far a measured mean may be from that of new runs.

A seed trains its own policy and reward model, and two prompts of one seed share them. So it is
seeds, not prompts, that are sampled independently: an interval over the prompts of all seeds
together treats S models as if they were S times P, and covers far less often than it claims. The
mean of one seed already holds the chance of its prompts, and the variance between the seeds' means
holds both. Student's t over these means is therefore all that is needed where each seed has
prompts of its own; where seeds share prompts, what the means have in common is added.

A resampling interval is of no use here: three seeds can be drawn with replacement in ten ways.

Letters: S seeds, P prompts of a seed, G clusters of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from search.evaluation.metrics import Interval, finite

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SeedInterval(Interval):
    """The mean of the seeds' means, its interval, and what was sampled.

    Attributes:
        by_seed: [S] each seed's own mean; the estimate is their mean, every seed weighing the same.
        prompts: [S] values under each seed.
        clusters: [S] independent groups of them; as many as prompts where nothing was said.
        shared: clusters that several seeds have in common.
        standard_error: of the estimate.
        degrees: degrees of freedom of Student's t; where seeds share prompts, those of the t with
            the interval's width.
        item: what a value belongs to, in the plural: prompts, or games.
    """

    by_seed: tuple[float, ...]
    prompts: tuple[int, ...]
    clusters: tuple[int, ...]
    shared: int
    standard_error: float
    degrees: float
    item: str = "prompts"

    __str__ = Interval.__str__

    @property
    def unit(self) -> str:
        """What the interval is over: seeds, or the prompts (or clusters of prompts) of one."""
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
        if len(self.by_seed) == 1:
            return f"over {inside} of one seed; nothing is known of other seeds"
        if self.shared:
            inside += f", {self.shared} {'clusters' if grouped else self.item} in several seeds"
        return f"over {len(self.by_seed)} seeds of {inside}"

    @property
    def p_value(self) -> float:
        """Two-sided, of the estimate's being zero; 0 or 1 where no value differs from the next."""
        if self.standard_error == 0:
            return float(self.estimate == 0)
        return float(2 * special.stdtr(self.degrees, -abs(self.estimate) / self.standard_error))


def interval_over_seeds(
    values: Sequence[ArrayLike],
    *,
    clusters: Sequence[Sequence[Hashable]] | None = None,
    item: str = "prompts",
    confidence: float = 0.95,
) -> SeedInterval:
    """Mean over seeds, with Student's interval over seeds, or of one seed over its prompts.

    For a difference give the differences of the same prompts. For a statistic that is no mean, give
    each seed's own as one value; `jackknife_values` gives values whose mean it is.

    With two seeds or more, the variance is that of the seeds' means, with S - 1 degrees of freedom.
    Seeds weigh the same whatever their number of prompts. Where clusters appear under several
    seeds, the mean covariance of two seeds' means is added, which the variance between the means
    cannot show; half the width is then the root of the sum of both parts' squares (Howe's sum,
    which is not narrower than it claims, as Satterthwaite's is with two or three seeds).

    With one seed the interval is over its clusters, with G - 1 degrees of freedom, and `scope` says
    that nothing is known of other seeds.

    Args:
        values: S arrays [P], each the values of one seed; P may differ.
        clusters: S sequences [P] of labels. Prompts of one label are no independent samples (one
            prompt in other words, say); the same label under several seeds is the same cluster.
            None: every prompt is a cluster of its own, and no two seeds share one.
        item: what a value belongs to, in the plural.
        confidence: coverage aimed at, in (0, 1).

    Raises:
        ValueError: no seed, a seed without values, one seed with fewer than two clusters, labels
            that do not fit the values, a value that is not finite, or `confidence` out of range.

    Source: Student 1908; one seed: the ratio estimator over clusters, Cochran 1977, chapter 6;
        where seeds share prompts: Howe 1974.
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
    quantile = (1 + confidence) / 2
    shared, common = 0, 0.0
    if len(arrays) == 1:
        if sizes[0] < 2:
            raise ValueError(
                f"found {arrays[0].size} {item} in {sizes[0]} cluster under one seed: an interval "
                f"needs at least 2 independent {item}, or at least 2 seeds; evaluate more"
            )
        sums = np.array(list(_cluster_sums(arrays[0], labels[0]).values()))  # [G]
        variance = float(sums @ sums) * sizes[0] / (sizes[0] - 1)
        degrees = float(sizes[0] - 1)
    else:
        variance = float(means.var(ddof=1)) / len(arrays)
        degrees = float(len(arrays) - 1)
        if clusters is not None:
            common, shared = _common_variance(arrays, labels)
    error = float(np.sqrt(variance + common))
    half = float(np.sqrt(variance)) * _student(quantile, degrees)
    if common > 0:
        width = float(np.sqrt(common)) * _student(quantile, max(1, shared - 1))
        half = float(np.hypot(half, width))
        degrees = _degrees_of(half / error, quantile, degrees, float(max(1, shared - 1)))
    estimate = float(means.mean())
    return SeedInterval(
        estimate,
        estimate - half,
        estimate + half,
        by_seed=tuple(float(mean) for mean in means),
        prompts=tuple(array.size for array in arrays),
        clusters=sizes,
        shared=shared,
        standard_error=error,
        degrees=degrees,
        item=item,
    )


def seed_interval_from(value: Mapping[str, Any]) -> SeedInterval:
    """An interval that went through JSON; what is beside its fields is left out."""
    known = {field.name: value[field.name] for field in fields(SeedInterval) if field.name in value}
    for name in ("by_seed", "prompts", "clusters"):
        known[name] = tuple(known[name])
    return SeedInterval(**known)


def jackknife_values(statistic: Callable[[Array], ArrayLike], columns: ArrayLike) -> Array:
    """Values [P] of one seed whose mean is a smooth statistic of its means, prompt by prompt.

    A statistic of means, such as a score read off a curve at a mean cost, moves with the costs as
    well as with the scores; the spread of these values says by how much.

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
    """What each cluster adds to the deviation of a seed's mean."""
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

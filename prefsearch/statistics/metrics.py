"""Metrics of one model with intervals over prompts: means, best-of-n, pass@k, calibration.

The unit of sampling is the prompt, since responses to one prompt are not independent; for intervals
over training seeds see `intervals`. P is prompts, S seeds, N responses in a prompt's pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Resampled means are made in blocks of this many drawn values, to bound memory at 32 MB.
_BLOCK_VALUES = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, all three in the estimate's unit."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format as `estimate [low, high]`, to two digits of the interval's width."""
        width = self.high - self.low
        if not (math.isfinite(width) and width > 0):
            return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"
        decimals = min(12, max(0, 1 - math.floor(math.log10(width))))
        values = (self.estimate, self.low, self.high)
        # Adding zero turns a rounded -0.0 into 0.0.
        estimate, low, high = (f"{round(v, decimals) + 0.0:.{decimals}f}" for v in values)
        return f"{estimate} [{low}, {high}]"


def bootstrap_interval(
    values: ArrayLike, *, seed: int, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap of the mean over prompts.

    With seeds, every resample holds each seed equally often (stratified), and a drawn prompt
    brings its values under all seeds. Drawing prompts apart for each seed would treat the same
    prompt's values as independent and give intervals that are too narrow. The interval is over
    prompts, given these seeds: for other seeds use
    `intervals.interval_over_seeds`.

    Args:
        values: [P], or [S, P] with column p the same prompt under each seed.
        seed: of the resampling.
        confidence: coverage aimed at, in (0, 1).
        resamples: number of bootstrap means.

    Raises:
        ValueError: fewer than two prompts, a value that is not finite, or an argument out of range.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile interval).
    """
    array = finite(values, "values")
    if array.ndim not in (1, 2):
        raise ValueError(f"values has shape {list(array.shape)}, required [P] or [S, P]")
    prompts = array.shape[-1]
    if prompts < 2 or not array.size:
        raise ValueError(
            f"values has shape {list(array.shape)}: an interval over prompts needs at least 2 "
            "prompts under at least one seed; evaluate more"
        )
    per_prompt: Array = array if array.ndim == 1 else array.mean(axis=0)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, required at least 1")
    tail = _tail(confidence)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_VALUES // prompts)
    means = np.concatenate(
        [
            per_prompt[
                generator.integers(prompts, size=(min(block, resamples - done), prompts))
            ].mean(axis=1)
            for done in range(0, resamples, block)
        ]
    )
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(per_prompt.mean()), float(low), float(high))


def wilson_interval(successes: float, total: float, *, confidence: float = 0.95) -> Interval:
    """A proportion with its Wilson score interval, sound for small samples and near 0 and 1.

    `successes` may be fractional where a tie counts half; the interval is then slightly wide.
    `total` may be where samples are clustered: their effective number.

    Raises:
        ValueError: `total` is below 1 or `successes` is outside [0, total].

    Source: Wilson 1927.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(
            f"found {successes} successes of {total}, required total >= 1 and 0 <= successes <= "
            "total"
        )
    z = NormalDist().inv_cdf(1 - _tail(confidence))
    rate = min(1.0, successes / total)
    scale = 1.0 + z * z / total
    center = (rate + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    # At 0 and at `total` the bound equals the rate; rounding must not put it on the wrong side.
    return Interval(rate, max(0.0, min(rate, center - half)), min(1.0, max(rate, center + half)))


def best_of_n_expectation(proxy: ArrayLike, metric: ArrayLike, n: int) -> Array:
    """Unbiased estimate of the metric of best-of-n, from a pool of N >= n responses.

    The expectation is over all subsets of n from the pool, ties for the best broken at random:
    with the pool sorted by proxy, `sum_i C(i-1, n-1) / C(N, n) * metric_(i)`, the metric averaged
    inside proxy ties. Any metric takes the same weights: gold, length, accuracy, the proxy itself.

    Args:
        proxy: [P, N] scores that choose.
        metric: [P, N] what is reported of the chosen.
        n: responses among which the proxy chooses, 1 <= n <= N.

    Returns:
        [P] expectations, in the metric's unit.

    Raises:
        ValueError: the shapes differ or are not [P, N], a value is not finite, or n is out of
            range.

    Source: Nakano et al. 2021 (WebGPT), the unbiased estimator that Gao et al. 2022 also use; the
    averaging inside ties is ours.
    """
    scores, values = finite(proxy, "proxy"), finite(metric, "metric")
    if scores.ndim != 2 or scores.shape != values.shape:
        raise ValueError(
            f"proxy has shape {list(scores.shape)} and metric {list(values.shape)}, required the "
            "same [P, N]"
        )
    prompts, pool = scores.shape
    if not 1 <= n <= pool:
        raise ValueError(
            f"n is {n} and each pool holds {pool} responses: required 1 <= n <= {pool}; draw more"
        )
    order = np.argsort(scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    # Number the groups of equal scores over the whole batch; a new prompt starts a new group.
    starts = np.ones((prompts, pool), dtype=bool)
    starts[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    group = np.cumsum(starts.ravel()) - 1  # [P * N]
    means = np.bincount(group, weights=values.ravel()) / np.bincount(group)
    all_subsets = _log_choose(pool, n)
    weights = np.array(
        [math.exp(_log_choose(i - 1, n - 1) - all_subsets) for i in range(n, pool + 1)]
    )  # [N - n + 1], zero below rank n
    weights /= weights.sum()  # they sum to one but for lgamma's rounding
    return means[group].reshape(prompts, pool)[:, n - 1 :] @ weights


def pass_at_k(correct: ArrayLike, k: int, *, total: int | None = None) -> Array:
    """Unbiased estimate of pass@k, from a pool of N >= k responses.

    The share of all subsets of k that hold a correct one: `1 - C(N-c, k) / C(N, k)` where c are
    correct, as a product of ratios, so nothing overflows. `1 - (1 - c/N)^k` would be biased.

    Args:
        correct: [P, N] whether each response is correct, as booleans or 0 and 1; with `total`, [P]
            how many are.
        k: responses tried, 1 <= k <= N.
        total: N, where `correct` holds counts.

    Returns:
        [P] probabilities.

    Raises:
        ValueError: the shape is wrong, an entry is no 0 or 1 (no whole number up to `total`), or k
            is out of range.

    Source: Chen et al. 2021 (Codex), equation 1.
    """
    array = finite(correct, "correct")
    if array.ndim != (2 if total is None else 1):
        raise ValueError(
            f"correct has shape {list(array.shape)}, required [P, N], or [P] counts with total=N"
        )
    size, most = (array.shape[1], 1) if total is None else (total, total)
    if not 1 <= k <= size:
        raise ValueError(
            f"k is {k} and each pool holds {size} responses: required 1 <= k <= {size}; draw more"
        )
    wrong = (array < 0) | (array > most) | (array != np.floor(array))
    if wrong.any():
        where = np.unravel_index(int(np.argmax(wrong)), array.shape)
        raise ValueError(
            f"correct{[int(i) for i in where]} is {array[where]:g}, required "
            + ("0 or 1" if total is None else f"a whole number in [0, {total}]")
            + "; turn scores into right and wrong first"
        )
    counts = (array.sum(axis=1) if total is None else array).astype(np.int64)
    # All k are wrong: one factor 1 - k/i for each i in (N - c, N]; it is 0 from i = k down.
    ratios = np.maximum(0.0, 1.0 - k / np.arange(size, 0, -1))
    all_wrong = np.concatenate([[1.0], np.cumprod(ratios)])  # [N + 1], by the number correct
    return 1.0 - all_wrong[counts]


def best_of_n_kl(n: int) -> float:
    """KL divergence of best-of-n from the policy it samples: `ln n - (n - 1) / n`, in nats.

    Exact for continuous scores without ties; otherwise an upper bound, so report distinct
    candidates and ties beside it.

    Raises:
        ValueError: n is below 1.

    Source: Stiennon et al. 2020 (the formula); Beirami et al. 2024 (that it is a bound).
    """
    if n < 1:
        raise ValueError(f"n is {n}, required at least 1")
    return math.log(n) - (n - 1) / n


def accuracy_from_margins(margins: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Pairwise accuracy of a reward model; a tie counts half.

    Args:
        margins: [P] score of the preferred response minus score of the other.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        The Wilson interval; it takes pairs as independent, so give one pair a prompt.

    Raises:
        ValueError: there is no pair, or a margin is not finite.
    """
    array = finite(margins, "margins").ravel()
    if not array.size:
        raise ValueError("found no margins, required at least one pair")
    successes = float((array > 0).sum() + 0.5 * (array == 0).sum())
    return wilson_interval(successes, array.size, confidence=confidence)


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10
) -> float:
    """Expected calibration error over equal-width bins.

    Present every pair in a random order: if the preferred response always comes first, each
    outcome is 1 and calibration below one half is never tested.

    Args:
        probabilities: [P] in [0, 1], that the outcome is 1.
        outcomes: [P] in [0, 1]; one half for a tie.
        bins: equal-width bins of [0, 1]; the last includes 1.

    Raises:
        ValueError: the shapes differ or are empty, a number is outside [0, 1], or bins is below 1.

    Source: Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    stated, seen = finite(probabilities, "probabilities"), finite(outcomes, "outcomes")
    if stated.ndim != 1 or stated.shape != seen.shape or not stated.size:
        raise ValueError(
            f"probabilities has shape {list(stated.shape)} and outcomes {list(seen.shape)}, "
            "required the same [P] with P >= 1"
        )
    for name, array in (("probabilities", stated), ("outcomes", seen)):
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"{name} spans [{array.min():g}, {array.max():g}], required inside [0, 1]; apply "
                "a sigmoid to score margins first"
            )
    if bins < 1:
        raise ValueError(f"bins is {bins}, required at least 1")
    index = np.minimum((stated * bins).astype(np.int64), bins - 1)
    # Each bin's gap times its share of the pairs: |sum of (seen - stated)| / P.
    gaps = np.bincount(index, weights=seen - stated, minlength=bins)
    return float(np.abs(gaps).sum() / stated.size)


def _log_choose(total: int, chosen: int) -> float:
    """Log of the binomial coefficient."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, required inside (0, 1), such as 0.95")
    return (1.0 - confidence) / 2.0


def finite(
    values: ArrayLike,
    name: str,
    *,
    remedy: str = "drop or repair the failed entries before averaging",
) -> Array:
    """Convert to float64; raises on NaN and infinities."""
    array = np.asarray(values, dtype=np.float64)
    known = np.isfinite(array)
    if not known.all():
        where = np.unravel_index(int(np.argmin(known)), array.shape)
        raise ValueError(
            f"{name}{[int(i) for i in where] if where else ''} is {array[where]}, required finite: "
            f"{remedy}"
        )
    return array

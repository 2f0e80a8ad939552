"""Best-of-n and pass@k estimated from a pool of N responses a prompt; P is prompts."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefsearch.statistics.intervals import finite

Array = NDArray[np.float64]


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


def _log_choose(total: int, chosen: int) -> float:
    """Log of the binomial coefficient."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)

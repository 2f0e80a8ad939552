"""Curves of score over cost, read and compared at equal cost.

L is budgets of a curve, P prompts, M costs at which it is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from prefsearch.statistics.intervals import jackknife_values
from prefsearch.statistics.metrics import Array, Interval, finite, paired_difference


def interpolate_at(cost: ArrayLike, score: ArrayLike, at: ArrayLike) -> Array:
    """Read each prompt's curve of score over log cost at a given cost.

    Args:
        cost: [L] positive and strictly increasing, such as generated tokens.
        score: [P, L] each prompt's score at each cost.
        at: cost or costs [M] at which to read, inside [cost[0], cost[-1]].

    Returns:
        [P] for one cost, [P, M] for several.

    Raises:
        ValueError: the shapes disagree, the costs are not positive and increasing, or `at` lies
            outside their range: a curve is not extrapolated.
    """
    costs, scores, wanted = finite(cost, "cost"), finite(score, "score"), finite(at, "at")
    if costs.ndim != 1 or scores.ndim != 2 or scores.shape[1] != costs.shape[0] or not costs.size:
        raise ValueError(
            f"cost has shape {list(costs.shape)} and score {list(scores.shape)}, required [L] and "
            "[P, L]"
        )
    if wanted.ndim > 1:
        raise ValueError(f"at has shape {list(wanted.shape)}, required one cost or [M]")
    if costs[0] <= 0 or bool((np.diff(costs) <= 0).any()):
        raise ValueError(f"cost is {costs.tolist()}, required positive and strictly increasing")
    outside = wanted[(wanted < costs[0]) | (wanted > costs[-1])]
    if outside.size:
        raise ValueError(
            f"cost {float(outside.flat[0]):g} lies outside the measured range "
            f"[{costs[0]:g}, {costs[-1]:g}]: choose a cost inside it, or run more budgets"
        )
    points, x = np.log(costs), np.log(np.atleast_1d(wanted))
    read = np.empty((scores.shape[0], x.shape[0]))  # [P, M]
    for prompt, row in enumerate(scores):
        read[prompt] = np.interp(x, points, row)
    return read[:, 0] if wanted.ndim == 0 else read


def shared_cost_range(*costs: ArrayLike) -> tuple[float, float]:
    """Return the lowest and highest cost that every one of several curves [L] covers.

    Raises:
        ValueError: no curve was given, or there is no such cost.
    """
    curves = [finite(cost, "cost") for cost in costs]
    if not curves:
        raise ValueError("found no curve, required at least one")
    low = max(float(c.min()) for c in curves)
    high = min(float(c.max()) for c in curves)
    if low > high:
        ranges = ", ".join(f"[{c.min():g}, {c.max():g}]" for c in curves)
        raise ValueError(f"the cost ranges {ranges} do not overlap: run budgets that do")
    return low, high


def difference_at_equal_cost(
    a: tuple[ArrayLike, ArrayLike],
    b: tuple[ArrayLike, ArrayLike],
    at: Sequence[float],
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> list[Interval]:
    """Mean of `a - b` over the same prompts at each of several equal costs.

    The intervals are each for one cost; they are not simultaneous.

    Args:
        a: (cost [L], score [P, L]) of one method.
        b: (cost [L'], score [P, L']) of the other, for the same prompts in the same order.
        at: costs [M] at which to compare; `shared_cost_range` says which are allowed.
        seed: of the resampling; the same prompts are drawn at each cost.
        confidence: coverage aimed at, in (0, 1).
        resamples: number of bootstrap means.

    Returns:
        One interval a cost, M in all.

    Raises:
        ValueError: a cost lies outside either curve's range, or the prompts differ in number.
    """
    first, second = interpolate_at(*a, np.asarray(at)), interpolate_at(*b, np.asarray(at))
    return [
        paired_difference(x, y, seed=seed, confidence=confidence, resamples=resamples)
        for x, y in zip(first.T, second.T, strict=True)
    ]


def gain_at_equal_cost(
    cost: ArrayLike, score: ArrayLike, curve_cost: ArrayLike, curve_score: ArrayLike
) -> Array | None:
    """Score of a method above a curve at the method's own mean cost, of one seed.

    The curve is read between its mean costs over the log of cost. The gain is no mean of the
    prompts' gains, since all costs are means over prompts, too; so what comes back are values whose
    mean is the gain and whose spread holds the costs' as well (`intervals.jackknife_values`).

    Args:
        cost: [P] what each prompt cost the method.
        score: [P] what it reached.
        curve_cost: [P, L] the same of the curve's budgets, for the same prompts, in any order of L.
        curve_score: [P, L].

    Returns:
        [P], or None where the method's mean cost lies outside the curve's: it is not extrapolated.

    Raises:
        ValueError: the shapes disagree, a value is not finite, or two budgets have one mean cost.
    """
    spent, reached = finite(cost, "cost"), finite(score, "score")
    costs, scores = finite(curve_cost, "curve_cost"), finite(curve_score, "curve_score")
    if spent.ndim != 1 or reached.shape != spent.shape or costs.shape != scores.shape:
        raise ValueError(
            f"found shapes {list(spent.shape)}, {list(reached.shape)}, {list(costs.shape)} and "
            f"{list(scores.shape)}, required [P], [P], [P, L] and [P, L]"
        )
    if costs.ndim != 2 or costs.shape[0] != spent.shape[0]:
        raise ValueError(
            f"the curve has shape {list(costs.shape)} and the method {list(spent.shape)}: compare "
            "the same prompts"
        )
    order = np.argsort(costs.mean(axis=0), kind="stable")
    costs, scores = costs[:, order], scores[:, order]
    budgets = costs.shape[1]
    if not costs[:, 0].mean() <= spent.mean() <= costs[:, -1].mean():
        return None
    interpolate_at(costs.mean(axis=0), scores.mean(axis=0)[None], spent.mean())  # checks the curve

    def gain(means: Array) -> Array:  # [..., 2 + 2L]
        return np.array(
            [
                row[1] - np.interp(np.log(row[0]), np.log(row[2 : 2 + budgets]), row[2 + budgets :])
                for row in means
            ]
        )

    return jackknife_values(gain, np.column_stack([spent, reached, costs, scores]))

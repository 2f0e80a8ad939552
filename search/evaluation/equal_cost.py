"""Gains over a reference curve at equal cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefsearch.statistics.intervals import finite
from prefsearch.statistics.seed_intervals import jackknife_values

Array = NDArray[np.float64]


def gain_at_equal_cost(
    cost: ArrayLike, score: ArrayLike, curve_cost: ArrayLike, curve_score: ArrayLike
) -> Array | None:
    """Score of a method above a curve at the method's own mean cost, of one seed.

    The curve is interpolated between its mean costs over the log of cost. Since costs are means
    over prompts, too, the gain is not a mean of gains by prompt: the values returned are jackknife
    values, whose mean is the gain and whose spread includes that of the costs
    (`seed_intervals.jackknife_values`).

    Args:
        cost: [P] what each prompt cost the method.
        score: [P] what it reached.
        curve_cost: [P, L] the same of the curve's budgets, for the same prompts, in any order of L.
        curve_score: [P, L].

    Returns:
        [P], or None where the method's mean cost is outside the curve's range: no extrapolation.

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
    means = costs.mean(axis=0)
    if means[0] <= 0 or bool((np.diff(means) <= 0).any()):
        raise ValueError(f"cost is {means.tolist()}, required positive and strictly increasing")

    def gain_of(means: Array) -> Array:  # [..., 2 + 2L]
        found: list[float] = []
        rows: list[Array] = list(means)
        for row in rows:
            curve, score = np.log(row[2 : 2 + budgets]), row[2 + budgets :]
            found.append(float(row[1] - np.interp(np.log(row[0]), curve, score)))  # pyright: ignore
        return np.array(found)

    return jackknife_values(gain_of, np.column_stack([spent, reached, costs, scores]))

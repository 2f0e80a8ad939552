"""Combining the scores of an ensemble's members, or of a response's steps.

A response that one reward model overrates is less often overrated by all, so best-of-N and policy
optimization against a conservative combination exploit a reward model's errors less.

Source: Coste et al. 2023 (https://arxiv.org/abs/2310.02743): worst-case optimization (minimum) and
uncertainty-weighted optimization (mean minus lambda times the variance over members).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefsearch.config.checks import shown
from rewardmodel.choices import AGGREGATES, Aggregate, StepAggregate

if TYPE_CHECKING:  # the file of an ensemble is read without torch
    from torch import Tensor


def require_aggregate(aggregate: object) -> None:
    """Refuses an unknown aggregate.

    Raises:
        ValueError: Naming it.
    """
    if aggregate not in AGGREGATES:
        raise ValueError(
            f"aggregate: found {shown(aggregate)}; required: one of {', '.join(AGGREGATES)}"
        )


def combine(scores: Tensor, aggregate: Aggregate, *, weight: float = 1.0) -> Tensor:
    """Combines the scores of members [M, B] to [B].

    Args:
        scores: float [M, B], one row per member.
        aggregate: "mean"; "min"; or "mean_minus_std" or "mean_minus_variance", the mean minus
            `weight` times the standard deviation or the variance over members (divided by M, as in
            the paper, which takes the variance; the deviation, ours, keeps the scores' unit).
        weight: Of the deviation or variance; 0 is the mean.

    Raises:
        ValueError: If there is no such aggregate.
    """
    require_aggregate(aggregate)
    mean = scores.mean(0)
    if aggregate == "mean":
        return mean
    if aggregate == "min":
        return scores.amin(0)
    variance = (scores - mean).square().mean(0)
    return mean - weight * (variance if aggregate == "mean_minus_variance" else variance.sqrt())


def combine_steps(scores: Tensor, aggregate: StepAggregate) -> float:
    """The score of a response from its steps' [T]."""
    if aggregate == "last":
        return float(scores[-1])
    if aggregate == "product":
        return float(scores.prod())
    return float(scores.mean() if aggregate == "mean" else scores.amin())

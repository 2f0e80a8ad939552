"""Monotonic transforms of Q-values to scores that can be added to those of a policy.

Each takes the trees and one node a row, and returns `[B, A]`. The keyword options and their
defaults are mctx's; fix them with `functools.partial` before passing a transform to a planner.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from search.tree import Tree

QTransform: TypeAlias = Callable[[Tree, Tensor], Tensor]
"""`(tree, node_index [B] int64) -> [B, A]`."""


def qtransform_by_min_max(
    tree: Tree, node_index: Tensor, *, min_value: float, max_value: float
) -> Tensor:
    """Scales Q-values by bounds known beforehand.

    Args:
        tree: B trees.
        node_index: `[B]` int64, the node of each tree whose actions are scored.
        min_value: Q-value that scores 0, also given to unvisited actions.
        max_value: Q-value that scores 1.

    Returns:
        `[B, A]`, `(q - min_value) / (max_value - min_value)`.

    Raises:
        ValueError: If the bounds are not in order.

    Source: Schrittwieser et al. 2020 (MuZero), Appendix B, for environments of known bounds.
    """
    if not max_value > min_value:
        raise ValueError(
            f"qtransform_by_min_max: found min_value {min_value} and max_value {max_value}; "
            "required a min_value below max_value. Pass the least and the greatest return there is."
        )
    visited = tree.pick(tree.children_visits, node_index) > 0
    qvalues = tree.qvalues(node_index)
    qvalues = torch.where(visited, qvalues, torch.full_like(qvalues, min_value))
    return (qvalues - min_value) / (max_value - min_value)


def qtransform_by_parent_and_siblings(
    tree: Tree, node_index: Tensor, *, epsilon: float = 1e-8
) -> Tensor:
    """Scales Q-values by the least and greatest of the node's own value and its visited actions'.

    Args:
        tree: B trees.
        node_index: `[B]` int64, the node of each tree whose actions are scored.
        epsilon: Least denominator of the normalization.

    Returns:
        `[B, A]` in [0, 1]; unvisited actions score 0.

    Source: Schrittwieser et al. 2020 (MuZero), Appendix B, equation 5, with the bounds taken over
    one node's neighborhood instead of the whole tree, as mctx does.
    """
    visited = tree.pick(tree.children_visits, node_index) > 0
    qvalues = tree.qvalues(node_index)
    node_value = tree.pick(tree.node_values, node_index).unsqueeze(-1)  # [B, 1]
    known = torch.where(visited, qvalues, node_value)
    low = torch.minimum(node_value, known.amin(dim=-1, keepdim=True))
    high = torch.maximum(node_value, known.amax(dim=-1, keepdim=True))
    span = (high - low).clamp_min(least_span(epsilon, qvalues.dtype))
    return (torch.where(visited, qvalues, low) - low) / span


def qtransform_completed_by_mix_value(
    tree: Tree,
    node_index: Tensor,
    *,
    value_scale: float = 0.1,
    maxvisit_init: float = 50.0,
    rescale_values: bool = True,
    use_mixed_value: bool = True,
    epsilon: float = 1e-8,
) -> Tensor:
    """Completes the Q-values of unvisited actions and scales them against log-probabilities.

    Args:
        tree: B trees.
        node_index: `[B]` int64, the node of each tree whose actions are scored.
        value_scale: c_scale of the paper.
        maxvisit_init: c_visit of the paper.
        rescale_values: Whether to bring the completed Q-values to [0, 1] first.
        use_mixed_value: Complete with the mix of raw value and visited Q-values; else raw value.
        epsilon: Least denominator of the rescaling.

    Returns:
        `[B, A]`, `(maxvisit_init + max visits) * value_scale * completed Q`. Invalid actions are
        completed like unvisited ones and take part in the rescaling, as at mctx's root; their
        scores must be masked by the caller.

    Source: Danihelka et al. 2022 (Gumbel MuZero), equations 8 (scale) and 10 (completion),
    Appendix D equation 33 (mixed value).
    """
    visit_counts = tree.pick(tree.children_visits, node_index)
    qvalues = tree.qvalues(node_index)
    value = tree.pick(tree.raw_values, node_index)
    if use_mixed_value:
        prior = torch.softmax(tree.pick(tree.children_prior_logits, node_index), dim=-1)
        value = mixed_value(value, qvalues, visit_counts=visit_counts, prior=prior)
    completed = torch.where(visit_counts > 0, qvalues, value.unsqueeze(-1))
    if rescale_values:
        low = completed.amin(dim=-1, keepdim=True)
        high = completed.amax(dim=-1, keepdim=True)
        completed = (completed - low) / (high - low).clamp_min(least_span(epsilon, low.dtype))
    max_visits = visit_counts.amax(dim=-1, keepdim=True).to(completed.dtype)
    return (maxvisit_init + max_visits) * value_scale * completed


def least_span(epsilon: float, dtype: torch.dtype) -> float:
    """The least denominator in a dtype: an epsilon rounded to 0 would divide 0 by 0."""
    return max(epsilon, torch.finfo(dtype).tiny)


def mixed_value(
    raw_value: Tensor, qvalues: Tensor, *, visit_counts: Tensor, prior: Tensor
) -> Tensor:
    """Mixes the model's value of a node with the prior-weighted Q-values of its visited actions.

    Args:
        raw_value: `[B]`.
        qvalues: `[B, A]`, read only where visited.
        visit_counts: `[B, A]` int64.
        prior: `[B, A]` probabilities.

    Returns:
        `[B]`, `(raw + n * weighted) / (1 + n)` with n the sum of visits.

    Source: Danihelka et al. 2022 (Gumbel MuZero), Appendix D, equation 33.
    """
    visited = visit_counts > 0
    # A visited action may have prior 0 in floating point; the weights must still sum to one.
    weights = prior.clamp_min(torch.finfo(prior.dtype).tiny).masked_fill(~visited, 0.0)
    total = weights.sum(dim=-1, keepdim=True)
    weights = weights / torch.where(total > 0, total, torch.ones_like(total))
    # Relative to the raw value, so that equal values stay equal and others keep their order.
    gains = (qvalues - raw_value.unsqueeze(-1)).masked_fill(~visited, 0.0)
    num_visits = visit_counts.sum(dim=-1).to(raw_value.dtype)
    return raw_value + (weights * gains).sum(dim=-1) * (num_visits / (num_visits + 1))

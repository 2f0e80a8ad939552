"""Selection rules: which action a simulation takes at a node.

Each rule is a frozen dataclass of its numbers, called as `(tree, node_index [B] int64) -> action
[B] int64`: always a valid action of that node, ties to the lowest index; -1 where a score is NaN,
which ends the search with an error. The compiled forms of the same rules
(`search.backends.numba_kernels`, `search.backends.triton_kernels`) are tested against these.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import NoReturn, TypeAlias

import torch
from torch import Tensor

from search.halving import score_considered
from search.qtransforms import QTransform
from search.tree import Tree, mask_logits

ActionSelection: TypeAlias = Callable[[Tree, Tensor], Tensor]
"""`(tree, node_index [B] int64) -> action [B] int64`, always a valid action of that node, or -1."""


def masked_argmax(scores: Tensor, valid_actions: Tensor) -> Tensor:
    """The valid action of highest score, ties to the lowest index: two `[B, A]` to `[B]` int64."""
    return scores.masked_fill(~valid_actions, -torch.inf).argmax(dim=-1)


def select_highest(scores: Tensor, valid_actions: Tensor) -> Tensor:
    """`masked_argmax` for rules: -1 (`Tree.NONE`) where a score is NaN, or the highest not finite.

    Comparisons with such numbers are arbitrary, so no action is chosen.
    """
    # NaN counts as the greatest.
    best = scores.masked_fill(~valid_actions, -torch.inf).max(dim=-1)
    return best.indices.masked_fill(~torch.isfinite(best.values), Tree.NONE)


def require_scores(good: Tensor, dtype: torch.dtype) -> None:
    """Raises unless `good` `[B]` bool holds in every row; see `raise_no_score`.

    One host synchronization; none while a CUDA graph is captured, which has no numbers yet.

    Raises:
        ValueError: See `raise_no_score`.
    """
    if good.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    if not bool(good.all()):
        raise_no_score(dtype, row=int((~good).nonzero()[0, 0]))


def raise_no_score(dtype: torch.dtype, *, row: int) -> NoReturn:
    """Raises the error of a search in which a score or a return is not finite.

    Args:
        dtype: The floats of the tree.
        row: The tree.

    Raises:
        ValueError: Always, with what was found, what is required and the remedy.
    """
    raise ValueError(
        f"search, row {row}: found a return or an action's score that is no finite {dtype}; "
        "required rewards, values, noise and settings whose sums, differences and scaled values "
        "this dtype can hold. Scale rewards and values down, check the numbers of the Q-transform "
        "and of the planner, or let the model return torch.float64."
    )


@dataclass(frozen=True)
class PuctSelection:
    """MuZero's rule: the greatest transformed Q-value plus prior bonus.

    With n the node's visits, p the prior and m the action's visits the bonus is
    `p * sqrt(n) / (1 + m) * (c1 + log((n + c2 + 1) / c2))`. As in mctx, n counts the node's own
    first visit too, so the prior orders the very first choice.

    Attributes:
        qtransform: Brings Q-values to [0, 1].
        pb_c_init: c1.
        pb_c_base: c2.

    Source: Schrittwieser et al. 2020 (MuZero), Appendix B.
    """

    qtransform: QTransform
    _: KW_ONLY
    pb_c_init: float = 1.25
    pb_c_base: float = 19652

    def __call__(self, tree: Tree, node_index: Tensor) -> Tensor:
        """Chooses an action of one node a row."""
        node = (tree.rows, node_index)
        prior = torch.softmax(tree.children_prior_logits[node], dim=-1)
        visits = tree.node_visits[node].to(prior.dtype).unsqueeze(-1)  # [B, 1]
        pb_c = self.pb_c_init + torch.log((visits + self.pb_c_base + 1.0) / self.pb_c_base)
        bonus = visits.sqrt() * pb_c * prior / (tree.children_visits[node] + 1)
        return select_highest(self.qtransform(tree, node_index) + bonus, tree.valid_actions[node])


@dataclass(frozen=True)
class EfficientZeroSelection:
    """EfficientZero's rule: PUCT with Q-values scaled over the whole tree.

    It differs from `PuctSelection` in three things. Q-values are scaled by the least and greatest
    of all visited edges of the tree (by at least `value_delta_max`, and clipped to [0, 1]; not
    scaled while these are equal). An unvisited action takes the mean Q-value of its visited
    siblings, which below the root includes the parent's such mean as one more sibling. And n
    counts visits of children only, so that the bonus of a fresh node is 0 for every action.

    Deviation from the authors' code: ties go to the lowest index, there to a random one.

    Attributes:
        value_delta_max: Least denominator of the scaling.
        pb_c_init: c1.
        pb_c_base: c2.

    Source: Ye et al. 2021 (EfficientZero), and the tree published with it.
    """

    value_delta_max: float = 0.01
    _: KW_ONLY
    pb_c_init: float = 1.25
    pb_c_base: float = 19652

    def __call__(self, tree: Tree, node_index: Tensor) -> Tensor:
        """Chooses an action of one node a row."""
        node = (tree.rows, node_index)
        visits = tree.children_visits[node]
        unvisited_q = mean_sibling_qvalue(tree, node_index).unsqueeze(-1)
        qvalues = torch.where(visits > 0, tree.qvalues(node_index), unvisited_q)
        edges = tree.children_rewards + tree.children_discounts * tree.children_values  # [B, N, A]
        unvisited = tree.children_visits == 0
        low = edges.masked_fill(unvisited, torch.inf).amin(dim=(1, 2)).unsqueeze(-1)
        high = edges.masked_fill(unvisited, -torch.inf).amax(dim=(1, 2)).unsqueeze(-1)
        scaled = (qvalues - low) / (high - low).clamp_min(self.value_delta_max)
        scores = torch.where(high > low, scaled, qvalues).clamp(0.0, 1.0)
        prior = torch.softmax(tree.children_prior_logits[node], dim=-1)
        total = visits.sum(dim=-1, keepdim=True).to(prior.dtype)
        pb_c = self.pb_c_init + torch.log((total + self.pb_c_base + 1.0) / self.pb_c_base)
        bonus = total.sqrt() * pb_c * prior / (visits + 1)
        return select_highest(scores + bonus, tree.valid_actions[node])


def mean_sibling_qvalue(tree: Tree, node_index: Tensor) -> Tensor:
    """The Q-value EfficientZero gives unvisited actions: `[B]` int64 to `[B]`.

    The mean of the visited actions' Q-values; below the root, the parent's mean takes part as one
    more; 0 at a root without visits.
    """
    visited = tree.children_visits[tree.rows, node_index] > 0
    total = tree.qvalues(node_index).masked_fill(~visited, 0.0).sum(dim=-1)
    count = visited.sum(dim=-1)
    parent = tree.parents[tree.rows, node_index]
    below = parent != Tree.NONE
    # Host synchronization a level: the recursion ends where all rows have reached their root.
    if bool(below.any()):
        above = mean_sibling_qvalue(tree, parent.clamp_min(0))
        total = total + above.masked_fill(~below, 0.0)
        count = count + below
    return total / count.clamp_min(1)


@dataclass(frozen=True)
class HalvingSelection:
    """Gumbel MuZero's rule at the root: Sequential Halving by Gumbel, logit and Q-value.

    Attributes:
        qtransform: Completes and scales Q-values.
        gumbel: `[B, A]`, scaled noise, the same throughout a search.
        schedule: `[B, num_simulations]` int64, the visit count considered at each simulation.
        kept_visits: `[B, A]` int64, visits of the root in an earlier search; halving
            counts only those that came since. None where there are none.

    Source: Danihelka et al. 2022, Algorithm 2.
    """

    qtransform: QTransform
    _: KW_ONLY
    gumbel: Tensor
    schedule: Tensor
    kept_visits: Tensor | None = None

    def __call__(self, tree: Tree, node_index: Tensor) -> Tensor:
        """Chooses an action of the roots (`node_index` is all 0)."""
        node = (tree.rows, node_index)
        visit_counts = tree.children_visits[node]
        if self.kept_visits is not None:
            visit_counts = visit_counts - self.kept_visits
        # The root's new visits sum to the number of simulations done: no counter is needed.
        considered = self.schedule[tree.rows, visit_counts.sum(dim=-1)]
        scores = score_considered(
            considered,
            self.gumbel,
            logits=tree.children_prior_logits[node],
            qvalues=self.qtransform(tree, node_index),
            visit_counts=visit_counts,
        )
        return select_highest(scores, tree.valid_actions[node])


@dataclass(frozen=True)
class ImprovedPolicySelection:
    """Gumbel MuZero's rule below the root: the action furthest behind the improved policy.

    Attributes:
        qtransform: Completes and scales Q-values.

    Source: Danihelka et al. 2022, Section 5, equation 14.
    """

    qtransform: QTransform

    def __call__(self, tree: Tree, node_index: Tensor) -> Tensor:
        """Chooses an action of one node a row."""
        node = (tree.rows, node_index)
        valid = tree.valid_actions[node]
        logits = tree.children_prior_logits[node]
        improved = improve_policy(logits, self.qtransform(tree, node_index), valid_actions=valid)
        visits = tree.children_visits[node].to(improved.dtype)
        return select_highest(improved - visits / (1 + visits.sum(dim=-1, keepdim=True)), valid)


def improve_policy(logits: Tensor, qvalues: Tensor, *, valid_actions: Tensor) -> Tensor:
    """Gumbel MuZero's improved policy: the softmax of masked logits plus transformed Q-values.

    All are `[B, A]`. Logits are first shifted to at most 0, which leaves a softmax unchanged:
    far from 0 they have no digits left for Q-values.

    Source: Danihelka et al. 2022, equation 11.
    """
    logits = logits - logits.amax(dim=-1, keepdim=True)
    return torch.softmax(mask_logits(logits + qvalues, valid_actions), dim=-1)


@dataclass(frozen=True)
class StochasticSelection:
    """Stochastic MuZero's rule: decisions by PUCT, chance outcomes by quota.

    Actions 0..D-1 are decisions, all others chance outcomes; a node offers one kind or the other.
    At a chance node the outcome with the greatest `p / (1 + m)` is next, so that visits follow the
    outcomes' probabilities without sampling.

    Attributes:
        decision: The rule at decision nodes; it is given actions 0..D-1 only.
        num_decisions: D.

    Source: Antonoglou et al. 2022 (Stochastic MuZero), Section 4; the quota as in mctx.
    """

    decision: PuctSelection
    num_decisions: int

    def __call__(self, tree: Tree, node_index: Tensor) -> Tensor:
        """Chooses an action or an outcome of one node a row."""
        node = (tree.rows, node_index)
        chance = slice_actions(tree, slice(self.num_decisions, None))
        prior = torch.softmax(chance.children_prior_logits[node], dim=-1)
        quota = prior / (chance.children_visits[node] + 1)
        outcome = select_highest(quota, chance.valid_actions[node])
        outcome = torch.where(outcome < 0, outcome, outcome + self.num_decisions)
        action = self.decision(slice_actions(tree, slice(0, self.num_decisions)), node_index)
        return torch.where(chance.valid_actions[node].any(dim=-1), outcome, action)


def slice_actions(tree: Tree, actions: slice) -> Tree:
    """The same trees with a range of their actions only (views, nothing is copied)."""
    names = (
        "children_index",
        "children_prior_logits",
        "children_visits",
        "children_rewards",
        "children_discounts",
        "children_values",
        "valid_actions",
    )
    return replace(tree, **{name: getattr(tree, name)[..., actions] for name in names})

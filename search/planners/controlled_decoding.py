"""Controlled decoding: one step of lookahead, and the optimal policy under a KL penalty.

With tokens as actions this is value-guided decoding; with sampled segments or whole responses, a
soft best-of-N.
"""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from search.model import PlanningModel, evaluate_root
from search.planners.base import SearchOutput, release_output, require_float, require_int
from search.planners.level_search import build_tree, evaluate_root_actions
from search.planners.muzero import sample_by_visits
from search.tree import Tree


@dataclass(frozen=True)
class ControlledDecodingPlanner:
    """Tries the likeliest root actions once and reweights the prior by their values.

    The `num_simulations` valid root actions of highest prior, ties to the lowest index, take one
    step in one call. With p the prior over all valid actions, Q = reward + discount * value and
    b = `kl_weight`, `action_weights` are the distribution pi over the tried actions T that
    maximizes `sum_a pi(a) Q(a) - b * KL(pi || p)`, which is

        pi(a) = p(a) exp(Q(a) / b) / sum_{t in T} p(t) exp(Q(t) / b),

    and 0 elsewhere. `value` is the maximum so reached, the regularized value

        b * log(sum_{t in T} p(t) exp(Q(t) / b)),

    which is not the mean of Q under pi but that mean less b * KL(pi || p), and so at most the
    greatest Q. Where not all valid actions were tried, no pi over T is closer to p than
    -log p(T), and the value pays b times that: it can only grow with the budget. As b goes to 0,
    pi becomes best-of-N's choice and the value the greatest Q. As b grows, pi becomes the prior
    over T, and the value, with all tried, the prior's mean of Q. A discount of -1 (two players) is
    fine, as only the root's player chooses.

    In the tree (depth one) column k holds the row's k-th tried action in order; every child has one
    visit and the root 1 + the number tried. The root's `node_values` is `value`, and
    N = 1 + the most actions that any row tried, at most `num_simulations` + 1.

    Attributes:
        num_simulations: The most actions tried at each root, at least 1.
        kl_weight: b, above 0, in units of Q: a gain of b outweighs a prior e times smaller.
        temperature: Of `action` alone: 0 takes the action of greatest weight, ties to the lowest
            index; otherwise it is sampled by `action_weights ** (1 / temperature)`, 1 being the
            optimum itself.

    Raises:
        ValueError: If a number is out of its range.

    Source: Mudgal et al. 2023 (Controlled Decoding, arXiv 2310.17022), Theorem 2.1, with
    b = 1 / lambda; the restriction to tried actions is ours.
    """

    num_simulations: int
    _: KW_ONLY
    kl_weight: float = 0.1
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_int(owner, "num_simulations", self.num_simulations, minimum=1)
        require_float(owner, "kl_weight", self.kl_weight, above=True)
        require_float(owner, "temperature", self.temperature)

    def plan(
        self, model: PlanningModel, observation: object, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Plans from each observation; see `search.planners.base.Planner.plan`."""
        with torch.inference_mode():
            root = evaluate_root(model, observation, generator=generator)
            tree = build_tree(
                root,
                evaluate_root_actions(
                    model,
                    root,
                    root.valid_actions,
                    num_simulations=self.num_simulations,
                    generator=generator,
                ),
            )
            dtype = tree.raw_values.dtype
            weights, value = kl_regularized_policy(
                tree.summary().qvalues,
                root.prior_logits,
                valid_actions=root.valid_actions,
                tried=tree.children_index[:, Tree.ROOT] != Tree.NONE,
                kl_weight=self.kl_weight,
            )
            tree.node_values[:, Tree.ROOT] = value.to(dtype)
            action = sample_by_visits(weights, temperature=self.temperature, generator=generator)
        return release_output(action, weights.to(dtype), value.to(dtype), tree)


def kl_regularized_policy(
    qvalues: Tensor,
    prior_logits: Tensor,
    *,
    valid_actions: Tensor,
    tried: Tensor,
    kl_weight: float,
) -> tuple[Tensor, Tensor]:
    """The policy over tried actions of greatest mean Q less its KL divergence from the prior.

    Args:
        qvalues: `[B, A]`, read where tried.
        prior_logits: `[B, A]`, read where valid.
        valid_actions: `[B, A]` bool, what the prior is normalized over.
        tried: `[B, A]` bool, valid actions, at least one a row.
        kl_weight: Price of one nat of divergence, above 0.

    Returns:
        The weights `[B, A]`, 0 where not tried, and the regularized values `[B]`, both float64.
    """
    # In double precision: a small weight magnifies differences of Q, a large one all rounding.
    logits = prior_logits.double().masked_fill(~valid_actions, -torch.inf)
    log_prior = torch.log_softmax(logits, dim=-1)
    qvalues = qvalues.double().masked_fill(~tried, -torch.inf)
    best = qvalues.amax(dim=-1, keepdim=True)  # [B, 1]
    # At most 0, and -inf where not tried: what a small weight makes huge becomes a weight of 0.
    gain = (qvalues - best) / kl_weight
    scores = log_prior + gain
    # With E over the prior, log E[exp(gain)] = log1p(E[expm1(gain)]), which keeps the digits of a
    # mean near 1, as a large weight makes it; far from 1 the usual form keeps more.
    below_one = (log_prior.exp() * torch.expm1(gain)).sum(dim=-1)
    log_mean = torch.where(
        below_one > -0.5, torch.log1p(below_one), torch.logsumexp(scores, dim=-1)
    )
    return torch.softmax(scores, dim=-1), best.squeeze(-1) + kl_weight * log_mean

"""Gumbel MuZero: Sequential Halving at the root, the improved policy at all other nodes."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from search.backends.dispatch import Backend
from search.halving import considered_visits_table, score_considered
from search.mcts import grow_trees, require_search_numbers
from search.model import PlanningModel, check_root_form
from search.planners.base import (
    SearchOutput,
    release_output,
    require_float,
    require_int,
    require_noise,
)
from search.qtransforms import QTransform, qtransform_completed_by_mix_value
from search.reuse import replace_roots
from search.selection import (
    HalvingSelection,
    ImprovedPolicySelection,
    improve_policy,
    require_scores,
    select_highest,
)
from search.tree import Tree, mask_logits


@dataclass(frozen=True)
class GumbelMuZeroPlanner:
    """Plans with Gumbel MuZero's search; with noise off, its trees equal those of mctx.

    `action_weights` are the improved policy, softmax of logits plus completed Q-values, and
    `value` is the root's mean return. The action is the best by Gumbel, logit and Q-value of the
    most visited ones, ties to the lowest index; so is mctx's. Deviations from mctx: nodes that
    nothing can follow are not searched below (see `run_mcts`); actions may be invalid at every
    node; sums are taken in another order, so that in float32 last bits differ.

    Attributes:
        num_simulations: The budget, at least 1.
        max_depth: Most edges between root and leaf; None for no limit.
        qtransform: Completes and scales Q-values to be added to logits.
        max_num_considered_actions: Actions in the first round at the root, at least 1.
        gumbel_scale: Weight of the Gumbel noise; 0 plans without noise.
        leaves_per_step: Leaves of each tree that one call of the model expands (see `run_mcts`);
            more than 1 pays where the model is large and the trees are few. The actions that one
            round of halving considers are independent of each other.
        backend: Which form of the search loop runs: "auto" takes the fastest there is.

    Raises:
        ValueError: If a number is out of its range.

    Source: Danihelka et al. 2022, "Policy improvement by planning with Gumbel", Algorithm 2
    (root), Section 5 equation 14 (other nodes), equation 11 (improved policy).
    """

    num_simulations: int
    _: KW_ONLY
    max_depth: int | None = None
    qtransform: QTransform = qtransform_completed_by_mix_value
    max_num_considered_actions: int = 16
    gumbel_scale: float = 1.0
    leaves_per_step: int = 1
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_search_numbers(
            owner, self.num_simulations, self.max_depth, self.leaves_per_step, self.backend
        )
        require_int(owner, "max_num_considered_actions", self.max_num_considered_actions, minimum=1)
        require_float(owner, "gumbel_scale", self.gumbel_scale)

    def plan(
        self,
        model: PlanningModel,
        observation: object,
        *,
        generator: torch.Generator | None = None,
        root_gumbel: Tensor | None = None,
        kept: Tree | None = None,
    ) -> SearchOutput:
        """Searches from each observation; see `search.planners.base.Planner.plan`.

        Args:
            model: The planning model.
            observation: Passed to `model.root`.
            generator: Source of the Gumbel noise and of the model's randomness.
            root_gumbel: `[B, A]` standard Gumbel noise to use in place of drawn noise (for tests).
            kept: Subtrees to reuse, of `search.reuse.keep_subtree`. Sequential Halving counts
                new simulations only; values and the improved policy use all.

        Returns:
            The decision, with its tree.

        Raises:
            ValueError: If the model's outputs break the contract, the noise has another shape, or
                a score or a return is not finite.
        """
        with torch.inference_mode():
            root = model.root(observation, generator=generator)
            check_root_form(root, model.num_actions)  # its numbers are checked by grow_trees
            valid, num_actions = root.valid_actions, root.valid_actions.shape[1]
            logits = mask_logits(root.prior_logits, valid)
            if root_gumbel is not None:
                require_noise(
                    type(self).__name__,
                    "root_gumbel",
                    root_gumbel,
                    valid=valid,
                    good=lambda noise: torch.isfinite(noise).all(dim=-1),
                    required="finite noise where valid_actions is True",
                )
            elif self.gumbel_scale > 0:
                root_gumbel = sample_gumbel(logits, generator=generator)
            else:
                root_gumbel = torch.zeros_like(logits)
            gumbel = self.gumbel_scale * root_gumbel.to(logits)
            table = considered_visits_table(
                min(self.max_num_considered_actions, num_actions),
                self.num_simulations,
                device=logits.device,
            )
            num_considered = valid.sum(dim=-1).clamp_max(table.shape[0] - 1)  # [B]
            kept = None if kept is None else replace_roots(kept, root)
            kept_visits = None if kept is None else kept.children_visits[:, Tree.ROOT]
            tree = grow_trees(
                model,
                root,
                num_simulations=self.num_simulations,
                root_action_selection=HalvingSelection(
                    self.qtransform,
                    gumbel=gumbel,
                    schedule=table[num_considered],  # [B, num_simulations]
                    kept_visits=kept_visits,
                ),
                interior_action_selection=ImprovedPolicySelection(self.qtransform),
                max_depth=self.max_depth,
                leaves_per_step=self.leaves_per_step,
                kept=kept,
                backend=self.backend,
                generator=generator,
            )
            qvalues = self.qtransform(tree, tree.roots)
            # Rows with fewer valid actions halve sooner: the most visited are each row's own.
            visit_counts = tree.children_visits[:, Tree.ROOT]
            if kept_visits is not None:
                visit_counts = visit_counts - kept_visits
            scores = score_considered(
                visit_counts.amax(dim=-1),
                gumbel,
                logits=logits,
                qvalues=qvalues,
                visit_counts=visit_counts,
            )
            action = select_highest(scores, valid)
            require_scores(action >= 0, scores.dtype)
            weights = improve_policy(logits, qvalues, valid_actions=valid)
        return release_output(action, weights, tree.node_values[:, Tree.ROOT], tree)


def sample_gumbel(like: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Draws standard Gumbel noise of the shape, dtype and device of `like`, in float64 first."""
    device = like.device if generator is None else generator.device
    exponential = torch.empty(like.shape, dtype=torch.float64, device=device)
    exponential.exponential_(generator=generator).clamp_min_(torch.finfo(torch.float64).tiny)
    return exponential.log().neg().to(like)

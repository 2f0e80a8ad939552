"""Diverse verifier tree search (DVTS) as a planner: several greedy searches that never meet.

This file does not know what an action is. Where beam search lets the best candidates crowd out all
others, and soon keeps variations of one, here each subtree keeps its own. How levels are searched
is in `search.planners.level_search`.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch

from search.model import PlanningModel, evaluate_root
from search.planners.base import SearchOutput, release_output, require_int
from search.planners.level_search import read_decision, search_levels


@dataclass(frozen=True)
class DiverseBeamPlanner:
    """Searches `num_subtrees` independent subtrees a row greedily, all side by side.

    The root's valid actions, in order, are dealt out in blocks of W: the m-th block holds the first
    candidates of subtree m. A row with fewer valid actions has fewer subtrees, and the last may
    begin with fewer candidates; actions beyond the last block are not tried. At each depth a
    subtree keeps the one candidate of highest score, and evaluates the first W valid actions
    there, so each subtree is a beam search of width 1. Scores are `BeamPlanner`'s: the discounted
    sum of rewards along the path plus the product of the path's discounts times the value. Ties go
    to the lowest action. All subtrees of all rows take one step in one call.

    A subtree ends when what it keeps is finished (discount 0, or no valid action), at `max_depth`,
    or when its row's budget is spent. What a subtree finds never changes another, but for the
    budget, which they share: a depth that a row can only partly afford expands the subtrees in
    order, of the last one the actions of highest prior. At the root too: subtrees the budget does
    not reach do not exist. Depth d needs at most `num_subtrees` * `subtree_width` * d step rows.

    The decision is read off the tree as `BeamPlanner`'s is: a node that was expanded is worth its
    best evaluated child, any other its raw value. So `value` is the best score among all
    candidates that were never expanded, in whatever subtree, and `action` is the first action
    towards it, ties to the lowest index. `action_weights` are one-hot. (Deviation from the source,
    whose answer is the best of those that the subtrees kept to the end: ours may be a candidate
    that was passed over for one that then disappointed.)

    In the tree visits and max back-ups are `BeamPlanner`'s too: a node's visits are 1 + the number
    of nodes evaluated below it. N = 1 + the most step rows that any row of the batch spent, at most
    `num_simulations` + 1.

    Attributes:
        num_simulations: The budget of step rows per root, at least 1.
        num_subtrees: M, subtrees a root, at least 1.
        subtree_width: W, candidates a subtree evaluates per depth, at least 1. With 1 there is
            nothing to choose until the end: M sampled lines, of which the best is taken.
        max_depth: Most actions from the root; None for no limit but the budget.

    Raises:
        ValueError: If a number is out of its range.

    Source: Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models", where
    N beams of width M make N/M subtrees: here M and W.
    """

    num_simulations: int
    _: KW_ONLY
    num_subtrees: int = 4
    subtree_width: int = 4
    max_depth: int | None = None

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_int(owner, "num_simulations", self.num_simulations, minimum=1)
        require_int(owner, "num_subtrees", self.num_subtrees, minimum=1)
        require_int(owner, "subtree_width", self.subtree_width, minimum=1)
        require_int(owner, "max_depth", self.max_depth, minimum=1, optional=True)

    def plan(
        self, model: PlanningModel, observation: Any, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Searches from each observation; see `search.planners.base.Planner.plan`.

        Args:
            model: The planning model; stepped once a depth.
            observation: Handed to `model.root`.
            generator: Handed to the model; the planner itself draws nothing.

        Returns:
            The decision, with its tree.

        Raises:
            ValueError: If the model's outputs break the contract, or a discount is negative
                (two players: the best path for one is not what both would play).
        """
        with torch.inference_mode():
            tree = search_levels(
                model,
                evaluate_root(model, observation, generator=generator),
                owner=type(self).__name__,
                num_simulations=self.num_simulations,
                num_groups=self.num_subtrees,
                group_width=1,
                num_children=self.subtree_width,
                max_depth=self.max_depth,
                generator=generator,
            )
            action, weights, value = read_decision(tree)
        return release_output(action, weights, value, tree)

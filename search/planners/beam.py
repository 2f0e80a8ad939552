"""Beam search as a planner: expand the best few candidates of each depth, all at once.

This file does not know what an action is; with steps of reasoning as actions it is step-level
beam search, with tokens it is value-guided decoding. How levels are searched is in
`search.planners.level_search`.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch

from search.model import PlanningModel, evaluate_root
from search.planners.base import SearchOutput, release_output, require_int
from search.planners.level_search import read_decision, search_levels


@dataclass(frozen=True)
class BeamPlanner:
    """Searches depth by depth, keeping the `beam_width` best candidates of each row.

    A candidate's score is the discounted sum of rewards along its path plus the product of the
    path's discounts times its value. At each depth every valid action of every kept candidate is
    evaluated, in one step call for all rows. Finished candidates (discount 0, or no valid action)
    compete for the places but are not expanded. A row ends when all it keeps are finished, at
    `max_depth`, or when its budget is spent; a depth it can only partly afford expands the best
    candidates first, and of the last one the actions of highest prior. Ties between candidates go
    to the better beam, then the lower action; ties between root actions to the lowest index.

    The decision is read off the tree: a node that was expanded is worth its best evaluated child
    (its own estimate is superseded), any other its raw value. So `value` is the best score among
    all candidates that were never expanded, pruned ones included, and `action` is the first
    action towards it. `action_weights` are one-hot.

    In the tree a node's visits are 1 + the number of nodes evaluated below it, so the root has
    1 + the number of step rows spent; `node_values` are max back-ups as above, not means. It has
    as many nodes as were evaluated: N = 1 + the most step rows that any row of the batch spent, at
    most `num_simulations` + 1. A budget of which little is used costs nothing.

    Attributes:
        num_simulations: The budget of step rows per root, at least 1.
        beam_width: W, candidates kept per depth, at least 1.
        max_depth: Most actions from the root; None for no limit but the budget.

    Raises:
        ValueError: If a number is out of its range.

    Source: Lowerre 1976 (beam search); Yao et al. 2023 (Tree of Thoughts, breadth-first).
    """

    num_simulations: int
    _: KW_ONLY
    beam_width: int = 4
    max_depth: int | None = None

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_int(owner, "num_simulations", self.num_simulations, minimum=1)
        require_int(owner, "beam_width", self.beam_width, minimum=1)
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
                num_groups=1,
                group_width=self.beam_width,
                max_depth=self.max_depth,
                generator=generator,
            )
            action, weights, value = read_decision(tree)
        return release_output(action, weights, value, tree)

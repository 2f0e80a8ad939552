"""Best-of-N: evaluate N root actions in one batch and take the best.

With whole responses as actions this is best-of-N sampling; with single moves, one-step lookahead.
"""

from dataclasses import dataclass

import torch

from search.model import PlanningModel, evaluate_root
from search.planners.base import SearchOutput, release_output, require_int
from search.planners.level_search import build_tree, evaluate_root_actions, read_decision


@dataclass(frozen=True)
class BestOfNPlanner:
    """Steps the first `num_simulations` valid root actions in one call and takes the best.

    An action's score is Q = reward + discount * value. The action is the argmax (ties to the
    lowest index), `action_weights` are one-hot on it and `value` is its Q. A row with fewer valid
    actions uses those it has.

    The tree has depth one. Column k holds the row's k-th tried action; every child has one visit
    and the root 1 + the number tried. The root's `node_values` is the greatest Q (a max back-up,
    where MCTS keeps means). N = 1 + the most actions that any row tried.

    Attributes:
        num_simulations: N, at least 1.

    Raises:
        ValueError: If N is below 1.

    Source: Stiennon et al. 2020, Nakano et al. 2021 (best-of-n, rejection sampling).
    """

    num_simulations: int

    def __post_init__(self) -> None:
        """Validates the budget."""
        require_int(type(self).__name__, "num_simulations", self.num_simulations, minimum=1)

    def plan(
        self, model: PlanningModel, observation: object, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Plans from each observation; see `search.planners.base.Planner.plan`."""
        with torch.inference_mode():
            root = evaluate_root(model, observation, generator=generator)
            tried = root.valid_actions & (root.valid_actions.cumsum(-1) <= self.num_simulations)
            tree = build_tree(
                root,
                evaluate_root_actions(
                    model, root, tried, num_simulations=self.num_simulations, generator=generator
                ),
            )
            action, weights, value = read_decision(tree)
        return release_output(action, weights, value, tree)

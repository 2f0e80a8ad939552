"""Best-of-N as a planner: try N actions once, side by side, and take the best.

This file does not know what an action is; with whole responses as actions it is best-of-N
sampling, with single moves it is one-step lookahead.
"""

from dataclasses import dataclass
from typing import Any

import torch

from search.model import PlanningModel, evaluate_root, evaluate_step
from search.planners.base import SearchOutput, release_output, require_int
from search.selection import masked_argmax
from search.tree import Tree, add_children, allocate_tree


@dataclass(frozen=True)
class BestOfNPlanner:
    """Steps the first `num_simulations` valid root actions in one call and takes the best.

    An action's worth is Q = reward + discount * value. The action is the argmax (ties to the
    lowest index), `action_weights` are one-hot on it and `value` is its Q. A row with fewer valid
    actions uses what it has.

    The tree has depth one. Column k holds the row's k-th tried action; every child has one visit
    and the root 1 + the number tried. The root's `node_values` is the greatest Q (a max back-up,
    where MCTS keeps means), so that the tree's summary says what the planner says.

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
        self, model: PlanningModel, observation: Any, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Tries N actions from each observation; see `search.planners.base.Planner.plan`.

        Args:
            model: The planning model; stepped once, on the `[B*K]` tried slots of all rows.
            observation: Handed to `model.root`.
            generator: Handed to the model; the planner itself draws nothing.

        Returns:
            The decision, with its tree.

        Raises:
            ValueError: If the model's outputs break the contract.
        """
        with torch.inference_mode():
            root = evaluate_root(model, observation, generator=generator)
            tree = allocate_tree(root, self.num_simulations)
            order = root.valid_actions.cumsum(dim=-1)  # [B, A], 1 for the first valid action
            tried = root.valid_actions & (order <= self.num_simulations)
            rows, action = tried.nonzero(as_tuple=True)  # [M] each, M at most B * K
            step = evaluate_step(
                model,
                {name: leaf[rows] for name, leaf in root.embedding.items()},
                action=action,
                rows=rows,
                generator=generator,
            )
            add_children(
                tree,
                rows,
                parent=torch.zeros_like(rows),
                action=action,
                node=order[rows, action],
                step=step,
            )
            tree.node_visits[rows, order[rows, action]] = 1
            tree.node_visits[:, Tree.ROOT] += tried.sum(dim=-1)
            tree.children_visits[:, Tree.ROOT] = tried.to(tree.children_visits.dtype)
            tree.children_values[rows, Tree.ROOT, action] = step.value.to(tree.raw_values.dtype)
            qvalues = tree.summary().qvalues
            best = masked_argmax(qvalues, tried)
            weights = torch.nn.functional.one_hot(best, tree.num_actions).to(qvalues.dtype)
            value = qvalues[tree.rows, best]
            tree.node_values[:, Tree.ROOT] = value
        return release_output(best, weights, value, tree)

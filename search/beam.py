"""Beam search as a planner: expand the best few candidates of each depth, all at once.

This file does not know what an action is; with steps of reasoning as actions it is step-level
beam search, with tokens it is value-guided decoding.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from search.model import PlanningModel, StepOutput, evaluate_root, evaluate_step
from search.planner import SearchOutput, release_output, require_int
from search.selection import masked_argmax
from search.tree import Tree, add_children, allocate_tree


@dataclass(frozen=True)
class _Beams:
    """The W candidates kept in each of B rows, best first.

    Attributes:
        node: `[B, W]` int64, column in the tree; 0 where the slot is empty.
        score: `[B, W]`, return + discount * value; `-inf` where the slot is empty.
        path_return: `[B, W]`, discounted rewards from the root to the node.
        path_discount: `[B, W]`, product of the discounts on that path.
    """

    node: Tensor
    score: Tensor
    path_return: Tensor
    path_discount: Tensor


@dataclass(frozen=True)
class _Level:
    """The M edges one step call evaluated: `[M]` int64 each; `slot` is the parent's beam."""

    rows: Tensor
    slot: Tensor
    parent: Tensor
    action: Tensor
    node: Tensor


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
    1 + the number of step rows spent; `node_values` are max back-ups as above, not means.

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
        """Searches from each observation; see `search.planner.Planner.plan`.

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
            root = evaluate_root(model, observation, generator=generator)
            tree = allocate_tree(root, self.num_simulations)
            beams = _Beams(  # one beam, the root, in each row
                node=tree.rows.new_zeros((tree.batch_size, 1)),
                score=root.value.unsqueeze(-1),
                path_return=torch.zeros_like(root.value).unsqueeze(-1),
                path_discount=torch.ones_like(root.value).unsqueeze(-1),
            )
            spent = torch.zeros_like(tree.rows)  # [B] step rows, hence also nodes but the root
            levels: list[_Level] = []
            while self.max_depth is None or len(levels) < self.max_depth:
                level = _affordable_level(tree, beams, spent)
                if level.rows.numel() == 0:
                    break
                step = evaluate_step(
                    model,
                    {
                        name: leaf[level.rows, level.parent]
                        for name, leaf in tree.embeddings.items()
                    },
                    action=level.action,
                    generator=generator,
                )
                _require_one_player(step)
                add_children(
                    tree,
                    level.rows,
                    parent=level.parent,
                    action=level.action,
                    node=level.node,
                    step=step,
                )
                spent += torch.bincount(level.rows, minlength=tree.batch_size)
                beams = _keep_best(tree, beams, level, beam_width=self.beam_width)
                levels.append(level)
            _back_up(tree, levels)
            evaluated = tree.children_index[:, Tree.ROOT] != Tree.NONE
            action = masked_argmax(tree.summary().qvalues, evaluated)
            value = tree.node_values[:, Tree.ROOT]
            weights = torch.nn.functional.one_hot(action, tree.num_actions).to(value.dtype)
        return release_output(action, weights, value, tree)


def _affordable_level(tree: Tree, beams: _Beams, spent: Tensor) -> _Level:
    """The edges to evaluate next: all valid actions of unfinished beams, as far as budgets go."""
    rows = tree.rows.unsqueeze(-1)  # [B, 1]
    is_open = (beams.score > -torch.inf) & ~tree.terminal[rows, beams.node]  # [B, W]
    wanted = is_open.unsqueeze(-1) & tree.valid_actions[rows, beams.node]  # [B, W, A]
    # Rank each beam's actions by prior, so that a budget cuts off the least promising ones.
    logits = tree.children_prior_logits[rows, beams.node]
    by_prior = logits.argsort(dim=-1, descending=True, stable=True)  # [B, W, A]
    ranked = wanted.gather(-1, by_prior).flatten(1).cumsum(dim=-1)  # [B, W*A], from 1
    rank = torch.empty_like(by_prior).scatter_(-1, by_prior, ranked.view_as(by_prior))
    affordable = wanted & (rank <= (tree.num_simulations - spent).view(-1, 1, 1))
    # Host synchronisation once a depth, not once a simulation: the step call needs its batch.
    level_rows, slot, action = affordable.nonzero(as_tuple=True)  # [M] each, by row, beam, action
    # Columns follow in that order within each row: the running count, after those spent.
    count = affordable.flatten(1).cumsum(dim=-1).view_as(affordable)
    return _Level(
        rows=level_rows,
        slot=slot,
        parent=beams.node[level_rows, slot],
        action=action,
        node=spent[level_rows] + count[level_rows, slot, action],
    )


def _keep_best(tree: Tree, beams: _Beams, level: _Level, *, beam_width: int) -> _Beams:
    """The `beam_width` best of finished beams and new candidates in each row, best first."""
    batch_size, width = beams.node.shape
    edges = (batch_size, width, tree.num_actions)
    edge = (level.rows, level.slot, level.action)
    rows = tree.rows.unsqueeze(-1)  # [B, 1]
    parent_return = beams.path_return[level.rows, level.slot]  # [M]
    parent_discount = beams.path_discount[level.rows, level.slot]
    taken = (level.rows, level.parent, level.action)
    new_return = parent_return + parent_discount * tree.children_rewards[taken]
    new_discount = parent_discount * tree.children_discounts[taken]
    new_score = new_return + new_discount * tree.raw_values[level.rows, level.node]

    def candidates(old: Tensor, new: Tensor, empty: float) -> Tensor:
        grid = old.new_full(edges, empty)
        grid[edge] = new
        return torch.cat([old, grid.flatten(1)], dim=-1)  # [B, W + W*A]

    # Unfinished beams have become their children; what the budget left out is not kept either,
    # as a row without budget never expands again.
    finished_score = beams.score.masked_fill(~tree.terminal[rows, beams.node], -torch.inf)
    score = candidates(finished_score, new_score, -torch.inf)
    best = score.argsort(dim=-1, descending=True, stable=True)[:, :beam_width]
    return _Beams(
        node=candidates(beams.node, level.node, 0).gather(-1, best),
        score=score.gather(-1, best),
        path_return=candidates(beams.path_return, new_return, 0.0).gather(-1, best),
        path_discount=candidates(beams.path_discount, new_discount, 0.0).gather(-1, best),
    )


def _back_up(tree: Tree, levels: list[_Level]) -> None:
    """Counts visits and takes greatest values from the deepest level up to the roots."""
    tree.node_visits[:, Tree.ROOT] = 1
    for level in levels:
        tree.node_visits[level.rows, level.node] = 1
    for level in reversed(levels):
        child, edge = (level.rows, level.node), (level.rows, level.parent, level.action)
        tree.children_visits[edge] = tree.node_visits[child]
        tree.children_values[edge] = tree.node_values[child]
        parent = edge[:2]
        tree.node_visits.index_put_(parent, tree.node_visits[child], accumulate=True)
        qvalues = tree.children_rewards[parent] + (
            tree.children_discounts[parent] * tree.children_values[parent]
        )  # [M, A]
        unvisited = tree.children_index[parent] == Tree.NONE
        # Siblings write their parent's value once each, all the same one.
        tree.node_values[parent] = qvalues.masked_fill(unvisited, -torch.inf).amax(dim=-1)


def _require_one_player(step: StepOutput) -> None:
    """Raises if a discount is negative."""
    if bool((step.discount < 0).any()):
        found = float(step.discount.min())
        raise ValueError(
            f"BeamPlanner: found a discount of {found}; required discounts of at least 0, as a "
            "beam maximises one player's return. Use MuZeroPlanner or GumbelMuZeroPlanner for "
            "two players."
        )

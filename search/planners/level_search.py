"""Level-by-level search, shared by the planners that step all candidates of a depth in one call.

The outputs of the model are kept until the end, when the number of nodes is known, and only then
written as a tree. A planner chooses which nodes of the last level to expand, and which actions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from search.model import PlanningModel, RootOutput, StepOutput, evaluate_step
from search.selection import masked_argmax
from search.tree import Tree, add_children, allocate_tree, mask_logits, tree_dtype

EMPTY = -1
"""Marks a place of the frontier without a node to expand."""


@dataclass(frozen=True)
class Level:
    """The M nodes that one call evaluated, in rows 0..B-1; level 0 holds the roots, M = B.

    Attributes:
        output: What the model returned, leaves `[M, ...]`.
        rows: `[M]` int64, the tree each node belongs to, in ascending order.
        place: `[M]` int64, the place of its parent in the frontier.
        parent: `[M]` int64, column of the parent in the tree.
        action: `[M]` int64, taken there.
        node: `[M]` int64, the node's own column.
        path_return: `[M]`, discounted rewards from the root to the node.
        path_discount: `[M]`, product of the discounts on that path.
        score: `[M]`, path return + path discount * value.
        terminal: `[M]` bool, True where nothing can follow.
        spent: `[B]` int64, step rows each tree has used up to here.
    """

    output: RootOutput | StepOutput
    rows: Tensor
    place: Tensor
    parent: Tensor
    action: Tensor
    node: Tensor
    path_return: Tensor
    path_discount: Tensor
    score: Tensor
    terminal: Tensor
    spent: Tensor


@dataclass(frozen=True)
class Edges:
    """M edges to evaluate, `[M]` int64 each; `source` is the parent in the last level."""

    rows: Tensor
    place: Tensor
    source: Tensor
    action: Tensor
    node: Tensor


def root_level(root: RootOutput) -> Level:
    """Level 0: the B roots of a validated output, nothing spent."""
    rows = torch.arange(root.value.shape[0], device=root.value.device)
    none = torch.full_like(rows, Tree.NONE)
    value = root.value.to(tree_dtype(root))
    return Level(
        output=root,
        rows=rows,
        place=torch.zeros_like(rows),
        parent=none,
        action=none,
        node=torch.zeros_like(rows),
        path_return=torch.zeros_like(value),
        path_discount=torch.ones_like(value),
        score=value,
        terminal=~root.valid_actions.any(dim=-1),
        spent=torch.zeros_like(rows),
    )


def select_within_budget(
    level: Level, frontier: Tensor, wanted: Tensor, *, num_simulations: int
) -> Edges:
    """The wanted edges that each row's budget allows, first places and highest priors first.

    Args:
        level: The last level evaluated.
        frontier: `[B, P]` int64, which of its nodes is at each place; `EMPTY` where none.
        wanted: `[B, P, A]` bool, the actions to try there; False where the place is empty.
        num_simulations: The budget of step rows per root.

    Returns:
        The edges by row, place and action, their columns in that order after those in use. Priors
        decide within a place which actions a budget reaches, ties going to the lowest index.
    """
    output = level.output
    logits = mask_logits(output.prior_logits, output.valid_actions)[frontier.clamp_min(0)]
    by_prior = logits.argsort(dim=-1, descending=True, stable=True)  # [B, P, A]
    ranked = wanted.gather(-1, by_prior).flatten(1).cumsum(dim=-1)  # [B, P*A], from 1
    rank = torch.empty_like(by_prior).scatter_(-1, by_prior, ranked.view_as(by_prior))
    affordable = wanted & (rank <= (num_simulations - level.spent).view(-1, 1, 1))
    # Host synchronization once a level, not once a simulation: the step call needs its batch.
    rows, place, action = affordable.nonzero(as_tuple=True)  # [M] each
    count = affordable.flatten(1).cumsum(dim=-1).view_as(affordable)  # [B, P, A], from 1
    return Edges(
        rows=rows,
        place=place,
        source=frontier[rows, place],
        action=action,
        node=level.spent[rows] + count[rows, place, action],
    )


def evaluate_edges(
    model: PlanningModel, level: Level, edges: Edges, *, generator: torch.Generator | None
) -> Level:
    """Steps M edges in one call; the level they lead to.

    Raises:
        ValueError: If the model's output breaks the contract.
    """
    step = evaluate_step(
        model,
        {name: leaf[edges.source] for name, leaf in level.output.embedding.items()},
        action=edges.action,
        rows=edges.rows,
        generator=generator,
    )
    dtype = level.score.dtype
    path_discount = level.path_discount[edges.source]
    path_return = level.path_return[edges.source] + path_discount * step.reward.to(dtype)
    path_discount = path_discount * step.discount.to(dtype)
    return Level(
        output=step,
        rows=edges.rows,
        place=edges.place,
        parent=level.node[edges.source],
        action=edges.action,
        node=edges.node,
        path_return=path_return,
        path_discount=path_discount,
        score=path_return + path_discount * step.value.to(dtype),
        terminal=(step.discount == 0) | ~step.valid_actions.any(dim=-1),
        spent=level.spent + torch.bincount(edges.rows, minlength=level.spent.shape[0]),
    )


def evaluate_root_actions(
    model: PlanningModel,
    root: RootOutput,
    tried: Tensor,
    *,
    num_simulations: int,
    generator: torch.Generator | None,
) -> list[Level]:
    """Steps the root actions `tried` `[B, A]` bool in one call; the levels of a tree of depth one.

    Where a row tries more than `num_simulations`, those of highest prior are stepped.

    Raises:
        ValueError: If the model's output breaks the contract.
    """
    top = root_level(root)
    frontier = top.rows.unsqueeze(-1)  # [B, 1], one place a row: the root
    edges = select_within_budget(top, frontier, tried.unsqueeze(1), num_simulations=num_simulations)
    return [top, evaluate_edges(model, top, edges, generator=generator)]


def build_tree(root: RootOutput, levels: list[Level]) -> Tree:
    """Writes levels as trees, as large as they need to be, and backs them up.

    A node's visits are 1 + the number of nodes evaluated below it. Its value is the greatest Q of
    its evaluated children (a max back-up, where MCTS keeps means), or its raw value if it has none.

    Args:
        root: Validated output of B rows.
        levels: The roots' level and at least one more.

    Returns:
        Trees of N nodes, N = 1 + the most step rows that any row spent.
    """
    # Host synchronization once a search: the shape.
    tree = allocate_tree(root, int(levels[-1].spent.max()))
    for level in levels[1:]:
        assert isinstance(level.output, StepOutput)
        add_children(
            tree,
            level.rows,
            parent=level.parent,
            action=level.action,
            node=level.node,
            step=level.output,
        )
        tree.node_visits[level.rows, level.node] = 1
    for level in reversed(levels[1:]):
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
    return tree


def read_decision(tree: Tree) -> tuple[Tensor, Tensor, Tensor]:
    """The evaluated root action of greatest Q, ties to the lowest index.

    Returns:
        The action `[B]`, one-hot weights `[B, A]` and the root's value `[B]`.
    """
    evaluated = tree.children_index[:, Tree.ROOT] != Tree.NONE
    action = masked_argmax(tree.summary().qvalues, evaluated)
    value = tree.node_values[:, Tree.ROOT]
    weights = torch.nn.functional.one_hot(action, tree.num_actions).to(value.dtype)
    return action, weights, value

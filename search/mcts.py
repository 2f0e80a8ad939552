"""Monte Carlo tree search over a batch of trees: simulate, expand, back up, as often as allowed.

This file does not know how actions are chosen: a variant of the search is a pair of selection
functions, one for the root and one for all other nodes, handed to the one loop below.

Every simulation walks each tree from its root until it would leave the known tree, adds the node
it would have reached, and averages what it found there into every node it came through.
"""

import torch
from torch import Tensor

from search.model import PlanningModel, RootOutput, evaluate_step, validate_root
from search.planner import require_int
from search.selection import ActionSelection
from search.tree import Tree, add_children, allocate_tree


def run_mcts(
    model: PlanningModel,
    root: RootOutput,
    *,
    num_simulations: int,
    root_action_selection: ActionSelection,
    interior_action_selection: ActionSelection,
    max_depth: int | None = None,
    generator: torch.Generator | None = None,
) -> Tree:
    """Runs `num_simulations` simulations from each of B roots.

    A simulation that reaches a node it cannot go beyond stops there, counts as a visit, and backs
    that node's raw value up again without calling the model. Such nodes are those at `max_depth`
    and terminal ones: reached by discount 0, or without a valid action.

    Deviation from mctx: mctx searches on below a node reached by discount 0 (what it finds there
    is multiplied by 0), and knows no invalid actions below the root. It also steps a node at
    `max_depth` anew on each visit; for a deterministic model that changes nothing. Where neither
    terminal nodes nor invalid interior actions occur, the trees are equal node for node.

    Args:
        model: The planning model.
        root: Its output for B observations, with logits as the planner wants them (noise added).
        num_simulations: At least 1; the model steps at most this many rows per root.
        root_action_selection: Chooses where to go from the root.
        interior_action_selection: Chooses where to go from any other node.
        max_depth: Most edges between root and leaf, at least 1; None for no limit.
        generator: Handed to the model.

    Returns:
        Trees with N = num_simulations + 1. The node first reached in simulation i (from 0) has
        column i + 1. `node_values` are means: of the raw value and of all returns backed up.

    Raises:
        ValueError: On a budget or depth below 1, or outputs that break the contract.

    Source: Schrittwieser et al. 2020 (MuZero), Appendix B; batching after mctx's `search`.
    """
    require_int("run_mcts", "num_simulations", num_simulations, minimum=1)
    require_int("run_mcts", "max_depth", max_depth, minimum=1, optional=True)
    validate_root(root, model.num_actions)
    with torch.inference_mode():
        tree = allocate_tree(root, num_simulations)
        for simulation in range(num_simulations):
            parent, action = _simulate(
                tree,
                root_action_selection,
                interior_action_selection,
                max_depth=num_simulations if max_depth is None else max_depth,
            )
            leaf = _expand(
                tree, model, parent=parent, action=action, node=simulation + 1, generator=generator
            )
            _back_up(tree, leaf)
    return tree


def _simulate(
    tree: Tree,
    root_action_selection: ActionSelection,
    interior_action_selection: ActionSelection,
    *,
    max_depth: int,
) -> tuple[Tensor, Tensor]:
    """Walks down each tree; returns the last edge as `parent` and `action`, `[B]` int64 each.

    The edge leads to an unvisited child, or to a known one that is terminal or at `max_depth`.
    """
    node = torch.zeros_like(tree.rows)
    action = root_action_selection(tree, node)
    going, child = _can_go_on(tree, node, action, depth_left=max_depth - 1)
    depth = 1
    # One host synchronisation a level: how deep the walk goes is known to the tree alone.
    while bool(going.any()):
        node = torch.where(going, child, node)
        # Rows that have arrived are computed along and left as they are.
        action = torch.where(going, interior_action_selection(tree, node), action)
        depth += 1
        still_going, child = _can_go_on(tree, node, action, depth_left=max_depth - depth)
        going = going & still_going
    return node, action


def _can_go_on(
    tree: Tree, node: Tensor, action: Tensor, *, depth_left: int
) -> tuple[Tensor, Tensor]:
    """Whether a walk may choose again at the child, `[B]` bool, and the child, `[B]` or -1."""
    child = tree.children_index[tree.rows, node, action]
    known = child != Tree.NONE
    if depth_left <= 0:
        return torch.zeros_like(known), child
    # Index -1 reads the last column; `known` discards what it says.
    return known & ~tree.terminal[tree.rows, child], child


def _expand(
    tree: Tree,
    model: PlanningModel,
    *,
    parent: Tensor,
    action: Tensor,
    node: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Adds column `node` to the trees whose edge is new; returns each tree's leaf, `[B]` int64."""
    child = tree.children_index[tree.rows, parent, action]
    is_new = child == Tree.NONE
    # Host synchronisation: rows that arrived at a known node cost no model call, so the model
    # gets a smaller batch; append-only models (text) keep no nodes that nobody reached.
    rows = is_new.nonzero().squeeze(-1)  # [M]
    if rows.numel() > 0:
        from_node, taken = parent[rows], action[rows]
        step = evaluate_step(
            model,
            {name: leaf[rows, from_node] for name, leaf in tree.embeddings.items()},
            action=taken,
            generator=generator,
        )
        column = torch.full_like(rows, node)
        add_children(tree, rows, parent=from_node, action=taken, node=column, step=step)
    leaf = child.masked_fill(is_new, node)
    tree.node_visits[tree.rows, leaf] += 1
    return leaf


def _back_up(tree: Tree, leaf: Tensor) -> None:
    """Averages each leaf's raw value into all its ancestors, one level of all trees at a time."""
    rows, node = tree.rows, leaf
    value = tree.raw_values[rows, node]  # [M], as seen by the player at `node`
    while rows.numel() > 0:
        parent = tree.parents[rows, node]
        action = tree.action_from_parent[rows, node]
        edge = (rows, parent, action)
        value = tree.children_rewards[edge] + tree.children_discounts[edge] * value
        visits = tree.node_visits[rows, parent].to(value.dtype)
        mean = (tree.node_values[rows, parent] * visits + value) / (visits + 1)
        tree.node_values[rows, parent] = mean
        tree.node_visits[rows, parent] += 1
        tree.children_values[edge] = tree.node_values[rows, node]
        tree.children_visits[edge] += 1
        # Host synchronisation: only trees that have not arrived at their root go on.
        above = parent != Tree.ROOT
        rows, node, value = rows[above], parent[above], value[above]

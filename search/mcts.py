"""Monte Carlo tree search over a batch of trees: simulate, expand, back up.

A variant of the search is a pair of selection rules, one for the root and one for all other nodes,
passed to the one loop below. Every simulation walks each tree from its root until it would leave
the known tree, adds the node it would have reached, and averages its value into every node on the
path.

The loop in plain torch is the definition: it runs on any device and takes any rule. The rules of
`search.selection` have compiled forms as well, which `run_mcts` prefers (`search.backends`).
"""

from functools import partial
from typing import get_args

import torch
from torch import Tensor

from prefsearch.config.checks import shown
from search.backends.dispatch import Backend, Selections, choose_search
from search.model import (
    PlanningModel,
    RootOutput,
    check_root_form,
    evaluate_step,
    to_list,
    validate_root,
)
from search.planners.base import require_choice, require_int
from search.reuse import replace_roots
from search.selection import ActionSelection, raise_no_score, require_scores
from search.tree import Tree, add_children, allocate_tree


def run_mcts(
    model: PlanningModel,
    root: RootOutput,
    *,
    num_simulations: int,
    root_action_selection: ActionSelection,
    interior_action_selection: ActionSelection,
    max_depth: int | None = None,
    leaves_per_step: int = 1,
    kept: Tree | None = None,
    backend: Backend = "auto",
    generator: torch.Generator | None = None,
) -> Tree:
    """Runs `num_simulations` simulations from each of B roots.

    A simulation that reaches a node it cannot go beyond stops there, counts as a visit, and backs
    that node's raw value up again without calling the model. Such nodes are those at `max_depth`,
    terminal ones (reached by discount 0, or without a valid action), and with several leaves a
    step those that another walk of the same step has just found.

    With `leaves_per_step` above 1, each tree is walked that often before the model is called once
    for all leaves. A walk counts as a visit of every node on its path at once; a leaf that the
    model has not yet evaluated has the value of its parent; values change when it has.

    Deviation from mctx: mctx searches on below a node reached by discount 0 (what it finds there
    is multiplied by 0), and has no invalid actions below the root. It also steps a node at
    `max_depth` again on each visit; for a deterministic model that changes nothing. Where neither
    terminal nodes nor invalid interior actions occur, the trees are equal node for node.

    Args:
        model: The planning model.
        root: Its output for B observations, with the logits to search with (noise added).
        num_simulations: At least 1; the model steps at most this many rows per root.
        root_action_selection: Chooses where to go from the root.
        interior_action_selection: Chooses where to go from any other node.
        max_depth: Most edges between root and leaf, at least 1; None for no limit.
        leaves_per_step: W, leaves of each tree a call of the model expands; at most
            `num_simulations`. 1 is the sequential search.
        kept: Subtrees of K nodes to reuse, of `search.reuse.keep_subtree`; `root` replaces their
            roots (`search.reuse.replace_roots`). None to start a new tree.
        backend: "auto" takes the compiled form where there is one; on CUDA only if it grows the
            trees of plain torch on a small fixed problem, compared at the first search of a process
            (`search.backends.verification`).
        generator: Passed to the model.

    Returns:
        Trees with N = num_simulations + 1 (K with kept trees, instead of 1). The node first reached
        in simulation i (from 0) has column i + 1 (K + i). `node_values` are means: of the raw value
        and of all returns backed up.

    Raises:
        ValueError: On a number out of its range, outputs that break the contract, a backend that
            cannot run these rules here, or a score or a return that is not finite.

    Source: Schrittwieser et al. 2020 (MuZero), Appendix B; batching after mctx's `search`. Walks
    that count before they end: Liu et al. 2020 (WU-UCT).
    """
    require_search_numbers("run_mcts", num_simulations, max_depth, leaves_per_step, backend)
    check_root_form(root, model.num_actions)
    return grow_trees(
        model,
        root,
        num_simulations=num_simulations,
        root_action_selection=root_action_selection,
        interior_action_selection=interior_action_selection,
        max_depth=max_depth,
        leaves_per_step=leaves_per_step,
        kept=None if kept is None else replace_roots(kept, root),
        backend=backend,
        generator=generator,
    )


def grow_trees(
    model: PlanningModel,
    root: RootOutput,
    *,
    num_simulations: int,
    root_action_selection: ActionSelection,
    interior_action_selection: ActionSelection,
    max_depth: int | None,
    leaves_per_step: int,
    kept: Tree | None,
    backend: Backend,
    generator: torch.Generator | None,
) -> Tree:
    """`run_mcts` for planners that have checked numbers and root, and replaced kept roots."""
    name, search = choose_search(
        backend,
        root,
        (root_action_selection, interior_action_selection),
        plain=lambda selections: partial(search_in_torch, selections=selections),
    )
    if name == "torch" or kept is not None:
        validate_root(root, model.num_actions)  # compiled forms find bad numbers as they read them
    with torch.inference_mode():
        return search(
            model,
            root,
            num_simulations=num_simulations,
            max_depth=max_depth,
            leaves_per_step=leaves_per_step,
            kept=kept,
            generator=generator,
        )


def require_search_numbers(
    owner: str,
    num_simulations: object,
    max_depth: object,
    leaves_per_step: object,
    backend: object,
) -> None:
    """Checks the numbers that all planners pass to `run_mcts`.

    Raises:
        ValueError: Naming the parameter, what was found, what is required and the remedy.
    """
    require_int(owner, "num_simulations", num_simulations, minimum=1)
    require_int(owner, "max_depth", max_depth, minimum=1, optional=True)
    require_int(owner, "leaves_per_step", leaves_per_step, minimum=1)
    require_choice(owner, "backend", backend, choices=get_args(Backend))
    assert isinstance(leaves_per_step, int)
    assert isinstance(num_simulations, int)
    if leaves_per_step > num_simulations:
        raise ValueError(
            f"{owner}.leaves_per_step: found {shown(leaves_per_step)}; required at most "
            f"num_simulations = {num_simulations}, since every leaf is a simulation. Lower "
            "leaves_per_step or raise num_simulations."
        )


def search_in_torch(
    model: PlanningModel,
    root: RootOutput,
    *,
    selections: Selections,
    num_simulations: int,
    max_depth: int | None,
    leaves_per_step: int,
    kept: Tree | None,
    generator: torch.Generator | None,
) -> Tree:
    """The search in plain torch; `selections` for the root and all other nodes, else `run_mcts`."""
    tree = allocate_tree(root, num_simulations, kept=kept)
    pending = torch.zeros_like(tree.node_visits)  # [B, N], walks of this step through each node
    column = tree.num_nodes - num_simulations
    while column < tree.num_nodes:
        width = min(leaves_per_step, tree.num_nodes - column)
        leaves: list[Tensor] = []
        new: list[Tensor] = []
        for node in range(column, column + width):
            leaf, is_new = _simulate(
                tree,
                pending,
                selections,
                node=node,
                max_depth=tree.num_nodes if max_depth is None else max_depth,
            )
            leaves.append(leaf)
            new.append(is_new)
        _expand(tree, model, torch.stack(leaves, 1), torch.stack(new, 1), generator=generator)
        for leaf in leaves:
            _back_up(tree, pending, leaf)
        column += width
    require_scores(torch.isfinite(tree.node_values).all(dim=-1), tree.node_values.dtype)
    return tree


def _simulate(
    tree: Tree,
    pending: Tensor,
    selections: Selections,
    *,
    node: int,
    max_depth: int,
) -> tuple[Tensor, Tensor]:
    """Walks down each tree, counting visits; returns its leaf, `[B]` int64, and whether it is new.

    A new leaf takes column `node`. Until the model has evaluated it, walks end there and its value
    is its parent's.
    """
    at = torch.zeros_like(tree.rows)
    going = torch.ones_like(tree.terminal[:, Tree.ROOT])
    parent, action, depth = at, at, 0
    while _goes_on(going, action, tree):
        select = selections[0] if depth == 0 else selections[1]
        # Rows that have arrived are computed along and left as they are.
        parent = torch.where(going, at, parent)
        action = torch.where(going, select(tree, parent), action)
        rows = going.nonzero().squeeze(-1)
        edge = (rows, parent[rows], action[rows])
        tree.node_visits[edge[:2]] += 1
        pending[edge[:2]] += 1
        tree.children_visits[edge] += 1
        child = tree.children_index[tree.rows, parent, action]
        at = torch.where(going & (child != Tree.NONE), child, at)
        depth += 1
        # Index -1 reads the last column; `child != NONE` discards it.
        ends = (child == Tree.NONE) | tree.terminal[tree.rows, child]
        going = going & ~ends if depth < max_depth else torch.zeros_like(going)
    child = tree.children_index[tree.rows, parent, action]
    is_new = child == Tree.NONE
    rows = is_new.nonzero().squeeze(-1)
    edge = (rows, parent[rows], action[rows])
    tree.children_index[edge] = node
    tree.children_discounts[edge] = 1
    tree.children_values[edge] = tree.node_values[edge[:2]]
    tree.parents[rows, node], tree.action_from_parent[rows, node] = edge[1:]
    tree.terminal[rows, node] = True
    leaf = child.masked_fill(is_new, node)
    tree.node_visits[tree.rows, leaf] += 1
    pending[tree.rows, leaf] += 1
    return leaf, is_new


def _goes_on(going: Tensor, action: Tensor, tree: Tree) -> bool:
    """Whether a walk continues; checks that an action was chosen.

    Raises:
        ValueError: See `search.selection.raise_no_score`.
    """
    failed = action < 0
    # One host synchronization a level: the depth of a walk depends on the tree.
    goes_on, has_failed = to_list(torch.stack([going.any(), failed.any()]))
    if has_failed:
        raise_no_score(tree.raw_values.dtype, row=int(failed.nonzero()[0, 0]))
    return goes_on


def _expand(
    tree: Tree,
    model: PlanningModel,
    leaves: Tensor,
    is_new: Tensor,
    *,
    generator: torch.Generator | None,
) -> None:
    """Steps the model to the new ones of `leaves` `[B, W]` and writes its outputs."""
    # Host synchronization: rows that arrived at a known node cost no model call, so the model
    # gets a smaller batch; append-only models (text) store no unreached nodes.
    rows, walk = is_new.nonzero(as_tuple=True)  # [M] each
    if rows.numel() == 0:
        return
    node = leaves[rows, walk]
    parent, action = tree.parents[rows, node], tree.action_from_parent[rows, node]
    step = evaluate_step(
        model,
        {name: leaf[rows, parent] for name, leaf in tree.embeddings.items()},
        action=action,
        rows=rows,
        generator=generator,
    )
    add_children(tree, rows, parent=parent, action=action, node=node, step=step)


def _back_up(tree: Tree, pending: Tensor, leaf: Tensor) -> None:
    """Averages each leaf's raw value into all its ancestors, one level of all trees at a time."""
    rows, node = tree.rows, leaf
    value = tree.raw_values[rows, node]  # [M], as seen by the player at `node`
    observed = tree.node_visits[rows, node] - pending[rows, node]
    pending[rows, node] -= 1
    # Written so that a value that is the mean already stays what it is.
    tree.node_values[rows, node] += (value - tree.node_values[rows, node]) / (observed + 1)
    while rows.numel() > 0:
        parent = tree.parents[rows, node]
        action = tree.action_from_parent[rows, node]
        edge = (rows, parent, action)
        value = tree.children_rewards[edge] + tree.children_discounts[edge] * value
        observed = tree.node_visits[rows, parent] - pending[rows, parent]
        pending[rows, parent] -= 1
        mean = (tree.node_values[rows, parent] * observed + value) / (observed + 1)
        tree.node_values[rows, parent] = mean
        tree.children_values[edge] = tree.node_values[rows, node]
        # Host synchronization: only trees that have not reached their root continue.
        above = parent != Tree.ROOT
        rows, node, value = rows[above], parent[above], value[above]

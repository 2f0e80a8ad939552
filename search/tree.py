"""A batch of search trees as tensors: one row a tree, one column a node, node 0 the root.

Planners allocate a tree once and write nodes into it in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from search.model import RootOutput, StepOutput, to_list


@dataclass(frozen=True)
class SearchSummary:
    """Statistics of the roots of B trees.

    Attributes:
        visit_counts: `[B, A]` int64, visits of each root action.
        visit_probs: `[B, A]`, the same as a distribution (uniform over valid actions if none).
        value: `[B]`, the root's value after the search.
        qvalues: `[B, A]`, reward + discount * child value; 0 where unvisited.
    """

    visit_counts: Tensor
    visit_probs: Tensor
    value: Tensor
    qvalues: Tensor


@dataclass(frozen=True)
class Tree:
    """B search trees of up to N nodes and A actions a node; N = num_simulations + 1.

    A node's column is the simulation that made it, counted from 1, so columns of simulations that
    ended in a known node stay unused (`node_visits` 0, `parents` -1). Integers are int64, floats
    as wide as the root's logits and value, but at least float32, since means of many returns lose
    their digits in half precision. All tensors are on the device of the model's outputs.

    Attributes:
        node_visits: `[B, N]`, how many simulations ended in the node or below it.
        raw_values: `[B, N]`, the model's value of the node.
        node_values: `[B, N]`, the node's value after the search, for the node's player.
        parents: `[B, N]`, column of the parent, -1 for the root and unused columns.
        action_from_parent: `[B, N]`, action that leads here, -1 likewise.
        children_index: `[B, N, A]`, column of each child, -1 where unvisited.
        children_prior_logits: `[B, N, A]`, the node's logits, most negative float where invalid.
        children_visits: `[B, N, A]`, visits of each child through this edge.
        children_rewards: `[B, N, A]`, reward of each edge.
        children_discounts: `[B, N, A]`, discount of each edge.
        children_values: `[B, N, A]`, value of each child, for the child's player.
        valid_actions: `[B, N, A]` bool, True where allowed.
        terminal: `[B, N]` bool, True where nothing can follow: reached by discount 0, or without
            a valid action.
        embeddings: Leaves `[B, N, ...]`, the model's state at each node; undefined in
            unused columns.

    Source: field names and meanings follow mctx's `Tree` (Babuschkin et al., DeepMind JAX
    ecosystem); `valid_actions` and `terminal` are ours.
    """

    node_visits: Tensor
    raw_values: Tensor
    node_values: Tensor
    parents: Tensor
    action_from_parent: Tensor
    children_index: Tensor
    children_prior_logits: Tensor
    children_visits: Tensor
    children_rewards: Tensor
    children_discounts: Tensor
    children_values: Tensor
    valid_actions: Tensor
    terminal: Tensor
    embeddings: Mapping[str, Tensor]

    ROOT: ClassVar[int] = 0
    NONE: ClassVar[int] = -1

    @property
    def batch_size(self) -> int:
        """B."""
        return self.node_visits.shape[0]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.children_index.shape[2]

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.node_visits.shape[1]

    @property
    def num_simulations(self) -> int:
        """N - 1: the budget, and in a tree that was kept from an earlier search more than that."""
        return self.num_nodes - 1

    @cached_property
    def rows(self) -> Tensor:
        """`[B]` int64, 0..B-1: the first index of every per-row gather, made once."""
        return torch.arange(self.batch_size, device=self.node_visits.device)

    @cached_property
    def roots(self) -> Tensor:
        """`[B]` int64, all 0: the roots as a `node_index`, of which `pick` takes slices."""
        return torch.zeros(self.batch_size, dtype=torch.int64, device=self.node_visits.device)

    def pick(self, field: Tensor, node_index: Tensor) -> Tensor:
        """What a field `[B, N, ...]` holds at one node a row, `[B, ...]`."""
        if node_index is self.roots:
            return field[:, self.ROOT]
        return field[self.rows, node_index]

    def qvalues(self, node_index: Tensor) -> Tensor:
        """Reward + discount * child value of each action of one node a row.

        Args:
            node_index: `[B]` int64.

        Returns:
            `[B, A]`, for the node's player; 0 where unvisited.
        """
        rewards = self.pick(self.children_rewards, node_index)
        discounts = self.pick(self.children_discounts, node_index)
        return rewards + discounts * self.pick(self.children_values, node_index)

    def summary(self) -> SearchSummary:
        """Statistics of the roots, shapes in `SearchSummary`."""
        value = self.node_values[:, self.ROOT]
        visit_counts = self.children_visits[:, self.ROOT]
        valid = self.valid_actions[:, self.ROOT].to(value.dtype)
        # An unsearched root has no visits: its distribution is uniform over what is allowed.
        counts = torch.where(
            visit_counts.sum(dim=-1, keepdim=True) > 0, visit_counts.to(value.dtype), valid
        )
        return SearchSummary(
            visit_counts=visit_counts,
            visit_probs=counts / counts.sum(dim=-1, keepdim=True),
            value=value,
            qvalues=self.qvalues(self.roots),
        )

    def principal_variation(self, row: int) -> list[int]:
        """The actions of tree `row` from the root by most visits, then Q-value, then lowest index.

        Raises:
            ValueError: If the batch has no such row.
        """
        self._require_row(row)
        children = to_list(self.children_index[row])
        visits = to_list(self.children_visits[row])
        qvalues = to_list(
            self.children_rewards[row] + self.children_discounts[row] * self.children_values[row]
        )
        line: list[int] = []
        node = self.ROOT
        while known := [a for a, child in enumerate(children[node]) if child != self.NONE]:
            best = max((visits[node][a], qvalues[node][a], -a) for a in known)
            action = -int(best[2])
            line.append(action)
            node = int(children[node][action])
        return line

    def to_dict(self, row: int) -> dict[str, Any]:
        """Tree `row` as nested plain Python, ready for `json.dumps`.

        Returns:
            The root as a dict of `node` (column), `action`, `visits`, `value`, `prior`
            (probability), `reward`, `discount` and `children`, a list of the same by action. At
            the root `action`, `prior`, `reward` and `discount` are None.

        Raises:
            ValueError: If the batch has no such row.
        """
        self._require_row(row)
        visits, values = to_list(self.node_visits[row]), to_list(self.node_values[row])
        parents, actions = to_list(self.parents[row]), to_list(self.action_from_parent[row])
        priors = to_list(torch.softmax(self.children_prior_logits[row].double(), dim=-1))
        rewards, discounts = (
            to_list(self.children_rewards[row]),
            to_list(self.children_discounts[row]),
        )
        nodes: dict[int, dict[str, Any]] = {}
        # Parents have lower columns than their children: one pass, no recursion.
        for node in range(len(visits)):
            parent, action = parents[node], actions[node]
            if node != self.ROOT and parent == self.NONE:
                continue
            is_root = node == self.ROOT
            nodes[node] = {
                "node": node,
                "action": None if is_root else action,
                "visits": visits[node],
                "value": values[node],
                "prior": None if is_root else priors[parent][action],
                "reward": None if is_root else rewards[parent][action],
                "discount": None if is_root else discounts[parent][action],
                "children": [],
            }
            if not is_root:
                nodes[parent]["children"].append(nodes[node])
        for entry in nodes.values():
            entry["children"].sort(key=itemgetter("action"))
        return nodes[self.ROOT]

    def _require_row(self, row: int) -> None:
        if not 0 <= row < self.batch_size:
            raise ValueError(
                f"Tree row: found {row}; required 0 to {self.batch_size - 1}. Pass the index of a "
                "batch row."
            )


def mask_logits(prior_logits: Tensor, valid_actions: Tensor) -> Tensor:
    """Gives invalid actions no probability: `[..., A]` logits and bool mask to `[..., A]` logits.

    The most negative finite number rather than `-inf`, so that a node without valid actions has
    a softmax (which is not used) instead of NaN.
    """
    return prior_logits.masked_fill(~valid_actions, torch.finfo(prior_logits.dtype).min)


def tree_dtype(root: RootOutput) -> torch.dtype:
    """The dtype of a tree's floats: the widest of the root's, at least float32."""
    widest = torch.promote_types(root.value.dtype, root.prior_logits.dtype)
    return torch.promote_types(widest, torch.float32)


def allocate_tree(root: RootOutput, num_simulations: int, *, kept: Tree | None = None) -> Tree:
    """Allocates trees of `num_simulations + 1` nodes and writes the roots, with one visit each.

    Args:
        root: Validated output of B rows and A actions.
        num_simulations: At least 1.
        kept: Trees of K nodes to continue, whose roots are `root`'s already; `num_simulations`
            nodes are added.
    """
    batch_size, num_actions = root.prior_logits.shape
    num_kept = 1 if kept is None else kept.num_nodes
    nodes = (batch_size, num_kept + num_simulations)
    edges = (*nodes, num_actions)

    def integers(shape: tuple[int, ...], fill: int) -> Tensor:
        return torch.full(shape, fill, dtype=torch.int64, device=root.value.device)

    def floats(shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=tree_dtype(root), device=root.value.device)

    tree = Tree(
        node_visits=integers(nodes, 0),
        raw_values=floats(nodes),
        node_values=floats(nodes),
        parents=integers(nodes, Tree.NONE),
        action_from_parent=integers(nodes, Tree.NONE),
        children_index=integers(edges, Tree.NONE),
        children_prior_logits=floats(edges),
        children_visits=integers(edges, 0),
        children_rewards=floats(edges),
        children_discounts=floats(edges),
        children_values=floats(edges),
        valid_actions=root.valid_actions.new_zeros(edges),
        terminal=root.valid_actions.new_zeros(nodes),
        embeddings={
            name: leaf.new_zeros((*nodes, *leaf.shape[1:])) for name, leaf in root.embedding.items()
        },
    )
    if kept is not None:
        for name in _NODE_FIELDS:
            getattr(tree, name)[:, :num_kept] = getattr(kept, name)
        for name, leaf in tree.embeddings.items():
            leaf[:, :num_kept] = kept.embeddings[name]
        return tree
    tree.node_visits[:, Tree.ROOT] = 1
    _write_nodes(tree, tree.rows, torch.zeros_like(tree.rows), output=root)
    return tree


def add_children(
    tree: Tree, rows: Tensor, *, parent: Tensor, action: Tensor, node: Tensor, step: StepOutput
) -> None:
    """Writes M new nodes and the edges that lead to them, in place; visits are left to a back-up.

    Args:
        tree: The trees.
        rows: `[M]` int64, the tree each new node belongs to; a tree may occur several times.
        parent: `[M]` int64, column of each parent.
        action: `[M]` int64, taken there.
        node: `[M]` int64, the unused column each new node gets.
        step: Validated output of the M transitions.
    """
    _write_nodes(tree, rows, node, output=step)
    tree.parents[rows, node] = parent
    tree.action_from_parent[rows, node] = action
    tree.children_index[rows, parent, action] = node
    tree.children_rewards[rows, parent, action] = step.reward.to(tree.raw_values.dtype)
    tree.children_discounts[rows, parent, action] = step.discount.to(tree.raw_values.dtype)
    tree.terminal[rows, node] |= step.discount == 0


_NODE_FIELDS = tuple(field.name for field in fields(Tree) if field.name != "embeddings")
"""All tensors `[B, N, ...]` of a tree but its embeddings."""


def _write_nodes(
    tree: Tree, rows: Tensor, node: Tensor, *, output: RootOutput | StepOutput
) -> None:
    logits = output.prior_logits.to(tree.raw_values.dtype)
    value = output.value.to(tree.raw_values.dtype)
    tree.raw_values[rows, node] = value
    tree.node_values[rows, node] = value
    tree.children_prior_logits[rows, node] = mask_logits(logits, output.valid_actions)
    tree.valid_actions[rows, node] = output.valid_actions
    tree.terminal[rows, node] = ~output.valid_actions.any(dim=-1)
    for name, leaf in tree.embeddings.items():
        leaf[rows, node] = output.embedding[name]

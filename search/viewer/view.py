"""The node model that every rendering of a search tree reads.

A row of a `Tree` and a tree of nested dicts become the same list of nodes. Nothing here recurses,
so that a chain of ten thousand nodes can be shown.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from search.model import to_list
from search.tree import Tree


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node; numbers are None where unknown, and at the root where they belong to an edge.

    Attributes:
        node: Column in its tree, or place in the file it came from.
        parent: Position of its parent in `TreeView.nodes`, -1 at the root.
        depth: Edges from the root.
        action: The parent's action that leads here.
        text: What that action added, as the model wrote it.
        visits: How many simulations ended here or below.
        value: The expected return from here, after the search.
        raw_value: The model's own estimate of it, before.
        qvalue: reward + discount * value: the value of the action at the parent.
        prior: The action's probability before the search.
        reward: Of the transition.
        discount: Multiplies the value; 0 ends the episode, -1 changes the player.
        terminal: Whether nothing can follow.
        principal: Whether it is on the principal line: always the most visited child.
        hidden: Nodes below it that were left out.
    """

    node: int
    parent: int
    depth: int
    action: int | None
    text: str | None
    visits: int
    value: float | None
    raw_value: float | None = None
    qvalue: float | None = None
    prior: float | None = None
    reward: float | None = None
    discount: float | None = None
    terminal: bool = False
    principal: bool = False
    hidden: int = 0


@dataclass(frozen=True)
class TreeView:
    """A tree's nodes, depth first: each before those below it, siblings by visits, most first.

    Attributes:
        nodes: The root is the first.
    """

    nodes: tuple[NodeView, ...]

    @property
    def root(self) -> NodeView:
        """The first node."""
        return self.nodes[0]

    @property
    def hidden(self) -> int:
        """How many nodes were left out."""
        return sum(node.hidden for node in self.nodes)

    @property
    def depth(self) -> int:
        """Edges to the deepest node."""
        return max(node.depth for node in self.nodes)

    @property
    def principal_variation(self) -> list[int | None]:
        """Actions from the root, most visited child after most visited child."""
        return [node.action for node in self.nodes[1:] if node.principal]


def view_tree(tree: Tree, row: int, *, labels: Mapping[int, str] | None = None) -> TreeView:
    """Lists the nodes of tree `row`.

    Args:
        tree: B trees.
        row: Which of them.
        labels: Text by node column.

    Raises:
        ValueError: If the batch has no such row.
    """
    if not 0 <= row < tree.batch_size:
        raise ValueError(
            f"row: found {row}; required 0 to {tree.batch_size - 1}, as there are "
            f"{tree.batch_size} trees. Pass the number of one of them."
        )
    texts = labels or {}
    parents = tree.parents[row].long().cpu()
    used = parents >= 0
    used[Tree.ROOT] = True
    columns = used.nonzero()[:, 0]  # [M], parents before children
    place = torch.full_like(parents, -1)
    place[columns] = torch.arange(len(columns))
    edge = (parents[columns[1:]], tree.action_from_parent[row].long().cpu()[columns[1:]])

    def of_nodes(field: Tensor) -> list[Any]:
        return to_list(field[row].cpu()[columns])

    def of_edges(field: Tensor) -> list[Any]:
        return [None, *to_list(field.cpu()[edge])]

    discounts = tree.children_discounts[row]
    priors = torch.softmax(tree.children_prior_logits[row].double(), dim=-1)  # [N, A]
    qvalues = tree.children_rewards[row] + discounts * tree.children_values[row]
    values, raw_values = of_nodes(tree.node_values), of_nodes(tree.raw_values)
    visits, terminal = of_nodes(tree.node_visits), of_nodes(tree.terminal)
    q, p = of_edges(qvalues), of_edges(priors)
    r, d = of_edges(tree.children_rewards[row]), of_edges(discounts)
    above, actions = [-1, *to_list(place[edge[0]])], [None, *to_list(edge[1])]
    return arrange(
        [
            NodeView(
                node=column,
                parent=above[i],
                depth=0,
                action=actions[i],
                text=texts.get(column),
                visits=visits[i],
                value=values[i],
                raw_value=raw_values[i],
                qvalue=q[i],
                prior=p[i],
                reward=r[i],
                discount=d[i],
                terminal=terminal[i],
            )
            for i, column in enumerate(to_list(columns))
        ]
    )


def arrange(entries: Sequence[NodeView]) -> TreeView:
    """Puts nodes in order and finds their depths and the principal line.

    Args:
        entries: The root first, parents before children; `parent` is a position among them.
    """
    below: list[list[int]] = [[] for _ in entries]
    for at, entry in enumerate(entries):
        if entry.parent >= 0:
            below[entry.parent].append(at)
    for children in below:
        children.sort(key=lambda at: _rank(entries[at]))
    nodes: list[NodeView] = []
    stack = [(0, -1, 0, True)]
    while stack:
        at, parent, depth, principal = stack.pop()
        place = len(nodes)
        nodes.append(replace(entries[at], parent=parent, depth=depth, principal=principal))
        for rank, child in reversed(list(enumerate(below[at]))):
            best = principal and rank == 0 and entries[child].visits > 0
            stack.append((child, place, depth + 1, best))
    return TreeView(tuple(nodes))


def limit_view(
    view: TreeView,
    *,
    max_nodes: int | None = None,
    max_depth: int | None = None,
) -> TreeView:
    """Keeps the principal line and the most visited nodes; the rest is counted in `hidden`.

    Args:
        view: The tree.
        max_nodes: Nodes kept in all.
        max_depth: Levels kept below the root.

    Raises:
        ValueError: If a limit is below 1.
    """
    limits = {"max_nodes": max_nodes, "max_depth": max_depth}
    for name, limit in limits.items():
        if limit is not None and limit < 1:
            raise ValueError(f"{name}: found {limit}; required at least 1, or None for no limit")
    most, deepest = (math.inf if x is None else x for x in limits.values())
    below = children_of(view)
    queue = [(False, 0, 0)]
    kept: set[int] = set()
    # Off the principal line a node comes after its parent, whose visits include its own.
    while queue and len(kept) < most:
        *_, at = heapq.heappop(queue)
        kept.add(at)
        if view.nodes[at].depth >= deepest:
            continue
        for child in below[at]:
            node = view.nodes[child]
            heapq.heappush(queue, (not node.principal, -node.visits, child))
    size = [1 + node.hidden for node in view.nodes]  # of the subtree
    hidden = [node.hidden for node in view.nodes]
    for at in range(len(size) - 1, 0, -1):  # children before parents
        parent = view.nodes[at].parent
        size[parent] += size[at]
        if parent in kept and at not in kept:
            hidden[parent] += size[at]
    place = {at: new for new, at in enumerate(sorted(kept))}
    return TreeView(
        tuple(
            replace(view.nodes[at], parent=place.get(view.nodes[at].parent, -1), hidden=hidden[at])
            for at in place
        )
    )


def children_of(view: TreeView) -> list[list[int]]:
    """Positions of the children of each node, most visited first."""
    below: list[list[int]] = [[] for _ in view.nodes]
    for at, node in enumerate(view.nodes):
        if node.parent >= 0:
            below[node.parent].append(at)
    return below


def _rank(node: NodeView) -> tuple[int, float, int]:
    """Order of siblings as in `Tree.principal_variation`: visits, Q-value, action."""
    worth = node.value if node.qvalue is None else node.qvalue
    known = -worth if worth is not None and not math.isnan(worth) else math.inf
    return -node.visits, known, node.action or 0

"""One search tree made small enough to read: what to keep, and where to put it.

The figure and the report show the same nodes by the same rule. This file neither searches nor
draws: it reads the nested dict that a search exported.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class SearchNode(TypedDict):
    """One node of a search tree, as a nested dict that JSON can hold.

    `text` is what the action that led here added; `value` is the expected return from here, None
    where unknown; `prior` and `reward` belong to the action that led here. Keys beyond these are
    ignored.
    """

    text: str
    visits: int
    value: float | None
    prior: NotRequired[float | None]
    reward: NotRequired[float | None]
    children: NotRequired[Sequence[SearchNode]]


@dataclass(eq=False)
class PlacedNode:
    """A node that is shown, and its place.

    Attributes:
        text: its own text, not its prefix.
        visits: of the search.
        value: expected return from here; None where unknown.
        prior: of the action that led here; None where unknown.
        reward: of the transition that led here; None where unknown.
        depth: column, 0 at the root.
        principal: True on the principal line: the root, and the most visited child all the way.
        row: vertical place, 0 at the top; leaves take whole rows, parents the middle of theirs.
        hidden: children that are not shown.
        children: those shown, most visited first.
    """

    text: str
    visits: int
    value: float | None
    prior: float | None
    reward: float | None
    depth: int
    principal: bool
    row: float = 0.0
    hidden: int = 0
    children: list[PlacedNode] = field(default_factory=list["PlacedNode"])

    def walk(self) -> Iterator[PlacedNode]:
        """Yield this node and all below it, parents first."""
        stack: list[PlacedNode] = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


def place_tree(
    tree: SearchNode, *, max_children: int, max_depth: int, max_nodes: int
) -> PlacedNode:
    """Keep the principal line and the most visited nodes, and give each its row and column.

    Children that were never visited are not shown.

    Args:
        tree: the root.
        max_children: children kept of each node.
        max_depth: levels kept below the root.
        max_nodes: nodes kept in all; beyond the principal line, the most visited.

    Raises:
        ValueError: a limit is below 1, or a node lacks a field or holds a wrong one.
    """
    if min(max_children, max_depth, max_nodes) < 1:
        raise ValueError(
            f"found max_children={max_children}, max_depth={max_depth}, max_nodes={max_nodes}: "
            "each is required to be at least 1"
        )
    root = _read(tree, depth=0, principal=True, where="tree")
    kept = 0
    # Off the principal line a node comes after its parent, whose visits include its own.
    queue: list[tuple[bool, int, int, PlacedNode, SearchNode, PlacedNode | None, str]]
    queue = [(False, 0, 0, root, tree, None, "tree")]
    order = 0
    while queue:
        *_, node, source, parent, where = heapq.heappop(queue)
        if kept == max_nodes:
            if parent is not None:
                parent.hidden += 1
            continue
        kept += 1
        if parent is not None:
            parent.children.append(node)
        ranked = _ranked_children(source, node, where)
        shown = [c for c in ranked if c[0].visits > 0][:max_children]
        if node.depth == max_depth:
            shown = []
        node.hidden = len(ranked) - len(shown)
        for child, child_source, child_where in shown:
            order += 1
            entry = (not child.principal, -child.visits, order)
            heapq.heappush(queue, (*entry, child, child_source, node, child_where))
    for node in root.walk():
        node.children.sort(key=_rank)
    _set_rows(root)
    return root


def _ranked_children(
    source: SearchNode, node: PlacedNode, where: str
) -> list[tuple[PlacedNode, SearchNode, str]]:
    """Read the children of a node, most visited first; the first continues the principal line."""
    sources = source.get("children") or ()
    read = [
        (_read(s, depth=node.depth + 1, principal=False, where=f"{where}.children[{i}]"), s, i)
        for i, s in enumerate(sources)
    ]
    read.sort(key=lambda item: _rank(item[0]))
    if read and read[0][0].visits > 0:
        read[0][0].principal = node.principal
    return [(child, s, f"{where}.children[{i}]") for child, s, i in read]


def _rank(node: PlacedNode) -> tuple[int, float]:
    """Sort key: most visits, then highest value."""
    return -node.visits, -node.value if node.value is not None else math.inf


def _set_rows(root: PlacedNode) -> None:
    next_row = 0
    for node in reversed(list(root.walk())):  # children before parents, bottom row first
        if node.children:
            node.row = (node.children[0].row + node.children[-1].row) / 2
        else:
            node.row = float(next_row)
            next_row += 1
    for node in root.walk():
        node.row = next_row - 1 - node.row


def printable(text: str) -> str:
    """Replaces what XML and HTML cannot hold, which an untrained model may well write."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _read(source: SearchNode, *, depth: int, principal: bool, where: str) -> PlacedNode:
    """Check one node's fields and copy them."""
    try:
        text, visits, value = source["text"], source["visits"], source["value"]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where} is {str(source)[:80]!r}, required a mapping with text, visits and value"
        ) from error
    numbers = {"value": value, "prior": source.get("prior"), "reward": source.get("reward")}
    read: dict[str, float | None] = {}
    for name, number in numbers.items():
        try:
            read[name] = None if number is None else float(number)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}.{name} is {number!r}, required a number or None") from error
        if (finite := read[name]) is not None and not math.isfinite(finite):
            raise ValueError(f"{where}.{name} is {finite}, required finite, or None if unknown")
    if visits != int(visits) or visits < 0:
        raise ValueError(f"{where}.visits is {visits!r}, required a whole number of at least 0")
    return PlacedNode(
        text=printable(str(text)),
        visits=int(visits),
        value=read["value"],
        prior=read["prior"],
        reward=read["reward"],
        depth=depth,
        principal=principal,
    )

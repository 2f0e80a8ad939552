"""Read and write search trees as nested JSON, one dict a node with its children.

Reading checks every field it uses; writing does not recurse.
"""

import math
from collections.abc import Mapping
from typing import cast

from prefsearch.storage.json_text import json_text
from search.viewer.view import NodeView, TreeView, arrange


def view_nested(root: object) -> TreeView:
    """Lists the nodes of a tree of nested dicts, as JSON holds it.

    Args:
        root: With `visits` and, where known, `text`, `value`, `raw_value`, `prior`, `reward`,
            `discount`, `action`, `terminal`, `hidden` and `children`; other keys are not read.

    Raises:
        ValueError: If a node lacks its visits, or a field is of the wrong kind; names the node.
    """
    entries: list[NodeView] = []
    stack: list[tuple[object, int, str, int | None]] = [(root, -1, "tree", None)]
    while stack:
        source, parent, where, place = stack.pop()
        if not isinstance(source, Mapping):
            raise ValueError(
                f"{where}: found {_kind(source)}; required a node, a mapping with visits"
            )
        fields = cast("Mapping[str, object]", source)
        entries.append(_read_node(fields, where, number=len(entries), parent=parent, place=place))
        children = fields.get("children")
        if children and not isinstance(children, list):
            raise ValueError(f"{where}.children: found {_kind(children)}; required a list")
        below = cast("list[object]", children or [])
        position = len(entries) - 1
        stack += [(c, position, f"{where}.children[{i}]", i) for i, c in enumerate(below)]
    return arrange(entries)


def nested_json(view: TreeView) -> str:
    """A tree as nested JSON: the keys of `Tree.to_dict`, and text, raw value and what is hidden.

    Numbers that JSON cannot hold (NaN, infinities) are null. Written without recursion, so it may
    be nested deeper than some readers follow.
    """
    parts: list[str] = []
    open_nodes: list[int] = []
    for at, node in enumerate(view.nodes):
        while open_nodes and open_nodes[-1] != node.parent:
            parts.append("]}")
            open_nodes.pop()
        # A node follows its parent directly, or else a sibling.
        if at and node.parent != at - 1:
            parts.append(", ")
        fields = {
            "node": node.node,
            "action": node.action,
            "text": node.text,
            "visits": node.visits,
            "value": _finite(node.value),
            "raw_value": _finite(node.raw_value),
            "prior": _finite(node.prior),
            "reward": _finite(node.reward),
            "discount": _finite(node.discount),
            "terminal": node.terminal,
            **({"hidden": node.hidden} if node.hidden else {}),
        }
        parts.append(json_text(fields, ascii_only=True)[:-1] + ', "children": [')
        open_nodes.append(at)
    parts += ["]}"] * len(open_nodes)
    return "".join(parts) + "\n"


def _read_node(
    fields: Mapping[str, object], where: str, *, number: int, parent: int, place: int | None
) -> NodeView:

    def number_of(name: str) -> float | None:
        value = fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}.{name}: found {_kind(value)}; required a number or null")
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{where}.{name}: found {_kind(value)}; {error}") from error

    def count_of(name: str, default: int | None) -> int:
        value = fields.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise ValueError(
                f"{where}.{name}: found {_kind(value)}; required a whole number, 0 or more, of 63 "
                "bits"
            )
        return value

    text = fields.get("text")
    if not (text is None or isinstance(text, str)):
        raise ValueError(f"{where}.text: found {_kind(text)}; required text or null")
    value, reward, discount = number_of("value"), number_of("reward"), number_of("discount")
    qvalue = None
    if value is not None and reward is not None and discount is not None:
        qvalue = reward + discount * value
    return NodeView(
        node=count_of("node", number),
        parent=parent,
        depth=0,
        action=None if fields.get("action", place) is None else count_of("action", place),
        text=text,
        visits=count_of("visits", None),
        value=value,
        raw_value=number_of("raw_value"),
        qvalue=qvalue,
        prior=number_of("prior"),
        reward=reward,
        discount=discount,
        terminal=fields.get("terminal") is True,
        hidden=count_of("hidden", 0),
    )


def _kind(value: object) -> str:
    return f"{str(value)[:40]!r} ({type(value).__name__})"


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None

"""A search tree in the DOT language, for Graphviz: `dot -Tsvg tree.dot -o tree.svg`."""

import textwrap

from search.viewer.text import format_column, node_text, one_line
from search.viewer.view import NodeView, TreeView, limit_view

_MARK, _INK, _LINE = "#b34700", "#1c1e21", "#8a929c"
_MOST_TEXT = 120
_LINE_LENGTH = 28
# Some renderers read `\N` and `&#8238;` inside quotes: escape what starts either.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "&": "&amp;", "\n": r"\n"})


def render_dot(view: TreeView, *, max_nodes: int | None = None, title: str | None = None) -> str:
    """Describes a tree to Graphviz: visits and value at nodes; action, prior, reward at edges.

    The width of an edge shows its share of the root's visits; the principal line is colored and
    bold.

    Args:
        view: The tree.
        max_nodes: Nodes shown, the most visited; how many were left out is said.
        title: Above the graph.

    Raises:
        ValueError: If `max_nodes` is below 1.
    """
    shown = limit_view(view, max_nodes=max_nodes)
    values = format_column([node.value for node in shown.nodes])
    priors = format_column([node.prior for node in shown.nodes])
    rewards = format_column([node.reward for node in shown.nodes])
    caption = [one_line(title, 2 * _MOST_TEXT)] if title else []
    if shown.hidden:
        total = len(shown.nodes) + shown.hidden
        caption.append(f"{len(shown.nodes)} of {total} nodes, {shown.hidden} left out")
    lines = [
        "digraph search_tree {",
        f'  graph [rankdir=LR, ranksep=0.6, nodesep=0.15, labelloc=t, fontname="Helvetica", '
        f"label={_quote(chr(10).join(caption))}];",
        f'  node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="{_LINE}", '
        f'fontcolor="{_INK}", fontname="Helvetica", fontsize=11];',
        f'  edge [color="{_LINE}", fontcolor="{_INK}", fontname="Helvetica", fontsize=9, '
        "arrowsize=0.6];",
    ]
    most = max(1, shown.root.visits)
    for at, node in enumerate(shown.nodes):
        style = f', color="{_MARK}", penwidth=2' if node.principal else ""
        lines.append(f"  n{at} [label={_quote(_node_label(node, values[at]))}{style}];")
        if node.parent >= 0:
            style = f', color="{_MARK}", fontcolor="{_MARK}"' if node.principal else ""
            label = _edge_label(node, priors[at], rewards[at])
            width = 0.6 + 5.4 * node.visits / most
            lines.append(
                f"  n{node.parent} -> n{at} [label={_quote(label)}, penwidth={width:.2f}{style}];"
            )
        if node.hidden:
            lines.append(f'  h{at} [label="+{node.hidden} more", shape=plain, style=""];')
            lines.append(f"  n{at} -> h{at} [style=dashed, arrowhead=none];")
    return "\n".join([*lines, "}"]) + "\n"


def _node_label(node: NodeView, value: str) -> str:
    text = one_line(node_text(node), _MOST_TEXT)
    facts = f"{node.visits} visits · value {value}"
    return "\n".join([*textwrap.wrap(text, _LINE_LENGTH), facts])


def _edge_label(node: NodeView, prior: str, reward: str) -> str:
    facts = [] if node.action is None else [f"action {node.action}"]
    facts += [] if node.prior is None else [f"prior {prior}"]
    facts += [] if node.reward is None else [f"reward {reward}"]
    return "\n".join(facts)


def _quote(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'

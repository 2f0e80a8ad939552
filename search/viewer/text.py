"""Render a search tree as plain text: numbers in columns on the left, the tree beside them.

Texts in a tree come from a model, so control characters and marks that change the reading direction
are replaced.
"""

import math
import unicodedata
from collections.abc import Sequence

from search.viewer.view import NodeView, TreeView, children_of, limit_view

_NEWLINES = {"\n": "↵", "\t": " ", "\r": "", "\x85": "↵", "\u2028": "↵", "\u2029": "↵"}
# Embeddings, overrides and isolates: they would turn around what stands beside the text.
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def render_text(
    view: TreeView,
    *,
    max_nodes: int | None = None,
    width: int = 120,
) -> str:
    """Draws a tree, siblings by visits; with the number of nodes left out.

    Args:
        view: The tree.
        max_nodes: Nodes shown in all, the most visited.
        width: Columns of the terminal; texts are cut to fit.

    Returns:
        Lines, each ended.

    Raises:
        ValueError: If a limit is below 1.
    """
    shown = limit_view(view, max_nodes=max_nodes)
    columns: dict[str, list[float | None]] = {
        "value": [node.value for node in shown.nodes],
        "Q": [node.qvalue for node in shown.nodes],
        "prior": [node.prior for node in shown.nodes],
        "reward": [node.reward for node in shown.nodes],
    }
    cells: dict[str, list[str]] = {"visits": [str(node.visits) for node in shown.nodes]}
    for name, numbers in columns.items():
        if any(number is not None for number in numbers):
            cells[name] = format_column(numbers)
    wide = {name: max(len(name), *map(len, texts)) for name, texts in cells.items()}
    blank = " " * (sum(wide.values()) + 2 * len(wide))
    lines = ["  ".join(name.rjust(wide[name]) for name in cells) + "    * principal line"]
    branches = _branches(shown)
    unfinished: list[int] = []  # nodes whose descendants may still come
    for at, node in enumerate(shown.nodes):
        while unfinished and unfinished[-1] != node.parent:
            lines += _left_out(shown, unfinished.pop(), blank, branches)
        numbers = "  ".join(cells[name][at].rjust(wide[name]) for name in cells)
        branch, _ = branches[at]
        room = max(20, width - len(blank) - len(branch) - 2)
        mark = "*" if node.principal else " "
        lines.append(f"{numbers}  {mark} {branch}{one_line(node_name(node), room)}".rstrip())
        unfinished.append(at)
    while unfinished:
        lines += _left_out(shown, unfinished.pop(), blank, branches)
    return "\n".join(lines) + "\n"


def summary_line(view: TreeView) -> str:
    """One tree in a line: its size, its value and its principal line."""
    (value,) = format_column([view.root.value])
    count = len(view.nodes) + view.hidden
    return (
        f"{count} {'node' if count == 1 else 'nodes'}, depth {view.depth}, "
        f"{view.root.visits} visits, value {value}, principal line {principal_text(view)}"
    )


def principal_text(view: TreeView, most: int = 24) -> str:
    """The actions of the principal line, the first of them if there are many."""
    actions = ["?" if action is None else str(action) for action in view.principal_variation]
    if len(actions) > most:
        actions[most:] = [f"… ({len(actions) - most} more)"]
    return " → ".join(actions) or "(none)"


def node_name(node: NodeView) -> str:
    """What to call a node: its action and its text."""
    text = node_text(node)
    return text if node.action is None else f"{node.action}: {text}" if text else str(node.action)


def node_text(node: NodeView) -> str:
    """A node's text as it is shown, whole; a square marks where nothing can follow."""
    shown = "(root)" if node.depth == 0 else ""
    if node.text is not None:
        shown = node.text.strip() or ("(start)" if node.depth == 0 else "(empty)")
    return f"{shown} ■".lstrip() if node.terminal else shown


def one_line(text: str, most: int) -> str:
    """Text as one harmless line of at most `most` characters; a cut is marked by an ellipsis."""
    # Twice the width is enough, whatever is dropped; a text may be megabytes.
    clean = "".join(_harmless(character) for character in text[: 2 * most + 100])
    clean = " ".join(clean.split())
    cut = len(clean) > most or len(text) > 2 * most + 100
    return clean[: most - 1].rstrip() + "…" if cut else clean


def format_column(numbers: Sequence[float | None]) -> list[str]:
    """Numbers with the same decimals, so that their points align: about four digits in all."""
    sizes = [abs(x) for x in numbers if x is not None and math.isfinite(x)]
    largest = max(sizes, default=0.0)
    if largest >= 1e7 or 0 < largest < 1e-3:
        return ["–" if x is None else f"{x:.3g}" for x in numbers]
    decimals = 3 if largest < 10 else 2 if largest < 100 else 1 if largest < 1000 else 0
    return ["–" if x is None else f"{x:.{decimals}f}" for x in numbers]


def _left_out(
    view: TreeView, at: int, blank: str, branches: Sequence[tuple[str, str]]
) -> list[str]:
    hidden = view.nodes[at].hidden
    return [f"{blank}  {branches[at][1]}└─ … {hidden} more not shown"] if hidden else []


def _harmless(character: str) -> str:
    if character in _NEWLINES:
        return _NEWLINES[character]
    unprintable = unicodedata.category(character) in ("Cc", "Cs", "Cn") or character in _TURNING
    return "\N{REPLACEMENT CHARACTER}" if unprintable else character


def _branches(view: TreeView) -> list[tuple[str, str]]:
    """For each node the lines that lead to it, and those that continue below it."""
    below = children_of(view)
    drawn: list[tuple[str, str]] = [("", "")] * len(view.nodes)
    for at, node in enumerate(view.nodes):
        for child in below[at]:
            last = child == below[at][-1] and not node.hidden
            backbone = drawn[at][1]
            drawn[child] = (
                backbone + ("└─ " if last else "├─ "),
                backbone + ("   " if last else "│  "),
            )
    return drawn

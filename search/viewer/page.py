"""Render search trees as one self-contained HTML page whose nodes open on a click.

The page loads nothing from any host. It carries its data as JSON and draws rows only where a branch
is open. Texts in a tree come from a model and are not trusted: they enter the document as text
nodes, and a content security policy allows only the one script whose hash it names.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

from prefsearch.report.page import escape
from prefsearch.report.style import STYLE
from prefsearch.storage.json_text import json_text
from prefsearch.storage.visible_text import printable
from search.viewer.text import one_line, render_text
from search.viewer.view import NodeView, TreeView

# Key in the data, heading, explanation.
COLUMNS = (
    ("visits", "Visits", "Simulations that ended in the node or below it; the bar is the share of "
     "all. More visits mean that the search preferred it."),
    ("value", "Value", "Expected discounted return from the node after the search, for the player "
     "who moves there. Where the discount is 0 it does not count."),
    ("q", "Q", "Value of the action at its parent: reward + discount × value."),
    ("prior", "Prior", "Probability of the action before the search, from the policy (with noise "
     "where the planner adds it)."),
    ("reward", "Reward", "Of the transition into the node."),
    ("discount", "Discount", "Multiplies the value: 0 ends the episode, −1 changes the player."),
    ("raw", "Raw value", "The model's own estimate of the node's value, before the search."),
)  # fmt: skip
_MOST_NAME = 72
_UNSCRIPTED_NODES = 200


@dataclass(frozen=True)
class NamedView:
    """A tree and what the page's selector calls it.

    Attributes:
        name: In the selector.
        view: The tree.
        picture: What the search began from, as a `data:` address of an image; None: no picture.
    """

    name: str
    view: TreeView
    picture: str | None = None


def render_html(trees: Sequence[NamedView], *, title: str, subtitle: str = "") -> str:
    """Makes the page.

    Args:
        trees: At least one; the first is shown, a selector opens the others.
        title: Of the page.
        subtitle: One sentence under it: where the trees are from.
    """
    options = "".join(
        f'<option value="{i}">{escape(one_line(tree.name, _MOST_NAME))}</option>'
        for i, tree in enumerate(trees)
    )
    data = "\n".join(
        f'<script type="application/json" id="tree-{i}">{_data(tree.view)}</script>'
        for i, tree in enumerate(trees)
    )
    pictures = "".join(
        f'<img class="picture" data-tree="{i}" src="{escape(tree.picture)}"'
        f' alt="What {escape(one_line(tree.name, _MOST_NAME))} began from"{" hidden" if i else ""}>'
        for i, tree in enumerate(trees)
        if tree.picture is not None
    )
    heads = "".join(
        f'<span role="columnheader" class="number" data-key="{key}" title="{escape(meaning)}">'
        f"{heading}</span>"
        for key, heading, meaning in COLUMNS
    )
    meanings = "".join(
        f"<div><dt>{heading}</dt><dd>{escape(meaning)}</dd></div>"
        for _, heading, meaning in COLUMNS
    )
    style, script = STYLE + _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return Template(_asset("page.html")).substitute(
        policy=escape(policy),
        title=escape(title),
        subtitle=escape(subtitle),
        style=style,
        script=script,
        hidden="" if len(trees) > 1 else " hidden",
        options=options,
        pictures=pictures,
        plain=escape(render_text(trees[0].view, max_nodes=_UNSCRIPTED_NODES)),
        heads=heads,
        meanings=meanings,
        data=data,
    )


@cache
def _asset(name: str) -> str:
    """The text of a file beside this module, in an installed wheel too."""
    return files("search.viewer").joinpath(name).read_text(encoding="utf-8")


def _data(view: TreeView) -> str:
    """A tree's columns as JSON that no HTML parser can leave early."""
    nodes = view.nodes
    numbers: dict[str, list[object]] = {
        "value": [_short(node.value) for node in nodes],
        "q": [_short(node.qvalue) for node in nodes],
        "prior": [_short(node.prior) for node in nodes],
        "reward": [_short(node.reward) for node in nodes],
        "discount": [_short(node.discount) for node in nodes],
        "raw": [_short(node.raw_value) for node in nodes],
    }
    columns = {
        "parent": [node.parent for node in nodes],
        "action": [node.action for node in nodes],
        "text": [_text(node) for node in nodes],
        "visits": [node.visits for node in nodes],
        # A column of which nothing is known is not shown.
        **{k: column for k, column in numbers.items() if any(x is not None for x in column)},
        "terminal": [i for i, node in enumerate(nodes) if node.terminal],
        "principal": [i for i, node in enumerate(nodes) if node.principal],
        "hidden": {i: node.hidden for i, node in enumerate(nodes) if node.hidden},
    }
    text = json_text(columns, ascii_only=True, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _text(node: NodeView) -> str | None:
    return None if node.text is None else printable(node.text)


def _short(number: float | None) -> float | str | None:
    """Six digits are more than are shown; what JSON cannot hold goes as a word."""
    if number is None or not math.isfinite(number):
        return None if number is None else str(number)
    return float(f"{number:.6g}")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

"""`prefsearch tree show`: the search trees of a file as a page, text or JSON."""

import io
import os
import sys
import webbrowser
from typing import cast

from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.visible_text import visible
from search.viewer.args import TreeShowArgs
from search.viewer.json_export import nested_json
from search.viewer.page import NamedView, render_html
from search.viewer.source import TreeSource, open_trees
from search.viewer.text import node_text, one_line, render_text, summary_line
from search.viewer.view import limit_view

_TEXT_NODES = 200
_SUMMARIZED = 8


def show(options: TreeShowArgs) -> None:
    """Shows the trees of a file."""
    _show_what_can_be_encoded(sys.stdout)
    source = open_trees(options.file)
    row = options.row
    if row is not None and not 0 <= row < source.count:
        raise ValueError(
            f"--row: found {row}; required 0 to {source.count - 1}, as {options.file} holds "
            f"{source.count} {_plural('tree', source.count)}"
        )
    if options.format == "html":
        _write_page(source, options)
        return
    number = row or 0
    title = f"{source.path.name}: {source.title}, row {number} of {source.count}"
    whole = source.view(number)
    most = options.max_nodes
    if most is None and options.format == "text":
        most = _TEXT_NODES
    shown = limit_view(whole, max_nodes=most, max_depth=options.max_depth)
    if options.format == "text":
        content = f"{one_line(title, 200)}\n{summary_line(whole)}\n\n"
        content += render_text(shown, width=_width())
    else:
        content = nested_json(shown)
    if options.output is None:
        sys.stdout.write(content)
        return
    write_text_atomic(options.target, content)
    sys.stdout.write(visible(f"{options.output}\n"))


def _write_page(source: TreeSource, options: TreeShowArgs) -> None:
    subtitle = f"{source.path.name}: {source.count} {_plural('tree', source.count)}, {source.facts}"
    lines = [one_line(subtitle, 400)]
    named: list[NamedView] = []
    rows = range(source.count) if options.row is None else [options.row]
    for number in rows:
        whole = source.view(number)
        shown = limit_view(whole, max_nodes=options.max_nodes, max_depth=options.max_depth)
        named.append(NamedView(f"{number}: {node_text(whole.root)}", shown))
        if len(named) <= _SUMMARIZED:
            lines.append(f"  tree {number}: {summary_line(whole)}")
    if len(rows) > _SUMMARIZED:
        lines.append(f"  and {len(rows) - _SUMMARIZED} more")
    page = options.target
    write_text_atomic(page, render_html(named, title=source.title, subtitle=subtitle))
    sys.stdout.write(visible("\n".join([*lines, f"Page: {page}"])) + "\n")
    if options.open and not webbrowser.open(page.resolve().as_uri()):
        raise ValueError(f"--open: found no browser; open {page} in one yourself")


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _width() -> int:
    try:
        return max(60, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):  # not a terminal
        return 120


def _show_what_can_be_encoded(stream: object) -> None:
    """Lets a terminal without Unicode show other characters as question marks."""
    if isinstance(stream, io.TextIOWrapper):
        cast("io.TextIOWrapper", stream).reconfigure(errors="replace")

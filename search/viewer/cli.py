"""The `prefsearch tree show FILE` command: search trees as an HTML page, text or JSON."""

import argparse
import io
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from prefsearch.cli.outputs import Output, check_outputs, home_expanded
from prefsearch.cli.overwriting import require_kept
from prefsearch.config.checks import shown
from prefsearch.config.flags import NEGATIVE_NUMBER, asks_for_help, read_flags
from prefsearch.config.numerals import read_int
from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.visible_text import visible
from search.viewer.json_export import nested_json
from search.viewer.page import NamedView, render_html
from search.viewer.source import TreeSource, open_trees
from search.viewer.text import node_text, one_line, render_text, summary_line
from search.viewer.view import limit_view

_TEXT_NODES = 200
_SUMMARIZED = 8
_USAGE = "usage: prefsearch tree show FILE [options]"
_HELP = f"""{_USAGE}

Look into a search: which actions were tried, how often, and what they were found to be worth.

verbs:
  show       Show the trees of a file as an HTML page, text or JSON.

`prefsearch tree show --help` explains the options.
"""
_EXAMPLES = """\
FILE is what search.viewer.file.save_tree wrote, or JSON of the text searches: data/search-*.json of
a demo or an evaluation, and the lines of `prefsearch policy plan --keep_trees N`.

examples:
  prefsearch policy plan --config policies/plan_demo --save_trees runs/trees
  prefsearch tree show runs/trees/prompt-0-decision-0.safetensors --open
  prefsearch tree show runs/demo/data/search-gumbel_muzero-8.json --format text --max-depth 3
  prefsearch tree show tree.safetensors --format json --output tree.json

In Python:
  from search.viewer.file import save_tree
  save_tree(planner.plan(model, observation).tree, "tree.safetensors", title="my search")
"""


class _Parser(argparse.ArgumentParser):
    """Raises mistakes instead of exiting, so that the command reports them."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[:200]}; `{self.prog} --help` explains the options")


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows what it can
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return 0
    if argv[0] != "show":
        sys.stderr.write(f"error: unknown verb {shown(argv[0])}; choose show: {_USAGE}\n")
        return 2
    try:
        _show(_parse(argv[1:]))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, `head` say, has seen enough; Python would complain again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        if os.environ.get("PREFSEARCH_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {visible(str(error))}\n")
        return 2
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="prefsearch tree show",
        description="Show the search trees of a file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a file of search trees")
    parser.add_argument(
        "--row",
        type=_integer,
        metavar="N",
        help="which tree, from 0 (default: a page of all, or the first as text or json)",
    )
    parser.add_argument(
        "--format", choices=("html", "text", "json"), default="html", help="default: html"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="where to write (default: FILE.html beside FILE; text and json to the terminal)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--max-depth", type=_integer, metavar="N", help="levels below the root")
    parser.add_argument(
        "--max-nodes",
        type=_integer,
        metavar="N",
        help="nodes in all, the most visited; what is left out is counted "
        f"(default: {_TEXT_NODES} for text, else all)",
    )
    parser._negative_number_matcher = NEGATIVE_NUMBER
    if asks_for_help(argv):
        argv = ["--help"]
    else:
        read_flags(parser, argv)  # names a slip before argparse asks for what is missing
    options = parser.parse_args(argv)
    if options.open and options.format != "html":
        raise ValueError(f"--open: found --format {options.format}; required html, the default")
    return options


def _integer(text: str) -> int:
    try:
        return read_int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"found {shown(text)}; required: an integer in decimal digits"
        ) from error


def _show(options: argparse.Namespace) -> None:
    if options.output is not None:
        options.output = Path(home_expanded(str(options.output), "output"))
    options.file = Path(home_expanded(str(options.file), "FILE"))
    source = open_trees(options.file)
    if options.output is not None or options.format == "html":
        _target(options)
    row: int | None = options.row
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
    write_text_atomic(_target(options), content)
    sys.stdout.write(visible(f"{options.output}\n"))


def _write_page(source: TreeSource, options: argparse.Namespace) -> None:
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
    page = _target(options)
    write_text_atomic(page, render_html(named, title=source.title, subtitle=subtitle))
    sys.stdout.write(visible("\n".join([*lines, f"Page: {page}"])) + "\n")
    if options.open and not webbrowser.open(page.resolve().as_uri()):
        raise ValueError(f"--open: found no browser; open {page} in one yourself")


def _target(options: argparse.Namespace) -> Path:
    """Where the result goes, which is never the file that is shown."""
    path: Path = options.output or options.file.with_name(options.file.name + ".html")
    check_outputs([Output("output", str(path))])
    require_kept({"the file to show": str(options.file)}, files=[path], setting="output")
    return path


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _width() -> int:
    try:
        return max(60, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):  # not a terminal
        return 120


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

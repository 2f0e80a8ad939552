"""What data and models hold is shown on the console as text: no markup, no control characters."""

import io
import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from prefsearch.cli import entry
from prefsearch.cli.console import PlainConsole, VisibleFormatter
from prefsearch.cli.entry import configure_logging
from prefsearch.storage.visible_text import visible

HOSTILE = (
    "[/oops] [red]x[/red] [link=http://a.example]y[/link] :smile: "
    "\x1b[2J\x1b]8;;z\x07 \x9b1m \u202e"
)
SHOWN = (
    "[/oops] [red]x[/red] [link=http://a.example]y[/link] :smile: "
    r"\x1b[2J\x1b]8;;z\x07 \x9b1m \u202e"
)


def printed(*objects: object, **options: object) -> str:
    stream = io.StringIO()
    console = PlainConsole(file=stream, width=400, force_terminal=True, color_system=None)
    console.print(*objects, **options)
    return stream.getvalue()


def test_texts_are_printed_as_they_are_written() -> None:
    assert printed(HOSTILE) == SHOWN + "\n"
    assert printed(f"a \ud800 {HOSTILE}", style="bold").startswith(r"a \ud800 [/oops]")


def test_cells_headings_titles_and_captions_of_tables_are_texts_too() -> None:
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE, HOSTILE)
    shown = printed(table)
    assert shown.count("[/oops] [red]x[/red]") == 6
    assert "\x1b" not in shown
    assert shown.count(r"\x1b[2J") == 6


@given(st.text(st.characters()))
def test_nothing_that_is_printed_controls_the_terminal(text: str) -> None:
    shown = printed(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not any(0x7F <= ord(c) <= 0x9F or 0xD800 <= ord(c) <= 0xDFFF for c in shown)
    assert visible(visible(text)) == visible(text)
    shown.encode("utf-8")


def test_log_lines_show_control_characters() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 1, "skipped %s", (HOSTILE,), None)
    assert VisibleFormatter("%(message)s").format(record) == f"skipped {SHOWN}"
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        configure_logging()
        assert all(isinstance(h.formatter, VisibleFormatter) for h in root.handlers)
    finally:
        root.handlers = before


def test_commands_print_hostile_paths_columns_and_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    row = {"prompt": "a [/b]", "chosen": "c", "rejected": "d", "[/x]\x1b[31m": "unused"}
    folder = tmp_path / "[/red]\x1b[31m"
    os.makedirs(folder)
    (folder / "p.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "prompt": "[/e]"}))
    source, out = str(folder / "p.jsonl"), str(folder / "out.jsonl")
    assert entry.main(["reward", "convert", "--dataset", source, "--out", out]) == 0
    flags = ["--dataset", source, "--out", str(folder / "report")]
    assert entry.main(["reward", "inspect", *flags]) == 0
    assert entry.main(["reward", "convert", "--dataset", source + "\x1b[2J"]) == 2
    told = "".join(capfd.readouterr())
    assert "\x1b" not in told
    for shown in ("[/red]", r"\x1b[31m", "[/x]"):
        assert shown in told

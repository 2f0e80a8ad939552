"""Progress bars: on a terminal alone, after a delay, nested ones in one display."""

import io

import pytest
from rich.console import Console

from prefsearch import progress
from prefsearch.cli.signals import close_bars


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal is sent; bars are shown at once."""
    stream = io.StringIO()

    def console(**options: object) -> Console:
        return Console(file=stream, force_terminal=True, width=100)

    monkeypatch.setattr(progress, "Console", console)
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    return stream


def test_nothing_is_written_to_files_and_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_short_loops_show_no_bar(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_DELAY", 60.0)
    assert list(progress.track(range(3), "counting")) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_nested_bars_share_a_display_that_ends_with_them(terminal: io.StringIO) -> None:
    with progress.progress("outer [red]", 2) as outer:
        outer.advance()
        for _ in progress.track(range(2), "inner"):
            pass
        assert outer._display.live.is_started
        outer._display.refresh()
        outer.update(2, state="done")
        display = outer._display
    assert not display.live.is_started
    assert "outer [red]" in terminal.getvalue()
    assert progress._bars == []


def test_bars_of_a_loop_that_has_failed_are_closed(terminal: io.StringIO) -> None:
    bars = progress.track(range(3), "counting")
    next(bars)
    next(bars)
    assert progress._bars
    close_bars()
    assert progress._bars == []

"""Progress bars, shown on terminals only.

Bars that run inside each other share one display. A bar is shown once it has lasted for two
seconds, and goes when it ends; output to files and pipes has none.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
_DELAY = 2.0
_INTERVAL = 0.1
_bars: "list[Bar]" = []


class Bar:
    """A progress bar; `progress` makes one."""

    def __init__(self, label: str, total: float | None, enabled: bool) -> None:
        self._label, self._total, self._enabled = label, total, enabled
        self._completed, self._state = 0.0, ""
        self._begun = self._updated = time.monotonic()
        self._display: Progress | None = None
        self._task = None

    def advance(self, count: float = 1) -> None:
        """Advances the bar by `count`."""
        self.update(self._completed + count)

    def update(self, completed: float, *, total: float | None = None, state: str = "") -> None:
        """Sets the completed amount; redraws at most ten times a second.

        Args:
            completed: In all.
            total: If it is known by now.
            state: A few words behind the bar.
        """
        self._completed, self._state = completed, state
        self._total = self._total if total is None else total
        now = time.monotonic()
        if self._enabled and now - self._updated >= _INTERVAL and now - self._begun >= _DELAY:
            self._updated = now
            self._show()

    def _show(self) -> None:
        if self._display is None:
            self._display = next((b._display for b in _bars if b._display is not None), None)
        if self._display is None:
            self._display = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._display.start()
        if self._task is None:
            self._task = self._display.add_task(self._label, total=self._total, state="")
        self._display.update(
            self._task, completed=self._completed, total=self._total, state=self._state
        )

    def close(self) -> None:
        """Removes the bar."""
        if self in _bars:
            _bars.remove(self)
        display, self._display, self._enabled = self._display, None, False
        if display is not None and self._task is not None:
            display.remove_task(self._task)
            if not any(bar._display is display for bar in _bars):
                display.stop()


@contextlib.contextmanager
def progress(label: str, total: float | None = None, *, enabled: bool = True) -> Iterator[Bar]:
    """Context manager that shows a progress bar.

    Args:
        label: What is done, in a word or two.
        total: How much there is to do; None where that is not known.
        enabled: Whether it may be shown.
    """
    bar = Bar(label, total, enabled and Console(stderr=True).is_terminal)
    _bars.append(bar)
    try:
        yield bar
    finally:
        bar.close()


def track(
    items: Iterable[T], label: str, *, total: float | None = None, enabled: bool = True
) -> Iterator[T]:
    """Iterates over items with a progress bar; `total` defaults to their length."""
    count = len(items) if total is None and isinstance(items, Sized) else total
    with progress(label, count, enabled=enabled) as bar:
        for item in items:
            yield item
            bar.advance()


def close_bars() -> None:
    """Removes all bars, as after an exception or a signal."""
    for bar in list(_bars):
        bar.close()

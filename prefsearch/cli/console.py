"""Console and log formatter of the commands, which escape control characters."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from prefsearch.storage.visible_text import visible


class PlainConsole(Console):
    """A rich console without markup that escapes control characters.

    What a model, a file or a path holds is printed as it is written: `[red]` is no color, and an
    escape sequence moves no cursor. Styles are given as arguments.
    """

    def __init__(self, **options: Any) -> None:
        """Accepts the options of `rich.console.Console` except `markup` and `emoji`."""
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make text of a string, whose control characters are shown as escapes."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does, and show control characters."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else visible(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)


class VisibleFormatter(logging.Formatter):
    """Log formatter that escapes control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Format as usual, and show control characters."""
        return visible(super().format(record))

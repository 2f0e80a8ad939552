"""Shared style of figures, and saving them as PNG and SVG.

matplotlib is imported when the first figure is opened; its global settings are left as they were.
This file does not know what a figure shows.
"""

# pyright: reportUnknownMemberType=false, reportArgumentType=false
# (matplotlib's stubs leave keyword arguments untyped and name every style key as a literal.)
from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prefsearch.storage.files import write_bytes_atomic
from prefsearch.storage.visible_text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colors, safe for the color-blind, without their yellow (too faint on white).
# Line styles and markers repeat the distinction, so a figure survives black-and-white print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
INK, FAINT = "#222222", "#6b6b6b"

_STYLE: dict[str, object] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so text is the same everywhere
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 12,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "prefsearch",
}
# No dates and no versions: the same input gives the same bytes.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}


def label_text(text: str, *, most: int = 80) -> str:
    """Sanitize text for a figure label: short, one line, no math markup.

    Matplotlib reads what stands between dollar signs as formulas, and shows no label in a legend
    that begins with an underscore.

    Args:
        text: Any.
        most: Characters of the label; longer texts are cut.
    """
    line = " ".join(printable(text).split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")


@contextmanager
def open_canvas(
    width: float, height: float
) -> Generator[tuple[Figure, Callable[[str | os.PathLike[str]], tuple[Path, Path]]]]:
    """Create a figure and a function that saves it as PNG and SVG.

    Draw and save inside the `with` block, where the style holds.

    Args:
        width: in inches.
        height: in inches.

    Yields:
        The figure, and `save(path)`: it writes PNG and SVG and returns both paths; a suffix .png or
        .svg of the path is replaced by each. It raises `StorageError` where a file cannot be
        written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")

        def save(path: str | os.PathLike[str]) -> tuple[Path, Path]:
            stem = Path(path)
            if stem.suffix.lower() in (".png", ".svg"):
                stem = stem.with_suffix("")
            written: list[Path] = []
            for suffix, metadata in _METADATA.items():
                buffer = io.BytesIO()
                figure.savefig(buffer, format=suffix, dpi=160, metadata=metadata)
                target = stem.with_name(f"{stem.name}.{suffix}")
                written.append(write_bytes_atomic(target, buffer.getvalue()))
            return written[0], written[1]

        yield figure, save

"""Draw the figures of an evaluation: gain against cost, and over-optimization against KL.

Each function draws one figure and writes it twice, as PNG for a README and as SVG for the report.
The same input gives the same bytes. Nothing here computes a score, an interval or a fit.
"""

# pyright: reportUnknownMemberType=false
# (matplotlib's stubs leave keyword arguments untyped.)
from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefsearch.report.plotting import FAINT, INK, PALETTE, label_text, open_canvas
from prefsearch.statistics.best_of_n import best_of_n_kl
from search.evaluation.scaling import BestOfNFit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_FITTED = "fitted law"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Curve:
    """One line with its band, in one panel of a figure.

    Attributes:
        label: the legend entry; curves of one label share a color over all panels.
        cost: [L] horizontal position, in the unit of the axis: tokens, or KL in nats.
        estimate: [L].
        low: [L] lower end of the interval.
        high: [L] upper end of the interval.
        panel: title of the panel it is drawn in, such as "gold" or "proxy".
    """

    label: str
    cost: ArrayLike
    estimate: ArrayLike
    low: ArrayLike
    high: ArrayLike
    panel: str

    def __post_init__(self) -> None:
        """Convert to sorted float64 arrays and check them.

        Raises:
            ValueError: the arrays are not of one shape [L] with L >= 1, a value is not finite, or
                an estimate is outside its interval.
        """
        names = ("cost", "estimate", "low", "high")
        arrays = {n: np.asarray(getattr(self, n), dtype=np.float64) for n in names}
        shapes = {n: list(a.shape) for n, a in arrays.items()}
        if any(a.ndim != 1 or a.shape != arrays["cost"].shape for a in arrays.values()):
            raise ValueError(f"curve {self.label!r} has shapes {shapes}, required one shape [L]")
        if not arrays["cost"].size or not all(np.isfinite(a).all() for a in arrays.values()):
            raise ValueError(f"curve {self.label!r} is empty or not finite: leave it out")
        slack = 1e-9 * (1 + np.abs(arrays["estimate"]))
        inside = (arrays["low"] <= arrays["estimate"] + slack) & (
            arrays["estimate"] <= arrays["high"] + slack
        )
        if not inside.all():
            at = int(np.argmin(inside))
            raise ValueError(
                f"curve {self.label!r}, point {at}: estimate {arrays['estimate'][at]:g} outside "
                f"[{arrays['low'][at]:g}, {arrays['high'][at]:g}]: give bounds, not half-widths"
            )
        order = np.argsort(arrays["cost"], kind="stable")
        for name, array in arrays.items():
            object.__setattr__(self, name, array[order])

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """Cost, estimate, low and high as arrays [L]."""
        return (
            np.asarray(self.cost),
            np.asarray(self.estimate),
            np.asarray(self.low),
            np.asarray(self.high),
        )


def gain_curves(
    series: Sequence[Curve],
    path: str | os.PathLike[str],
    *,
    x_label: str,
    y_label: str,
    title: str,
) -> tuple[Path, Path]:
    """Draw score against log cost, a panel for each `Curve.panel`, bands as given.

    Panels stand side by side in order of appearance and share the cost axis only: gold and proxy
    have different units.

    Args:
        series: the curves; costs must be positive.
        path: where to write; its suffix, if .png or .svg, is replaced by both.
        x_label: cost and its unit, such as "generated tokens a prompt".
        y_label: score and its unit.
        title: over all panels.

    Returns:
        Paths of the PNG and the SVG.

    Raises:
        ValueError: there is no curve, or a cost is not positive.
        StorageError: a file could not be written.
    """
    if not series:
        raise ValueError("found no curve, required at least one")
    for curve in series:
        if curve.arrays[0][0] <= 0:
            raise ValueError(
                f"curve {curve.label!r} has cost {curve.arrays[0][0]:g}, required positive costs "
                "on a log axis"
            )
    panels = list(dict.fromkeys(c.panel for c in series))
    labels = list(dict.fromkeys(c.label for c in series))
    with open_canvas(4.6 * max(len(panels), 1.25), 4.4) as (figure, save):
        axes = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.set_xscale("log")
            for curve in (c for c in series if c.panel == panel):
                rank = labels.index(curve.label)
                _draw_curve(axis, *curve.arrays, rank=rank, label=label_text(curve.label))
            axis.set_title(label_text(panel))
            axis.set_xlabel(label_text(x_label))
        axes[0].set_ylabel(label_text(y_label))
        _mark_costs(axes[0], np.concatenate([c.arrays[0] for c in series]))
        _finish(figure, list(axes), title)
        return save(path)


def overoptimization(
    series: Sequence[Curve],
    path: str | os.PathLike[str],
    *,
    title: str,
    y_label: str = "gain over one sample",
    fits: Mapping[tuple[str, str], BestOfNFit] | None = None,
    best_of: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536),
) -> tuple[Path, Path]:
    """Draw gold and proxy against the root of the KL, a panel for each reward model.

    Panels share both axes, so that reward models compare; put the proxies in the gold score's unit
    first (Gao et al. 2022 center and scale them).

    Args:
        series: `Curve.panel` names the reward model ("50 labels"), `Curve.label` the score ("gold",
            "proxy"), and `Curve.cost` is the KL in nats.
        path: where to write; its suffix, if .png or .svg, is replaced by both.
        title: over all panels.
        y_label: score and its unit.
        fits: fitted laws by (panel, label), drawn dotted over the measured range only; give them
            the same offset as the curves.
        best_of: the n to mark along the top, where they are inside the axis and do not overlap.

    Returns:
        Paths of the PNG and the SVG.

    Raises:
        ValueError: there is no curve, or a KL is negative.
        StorageError: a file could not be written.
    """
    if not series:
        raise ValueError("found no curve, required at least one")
    for curve in series:
        if curve.arrays[0][0] < 0:
            raise ValueError(f"curve {curve.label!r} has KL {curve.arrays[0][0]:g}, required >= 0")
    panels = list(dict.fromkeys(c.panel for c in series))
    labels = list(dict.fromkeys(c.label for c in series))
    farthest = max(float(np.sqrt(c.arrays[0][-1])) for c in series) or 1.0
    with open_canvas(4.6 * max(len(panels), 1.25), 4.7) as (figure, save):
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            for curve in (c for c in series if c.panel == panel):
                rank = labels.index(curve.label)
                kl, *band = curve.arrays
                _draw_curve(axis, np.sqrt(kl), *band, rank=rank, label=label_text(curve.label))
                fit = (fits or {}).get((panel, curve.label))
                if fit is not None:
                    x = np.linspace(0.0, float(np.sqrt(kl[-1])), 100)
                    axis.plot(x, fit.predict(x**2), ":", color=INK, lw=1.2, label=_FITTED)
            axis.axhline(0.0, color=FAINT, lw=0.8)
            axis.set_xlabel(r"distance $\sqrt{\mathrm{KL}}$, root nats")
            axis.set_xlim(-0.02 * farthest, 1.04 * farthest)
            top = axis.secondary_xaxis("top")
            marks = _spaced([(math.sqrt(best_of_n_kl(n)), n) for n in best_of], farthest)
            top.set_xticks([d for d, _ in marks], [f"{n}" for _, n in marks])
            top.tick_params(labelsize=9, colors=FAINT)
            top.set_xlabel("best of n", fontsize=9, color=FAINT)
            top.spines["top"].set_visible(False)
            axis.set_title(label_text(panel))
        axes[0].set_ylabel(label_text(y_label))
        _finish(figure, list(axes), title)
        return save(path)


def _draw_curve(
    axis: Axes, x: Array, estimate: Array, low: Array, high: Array, *, rank: int, label: str
) -> None:
    """Draw one line, its points and its band, in the look of the label's rank."""
    color = PALETTE[rank % len(PALETTE)]
    axis.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axis.plot(
        x,
        estimate,
        color=color,
        marker=_MARKERS[rank % len(_MARKERS)],
        linestyle=("-", "--", "-.")[rank // len(PALETTE) % 3],
        markersize=5,
        linewidth=1.8,
        label=label,
    )


def _mark_costs(axis: Axes, costs: Array) -> None:
    """Label a log axis in plain numbers, finely where it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    decades = math.log10(float(costs.max()) / float(costs.min()))
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_short_number))


def _short_number(value: float, _position: int | None = None) -> str:
    """Write 2000 as 2k and 5000000 as 5M; the position is matplotlib's, unused."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _spaced(marks: Sequence[tuple[float, int]], farthest: float) -> list[tuple[float, int]]:
    """Keep marks inside the axis whose labels do not overlap."""
    kept: list[tuple[float, int]] = []
    for position, n in sorted(marks):
        room = not kept or position - kept[-1][0] >= 0.11 * farthest
        if room and position <= 1.02 * farthest:
            kept.append((position, n))
    return kept


def _finish(figure: Figure, axes: Sequence[Axes], title: str) -> None:
    """Add the title and one legend for all panels, outside them."""
    entries: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries.setdefault(label, handle)
    if _FITTED in entries:
        entries[_FITTED] = entries.pop(_FITTED)  # last in the legend
    figure.suptitle(label_text(title), fontsize=13)
    columns = min(len(entries), 4)  # more are cut off at the page's edge
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)

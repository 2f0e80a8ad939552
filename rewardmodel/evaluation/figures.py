"""Figures of a reward model's evaluation: calibration, subsets, length, selective prediction.

Each function draws one figure, writes it as PNG and as SVG, and returns the two paths; `path` has
its suffix replaced.
"""

# pyright: reportUnknownMemberType=false
# (matplotlib's stubs leave keyword arguments untyped.)
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prefsearch.report.plotting import FAINT, INK, PALETTE, label_text, open_canvas
from prefsearch.statistics.intervals import Interval
from rewardmodel.evaluation.calibration import ReliabilityBin
from rewardmodel.evaluation.strata import RiskCoverage, Stratum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

StrPath = str | os.PathLike[str]
_MARKERS = ("o", "s", "^", "D")


def draw_reliability(
    series: Mapping[str, Sequence[ReliabilityBin]], path: StrPath
) -> tuple[Path, Path]:
    """Draws observed frequency against predicted probability; `series` are bins by label."""
    _require_some(series)
    with open_canvas(5.4, 5.6) as (figure, save):
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.plot([0, 1], [0, 1], ":", color=FAINT, linewidth=1.2, label="as stated")
        for rank, (label, bins) in enumerate(series.items()):
            stated = [b.stated for b in bins]
            _draw_intervals(top, stated, [b.observed for b in bins], rank, label)
            bottom.step(
                [*(b.low for b in bins), bins[-1].high],
                [*(b.pairs for b in bins), bins[-1].pairs],
                where="post",
                color=PALETTE[rank % len(PALETTE)],
                linestyle=("-", "--")[rank % 2],
            )
        top.set_ylabel("observed frequency")
        top.set_title("Reliability, each pair in both orders")
        top.legend(loc="upper left")
        bottom.set_xlabel("stated probability")
        bottom.set_ylabel("pairs")
        bottom.set_ylim(bottom=0)
        return save(path)


def draw_strata(
    strata: Sequence[Stratum],
    path: StrPath,
    *,
    title: str,
    overall: Interval | None = None,
    chance: float = 0.5,
) -> tuple[Path, Path]:
    """Draws the accuracy of each stratum, from top to bottom, with its interval.

    `overall`, the accuracy over all pairs, is drawn as a band, and `chance` as a dotted line.
    """
    _require_some(strata)
    with open_canvas(6.4, 1.5 + 0.32 * len(strata)) as (figure, save):
        axis = figure.subplots()
        places = np.arange(len(strata))
        axis.axvline(chance, color=FAINT, linestyle=":", linewidth=1.2)
        if overall is not None:
            axis.axvspan(overall.low, overall.high, color=PALETTE[0], alpha=0.12, linewidth=0)
        for place, stratum in zip(places, strata, strict=True):
            found = stratum.accuracy
            axis.plot([found.low, found.high], [place, place], color=PALETTE[0], linewidth=1.6)
            axis.plot([found.estimate], [place], "o", color=PALETTE[0], markersize=5)
        names = [f"{label_text(s.name, most=40)} ({s.pairs})" for s in strata]
        axis.set_yticks(places, names)
        axis.invert_yaxis()
        axis.set_xlim(-0.02, 1.02)
        axis.set_xlabel("accuracy (95 % interval over prompts); in brackets, pairs")
        axis.set_title(label_text(title))
        return save(path)


def draw_length_curve(strata: Sequence[Stratum], path: StrPath) -> tuple[Path, Path]:
    """Draws accuracy against the log length ratio, better reply over the other."""
    _require_some(strata)
    with open_canvas(6.0, 4.2) as (figure, save):
        axis = figure.subplots()
        axis.axhline(0.5, color=FAINT, linestyle=":", linewidth=1.2)
        axis.axvline(0.0, color=FAINT, linewidth=0.8)
        middles = [s.middle if s.middle is not None else 0.0 for s in strata]
        _draw_intervals(axis, middles, [s.accuracy for s in strata], 0, "")
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("log of length, better reply over the other (right: the better is longer)")
        axis.set_ylabel("accuracy")
        axis.set_title("Accuracy by length difference")
        return save(path)


def draw_risk_coverage(
    series: Mapping[str, RiskCoverage], path: StrPath, *, title: str
) -> tuple[Path, Path]:
    """Draws accuracy against the share of pairs answered; `series` are curves by label."""
    _require_some(series)
    with open_canvas(6.0, 4.2) as (figure, save):
        axis = figure.subplots()
        for rank, (label, curve) in enumerate(series.items()):
            x = [100 * point.coverage for point in curve.points]
            color = PALETTE[rank % len(PALETTE)]
            low = [point.accuracy.low for point in curve.points]
            high = [point.accuracy.high for point in curve.points]
            axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axis.plot(
                x,
                [point.accuracy.estimate for point in curve.points],
                color=color,
                marker=_MARKERS[rank % len(_MARKERS)],
                linestyle=("-", "--")[rank % 2],
                markersize=4,
                label=label,
            )
        axis.set_xlabel("pairs answered, surest first (%)")
        axis.set_ylabel("accuracy")
        axis.set_title(label_text(title))
        axis.legend()
        return save(path)


def _draw_intervals(
    axis: Axes,
    x: Sequence[float],
    found: Sequence[Interval],
    rank: int,
    label: str,
) -> None:
    """Draws points with their intervals."""
    y = np.array([f.estimate for f in found])
    below = y - np.array([f.low for f in found])
    above = np.array([f.high for f in found]) - y
    axis.errorbar(
        x,
        y,
        yerr=np.maximum([below, above], 0.0),
        color=PALETTE[rank % len(PALETTE)],
        ecolor=PALETTE[rank % len(PALETTE)],
        marker=_MARKERS[rank % len(_MARKERS)],
        markeredgecolor=INK,
        markeredgewidth=0.4,
        linestyle=("-", "--")[rank % 2],
        linewidth=1.4,
        elinewidth=1.0,
        capsize=2,
        markersize=5,
        label=label_text(label) if label else None,
    )


def _require_some(drawn: Sized) -> None:
    if not len(drawn):
        raise ValueError("found nothing to draw, required at least one curve or stratum")

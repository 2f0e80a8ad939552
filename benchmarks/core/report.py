"""Ratios, losing cells and skipped cells of the planning-core benchmark.

Times are milliseconds of one search of all B trees, `[R]` a cell and side, one value a round in
which all sides were timed one after the other.
"""

import statistics
from collections.abc import Sequence

from benchmarks.core.grid import Cell
from benchmarks.harness.worker import Json

OURS = "prefsearch"
PEERS = ("mctx", "lightzero")
NAMES = {OURS: "prefsearch", "mctx": "mctx (XLA)", "lightzero": "LightZero (C++)"}


def side_summary(measured: Json, cell: Cell) -> Json:
    """A side's times of one cell, summarized, beside the times themselves."""
    search, model = measured["milliseconds"], measured["model_milliseconds"]
    median = statistics.median(search)
    return {
        "median": median,
        "min": min(search),
        "max": max(search),
        "model_median": statistics.median(model),
        "above_model": median - statistics.median(model),
        "microseconds_per_simulation_and_tree": 1e3 * median / (cell.batch * cell.simulations),
        **measured,
    }


def ratio(ours: Json, peer: Json) -> dict[str, float]:
    """How many times as long the peer took: of medians, of minima, and the range over rounds.

    `low` and `high` are the least and the greatest ratio of two times of the same round.
    """
    paired = [
        theirs / own
        for own, theirs in zip(ours["milliseconds"], peer["milliseconds"], strict=False)
    ]
    return {
        "of_medians": peer["median"] / ours["median"],
        "of_minima": peer["min"] / ours["min"],
        "low": min(paired),
        "high": max(paired),
    }


def ratios(row: Json) -> dict[str, dict[str, float]]:
    """The ratios of a cell to each peer that finished it."""
    sides = row["sides"]
    if "median" not in sides.get(OURS, {}):
        return {}
    return {p: ratio(sides[OURS], sides[p]) for p in PEERS if "median" in sides.get(p, {})}


def losses(rows: Sequence[Json]) -> list[Json]:
    """Cells in which a peer's median was lower than ours, the worst first.

    `decided` is False where the rounds' ratios lie on both sides of 1.
    """
    found = [
        {"cell": Cell.of(row).name, "peer": peer, **values, "decided": values["high"] < 1}
        for row in rows
        for peer, values in ratios(row).items()
        if values["of_medians"] < 1
    ]
    return sorted(found, key=lambda loss: loss["of_medians"])


def skips(rows: Sequence[Json]) -> list[dict[str, str]]:
    """Every cell that a side did not finish, with the reason."""
    return [
        {"cell": Cell.of(row).name, "side": side, "reason": measured["skipped"]}
        for row in rows
        for side, measured in row["sides"].items()
        if "skipped" in measured
    ]


def summarize(results: Json) -> Json:
    """The results with everything that follows from their cells."""
    rows = sorted(results["cells"], key=lambda row: (row["algorithm"], Cell.of(row)))
    return {
        **results,
        "losses": losses(rows),
        "skipped": skips(rows),
        "cells": [{**row, "ratios": ratios(row)} for row in rows],
    }

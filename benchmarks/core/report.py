"""What the times of the planning-core benchmark say: ratios, growth, targets, losing cells.

Times are milliseconds of one search of all B trees, `[R]` a cell and side, one value a round in
which all sides were timed one after the other. This file measures and shows nothing.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.core.grid import ALGORITHMS, Cell

OURS = "prefsearch"
PEERS = ("mctx", "lightzero")
NAMES = {OURS: "prefsearch", "mctx": "mctx (XLA)", "lightzero": "LightZero (C++)"}
HEADLINE = {"batch": 256, "actions": 18, "simulations": 200}
# Least ratio of the peer's median to ours at the headline cell.
REQUIRED = {
    ("mctx", "muzero"): 15.0,
    ("mctx", "gumbel"): 4.0,
    ("lightzero", "muzero"): 4.0,
    ("lightzero", "gumbel"): 4.0,
}
STEEPEST = 1.2
Row = Mapping[str, Any]


def side_summary(measured: Row, cell: Cell) -> dict[str, Any]:
    """A side's times of one cell in few numbers, beside the times themselves."""
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


def ratio(ours: Row, peer: Row) -> dict[str, float]:
    """How many times longer the peer took: of medians, of minima, and the range over rounds.

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


def ratios(row: Row) -> dict[str, dict[str, float]]:
    """The ratios of a cell to each peer that finished it."""
    sides = row["sides"]
    if "median" not in sides.get(OURS, {}):
        return {}
    return {p: ratio(sides[OURS], sides[p]) for p in PEERS if "median" in sides.get(p, {})}


def fit_exponent(points: Iterable[tuple[Any, float, float]]) -> tuple[float, int] | None:
    """The common slope of log y over log x, each group with a level of its own.

    Args:
        points: `(group, x, y)`, x and y positive.

    Returns:
        The least-squares exponent and the number of points in groups with two or more x; None
        where there is no such group.
    """
    groups: dict[Any, list[tuple[float, float]]] = {}
    for group, x, y in points:
        groups.setdefault(group, []).append((math.log(x), math.log(y)))
    above, below, count = 0.0, 0.0, 0
    for group in groups.values():
        x, y = np.asarray(group).T
        if np.ptp(x) > 0:
            above += float((x - x.mean()) @ (y - y.mean()))
            below += float((x - x.mean()) @ (x - x.mean()))
            count += len(group)
    return (above / below, count) if count else None


def exponents(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Growth of the median time in simulations and in batch, for each algorithm, A and side.

    All finished cells of that algorithm, A and side share one exponent; each batch (or budget)
    has a level of its own. Sides that finished different cells were fitted to different ones.
    """
    found: list[dict[str, Any]] = []
    keys = sorted({(r["algorithm"], r["actions"]) for r in rows})
    for algorithm, actions in keys:
        for side in NAMES:
            done = [
                (r["batch"], r["simulations"], r["sides"][side]["median"])
                for r in rows
                if (r["algorithm"], r["actions"]) == (algorithm, actions)
                and "median" in r["sides"].get(side, {})
            ]
            fits = {
                "simulations": fit_exponent(done),
                "batch": fit_exponent((s, b, y) for b, s, y in done),
            }
            for axis, fit in fits.items():
                if fit is not None:
                    found.append(
                        {
                            "algorithm": algorithm,
                            "actions": actions,
                            "side": side,
                            "axis": axis,
                            "exponent": fit[0],
                            "points": fit[1],
                        }
                    )
    return found


def targets(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each target with what was found; `met` is None where its cells were not measured."""
    headline = {r["algorithm"]: r for r in rows if all(r[k] == v for k, v in HEADLINE.items())}
    found: list[dict[str, Any]] = []
    for (peer, algorithm), required in REQUIRED.items():
        values = ratios(headline[algorithm]).get(peer) if algorithm in headline else None
        found.append(
            _target(
                f"{algorithm} B256 A18 S200: times as fast as {NAMES[peer]}",
                None if values is None else values["of_medians"],
                required,
                at_least=True,
                note=_why_missing(headline.get(algorithm), peer)
                if values is None
                else f"range over rounds {values['low']:.1f} to {values['high']:.1f}",
            )
        )
    for algorithm in ALGORITHMS:
        line = sorted(
            (r["simulations"], r["sides"][OURS]["median"])
            for r in rows
            if (r["algorithm"], r["batch"], r["actions"]) == (algorithm, 256, 18)
            and "median" in r["sides"].get(OURS, {})
        )
        fit = fit_exponent(("", *point) for point in line) if len(line) > 2 else None
        local = [fit_exponent(("", *p) for p in pair) for pair in pairwise(line)]
        steepest = max((slope[0] for slope in local if slope is not None), default=0.0)
        found.append(
            _target(
                f"{algorithm} B256 A18: exponent of time in simulations",
                None if fit is None else fit[0],
                STEEPEST,
                at_least=False,
                note=f"{len(line)} budgets; 3 are needed"
                if fit is None
                else f"S {line[0][0]} to {line[-1][0]}; steepest between two: {steepest:.2f}",
            )
        )
    for row in rows:
        if (row["algorithm"], row["batch"]) != ("gumbel", 1):
            continue
        ours, theirs = (row["sides"].get(s, {}).get("above_model") for s in (OURS, "mctx"))
        found.append(
            _target(
                f"{Cell.of(row).name}: ms above the model's, at most mctx's",
                ours,
                theirs,
                at_least=False,
                note=_why_missing(row, "mctx") if theirs is None else "",
            )
        )
    return found


def _target(
    name: str, found: float | None, required: float | None, *, at_least: bool, note: str
) -> dict[str, Any]:
    met = None
    if found is not None and required is not None:
        met = found >= required if at_least else found <= required
    sense = "at least" if at_least else "at most"
    return {
        "target": name,
        "found": found,
        "required": required,
        "sense": sense,
        "met": met,
        "note": note,
    }


def _why_missing(row: Row | None, peer: str) -> str:
    if row is None:
        return "cell not run"
    return row["sides"].get(peer, {}).get("skipped", "side not run")


def losses(rows: Sequence[Row]) -> list[dict[str, Any]]:
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


def skips(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Every cell that a side did not finish, with the reason."""
    return [
        {"cell": Cell.of(row).name, "side": side, "reason": measured["skipped"]}
        for row in rows
        for side, measured in row["sides"].items()
        if "skipped" in measured
    ]


def summarize(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results with everything that follows from their cells."""
    rows = sorted(results["cells"], key=lambda row: (row["algorithm"], Cell.of(row)))
    return {
        **results,
        "targets": targets(rows),
        "losses": losses(rows),
        "exponents": exponents(rows),
        "skipped": skips(rows),
        "cells": [{**row, "ratios": ratios(row)} for row in rows],
    }

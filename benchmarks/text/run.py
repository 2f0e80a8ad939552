"""Runs the cells of the text-search benchmark: sides in turn, round after round, and what follows.

CPU seconds are those of this process over all its threads; on shared cores they say more than wall
seconds, which are kept beside them. Ratios are of two times of the same round.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.text.cells import Cell, Outcome, Side
from benchmarks.text.models import Subject, counted_tokens

GOALS: tuple[tuple[str, str, str, float], ...] = (
    # cell, side that should be faster, side that should be slower, at least so many times
    ("search-8", "ours", "rerun", 15.0),
    ("search-8", "ours", "copy", 5.0),
    ("search-8", "ours", "copy, batched", 5.0),
    ("search-8", "ours, 8 leaves", "ours", 2.5),
    ("best-of", "ours", "generate", 1.5),
)
DECISION_SECONDS = 0.35  # CPU, of the cell "decision" with 8 leaves


def run_cell(
    cell: Cell, subject: Subject, *, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Counts each side's tokens in an untimed run, then times all sides in turn.

    Args:
        cell: What to time.
        subject: Whose models' tokens are counted.
        rounds: How often.
        say: Takes a line of progress.
    """
    warm: dict[str, Outcome] = {}
    told: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for side, run in cell.sides.items():
        say(f"{cell.name}: {side}, untimed")
        try:
            warm[side], told[side] = counted_run(run, subject)
        except (AssertionError, RuntimeError) as error:
            # Written down and shown; the other sides go on.
            failed[side] = f"{type(error).__name__}: {error}"
    times: dict[str, list[tuple[float, float, Outcome]]] = {side: [] for side in warm}
    for round_ in range(rounds):
        for side in warm:
            run = cell.sides[side]
            say(f"{cell.name}: round {round_ + 1} of {rounds}, {side}")
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            outcome = run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            # A side in a process of its own says how many CPU seconds it took there.
            times[side].append((outcome.parts.get("process", cpu), wall, outcome))
    return {
        "cell": cell.name,
        "title": cell.title,
        "prompts": cell.prompts,
        "work": cell.work,
        "rounds": rounds,
        "yardstick": next(iter(warm)),
        "failed": failed,
        "agreement": [
            {"sides": group, "prompts_alike": alike([warm[side].visits for side in group])}
            for group in ([side for side in group if side in warm] for group in cell.agree)
        ],
        "sides": {
            side: {"title": cell.titles[side], **summary(found), **told[side]}
            for side, found in times.items()
        },
    }


def counted_run(run: Side, subject: Subject) -> tuple[Outcome, dict[str, Any]]:
    """One run that counts what each model is given, padding included, and the forward passes."""
    with (
        counted_tokens(subject.policy.model) as policy,
        counted_tokens(subject.value_model.model) as value,
    ):
        outcome = run()
    counts = {
        "policy_tokens": sum(policy),
        "policy_forwards": len(policy),
        "value_tokens": sum(value),
        "value_forwards": len(value),
        "policy_padding": outcome.padding,
        **outcome.counts,
    }
    return outcome, {"counts": counts}


def alike(visits: Sequence[list[list[int]] | None]) -> float | None:
    """Share of prompts for which all sides have the same root visits; None without any."""
    if not visits or visits[0] is None:
        return None
    found = [
        all(other is not None and other[row] == own for other in visits[1:])
        for row, own in enumerate(visits[0])
    ]
    return sum(found) / len(found)


def summary(found: Sequence[tuple[float, float, Outcome]]) -> dict[str, Any]:
    """A side's times: medians, ranges, parts and all values."""
    cpu = [one for one, _, _ in found]
    wall = [one for _, one, _ in found]
    parts = {
        name: statistics.median(outcome.parts[name] for _, _, outcome in found)
        for name in found[0][2].parts
    }
    return {
        "cpu_seconds": statistics.median(cpu),
        "cpu_range": [min(cpu), max(cpu)],
        "wall_seconds": statistics.median(wall),
        "parts_cpu_seconds": parts,
        "cpu_all": cpu,
        "wall_all": wall,
    }


def ratio(slow: Mapping[str, Any], fast: Mapping[str, Any]) -> dict[str, float]:
    """How many times longer one side took: median, least and greatest over rounds."""
    paired = [a / b for a, b in zip(slow["cpu_all"], fast["cpu_all"], strict=True)]
    return {"median": statistics.median(paired), "low": min(paired), "high": max(paired)}


def ratio_after_prompts(slow: Mapping[str, Any], fast: Mapping[str, Any]) -> float | None:
    """The ratio of medians without what both spend on the prompts, which no search saves."""
    if "prompts" not in slow["parts_cpu_seconds"] or "prompts" not in fast["parts_cpu_seconds"]:
        return None
    left = [one["cpu_seconds"] - one["parts_cpu_seconds"]["prompts"] for one in (slow, fast)]
    return left[0] / left[1]


def with_ratios(row: dict[str, Any]) -> dict[str, Any]:
    """A cell's row with each side's ratio to the yardstick."""
    sides = row["sides"]
    own = sides[row["yardstick"]]
    for measured in sides.values():
        measured["times_yardstick"] = ratio(measured, own)
        measured["times_yardstick_after_prompts"] = ratio_after_prompts(measured, own)
    return row


def goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each goal with what was found; cells that were not run are left out."""
    by_name = {row["cell"]: row["sides"] for row in rows}
    found: list[dict[str, Any]] = []
    for cell, fast, slow, required in GOALS:
        sides = by_name.get(cell, {})
        if fast in sides and slow in sides:
            times = ratio(sides[slow], sides[fast])
            found.append(
                {
                    "goal": f"{cell}: {fast!r} at least {required:g} times as fast as {slow!r}",
                    "found": times["median"],
                    "range": [times["low"], times["high"]],
                    "after_prompts": ratio_after_prompts(sides[slow], sides[fast]),
                    "met": times["median"] >= required,
                }
            )
    for cell, fast in (("decision", "ours, 8 leaves"),):
        if fast in by_name.get(cell, {}):
            mine = by_name[cell][fast]
            found.append(
                {
                    "goal": f"{cell}: {fast!r} within {DECISION_SECONDS} s of CPU",
                    "found": mine["cpu_seconds"],
                    "range": mine["cpu_range"],
                    "after_prompts": None,
                    "met": mine["cpu_seconds"] <= DECISION_SECONDS,
                }
            )
    for cell in ("search-8", "search-1"):
        sides = by_name.get(cell, {})
        if "ours" in sides:
            counts = sides["ours"]["counts"]
            needed = counts["prompt_tokens"] + counts["nodes"]
            given = counts["policy_tokens"] - counts["policy_padding"]
            found.append(
                {
                    "goal": f"{cell}: tokens given to the policy are prompts and new nodes",
                    "found": given,
                    "range": [needed, needed],
                    "after_prompts": None,
                    "met": given == needed,
                }
            )
    return found

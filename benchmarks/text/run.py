"""Cells of the text-search benchmark: their sides are timed in turn, round after round.

A side is a function that makes one whole search from the prompts' tokens to the decision. CPU
seconds are those of this process over all its threads; on shared cores they vary less than wall
seconds, which are kept beside them. Ratios are of two times of the same round.
"""

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.harness.timing import interleaved, paired_ratio, time_call
from benchmarks.harness.worker import Json
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


@dataclass(frozen=True)
class Outcome:
    """The result of one run of a side.

    Attributes:
        visits: Of the root's actions, [B][K], where there is a tree.
        padding: Padding tokens among those that the models read, where known.
        parts: CPU seconds of parts, by name.
        counts: Other numbers, such as nodes.
    """

    visits: list[list[int]] | None = None
    padding: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)


Side = Callable[[], Outcome]


@dataclass(frozen=True)
class Cell:
    """Sides that are timed in turn.

    Attributes:
        name: In the results.
        title: In words.
        sides: By name; the first is the one that ratios are relative to.
        titles: Of the sides.
        agree: Groups of sides that must make the same decisions.
        prompts: How many.
        work: Simulations or responses for each prompt.
    """

    name: str
    title: str
    sides: dict[str, Side]
    titles: dict[str, str]
    agree: tuple[tuple[str, ...], ...]
    prompts: int
    work: int


def run_cell(cell: Cell, subject: Subject, *, rounds: int, report: Callable[[str], None]) -> Json:
    """Counts each side's tokens in an untimed run, then times all sides in turn."""
    warm: dict[str, Outcome] = {}
    counts: dict[str, Json] = {}
    failed: dict[str, str] = {}
    for side, run in cell.sides.items():
        report(f"{cell.name}: {side}, untimed")
        try:
            warm[side], counts[side] = counted_run(run, subject)
        except (AssertionError, RuntimeError) as error:
            # Recorded and shown; the other sides are timed.
            failed[side] = f"{type(error).__name__}: {error}"
    times: dict[str, list[dict[str, float]]] = {side: [] for side in warm}
    parts: dict[str, list[Mapping[str, float]]] = {side: [] for side in warm}
    for number, side in interleaved(warm, rounds):
        report(f"{cell.name}: round {number + 1} of {rounds}, {side}")
        gc.collect()
        outcomes: list[Outcome] = []
        seconds = time_call(lambda run=cell.sides[side], made=outcomes: made.append(run()))
        # A side in a process of its own reports the CPU seconds that it took there.
        seconds["cpu"] = outcomes[0].parts.get("process", seconds["cpu"])
        times[side].append(seconds)
        parts[side].append(outcomes[0].parts)
    groups = [[side for side in group if side in warm] for group in cell.agree]
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
            for group in groups
        ],
        "sides": {
            side: {
                "title": cell.titles[side],
                **summary(times[side], parts[side]),
                "counts": counts[side],
            }
            for side in warm
        },
    }


def counted_run(run: Side, subject: Subject) -> tuple[Outcome, Json]:
    """One run, with the tokens that each model reads, padding included, and the forward passes."""
    with (
        counted_tokens(subject.policy.model) as policy,
        counted_tokens(subject.value_model.model) as value,
    ):
        outcome = run()
    return outcome, {
        "policy_tokens": sum(policy),
        "policy_forwards": len(policy),
        "value_tokens": sum(value),
        "value_forwards": len(value),
        "policy_padding": outcome.padding,
        **outcome.counts,
    }


def alike(visits: Sequence[list[list[int]] | None]) -> float | None:
    """Share of prompts for which all sides have the same root visits; None without any."""
    if not visits or visits[0] is None:
        return None
    found = [
        all(other is not None and other[row] == own for other in visits[1:])
        for row, own in enumerate(visits[0])
    ]
    return sum(found) / len(found)


def summary(times: Sequence[Mapping[str, float]], parts: Sequence[Mapping[str, float]]) -> Json:
    """A side's times: medians, ranges, parts and all values."""
    cpu, wall = ([one[clock] for one in times] for clock in ("cpu", "wall"))
    return {
        "cpu_seconds": statistics.median(cpu),
        "cpu_range": [min(cpu), max(cpu)],
        "wall_seconds": statistics.median(wall),
        "parts_cpu_seconds": {
            name: statistics.median(one[name] for one in parts) for name in parts[0]
        },
        "cpu_all": cpu,
        "wall_all": wall,
    }


def ratio(slow: Json, fast: Json) -> dict[str, float]:
    """How many times as long one side took, in CPU time: median and range over rounds."""
    return paired_ratio(slow["cpu_all"], fast["cpu_all"])


def ratio_after_prompts(slow: Json, fast: Json) -> float | None:
    """The ratio of medians without what both spend on the prompts, the same for all."""
    if "prompts" not in slow["parts_cpu_seconds"] or "prompts" not in fast["parts_cpu_seconds"]:
        return None
    left = [one["cpu_seconds"] - one["parts_cpu_seconds"]["prompts"] for one in (slow, fast)]
    return left[0] / left[1]


def with_ratios(row: Json) -> Json:
    """A cell's row with each side's ratio to the first side."""
    sides = row["sides"]
    own = sides[row["yardstick"]]
    for measured in sides.values():
        measured["times_yardstick"] = ratio(measured, own)
        measured["times_yardstick_after_prompts"] = ratio_after_prompts(measured, own)
    return row


def goals(rows: Sequence[Json]) -> list[Json]:
    """Each goal with what was found; cells that were not run are left out."""
    by_name = {row["cell"]: row["sides"] for row in rows}
    found: list[Json] = []

    def add(
        goal: str, value: float, bounds: list[float], met: bool, after: float | None = None
    ) -> None:
        row = {"goal": goal, "found": value, "range": bounds, "after_prompts": after, "met": met}
        found.append(row)

    for cell, fast, slow, required in GOALS:
        sides = by_name.get(cell, {})
        if fast in sides and slow in sides:
            times = ratio(sides[slow], sides[fast])
            add(
                f"{cell}: {fast!r} at least {required:g} times as fast as {slow!r}",
                times["median"],
                [times["low"], times["high"]],
                times["median"] >= required,
                ratio_after_prompts(sides[slow], sides[fast]),
            )
    own = by_name.get("decision", {}).get("ours, 8 leaves")
    if own is not None:
        seconds = own["cpu_seconds"]
        goal = f"decision: 'ours, 8 leaves' within {DECISION_SECONDS} s of CPU"
        add(goal, seconds, own["cpu_range"], seconds <= DECISION_SECONDS)
    for cell in ("search-8", "search-1"):
        if "ours" in by_name.get(cell, {}):
            counts = by_name[cell]["ours"]["counts"]
            needed = counts["prompt_tokens"] + counts["nodes"]
            given = counts["policy_tokens"] - counts["policy_padding"]
            goal = f"{cell}: tokens given to the policy are prompts and new nodes"
            add(goal, given, [needed, needed], given == needed)
    return found

"""What is made of the Atari benchmark's times: ratios, lost cells, tables. It times nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.reward.reward_models import spread

OURS = "prefsearch"
KINDS = ("play", "search", "update", "environment")


def side_rows(
    times: Mapping[str, Sequence[Mapping[str, float]]], *, with_cpu: bool
) -> dict[str, Any]:
    """Rates of all sides, and ours as multiples of each other's of the same round.

    Args:
        times: Of each side, by round: units, seconds and CPU seconds.
        with_cpu: Whether all work was done in the sides' own processes, whose CPU time is known.
    """
    clocks = {"rate": "seconds", "rate_by_cpu": "cpu_seconds"}
    rows: dict[str, Any] = {side: {} for side in times}
    for name, clock in clocks.items() if with_cpu else list(clocks.items())[:1]:
        rates = {side: [t["units"] / t[clock] for t in own] for side, own in times.items()}
        ours = rates.get(OURS)
        for side, own in rates.items():
            rows[side][name] = spread(own)
            if ours is not None and side != OURS:
                ratio = [a / b for a, b in zip(ours, own, strict=True)]
                rows[side][f"ours_over_this_{name}"] = spread(ratio)
    return rows


def lost(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells in which a peer is faster than we are, by the median of the rounds."""
    return [
        f"{cell['cell']}: {row['ours_over_this_rate']['median']:.2f} of {side}'s"
        for cell in cells
        for side, row in cell.get("sides", {}).items()
        if row.get("ours_over_this_rate", {}).get("median", 1.0) < 1.0
    ]


def network_differences(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Parameters and multiply-adds a row of the sides' networks, once for each kind of network."""
    found: dict[tuple[bool, bool], dict[str, Any]] = {}
    for cell in cells:
        facts = {side: f for side, f in cell.get("facts", {}).items() if "parameters" in f}
        if facts:
            sizes = cell["settings"]
            key = (sizes["value_prefix"], sizes["consistency"])
            found.setdefault(
                key, {"value_prefix": key[0], "consistency": key[1], "sides": facts}
            )  # fmt: skip
    return list(found.values())


def show(cells: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Prints all tables."""
    for kind in KINDS:
        chosen = [c for c in cells if c["settings"]["kind"] == kind and c.get("sides")]
        if chosen:
            console.print(_rates(kind, chosen))
    for cell in cells:
        if "profile" in cell:
            console.print(_profile(cell))
    for row in network_differences(cells):
        console.print(_network(row))
    for line in lost(cells):
        console.print(f"lost: {line}")


def _rates(kind: str, cells: Sequence[Mapping[str, Any]]) -> Table:
    peers = list(dict.fromkeys(side for cell in cells for side in cell["sides"] if side != OURS))
    table = Table(title=f"{kind}: {cells[0]['unit']}, and ours over theirs (median, range)")
    for name in ("cell", OURS, *(column for peer in peers for column in (peer, "ours / it"))):
        table.add_column(name)
    for cell in cells:
        rows = cell["sides"]
        line = [cell["cell"], _number(rows[OURS]["rate"]["median"]) if OURS in rows else "-"]
        for peer in peers:
            if peer not in rows:
                line += [cell["missing"].get(peer, "-"), ""]
                continue
            line.append(_number(rows[peer]["rate"]["median"]))
            ratio = rows[peer].get("ours_over_this_rate")
            line.append(
                f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "-"
            )  # fmt: skip
        table.add_row(*line)
    return table


def _profile(cell: Mapping[str, Any]) -> Table:
    profile = cell["profile"]
    title = (
        f"{cell['cell']}: where {profile['seconds']:.1f} s of training went "
        f"({profile['decisions']} decisions, {profile['updates']} updates; "
        f"{profile['settings']['config'] or 'sizes of the cells above'})"
    )
    table = Table("part", "share", "ms a decision", title=title)
    for part, seconds in profile["parts"].items():
        share, each = seconds / profile["seconds"], 1e3 * seconds / profile["decisions"]
        table.add_row(part, f"{share:.1%}", f"{each:.1f}")
    return table


def _network(row: Mapping[str, Any]) -> Table:
    what = "value prefix" if row["value_prefix"] else "reward"
    also = "consistency" if row["consistency"] else "no consistency"
    table = Table(
        "side", "parameters", "multiply-adds, seen", "multiply-adds, imagined",
        title=f"Networks: {what}, {also}",
    )  # fmt: skip
    names = ("parameters", "multiply_adds_seen", "multiply_adds_imagined")
    for side, facts in row["sides"].items():
        table.add_row(side, *(f"{facts[name]:,}" for name in names))
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

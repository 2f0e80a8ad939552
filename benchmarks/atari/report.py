"""Ratios, lost cells and tables of the Atari benchmark."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.harness.documents_numbers import digits, interval
from benchmarks.harness.results import table
from benchmarks.harness.timing import paired_ratio, spread
from benchmarks.harness.worker import Json

OURS = "prefsearch"
KINDS = ("play", "search", "update", "environment")


def side_rows(times: Mapping[str, Sequence[Mapping[str, float]]], *, with_cpu: bool) -> Json:
    """Rates of all sides, and ours as multiples of each other's of the same round.

    Args:
        times: Of each side, by round: units, seconds and CPU seconds.
        with_cpu: Whether all work was done in the sides' own processes, whose CPU time is known.
    """
    clocks = {"rate": "seconds", "rate_by_cpu": "cpu_seconds"}
    rows: Json = {side: {} for side in times}
    for name, clock in clocks.items() if with_cpu else list(clocks.items())[:1]:
        rates = {side: [t["units"] / t[clock] for t in own] for side, own in times.items()}
        ours = rates.get(OURS)
        for side, own in rates.items():
            rows[side][name] = spread(own)
            if ours is not None and side != OURS:
                rows[side][f"ours_over_this_{name}"] = paired_ratio(ours, own)
    return rows


def lost(cells: Sequence[Json]) -> list[str]:
    """The cells in which a peer is faster than we are, by the median of the rounds."""
    return [
        f"{cell['cell']}: {row['ours_over_this_rate']['median']:.2f} of {side}'s"
        for cell in cells
        for side, row in cell.get("sides", {}).items()
        if row.get("ours_over_this_rate", {}).get("median", 1.0) < 1.0
    ]


def network_differences(cells: Sequence[Json]) -> list[Json]:
    """Parameters and multiply-adds a row of the sides' networks, once for each kind of network."""
    found: dict[tuple[bool, bool], Json] = {}
    for cell in cells:
        facts = {side: f for side, f in cell.get("facts", {}).items() if "parameters" in f}
        if facts:
            sizes = cell["settings"]
            key = (sizes["value_prefix"], sizes["consistency"])
            found.setdefault(
                key, {"value_prefix": key[0], "consistency": key[1], "sides": facts}
            )  # fmt: skip
    return list(found.values())


def show(cells: Sequence[Json], console: Console) -> None:
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


def _rates(kind: str, cells: Sequence[Json]) -> Table:
    peers = list(dict.fromkeys(side for cell in cells for side in cell["sides"] if side != OURS))
    lines = []
    for cell in cells:
        rows = cell["sides"]
        line = [cell["cell"], digits(rows[OURS]["rate"]["median"]) if OURS in rows else "–"]
        for peer in peers:
            if peer in rows:
                ratio = rows[peer].get("ours_over_this_rate")
                line += [digits(rows[peer]["rate"]["median"]), interval(ratio)]
            else:
                line += [cell["missing"].get(peer, "–"), ""]
        lines.append(line)
    title = f"{kind}: {cells[0]['unit']}, and ours over theirs (median, range)"
    columns = (name for peer in peers for name in (peer, "ours / it"))
    return table(title, ("cell", OURS, *columns), lines)


def _profile(cell: Json) -> Table:
    profile = cell["profile"]
    title = (
        f"{cell['cell']}: where {profile['seconds']:.1f} s of training went "
        f"({profile['decisions']} decisions, {profile['updates']} updates; "
        f"{profile['settings']['config']})"
    )
    lines = [
        [part, f"{seconds / profile['seconds']:.1%}", f"{1e3 * seconds / profile['decisions']:.1f}"]
        for part, seconds in profile["parts"].items()
    ]
    return table(title, ("part", "share", "ms a decision"), lines)


def _network(row: Json) -> Table:
    what = "value prefix" if row["value_prefix"] else "reward"
    also = "consistency" if row["consistency"] else "no consistency"
    names = ("parameters", "multiply_adds_seen", "multiply_adds_imagined")
    lines = [[side, *(f"{facts[n]:,}" for n in names)] for side, facts in row["sides"].items()]
    columns = ("side", "parameters", "multiply-adds, first step", "multiply-adds, dynamics")
    return table(f"Networks: {what}, {also}", columns, lines)

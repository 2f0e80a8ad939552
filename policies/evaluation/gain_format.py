"""Gains in words and in tables: methods, intervals, scopes and verdicts."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from policies.evaluation.cells import BEST_OF_N, Record
from prefsearch.statistics.intervals import Interval
from prefsearch.statistics.seed_intervals import SeedInterval, seed_interval_from
from prefsearch.statistics.significance import Verdict
from prefsearch.statistics.significance import verdict as verdict_of


def method_name(row: Record) -> str:
    """Method and budget in words."""
    if row["method"] == BEST_OF_N:
        return "no search" if row["budget"] == "1" else f"best-of-{row['budget']}"
    return f"{row['method']}, {row['budget']}"


def interval_of(value: Record | None) -> Interval | None:
    """An interval that went through JSON."""
    if value is None:
        return None
    if "by_seed" in value:
        return seed_interval_from(value)
    return Interval(value["estimate"], value["low"], value["high"])


def scope_of(values: Iterable[Record | Interval | None]) -> str:
    """What intervals are over, in words: "over 3 seeds of 48 prompts"; each kind once.

    Equal values or seeds are mentioned only where all are.
    """
    given = [value if isinstance(value, Interval) else interval_of(value) for value in values]
    found = [value for value in given if isinstance(value, SeedInterval)]
    varying = [value for value in found if not (value.unknown or value.equal_seeds)]
    scopes = [value.scope for value in varying or found]
    return " or ".join(dict.fromkeys(scopes)) or "over prompts"


def show_interval(value: Record | None, *, sign: bool = False) -> str:
    """An interval in two decimals, or a dash; an estimate alone where its interval is unknown."""
    if value is None:
        return "–"
    form = "+.2f" if sign else ".2f"
    unknown = value["low"] is None or value["low"] == value["high"]
    names = ("estimate",) if unknown else ("estimate", "low", "high")
    # Adding zero turns a rounded -0.0 into 0.0.
    shown, *ends = (format(round(value[name], 2) + 0.0, form) for name in names)
    return f"{shown} [{', '.join(ends)}]" if ends else shown


def show_share(value: float | None) -> str | None:
    """A share in percent, or None."""
    return None if value is None else f"{100 * value:.0f} %"


def marked(what: str, finished: bool) -> str:
    """The heading of an example, marked where the text was cut off."""
    return what if finished else f"{what} (cut off)"


def closing_table(rows: Sequence[Record], *, title: str) -> Table:
    """The rows of all cells as a table for a terminal of 80 columns."""
    has_gold = any(row["gold"] for row in rows)
    target = "gold" if has_gold else "proxy"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False, show_edge=False)
    several = len({row["policy"] for row in rows}) > 1
    table.add_column("policy: method, budget" if several else "method, budget", no_wrap=True)
    for heading in ("tokens", target, "at equal tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['policy']}: {method_name(row)}" if several else method_name(row),
            f"{row['tokens']:.0f}",
            show_interval(row[target]),
            show_interval(row["gain_at_equal_tokens"], sign=True),
        )
    table.caption = (
        f"at equal tokens: {target} above best-of-N of that cost, paired by prompt; 95 % intervals "
        + scope_of(row[target] for row in rows)
    )
    return table


def verdict(gain: Record | None) -> Verdict | None:
    """What an interval of a gain decides; None where nothing was compared."""
    return verdict_of(interval_of(gain))


def gains_of(rows: Sequence[Record], key: str = "gain_at_equal_tokens") -> dict[str, SeedInterval]:
    """The gains of a table by their methods' names, where something was compared."""
    found: dict[str, SeedInterval] = {}
    for row in rows:
        gain = interval_of(row.get(key))
        if isinstance(gain, SeedInterval):
            found[f"{row['policy']}: {method_name(row)}"] = gain
    if len({row["policy"] for row in rows}) == 1:
        return {name.partition(": ")[2]: gain for name, gain in found.items()}
    return found

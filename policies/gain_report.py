"""What search gained, shown: the table, the curves, a search tree, one HTML page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from policies.evaluation import BEST_OF_N, Cell, cell_row, curves, summarise
from search.evaluation.figures import gain_curves, search_tree
from search.evaluation.metrics import Interval
from search.evaluation.records import read_records, write_json_atomic
from search.evaluation.report import Report
from search.evaluation.run_directory import RunDirectory

BOOTSTRAP_SEED = 0
_COLUMNS = {
    "policy": "policy",
    "method": "method, budget",
    "tokens": "tokens a prompt",
    "gold": "gold",
    "proxy": "proxy",
    "kl": "KL bound, nats",
    "gain": "above best-of-N at equal tokens",
    "seconds": "seconds a prompt",
}


def records_of(run: RunDirectory, **wanted: str) -> list[dict[str, Any]]:
    """The records of a run whose fields have the wanted values."""
    return [
        record
        for record in read_records(run.records)
        if all(record.get(key) == value for key, value in wanted.items())
    ]


def method_name(row: Mapping[str, Any]) -> str:
    """Method and budget in words."""
    if row["method"] == BEST_OF_N:
        return "no search" if row["budget"] == "1" else f"best-of-{row['budget']}"
    return f"{row['method']}, {row['budget']}"


def interval_of(value: Mapping[str, float] | None) -> Interval | None:
    """An interval that went through JSON."""
    return None if value is None else Interval(**value)


def show_interval(value: Mapping[str, float] | None, *, sign: bool = False) -> str:
    """An interval in two decimals, or a dash."""
    if value is None:
        return "–"
    form = "+.2f" if sign else ".2f"
    return f"{value['estimate']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def closing_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """The rows of all cells as a table for a terminal of 80 columns."""
    judged = any(row["gold"] for row in rows)
    target = "gold" if judged else "proxy"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False)
    table.add_column("policy: method, budget", no_wrap=True)
    for heading in ("tokens", target, "at equal tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['policy']}: {method_name(row)}",
            f"{row['tokens']:.0f}",
            show_interval(row[target]),
            show_interval(row["gain_at_equal_tokens"], sign=True),
        )
    table.caption = f"at equal tokens: {target} above best-of-N of that cost, paired by prompt"
    return table


def add_gains(
    report: Report, run: RunDirectory, rows: Sequence[Mapping[str, Any]], cells: Sequence[Cell]
) -> None:
    """Adds the section on gains: prose, table and curves.

    Args:
        report: The page.
        run: Where figures go.
        rows: Of the table, policies beyond the searched one included.
        cells: Of the curves.
    """
    judged = all(cell.gold is not None for cell in cells)
    report.section(
        "What was gained",
        ("Gold is a judge that no model or planner ever saw; " if judged else "")
        + "proxy is the reward model that every method planned against. Intervals are 95 %, "
        "bootstrapped over prompts. The comparison with best-of-N is at the same number of "
        "generated tokens, paired by prompt; below zero the method loses, and it is left out where "
        "best-of-N was not run that far.",
    )
    shown = [
        {
            "policy": row["policy"],
            "method": method_name(row),
            "tokens": round(row["tokens"]),
            "gold": interval_of(row["gold"]),
            "proxy": interval_of(row["proxy"]),
            "kl": row["kl"],
            "gain": interval_of(row["gain_at_equal_tokens"]),
            "seconds": round(row["seconds"], 3),
        }
        for row in rows
    ]
    report.table(shown, _COLUMNS, caption="every method and budget")
    path = run.figures / "gains.svg"
    gain_curves(
        curves(cells),
        path,
        x_label="generated tokens a prompt",
        y_label="mean score",
        title="What planning against the reward model gains",
    )
    target = "gold" if judged else "proxy"
    best = max(cells, key=lambda cell: getattr(cell, target).estimate)
    report.figure(
        path,
        alt=f"{target} score against tokens; highest is {best.method} at budget {best.budget}",
        caption="Mean score against generated tokens a prompt.",
    )


def add_tree(report: Report, run: RunDirectory, saved: Path) -> None:
    """Adds the section with one search tree, drawn and to be opened."""
    tree = json.loads(saved.read_text(encoding="utf-8"))["tree"]
    if tree is None:
        return
    report.section(
        "A search tree",
        "The first decision on the first prompt: which segment to begin with. Values are expected "
        "reward-model scores.",
    )
    search_tree(tree, run.figures / "tree.svg")
    report.figure(
        run.figures / "tree.svg",
        alt="A search tree over segments, node size by visits, colour by value",
        caption="The most visited nodes.",
    )
    report.tree(tree, summary="Open the whole tree")


def add_making(report: Report, run: RunDirectory, **blocks: Mapping[str, Any]) -> None:
    """Adds the section on how the run was made."""
    report.section("How it was made")
    for heading, values in blocks.items():
        report.settings(heading, values)
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    report.settings("environment", environment)


def write_gain_report(run: RunDirectory, settings: Mapping[str, Any]) -> Table:
    """Writes `summary.json`, figures and `report.html` of an evaluation.

    Returns:
        The closing table.
    """
    cells = summarise(records_of(run), seed=BOOTSTRAP_SEED)
    rows = [{"policy": "policy", **cell_row(cell)} for cell in cells]
    write_json_atomic(run.path / "summary.json", rows)
    report = Report("What test-time search gains", subtitle=str(settings["policy"]))
    add_gains(report, run, rows, cells)
    pool = json.loads((run.path / "data" / "pool.json").read_text(encoding="utf-8"))
    searched = sorted((run.path / "data").glob("search-*.json"))
    if searched:
        found = json.loads(searched[-1].read_text(encoding="utf-8"))["responses"]
        report.section("Examples", "The first three prompts, not chosen.")
        for index, prompt in enumerate(pool["prompts"][:3]):
            report.examples(
                prompt, [("sampled", pool["texts"][index][0], {}), ("searched", found[index], {})]
            )
        add_tree(report, run, searched[-1])
    add_making(report, run, configuration=settings)
    report.write(run.report)
    return closing_table(rows, title="What test-time search gains (95 % intervals over prompts)")

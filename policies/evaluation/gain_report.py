"""The report of what search gained: tables, curves, a search tree, one HTML page."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from policies.evaluation.cell_files import Line
from policies.evaluation.cells import Cell, Cost, Record, cell_row, curves, summarize
from policies.evaluation.clusters import clusters_of
from policies.evaluation.gain_fits import add_divergence, add_fits
from policies.evaluation.gain_format import (
    closing_table,
    gains_of,
    interval_of,
    marked,
    method_name,
    scope_of,
    show_share,
    verdict,
)
from policies.evaluation.pooled import Pool
from policies.evaluation.runner import load_pool
from prefsearch.report.page import Report
from prefsearch.run.directory import RunDirectory
from prefsearch.statistics.significance import count_verdicts
from prefsearch.storage.files import read_records, write_json_atomic, write_text_atomic
from rewardmodel.data.conversation import prompt_of
from search.evaluation.figures import gain_curves
from search.viewer.json_export import view_nested
from search.viewer.page import NamedView, render_html
from search.viewer.text import node_text, render_text, summary_line

BOOTSTRAP_SEED = 0
_TREE_NODES = 40
_COLUMNS = {
    "policy": "policy",
    "method": "method, budget",
    "tokens": "tokens a prompt",
    "gold": "gold",
    "pass_at_k": "any of N right (pass@N)",
    "proxy": "proxy",
    "kl": "KL bound, nats",
    "gain": "above best-of-N at equal tokens",
    "verdict": "verdict",
    "finished": "finished",
    "seconds": "seconds a prompt",
}
_COSTS = {
    "policy": "policy",
    "method": "method, budget",
    "tokens": "generated",
    "forward_tokens": "read by the policy",
    "scored_tokens": "read by reward and value models",
    "model_tokens": "read by models in all",
    "gain": "above best-of-N at equal reading",
    "verdict": "verdict",
    "seconds": "seconds a prompt",
}
_GUIDE = """
Proxy is the reward model's score: every method looks for what it scores high, so a high proxy alone
is no gain. Gold is a score that no model and no search uses. Where the two part, the search
exploits the reward model's mistakes.

A larger budget costs more, so a method is held against best-of-N at the same cost, read off
best-of-N's own curve between the budgets that were measured, on the same prompts. Above zero the
search gains over simply drawing more samples; below zero it loses, and is shown all the same. Where
the interval holds zero the comparison is undecided. Beyond best-of-N's last budget nothing is
compared: a larger pool reaches farther.

Cost is counted twice, since no single count is fair to all. Generated tokens are what was sampled,
dropped branches included. Tokens read by models are what the policy and the reward and value models
were given: a prompt or prefix that is kept is read once, however many branches go on from it.
Best-of-N at N reads the prompt once and N responses of mean length. Seconds are this machine's, and
batches share them.

Finished is the share of answers that ended by themselves; the others were cut off at
max_new_tokens. Reward models read those without an end token, and in votes they count only with an
answer that they had stated before. Where few answers are finished, raise max_new_tokens.

Intervals are 95 %, by Student's t. With several seeds they are over the seeds' means, which hold
the chance of training and of the prompts alike. Of one seed they are over its prompts: they say
what other prompts would have done, and nothing of what another seed or reward model would. Shares
of right answers of one seed have Wilson's interval, differences of such one that is built of two.
Seeds or scores that do not differ at all decide nothing; where nothing is known of the spread, the
estimate stands alone.
Best-of-N and votes at every N are averages over ways to
choose N of one pool of samples, so their curves are smooth and their points not independent.
"""


def records_of(run: RunDirectory, **wanted: str) -> list[Line]:
    """The records of a run whose fields have the wanted values."""
    return [
        record
        for record in run.all_records()
        if all(record.get(key) == value for key, value in wanted.items())
    ]


def add_gains(
    report: Report, run: RunDirectory, rows: Sequence[Record], cells: Sequence[Cell]
) -> None:
    """Adds the section on gains: prose, table and curves.

    Args:
        report: The page.
        run: Where figures go.
        rows: Of the table, policies beyond the searched one included.
        cells: Of the curves.
    """
    has_gold = all(cell.gold is not None for cell in cells)
    report.section(
        "What was gained",
        ("Gold is a score that no model or planner uses; " if has_gold else "")
        + "proxy is the reward model that every method planned against. Intervals are 95 %, "
        + scope_of(row["proxy"] for row in rows)
        + ". The comparison with best-of-N is at the same number of generated tokens, paired by "
        "prompt; below zero the method loses, and it is left out where best-of-N was not run that "
        "far. " + count_verdicts(gains_of(rows)),
    )
    shown = [
        {
            "policy": row["policy"],
            "method": method_name(row),
            "tokens": round(row["tokens"]),
            "gold": interval_of(row["gold"]),
            "pass_at_k": interval_of(row.get("pass_at_k")),
            "proxy": interval_of(row["proxy"]),
            "kl": row["kl"],
            "gain": interval_of(row["gain_at_equal_tokens"]),
            "verdict": verdict(row["gain_at_equal_tokens"]),
            "finished": show_share(row.get("finished")),
            "seconds": round(row["seconds"], 3),
        }
        for row in rows
    ]
    binary = any(row["pass_at_k"] is not None for row in shown)
    headings = {k: v for k, v in _COLUMNS.items() if binary or k != "pass_at_k"}
    if binary:
        headings["gold"] = "accuracy (gold)"
    report.table(
        shown,
        headings,
        caption="every method and budget; 95 % intervals " + scope_of(row["proxy"] for row in rows),
    )
    _add_curves(report, run, cells, "tokens", file="gains", axis="generated tokens a prompt")


def add_costs(
    report: Report, run: RunDirectory, rows: Sequence[Record], cells: Sequence[Cell]
) -> None:
    """Adds the section on costs: what every cell took, and gains over tokens read by models."""
    report.section(
        "What it cost",
        "Means a prompt. The comparison is at the same number of tokens that models were given, "
        "the policy's and the reward and value models' together. "
        + count_verdicts(gains_of(rows, "gain_at_equal_model_tokens")),
    )
    shown = [
        {
            "policy": row["policy"],
            "method": method_name(row),
            **{
                key: None if row.get(key) is None else round(row[key])
                for key in ("tokens", "forward_tokens", "scored_tokens", "model_tokens")
            },
            "gain": interval_of(row.get("gain_at_equal_model_tokens")),
            "verdict": verdict(row.get("gain_at_equal_model_tokens")),
            "seconds": round(row["seconds"], 3),
        }
        for row in rows
    ]
    scope = scope_of(row["proxy"] for row in rows)
    caption = f"tokens and seconds of every method and budget; 95 % intervals {scope}"
    report.table(shown, _COSTS, caption=caption)
    if any(cell.model_tokens is not None for cell in cells):
        axis = "tokens read by models, a prompt"
        _add_curves(report, run, cells, "model_tokens", file="gains_model_tokens", axis=axis)


def _add_curves(
    report: Report, run: RunDirectory, cells: Sequence[Cell], cost: Cost, *, file: str, axis: str
) -> None:
    """Draws all curves over one cost, as PNG and SVG, and shows them."""
    path = run.figures / f"{file}.svg"
    gain_curves(
        curves(cells, cost=cost),
        path,
        x_label=axis,
        y_label="mean score, 95 % intervals",
        title="What planning against the reward model gains",
    )
    scope = scope_of(cell.proxy for cell in cells)
    target = "gold" if all(cell.gold is not None for cell in cells) else "proxy"
    best = max(cells, key=lambda cell: getattr(cell, target).estimate)
    report.figure(
        path,
        alt=f"{target} score against {axis}; highest is {best.method} at budget {best.budget}",
        caption=f"Mean score against {axis}; bands are 95 % intervals {scope}.",
    )


def add_tree(report: Report, run: RunDirectory, saved: Path) -> None:
    """Adds the section on one search tree: its most visited nodes, and a page with all of it."""
    tree = json.loads(saved.read_text(encoding="utf-8"))["tree"]
    if tree is None:
        return
    view = view_nested(tree)
    title = "The first decision on the first prompt"
    page = render_html([NamedView(node_text(view.root), view)], title=title)
    path = write_text_atomic(run.figures / "tree.html", page)
    report.section(
        "A search tree",
        f"{title}: which segment to begin with. Values are expected reward-model scores.",
    )
    shown = f"{summary_line(view)}\n\n{render_text(view, max_nodes=_TREE_NODES)}"
    report.preformatted(shown, summary="The most visited nodes")
    report.link(path.relative_to(run.path).as_posix(), "Open the whole tree")


def add_making(report: Report, run: RunDirectory, **blocks: Mapping[str, object]) -> None:
    """Adds the section on how the run was made."""
    report.section("How it was made")
    for heading, values in blocks.items():
        report.settings(heading, values)
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    report.settings("environment", environment)


def records_with_clusters(run: RunDirectory) -> list[Line]:
    """The records of an evaluation, each with the cluster of its prompt.

    A prompt that stands twice in the data is one sample, and so is one that several runs share.
    Records of older runs name no cluster; theirs is found from the prompt.
    """
    prompts = json.loads((run.path / "data" / "prompts.json").read_text(encoding="utf-8"))
    clusters = clusters_of(prompts)
    return [{"cluster": clusters[record["prompt"]], **record} for record in records_of(run)]


def write_gain_report(run: RunDirectory, settings: Mapping[str, object]) -> Table:
    """Writes `summary.json`, figures and `report.html` of an evaluation.

    Returns:
        The closing table.
    """
    return write_gain_pages(
        run,
        records_with_clusters(run),
        load_pool(run),
        subtitle=str(settings["policy"]),
        configuration=settings,
        add=lambda report: _add_answers(report, run),
    )


def write_gain_pages(
    run: RunDirectory,
    records: Sequence[Record],
    pool: Pool | Mapping[Hashable, Pool],
    *,
    subtitle: str,
    configuration: Mapping[str, object],
    note: str = "",
    add: Callable[[Report], None] | None = None,
) -> Table:
    """Writes `summary.json`, figures and `report.html` of the records of one or several runs.

    Args:
        run: Where to.
        records: As `policies.evaluation.cells.summarize` takes them.
        pool: Samples, likewise.
        subtitle: Of the page.
        configuration: Shown on it.
        note: A sentence on what the intervals do not cover.
        add: Adds sections of one run.

    Returns:
        The closing table.
    """
    cells = summarize(records, seed=BOOTSTRAP_SEED, pool=pool)
    rows = [{"policy": "policy", **cell_row(cell)} for cell in cells]
    write_json_atomic(run.path / "summary.json", rows)
    report = Report("What test-time search gains", subtitle=subtitle)
    add_gains(report, run, rows, cells)
    add_costs(report, run, rows, cells)
    report.section("How to read this", f"{_GUIDE}\n{note}")
    add_divergence(report, cells, [method_name(row) for row in rows])
    add_fits(report, run, cells, records)
    if add is not None:
        add(report)
    add_making(report, run, configuration=configuration)
    report.write(run.report)
    return closing_table(rows, title="What test-time search gains")


def _add_answers(report: Report, run: RunDirectory) -> None:
    """Adds examples of an evaluation and its last search tree."""
    _add_examples(report, run)
    trees = sorted((run.path / "data").glob("search-*.tree.json"))
    if trees:
        add_tree(report, run, trees[-1])


def _add_examples(report: Report, run: RunDirectory) -> None:
    """Adds the section with the first prompts: a sample, and what the last search answered."""
    data = run.path / "data"
    kept = json.loads((data / "prompts.json").read_text(encoding="utf-8"))[:3]
    prompts = [str(prompt_of({"prompt": prompt})) for prompt in kept]
    pool = read_records(data / "pool.jsonl")
    shown = [
        [(marked("sampled", line.get("finished", [True])[0]), line["texts"][0], _scores(line, 0))]
        for line in pool[:3]
    ]
    searched = sorted(data.glob("search-*.jsonl"))
    if searched:
        name = searched[-1].stem.removeprefix("search-").replace("-", ", ")
        for cards, line in zip(shown, read_records(searched[-1]), strict=False):
            what = marked(f"searched: {name}", line.get("response_finished", True))
            cards.append((what, line["response"], _scores(line)))
    report.section("Examples", "The first three prompts, not chosen.")
    for prompt, cards in zip(prompts, shown, strict=True):
        report.examples(prompt, cards)


def _scores(line: Record, at: int | None = None) -> dict[str, float]:
    """The scores of a line's response, or of one of its responses."""
    found = {key: line[key] if at is None or line[key] is None else line[key][at]
             for key in ("gold", "proxy")}  # fmt: skip
    return {key: round(score, 2) for key, score in found.items() if score is not None}

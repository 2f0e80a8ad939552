"""The report on preference data as an HTML page, a JSON file and tables."""

import os
from dataclasses import asdict
from pathlib import Path

from prefsearch.report.page import Report
from prefsearch.report.plotting import PALETTE, open_canvas
from prefsearch.storage.files import write_json_atomic
from rewardmodel.data.report import DataReport, Histogram
from rewardmodel.data.rows import name_columns

_SHOWN = 30


def report_rows(report: DataReport) -> list[dict[str, object]]:
    """The findings of one number each, as rows of `finding` and `value`."""
    rows: list[tuple[str, object]] = [
        ("pairs", report.pairs),
        ("prompts", report.prompts),
        ("ties", report.ties),
        ("soft labels", report.soft_labels),
        ("duplicate pairs", report.duplicate_pairs),
        ("contradictory pairs", report.contradictory_pairs),
        ("identical replies", report.identical_pairs),
        ("blank replies", report.blank_replies),
        ("longer reply chosen", report.longer_chosen),
        ("correlation with length", report.length_correlation),
    ]
    if report.limits is not None:
        limits = report.limits
        rows += [
            (f"prompts cut at {limits.max_length} tokens", limits.cut_pairs),
            ("responses over the limit alone", limits.cut_responses),
            ("pairs with such a response", limits.cut_response_pairs),
            ("pairs TRL would have dropped", limits.dropped_by_trl),
            ("share of tokens cut", limits.lost_tokens_share),
        ]
    return [{"finding": finding, "value": value} for finding, value in rows]


def length_rows(report: DataReport) -> list[dict[str, object]]:
    """The quantiles of the lengths, one row per text and unit."""
    units = {"characters": report.characters, "tokens": report.tokens or {}}
    return [
        {"text": name, "unit": unit, **values}
        for unit, lengths in units.items()
        for name, values in lengths.items()
    ]


def write_data_report(report: DataReport, folder: str | os.PathLike[str]) -> Path:
    """Writes `data_report.json`, `data_report.html` and its figure; returns the path of the page.

    Raises:
        StorageError: A file could not be written.
    """
    folder = Path(folder)
    write_json_atomic(folder / "data_report.json", asdict(report))
    page = Report("Preference data", subtitle=f"{report.pairs:,} pairs before training")
    page.section("What was found", advice(report))
    page.table(report_rows(report), caption="Counts and shares, with 95 % intervals.")
    page.section("Lengths")
    page.table(length_rows(report), caption="Lengths by quantile; p50 is the median.")
    drawn, _ = _draw_lengths(report.histogram, folder / "figures" / "reply_lengths")
    middle = report.characters
    page.figure(
        drawn,
        alt="Lengths of chosen and rejected replies; their medians are "
        f"{middle['chosen']['p50']} and {middle['rejected']['p50']} characters.",
        caption="How long chosen and rejected replies are. The last bin holds all longer ones.",
    )
    for heading, counts in (("Subsets", report.subsets), ("Confidences", report.confidences)):
        if counts:
            page.section(heading)
            rows = [{"name": name, "pairs": count} for name, count in counts.items()]
            more = f" The first {_SHOWN} of {len(rows)}." if len(rows) > _SHOWN else ""
            page.table(rows[:_SHOWN], caption=f"Pairs by {heading.lower()}.{more}")
    return page.write(folder / "data_report.html")


def advice(report: DataReport) -> str:
    """Sentences on the findings that matter for training."""
    notes = []
    if report.unused_columns:
        notes.append(
            f"Not used: {name_columns(report.unused_columns)}. Whatever belongs to the prompt must "
            "be named as its column."
        )
    if report.ties == report.pairs:
        notes.append("All pairs are ties: there is no preference to learn.")
    if report.contradictory_pairs:
        notes.append(
            f"{report.contradictory_pairs} pairs stand in both orders, so no model can be right on "
            "both."
        )
    if report.duplicate_pairs:
        notes.append(
            f"{report.duplicate_pairs} rows repeat earlier ones; a split by prompt keeps them on "
            "one side."
        )
    longer = report.longer_chosen
    if longer is not None and not longer.low <= 0.5 <= longer.high:
        way = "longer" if longer.estimate > 0.5 else "shorter"
        notes.append(
            f"The {way} reply is preferred more often than not, which a reward model will learn; "
            "compare its accuracy with that of choosing by length."
        )
    if report.limits is not None and report.limits.cut_pairs:
        notes.append(
            f"At {report.limits.max_length} tokens {report.limits.cut_pairs} pairs lose the "
            "beginning of their prompt; none is dropped."
        )
    return "\n\n".join(notes) or "Nothing that should hold up training."


def _draw_lengths(histogram: Histogram, path: Path) -> tuple[Path, Path]:
    with open_canvas(6.4, 3.2) as (figure, save):
        axis = figure.subplots()
        for name, counts, color, line in (
            ("chosen", histogram.chosen, PALETTE[0], "solid"),
            ("rejected", histogram.rejected, PALETTE[1], "dashed"),
        ):
            axis.stairs(counts, histogram.edges, color=color, linestyle=line, label=name)
        axis.set_xlabel(f"length of a reply, {histogram.unit}")
        axis.set_ylabel("replies")
        axis.set_ylim(bottom=0)
        axis.legend()
        return save(path)

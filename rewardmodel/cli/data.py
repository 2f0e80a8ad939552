"""`prefsearch reward inspect`, `convert` and `split`: preference data before training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from prefsearch.cli.console import PlainConsole
from prefsearch.cli.outputs import Output
from prefsearch.config.bounds import ProperFraction, Rows, Seed, Tokens
from prefsearch.config.checks import check_types, require
from prefsearch.report.page import format_cell
from prefsearch.storage.files import write_json_atomic, write_text_atomic
from rewardmodel.cli.columns import ColumnSettings, describe_unused
from rewardmodel.data.formats.table import FormatName
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.preferences import load_preferences, split_by_prompt
from rewardmodel.data.report import DataReport, examine_preferences
from rewardmodel.data.report_page import advice, length_rows, report_rows, write_data_report
from rewardmodel.data.rows import ColumnUse, OnBadRow
from rewardmodel.pretrained.checkpoints import read_config
from rewardmodel.pretrained.input_format import separates_segments
from rewardmodel.pretrained.own_settings import InputFormat
from rewardmodel.pretrained.places import keep_inputs
from rewardmodel.pretrained.source import resolve_model
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer


@dataclass
class SplitJob(ColumnSettings):
    """Split preference pairs by prompt into train.jsonl and test.jsonl, and report on them.

    Attributes:
        dataset: Preference pairs, as for `train`.
        split: Split of a hub dataset or folder.
        format: What the rows are: auto (told by hub id or columns), plain (columns as they are),
            hh, tldr, ultrafeedback, rewardbench, rewardbench2, qa_feedback, scores or rankings.
        model: Hub id or folder whose tokenizer renders messages; null keeps messages.
        holdout: Share of the prompts that go to test.jsonl.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        seed: Of the split.
        out: Folder for train.jsonl, test.jsonl and data_report.json.
    """

    dataset: str = ""
    split: str = "train"
    format: FormatName = "auto"
    model: str | None = None
    holdout: ProperFraction = 0.1
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    seed: Seed = 0
    out: str = "runs/split"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        keep_inputs(self, "dataset", "model")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ("train.jsonl", "test.jsonl", "data_report.json"))]


def split(job: SplitJob) -> None:
    """Splits text pairs; see `SplitJob`."""
    data = load_preferences(
        job.dataset,
        split=job.split,
        format=job.format,
        tokenizer=load_tokenizer(job.model) if job.model else None,
        keep_messages=job.model is None,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
        **job.columns(),
    )
    folder = Path(job.out)
    parts = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    for name, part in zip(("train", "test"), parts, strict=True):
        write_text_atomic(folder / f"{name}.jsonl", json_lines(part))
    write_json_atomic(folder / "data_report.json", examine_preferences(data))
    PlainConsole().print(f"{len(parts[0])} and {len(parts[1])} pairs: {folder}")


@dataclass
class InspectJob(ColumnSettings):
    """Report on preference pairs before training: counts, labels, lengths, what a limit cuts.

    Attributes:
        dataset: Preference pairs, as for `train`.
        split: Split of a hub dataset or folder.
        format: What the rows are: auto (told by hub id or columns), plain (columns as they are),
            hh, tldr, ultrafeedback, rewardbench, rewardbench2, qa_feedback, scores or rankings.
        model: Hub id or folder whose tokenizer counts tokens, of messages those of its chat
            template; null counts characters alone.
        max_length: Tokens of prompt and response together, to see what it would cut.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: Folder for data_report.json and data_report.html.
    """

    dataset: str = ""
    split: str = "train"
    format: FormatName = "auto"
    model: str | None = None
    max_length: Tokens | None = None
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    out: str = "runs/inspect"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        if self.max_length is not None:
            require(bool(self.model), "model", self.model, "a tokenizer for max_length, by --model")
        keep_inputs(self, "dataset", "model")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ("data_report.json", "data_report.html"))]


def inspect_data(job: InspectJob) -> None:
    """Reports on pairs; see `InspectJob`."""
    tokenizer = load_tokenizer(job.model) if job.model else None
    columns = ColumnUse()
    data = load_preferences(
        job.dataset,
        split=job.split,
        format=job.format,
        tokenizer=tokenizer,
        keep_messages=True,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
        columns=columns,
        **job.columns(),
    )
    encoder = None if job.model is None else _open_encoder(job.model, tokenizer, job.max_length)
    report = examine_preferences(data, encoder=encoder, unused_columns=columns.unused)
    page = write_data_report(report, job.out)
    show_data_report(PlainConsole(), report)
    PlainConsole().print(f"Report: {page}")


def _open_encoder(source: str, tokenizer: Any, max_length: int | None) -> TextEncoder:
    """A model's tokenization, in the form that its configuration says or that its kind is given.

    The weights, at which training looks, are not loaded: models of masked tokens are encoders.
    """
    form: InputFormat = "text"
    try:
        config = read_config(source)
    except ValueError:
        if (Path(resolve_model(source)) / "config.json").is_file():
            raise
        config = {}  # a folder of a tokenizer alone
    if config.get("input_format") is not None:
        form = config["input_format"]["name"]
    elif config.get("model_type") in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        pair = not tokenizer.chat_template and separates_segments(tokenizer)
        form = "pair" if pair else "text"
    return TextEncoder(tokenizer, max_length, form, continues=False)


def show_data_report(console: Console, report: DataReport) -> None:
    """Prints what was found, the lengths, and what should not be overlooked."""
    found = Table("finding", "value", title="Preference data")
    for row in report_rows(report):
        found.add_row(str(row["finding"]), format_cell(row["value"]))
    lengths = length_rows(report)
    table = Table(*lengths[0], title="Lengths")
    for row in lengths:
        table.add_row(*map(format_cell, row.values()))
    console.print(found, table, advice(report))


@dataclass
class ConvertJob(ColumnSettings):
    """Write preferences of any supported format as plain pairs, one JSON object a line.

    Attributes:
        dataset: Preferences: a hub id, a folder or a file.
        split: Split of a hub dataset or folder.
        format: What the rows are: auto (told by hub id or columns), plain (columns as they are),
            hh, tldr, ultrafeedback, rewardbench, rewardbench2, qa_feedback, scores or rankings.
        model: Hub id or folder whose tokenizer renders messages and counts query_tokens; null
            keeps messages as they are.
        margins: Write the difference of two scores as margin (ultrafeedback and scores).
        query_tokens: Cut the queries of format tldr to so many tokens; 512 in the paper.
        limit: Write this many pairs; null writes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: File for the pairs.
    """

    dataset: str = ""
    split: str = "train"
    format: FormatName = "auto"
    model: str | None = None
    margins: bool = False
    query_tokens: Tokens | None = None
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    out: str = "runs/pairs.jsonl"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(self.out.endswith(".jsonl"), "out", self.out, "a file that ends in .jsonl")
        if self.query_tokens is not None:
            require(bool(self.model), "model", self.model, "a tokenizer to count with, by --model")
        keep_inputs(self, "dataset", "model")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out)]


def convert(job: ConvertJob) -> None:
    """Writes plain pairs; see `ConvertJob`."""
    unused = ColumnUse()
    pairs: Dataset = load_preferences(
        job.dataset,
        split=job.split,
        format=job.format,
        tokenizer=load_tokenizer(job.model) if job.model else None,
        keep_messages=job.model is None,
        margins=job.margins,
        query_tokens=job.query_tokens,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
        columns=unused,
        **job.columns(),
    )
    path = write_text_atomic(job.out, json_lines(pairs))
    columns = ", ".join(pairs.column_names)
    PlainConsole().print(f"{len(pairs)} pairs of {columns}: {path}")
    if unused.unused:
        PlainConsole().print(describe_unused(unused))

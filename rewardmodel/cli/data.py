"""`prefsearch reward inspect`, `convert` and `split`: preference data before training."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from prefsearch.cli.console import PlainConsole
from prefsearch.report.page import format_cell
from prefsearch.storage.files import write_json_atomic, write_text_atomic
from rewardmodel.cli.data_args import ConvertArgs, InspectArgs, SplitArgs
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.preferences import load_preferences, split_by_prompt
from rewardmodel.data.report import DataReport, examine_preferences
from rewardmodel.data.report_page import advice, length_rows, report_rows, write_data_report
from rewardmodel.data.rows import ColumnUse, name_columns
from rewardmodel.pretrained.checkpoints import read_config
from rewardmodel.pretrained.config_fields import InputFormat
from rewardmodel.pretrained.input_format import separates_segments
from rewardmodel.pretrained.source import resolve_model
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer


def split(args: SplitArgs) -> None:
    """Splits text pairs."""
    data = load_preferences(
        args.dataset,
        tokenizer=load_tokenizer(args.model) if args.model else None,
        keep_messages=args.model is None,
        **args.rows(),
    )
    folder = Path(args.out)
    parts = split_by_prompt(data, holdout=args.holdout, seed=args.seed)
    for name, part in zip(("train", "test"), parts, strict=True):
        write_text_atomic(folder / f"{name}.jsonl", json_lines(part))
    write_json_atomic(folder / "data_report.json", examine_preferences(data))
    PlainConsole().print(f"{len(parts[0])} and {len(parts[1])} pairs: {folder}")


def inspect_data(args: InspectArgs) -> None:
    """Reports on pairs."""
    tokenizer = load_tokenizer(args.model) if args.model else None
    columns = ColumnUse()
    data = load_preferences(
        args.dataset,
        tokenizer=tokenizer,
        keep_messages=True,
        columns=columns,
        **args.rows(),
    )
    encoder = None if args.model is None else _open_encoder(args.model, tokenizer, args.max_length)
    report = examine_preferences(data, encoder=encoder, unused_columns=columns.unused)
    page = write_data_report(report, args.out)
    show_data_report(PlainConsole(), report)
    PlainConsole().print(f"Report: {page}")


def _open_encoder(source: str, tokenizer: Any, max_length: int | None) -> TextEncoder:
    """A model's tokenization, in the form of its configuration or its kind.

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


def convert(args: ConvertArgs) -> None:
    """Writes plain pairs."""
    unused = ColumnUse()
    pairs: Dataset = load_preferences(
        args.dataset,
        tokenizer=load_tokenizer(args.model) if args.model else None,
        keep_messages=args.model is None,
        margins=args.margins,
        query_tokens=args.query_tokens,
        columns=unused,
        **args.rows(),
    )
    path = write_text_atomic(args.out, json_lines(pairs))
    columns = ", ".join(pairs.column_names)
    PlainConsole().print(f"{len(pairs)} pairs of {columns}: {path}")
    show_unused(PlainConsole(), unused)


def show_unused(console: Console, columns: ColumnUse) -> None:
    """Prints which columns were not used, if there are any."""
    if columns.unused:
        console.print(f"Not used: {name_columns(columns.unused)}")

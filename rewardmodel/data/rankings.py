"""Rankings of K replies to one prompt, and the pairs that they imply.

A ranking is `prompt`, `responses` (K >= 2 different texts) and `ranks` (whole numbers, 1 the best,
equal numbers ties).
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from rewardmodel.data.conversation import TEMPLATE_COLUMNS, Prompt, prompt_record
from rewardmodel.data.formats.format import ConvertOptions
from rewardmodel.data.formats.ranked import convert_rankings, convert_scores
from rewardmodel.data.formats.registry import (
    FormatName,
    describe_formats,
    format_named,
    format_of_source,
    recognize,
)
from rewardmodel.data.parsing.finished import PAIR_COLUMNS
from rewardmodel.data.parsing.reply_text import OneKind, split_prompt
from rewardmodel.data.rows import (
    ColumnUse,
    OnBadRow,
    PreferenceDataError,
    Row,
    SkippedPart,
    leave_aside,
)
from rewardmodel.data.sources.sources import load_records
from rewardmodel.data.sources.tables import gather


def load_rankings(
    source: str | os.PathLike[str],
    *,
    split: str = "train",
    format: FormatName = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    prompt_column: str = "prompt",
    keep_messages: bool = False,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
    columns: ColumnUse | None = None,
) -> Dataset:
    """Loads rankings of several replies to a prompt; arguments as in `load_preferences`.

    A reply that occurs twice under a prompt is kept once; the copies are counted in a warning.
    `format` "rankings" reads `responses` and `ranks`, "scores" reads `responses` and `scores`,
    "ultrafeedback" its completions; "plain" is ranks where a row has them, else scores.

    Returns:
        Text `prompt` (messages where they are kept), list of text `responses`, list of int64
        `ranks`, list of bool `finished` where any row has it (null elsewhere), and text `subset`
        where the first good row has one.

    Raises:
        PreferenceDataError: No such source, a bad row, a source of pairs, or no good row at all.
        ValueError: An argument is not allowed.
    """
    found = format_named(format)
    if format == "auto":
        found = format_of_source(source)
    options = ConvertOptions(
        tokenizer=tokenizer, prompt_column=prompt_column, keep_messages=keep_messages
    )
    named = prompt_column != "prompt"
    if found is not None and named and not found.any_prompt:
        raise ValueError(
            f"prompt_column is {prompt_column!r}, and format {found.name!r} fixes the columns. "
            "Leave prompt_column out."
        )
    has_subset: bool | None = None
    one_kind = OneKind()

    def parse(row: Row) -> list[dict[str, Any] | SkippedPart]:
        nonlocal found, has_subset
        if found is None and format == "auto":
            found = recognize(row)
            if found is not None and named and not found.any_prompt:
                found = None
        if found is not None:
            leave_aside(row, found.aside)
            parts = found.convert(row, options)
        else:
            parts = (convert_rankings if "ranks" in row else convert_scores)(row, options)
        records: list[dict[str, Any] | SkippedPart] = []
        for part in parts:
            if isinstance(part, SkippedPart):
                records.append(part)
                continue
            prompt, record = _record(part, row, options)
            one_kind(prompt)
            if has_subset is None:
                has_subset = "subset" in part
            if has_subset:
                subset = part.get("subset")
                record["subset"] = None if subset is None else str(subset)
            records.append(record)
        return records

    records = load_records(
        source, parse, split=split, on_bad_row=on_bad_row, limit=limit, columns=columns
    )
    return gather(records, {"finished": List(Value("bool"))})


def _record(
    part: Mapping[str, Any], row: Row, options: ConvertOptions
) -> tuple[Prompt, dict[str, Any]]:
    """The prompt, and the record of a ranking that a converter returned."""
    if "ranks" not in part:
        raise PreferenceDataError(
            f"found rows of pairs ({', '.join(part)}); required are rankings: prompt, responses, "
            "and ranks or scores. Load pairs with load_preferences (train on them without "
            f"listwise); as format pass one of several responses:\n{describe_formats()}"
        )
    marks = part.get("finished")
    prompt, responses = split_prompt(
        part["prompt"],
        part["responses"],
        options.tokenizer,
        row=row,
        keep_messages=options.keep_messages,
        finished=[mark is not False for mark in marks] if marks else None,
    )
    record = {**prompt_record(prompt), "responses": responses, "ranks": part["ranks"]}
    return prompt, record | ({"finished": marks} if marks else {})


def pairs_from_rankings(dataset: Dataset) -> Dataset:
    """Turns rankings into all their preference pairs, K(K-1)/2 a ranking.

    Args:
        dataset: With `prompt`, `responses` and `ranks`; `finished`, `subset`, `tools` and
            `chat_template_kwargs` are carried over.

    Returns:
        Text columns `prompt`, `chosen`, `rejected`, float `chosen_probability` (one half for equal
        ranks), and `subset`, `chosen_finished` and `rejected_finished` where present.

    Raises:
        ValueError: A column is missing; a row's lengths differ, it has fewer than two different
            responses, or its ranks are no whole numbers from 1; or there is no pair.
    """
    lacking = {"prompt", "responses", "ranks"} - set(dataset.column_names)
    if lacking:
        raise ValueError(
            f"the dataset has no {', '.join(sorted(lacking))}; found {dataset.column_names}; "
            "required are rankings. Load them with load_rankings."
        )
    marked = "finished" in dataset.column_names

    def pairs() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(dataset.with_format(None)):
            ranking: dict[str, Any] = dict(row)
            _check(ranking["responses"], ranking["ranks"], number)
            if marked:
                ranking["finished"] = ranking["finished"] or [None] * len(ranking["ranks"])
            yield from pairs_of_ranking(ranking)

    records = pairs()
    first = next(records, None)
    if first is None:
        raise ValueError(
            f"{len(dataset)} rankings gave no pair; required is at least one. Load other rankings"
        )
    return gather(itertools.chain([first], records))


def pairs_of_ranking(ranking: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields all pairs of one ranking with their labels: a `margin` where it has `scores`."""
    responses, scores, marks = ranking["responses"], ranking.get("scores"), ranking.get("finished")
    carried = {n: ranking[n] for n in ("subset", *TEMPLATE_COLUMNS) if n in ranking}
    for better, worse, probability in ranked_pairs(ranking["ranks"]):
        pair = {
            "prompt": ranking["prompt"],
            "chosen": responses[better],
            "rejected": responses[worse],
            "chosen_probability": probability,
            **carried,
        }
        if scores:
            pair["margin"] = scores[better] - scores[worse]
        if marks:
            pair |= zip(PAIR_COLUMNS, (marks[better], marks[worse]), strict=True)
        yield pair


def ranked_pairs(ranks: Sequence[int]) -> Iterator[tuple[int, int, float]]:
    """Yields (better, worse, probability) by index; equal ranks keep their order, with one half."""
    order = sorted(range(len(ranks)), key=lambda index: ranks[index])  # stable
    for better, worse in itertools.combinations(order, 2):
        yield better, worse, 0.5 if ranks[better] == ranks[worse] else 1.0


def _check(responses: Any, ranks: Any, number: int) -> None:
    problem = None
    if not isinstance(responses, list) or not isinstance(ranks, list):
        problem = f"{type(responses).__name__} as responses and {type(ranks).__name__} as ranks"
    elif len(responses) != len(ranks):
        problem = f"{len(responses)} responses and {len(ranks)} ranks"
    elif len(set(responses)) < 2 or len(set(responses)) < len(responses):
        problem = f"{len(responses)} responses of which {len(set(responses))} differ"
    elif any(isinstance(rank, bool) or not isinstance(rank, int) or rank < 1 for rank in ranks):
        problem = f"the ranks {ranks}"
    if problem:
        raise ValueError(
            f"row {number}: found {problem}; required are at least two different responses and as "
            "many ranks, whole numbers from 1 for the best. Mend the row; load_rankings checks "
            "and mends what it can."
        )

"""Steps of responses: labeled data, and their token ids.

A step is a piece of a response between separators. Its ids are those of its own text and of the
separator after it, at whose last token it is scored, as in TRL's stepwise supervision. Steps are
tokenized apart, so that a step has the same ids whatever follows: a search scores the beginning of
a response exactly as in training.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, List, Value

from rewardmodel.choices import SEPARATOR
from rewardmodel.data.conversation import Prompt, prompt_of, prompt_record
from rewardmodel.data.parsing.prompt_columns import take_prompt
from rewardmodel.data.parsing.reply_text import OneKind, split_prompt
from rewardmodel.data.rows import OnBadRow, PreferenceDataError, Row
from rewardmodel.data.sources.sources import load_records
from rewardmodel.data.sources.tables import gather
from rewardmodel.pretrained.tokenization import TextEncoder


def load_steps(
    source: str | os.PathLike[str],
    *,
    split: str = "train",
    prompt_column: str = "prompt",
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> Dataset:
    """Loads responses whose steps are labeled, in TRL's stepwise format.

    Arguments as in `rewardmodel.data.preferences.load_preferences`.

    Returns:
        Columns `prompt` (text or messages), `completions` (the steps, texts) and `labels` (one a
        step: 1 right, 0 wrong, between them a share of annotators or rollouts), in the order of the
        source.

    Raises:
        PreferenceDataError: No such source, a bad row or no good one; the message names file and
            line.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    one_kind = OneKind()

    def parse(row: Row) -> dict[str, object]:
        found = _parse(row, prompt_column)
        one_kind(prompt_of(found))
        return found

    records = load_records(source, parse, split=split, on_bad_row=on_bad_row, limit=limit)
    lists = {"completions": List(Value("string")), "labels": List(Value("float64"))}
    return gather(records, lists)


def _parse(row: Row, prompt_column: str) -> dict[str, object]:
    turns = take_prompt(row, prompt_column, option="prompt_column")
    prompt, _ = split_prompt(turns, [], None, row=row, keep_messages=True)
    steps, labels = (_take_list(row, column) for column in ("completions", "labels"))
    if len(steps) != len(labels):
        raise PreferenceDataError(
            f"found {len(steps)} completions and {len(labels)} labels; required is a label for "
            "each step. Add or drop some.",
            reason="labels and steps differ in number",
        )
    for place, step in enumerate(steps):
        if not isinstance(step, str) or not step.strip():
            raise PreferenceDataError(
                f"step {place} is {repr(step)[:60]}; required is text. Drop the step and its "
                "label.",
                reason="empty step",
            )
    for place, label in enumerate(labels):
        if not isinstance(label, bool | int | float) or not 0 <= label <= 1:
            raise PreferenceDataError(
                f"label {place} is {repr(label)[:60]}; required is true, false or a number in "
                "[0, 1]. Map other ratings to it first.",
                reason="label out of range",
            )
    labels = [float(label) for label in labels]
    return {**prompt_record(prompt), "completions": steps, "labels": labels}


def _take_list(row: Row, column: str) -> list[Any]:
    value = row.get(column)
    if not isinstance(value, list) or not value:
        found = f"{value!r}"[:80] if column in row else f"no such column among {list(row)}"
        raise PreferenceDataError(
            f"column {column!r}: found {found}; required is a list with one entry a step.",
            reason=f"no {column}",
        )
    return value


def split_steps(response: str, separator: str = SEPARATOR) -> list[str]:
    """The steps of a whole or unfinished response; an empty response is one empty step.

    Pieces of white space alone are no steps.
    """
    return [step for step in response.split(separator) if step.strip()] or [""]


@dataclass(frozen=True)
class StepIds:
    """Token ids of a prompt and the steps of a response.

    Attributes:
        prompt: Cut from the left where the whole is too long.
        steps: Ids of all steps, concatenated.
        ends: Position of each step's last token among `steps`, T numbers. Steps beyond the limit
            end at the last token that is left.
        lost: Steps whose end lies beyond the limit.
        cut: Whether anything was cut.
    """

    prompt: list[int]
    steps: list[int]
    ends: list[int]
    lost: int
    cut: bool


def step_ids(
    encoder: TextEncoder, prompt: Prompt, steps: Sequence[str], *, separator: str = SEPARATOR
) -> StepIds:
    """Ids of a prompt and steps, cut to the encoder's `max_length`, the prompt from its left.

    Raises:
        ValueError: If there are no steps.
    """
    if not steps:
        raise ValueError("found no steps; required: at least one")
    closing = encoder.text_ids(separator)
    ids: list[int] = []
    ends = []
    for step in steps:
        ids += encoder.text_ids(step) + closing
        ends.append(len(ids) - 1)
    if not ids:
        raise ValueError("the steps have no tokens; required: at least one. Set a separator")
    whole = encoder.prompt_ids(prompt)
    kept, left = encoder.fit(whole, ids, finished=False)
    return StepIds(
        kept,
        left,
        [max(0, min(end, len(left) - 1)) for end in ends],
        sum(end >= len(left) for end in ends),
        len(kept) + len(left) < len(whole) + len(ids),
    )

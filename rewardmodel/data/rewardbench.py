"""The rows of RewardBench, versions 1 and 2, as its evaluation takes them.

A benchmark is scored on all of its rows, so empty replies, which models may well have given, are
allowed. Where the tokenizer has a chat template, it renders prompt and replies; else the text is
taken as it is.

Source: Lambert et al. 2024, "RewardBench"; Malik et al. 2025, "RewardBench 2".
"""

import os
from collections.abc import Callable
from typing import Any

from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from rewardmodel.data.conversation import prompt_record
from rewardmodel.data.formats.fields import bad_value, missing, take_list, take_text
from rewardmodel.data.formats.format import ConvertOptions
from rewardmodel.data.parsing.reply_text import split_prompt
from rewardmodel.data.rows import OnBadRow, PreferenceDataError, Row, leave_aside
from rewardmodel.data.sources.sources import load_records
from rewardmodel.data.sources.tables import gather

_ASIDE = frozenset(
    {"chosen_model", "rejected_model", "models", "total_completions", "additional_metadata"}
)
_REPLIES = "a list of at least one text"
_TEXTS = {name: List(Value("string")) for name in ("chosen", "rejected")}


def load_reward_bench(
    source: str | os.PathLike[str] = "allenai/reward-bench",
    *,
    split: str = "filtered",
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep_messages: bool = False,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> Dataset:
    """Loads RewardBench version 1: one chosen and one rejected reply a row.

    Args:
        source: The hub id, or its rows in a file or folder.
        split: "filtered" is the benchmark, "raw" what it was chosen from.
        tokenizer: With a chat template, renders prompts and replies, unless messages are kept.
        keep_messages: With such a tokenizer, make each prompt a user's message, for the model to
            render.
        on_bad_row: As in `load_preferences`.
        limit: Stop after so many rows.

    Returns:
        Text columns `id`, `prompt` (messages where they are kept), `chosen`, `rejected`, `subset`.

    Raises:
        PreferenceDataError: No such source, or a bad row.
    """
    parse = _parser(_one_each, tokenizer, keep_messages)
    records = load_records(source, parse, split=split, on_bad_row=on_bad_row, limit=limit)
    return gather({**r, "chosen": r["chosen"][0], "rejected": r["rejected"][0]} for r in records)


def load_reward_bench_2(
    source: str | os.PathLike[str] = "allenai/reward-bench-2",
    *,
    split: str = "test",
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep_messages: bool = False,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> Dataset:
    """Loads RewardBench version 2: correct replies against several wrong ones.

    Arguments as `load_reward_bench`; a local folder or file may hold the rows.

    Returns:
        Text `id`, text `prompt`, lists of text `chosen` (one, in the subset Ties several) and
        `rejected`, text `subset`. The ids of Ties pair its rows and are kept as they are.

    Raises:
        PreferenceDataError: No such source, or a bad row: no reply on one side, or counts
            (`num_correct`, `num_incorrect`) that are not those of the lists.
    """
    parse = _parser(_several, tokenizer, keep_messages)
    records = load_records(source, parse, split=split, on_bad_row=on_bad_row, limit=limit)
    return gather(records, _TEXTS)


def _one_each(row: Row) -> list[list[str]]:
    return [[take_text(row, name)] for name in ("chosen", "rejected")]


def _several(row: Row) -> list[list[str]]:
    """Lists of correct and of wrong replies, as many as the row names."""
    sides = [take_list(row, name, str, required=_REPLIES) for name in ("chosen", "rejected")]
    for name, count, side in zip(
        ("chosen", "rejected"), ("num_correct", "num_incorrect"), sides, strict=True
    ):
        if not side:
            raise bad_value(name, side, _REPLIES)
        if row.get(count) is not None and row[count] != len(side):
            raise PreferenceDataError(
                f"{count!r} is {row[count]!r} and {name!r} holds {len(side)} replies; required "
                'is the same number. Load the file again, or drop the row (on_bad_row="skip").',
                reason=f"{count} is another number",
            )
    return sides


def _parser(
    take_sides: Callable[[Row], list[list[str]]],
    tokenizer: PreTrainedTokenizerBase | None,
    keep_messages: bool,
) -> Callable[[Row], dict[str, Any]]:
    """Parses rows whose chosen and rejected replies are read by `take_sides`."""
    options = ConvertOptions(tokenizer=tokenizer)

    def parse(row: Row) -> dict[str, Any]:
        chosen, rejected = take_sides(row)
        leave_aside(row, _ASIDE)
        prompt, replies = split_prompt(
            options.prompt_turns(take_text(row, "prompt", blank=False)),
            [*chosen, *rejected],
            tokenizer,
            row=row,
            empty=True,
            keep_messages=keep_messages,
        )
        if row.get("id") is None:
            raise missing("id", row, "the row's id")
        return {
            "id": str(row["id"]),  # version 1 numbers its rows, version 2 names them
            **prompt_record(prompt),
            "chosen": replies[: len(chosen)],
            "rejected": replies[len(chosen) :],
            "subset": take_text(row, "subset", blank=False),
        }

    return parse

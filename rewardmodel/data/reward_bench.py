"""The rows of RewardBench, versions 1 and 2, as its evaluation takes them.

A benchmark is scored on all of its rows, so an empty reply, which a model may well have given, is
no fault here. Where the tokenizer has a chat template, prompt and replies are rendered by it; else
the text is taken as it is.

Source: Lambert et al. 2024, "RewardBench"; Malik et al. 2025, "RewardBench 2".
"""

import os
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from rewardmodel.data.conversation import Prompt, Reply, prompt_record
from rewardmodel.data.formats.fields import bad_value, missing, take_list, take_text
from rewardmodel.data.formats.options import ConvertOptions
from rewardmodel.data.parsing.reply_text import split_prompt
from rewardmodel.data.rows import OnBadRow, PreferenceDataError, Row, leave_aside, parse_rows
from rewardmodel.data.sources.sources import read_rows
from rewardmodel.data.sources.tables import gather

_ASIDE = frozenset(
    {"chosen_model", "rejected_model", "models", "total_completions", "additional_metadata"}
)
_REPLIES = "a list of at least one text"


def load_reward_bench(
    source: str | os.PathLike[str] = "allenai/reward-bench",
    *,
    split: str = "filtered",
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep_messages: bool = False,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> Dataset:
    """Load RewardBench version 1: one chosen and one rejected reply a row.

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

    def parse(row: Row) -> dict[str, Any]:
        replies = [take_text(row, name) for name in ("chosen", "rejected")]
        prompt, (chosen, rejected) = _rendered(row, replies, tokenizer, keep_messages)
        return {
            "id": _identity(row),
            **prompt_record(prompt),
            "chosen": chosen,
            "rejected": rejected,
            "subset": take_text(row, "subset", blank=False),
        }

    rows = read_rows(source, split=split)
    return gather(parse_rows(rows, parse, source=source, on_bad_row=on_bad_row, limit=limit))


def load_reward_bench_2(
    source: str | os.PathLike[str] = "allenai/reward-bench-2",
    *,
    split: str = "test",
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep_messages: bool = False,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> Dataset:
    """Load RewardBench version 2: correct replies against several wrong ones.

    Args:
        source: The hub id, or its rows in a file or folder.
        split: Of a hub dataset or folder.
        tokenizer: With a chat template, renders prompts and replies, unless messages are kept.
        keep_messages: With such a tokenizer, make each prompt a user's message, for the model to
            render.
        on_bad_row: As in `load_preferences`.
        limit: Stop after so many rows.

    Returns:
        Text `id`, text `prompt`, lists of text `chosen` (one, in the subset Ties several) and
        `rejected`, text `subset`. The ids of Ties pair its rows and are kept as they are.

    Raises:
        PreferenceDataError: No such source, or a bad row: no reply on one side, or counts
            (`num_correct`, `num_incorrect`) that are not those of the lists.
    """

    def parse(row: Row) -> dict[str, Any]:
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
        prompt, replies = _rendered(row, [*sides[0], *sides[1]], tokenizer, keep_messages)
        return {
            "id": _identity(row),
            **prompt_record(prompt),
            "chosen": replies[: len(sides[0])],
            "rejected": replies[len(sides[0]) :],
            "subset": take_text(row, "subset", blank=False),
        }

    rows = read_rows(source, split=split)
    records = parse_rows(rows, parse, source=source, on_bad_row=on_bad_row, limit=limit)
    texts = List(Value("string"))
    return gather(records, {"chosen": texts, "rejected": texts})


def _rendered(
    row: Row, replies: Sequence[str], tokenizer: Any, keep_messages: bool
) -> tuple[Prompt, list[Reply]]:
    leave_aside(row, _ASIDE)
    prompt = ConvertOptions(tokenizer=tokenizer).asked(take_text(row, "prompt", blank=False))
    return split_prompt(
        prompt, replies, tokenizer, row=row, empty=True, keep_messages=keep_messages
    )


def _identity(row: Row) -> str:
    """Version 1 numbers its rows, version 2 names them."""
    if row.get("id") is None:
        raise missing("id", row, "the row's id")
    return str(row["id"])

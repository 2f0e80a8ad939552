"""Loading preferences, prompts and demonstrations from files, folders and the hub.

Preferences have the columns `prompt`, `chosen`, `rejected`: text, such that `prompt + chosen` is
what the reward model reads, or messages, which each model renders with its own template; and the
labels that the source has: `chosen_probability` (1 certain, 0.5 a tie), `margin`, `confidence`,
`subset`. Bad rows are errors with their location, or are skipped and counted on request.
"""

import os
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from rewardmodel.data.conversation import (
    TEMPLATE_COLUMNS,
    Prompt,
    prompt_of,
    prompts_of,
    row_of,
)
from rewardmodel.data.formats.format import ConvertOptions
from rewardmodel.data.formats.registry import FormatName
from rewardmodel.data.parsing.finished import replies_finished
from rewardmodel.data.parsing.pairs import PairParser
from rewardmodel.data.parsing.prompt_columns import (
    begins_with_prompt,
    find_conversation,
    find_prompts,
    take_prompt,
)
from rewardmodel.data.parsing.reply_text import OneKind, split_prompt, take_turns
from rewardmodel.data.parsing.shared_prompt import split_last_turn
from rewardmodel.data.rows import (
    ColumnUse,
    OnBadRow,
    Row,
    SkippedPart,
    note,
)
from rewardmodel.data.sources.files import PLAIN_LINE
from rewardmodel.data.sources.sources import load_records
from rewardmodel.data.sources.tables import gather

Source = str | os.PathLike[str]
_PROMPT_COLUMNS = ("prompt", *TEMPLATE_COLUMNS)


def load_preferences(
    source: Source,
    *,
    split: str = "train",
    format: FormatName = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep_messages: bool = False,
    on_bad_row: OnBadRow = "error",
    prompt_column: str = "prompt",
    chosen_column: str = "chosen",
    rejected_column: str = "rejected",
    probability_column: str | None = None,
    implicit_prompt: bool = False,
    margins: bool = False,
    query_tokens: int | None = None,
    limit: int | None = None,
    columns: ColumnUse | None = None,
) -> Dataset:
    r"""Loads preference pairs.

    The prompt is a column of its own: `prompt`, the column named, or the only one with another
    usual name such as `question`; where several are possible, the error names them. Without one,
    the prompt is the beginning that chosen and rejected share: of transcripts all up to the last
    shared "\n\nAssistant:" (or "### Response:" and their like, see
    `rewardmodel.data.parsing.transcripts`), of messages the turns before the assistant's first
    differing one, of other text only with `implicit_prompt`. A `system` column becomes the first
    turn of messages, and a paragraph before plain text; `tools` and `chat_template_kwargs` are
    passed to the chat template, as in TRL. Images beside the text are refused, and unused columns
    are named in a warning. A row of a published format may give several pairs; pairs of identical
    replies in it are left out and counted in a warning.

    Where a chosen_probability is below one half, the two replies are swapped, the probability
    becomes its complement and the margin its negative: chosen is always the better.

    Args:
        source: A hub id, a folder (from `save_to_disk`, or of data files), or a `.json`, `.jsonl`,
            `.csv` (each also `.gz`) or `.parquet` file.
        split: Of a hub dataset or folder; a single file is read whole.
        format: "auto" recognizes a published format by hub id or by the first row's columns;
            "plain" takes the columns as they are; or a name of `rewardmodel.data.formats.registry`.
        tokenizer: With a chat template; renders messages unless they are kept, makes the questions
            of published formats user messages, and counts `query_tokens`.
        keep_messages: Keep messages (TRL's conversational format), for each model to render with
            its own template; see `rewardmodel.data.conversation`.
        on_bad_row: "error" stops at the first bad row; "skip" drops bad rows and logs their counts.
        prompt_column: The prompt's column, or several joined by "+", such as "instruction+input".
        chosen_column: The preferred reply.
        rejected_column: The other reply.
        probability_column: The probability, or share of annotators, that chosen is the better
            reply, where it has another name than `chosen_probability`. Naming any of these four
            columns, or `implicit_prompt`, makes "auto" plain.
        implicit_prompt: Take the beginning that chosen and rejected share as the prompt, in plain
            text up to the last white space, whatever other columns there are.
        margins: Keep the difference of the scores of scored replies (formats "ultrafeedback" and
            "scores") as `margin`, which changes what is trained.
        query_tokens: Cut the queries of format "tldr" to so many tokens as the paper does (512);
            see `rewardmodel.data.formats.tldr.truncate_query`.
        limit: Stop after so many good pairs.
        columns: Filled in with the source's columns, to see which were not used.

    Returns:
        Columns `prompt`, `chosen`, `rejected`, of text, or of messages where these are kept, then
        with `tools` and `chat_template_kwargs` where there are any; and where the first good row
        has them, float `margin`, float `chosen_probability` in [0.5, 1], float `confidence` on the
        source's own scale, text `subset` (each null where a row has none), and bool
        `chosen_finished` and `rejected_finished`, false of a reply that was cut off.

    Raises:
        PreferenceDataError: No such source, a bad row, or no good row at all.
        ValueError: An argument is not allowed, or arguments exclude each other.
    """
    parse = PairParser(
        source=source,
        format=format,
        options=ConvertOptions(tokenizer, margins, query_tokens, keep_messages),
        prompt_column=prompt_column,
        chosen_column=chosen_column,
        rejected_column=rejected_column,
        probability_column=probability_column,
        implicit_prompt=implicit_prompt,
    )
    records = load_records(
        source, parse, split=split, on_bad_row=on_bad_row, limit=limit, columns=columns
    )
    return gather(records)


def load_prompts(
    source: Source,
    *,
    split: str = "train",
    format: FormatName = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep_messages: bool = False,
    column: str = "prompt",
    implicit_prompt: bool = False,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> list[Prompt]:
    """Loads prompts from a prompt column, from preferences, or from a text file of one a line.

    Other arguments as in `load_preferences`.

    Args:
        source: As in `load_preferences`, or a `.txt` file.
        split: Of a hub dataset or folder.
        format: Of preferences.
        tokenizer: Renders prompts that are messages, the reply's opening included, unless they
            are kept.
        keep_messages: Return a `Conversation` for each prompt of messages.
        column: The prompt column, or several joined by "+"; without it, the prompts of `chosen` and
            `rejected`.
        implicit_prompt: Of preferences.
        on_bad_row: "error" or "skip".
        limit: Stop after so many good rows.

    Returns:
        Prompts in the order of the source; those of preference pairs once each.

    Raises:
        PreferenceDataError: No such source, a bad row, or no good row at all.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    pairs = PairParser(
        source=source,
        format=format,
        options=ConvertOptions(tokenizer=tokenizer, keep_messages=keep_messages),
        prompt_column=column,
        implicit_prompt=implicit_prompt,
        prompt_option="column",
    )
    seen: set[Prompt] = set()

    def parse(row: Row) -> Prompt | None:
        if PLAIN_LINE in row:
            return row[PLAIN_LINE]
        is_pair = ("chosen" in row and "rejected" in row) or pairs.format_of(row) is not None
        if is_pair and (implicit_prompt or column not in row):
            found = [pair for pair in pairs(row) if not isinstance(pair, SkippedPart)]
            if not found:
                return None
            prompt = prompt_of(found[0])
        else:
            turns = take_prompt(row, column, option="column")
            prompt, _ = split_prompt(turns, [], tokenizer, row=row, keep_messages=keep_messages)
            if isinstance(turns, list) and turns[-1]["role"] == "assistant":
                note(row, "prompt that ends in a turn of the assistant: another turn follows it")
        if is_pair and prompt in seen:
            return None
        seen.add(prompt)
        return prompt

    return list(load_records(source, parse, split=split, on_bad_row=on_bad_row, limit=limit))


def load_demonstrations(
    source: Source,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep_messages: bool = False,
    on_bad_row: OnBadRow = "error",
    prompt_column: str = "prompt",
    completion_column: str | None = None,
    implicit_prompt: bool = False,
    limit: int | None = None,
) -> Dataset:
    """Loads demonstrations: replies to imitate, each with its prompt.

    The first that a row has is taken: the completion column; `completion`; `response`; `messages`,
    where the last assistant turn is the completion and what follows it is left out; `chosen`, the
    preferred reply of a pair; messages in `conversations`, `conversation` or `dialogue`, read as
    `messages` are. Other arguments as in `load_preferences`; `prompt_column` is beside the
    completion, and `completion_column` may hold a whole conversation where no prompt is beside it.

    Returns:
        Columns `prompt` and `completion`, text or lists of messages; and where any row has it, by
        `finished`, a server's `finish_reason` or a pair's `chosen_finished`, whether the
        completion is `finished` or was cut off (null where unknown).

    Raises:
        PreferenceDataError: No such source, a bad row, or no good row at all.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    pairs = PairParser(
        source=source,
        format="plain",
        options=ConvertOptions(tokenizer=tokenizer, keep_messages=keep_messages),
        prompt_column=prompt_column,
        implicit_prompt=implicit_prompt,
    )
    one_kind = OneKind()

    def parse(row: Row) -> dict[str, Any]:
        named = completion_column or next((c for c in ("completion", "response") if c in row), None)
        is_pair = "chosen" in row and "rejected" in row
        whole = "messages" if named is None and "messages" in row else None
        if named is None and whole is None and not is_pair:
            whole = find_conversation(row)
            if whole is not None:
                note(row, f"conversation read from column {whole!r}")
        if whole is not None:
            prompt, completion = split_last_turn(take_turns(row, whole, option="messages"))
        elif named is None and is_pair:
            (pair,) = pairs(row)
            assert not isinstance(pair, SkippedPart)  # a plain row is one pair or an error
            kept = {name: held for name, held in pair.items() if name in _PROMPT_COLUMNS}
            return {**kept, "completion": pair["chosen"], "finished": pair.get("chosen_finished")}
        else:
            completion = take_turns(row, named or "completion", option="completion_column")
            if begins_with_prompt(completion) and not _has_prompt(row, prompt_column, named):
                prompt, completion = split_last_turn(completion)
            else:
                prompt = take_prompt(row, prompt_column, option="prompt_column")
        (mark,) = replies_finished(row, 1)
        prompt_turns, (reply,) = split_prompt(
            prompt,
            [completion],
            tokenizer,
            row=row,
            keep_messages=keep_messages,
            finished=[mark is not False],
        )
        one_kind(prompt_turns)
        return {**row_of(prompt_turns, completion=reply), "finished": mark}

    return gather(load_records(source, parse, split=split, on_bad_row=on_bad_row, limit=limit))


def _has_prompt(row: Row, prompt_column: str, completion_column: str | None) -> bool:
    """Whether a column beside the completion's is, or may be, the prompt."""
    if prompt_column == completion_column:
        return False
    known = prompt_column != "prompt" or prompt_column in row
    return known or bool(find_prompts(row, *filter(None, [completion_column])))


def split_by_prompt(dataset: Dataset, *, holdout: float, seed: int) -> tuple[Dataset, Dataset]:
    """Splits a dataset into (train, test) so that no prompt is on both sides.

    A prompt's rows stay together, so the share of rows may differ from `holdout`. Rows keep their
    order.

    Args:
        dataset: With a `prompt` column.
        holdout: Share of distinct prompts in the second part, in (0, 1); at least one prompt is
            left on either side.
        seed: Of the drawing.

    Raises:
        ValueError: `holdout` is out of range, or there are fewer than two distinct prompts.
    """
    if not 0 < holdout < 1:
        raise ValueError(f"holdout is {holdout}; required is a share inside (0, 1), such as 0.2.")
    number: dict[Prompt, int] = {}
    row_prompt = [number.setdefault(prompt, len(number)) for prompt in prompts_of(dataset)]
    if len(number) < 2:
        raise ValueError(
            f"found {len(number)} distinct prompt(s) in {len(dataset)} rows; a split by prompt "
            "needs at least 2. Load more data, or evaluate on another source."
        )
    count = min(max(1, round(holdout * len(number))), len(number) - 1)
    order = torch.randperm(len(number), generator=torch.Generator().manual_seed(seed))
    held = set(order[:count].tolist())
    train = [row for row, prompt in enumerate(row_prompt) if prompt not in held]
    test = [row for row, prompt in enumerate(row_prompt) if prompt in held]
    return dataset.select(train), dataset.select(test)

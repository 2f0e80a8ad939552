"""Preferences, prompts and demonstrations as datasets of plain text, from whatever holds them.

The one shape downstream is `prompt`, `chosen`, `rejected` (and `margin` where there is one), all
text, such that `prompt + chosen` is what the reward model reads. Bad rows are errors with their
place, or counted and dropped when asked; never kept, never dropped in silence. Which text is the
prompt is decided in `rewardmodel.reply_text`, where rows come from in
`rewardmodel.row_sources`.
"""

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from rewardmodel.reply_text import Turns, split_last_turn, split_prompt, take_turns
from rewardmodel.row_files import PLAIN_LINE
from rewardmodel.row_sources import read_rows
from rewardmodel.rows import OnBadRow, PreferenceDataError, Row, nearest_name, parse_rows

__all__ = [
    "PreferenceDataError",
    "load_demonstrations",
    "load_preferences",
    "load_prompts",
    "preference_report",
    "split_by_prompt",
]

Source = str | os.PathLike[str]
_CHUNK_ROWS = 10_000
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def load_preferences(
    source: Source,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    on_bad_row: OnBadRow = "error",
    prompt_column: str = "prompt",
    chosen_column: str = "chosen",
    rejected_column: str = "rejected",
    limit: int | None = None,
) -> Dataset:
    r"""Load preference pairs as text.

    The prompt is a column of its own, or the beginning that chosen and rejected share: of
    transcripts all up to the last shared "\n\nAssistant:", of other text the common prefix up to
    the last white space, of messages the turns before the assistant's first differing one. Text is
    taken as it is; messages are rendered by the tokenizer's chat template.

    Args:
        source: A hub id, a folder (from `save_to_disk`, or of data files), or a `.json`, `.jsonl`,
            `.csv` (each also `.gz`) or `.parquet` file.
        split: Of a hub dataset or folder; a single file is read whole.
        tokenizer: With a chat template; needed for messages only.
        on_bad_row: "error" ends at the first bad row; "skip" drops bad rows and logs one warning
            with their counts.
        prompt_column: The explicit prompt. A source whose first row lacks it has implicit prompts.
        chosen_column: The preferred reply.
        rejected_column: The other reply.
        limit: Stop after so many good pairs.

    Returns:
        Text columns `prompt`, `chosen`, `rejected`, and float `margin` where the first good
        row has a `margin`.

    Raises:
        PreferenceDataError: No such source, a bad row, or no good row at all.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    parse = _PairParser(tokenizer, prompt_column, chosen_column, rejected_column)
    rows = read_rows(source, split=split)
    records = parse_rows(rows, parse, source=source, on_bad_row=on_bad_row, limit=limit)
    return _collect(records)


def load_prompts(
    source: Source,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    column: str = "prompt",
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> list[str]:
    """Load prompts from a prompt column, from preferences, or from a text file of one a line.

    Args:
        source: As in `load_preferences`, or a `.txt` file.
        split: As in `load_preferences`.
        tokenizer: Renders prompts that are messages, the reply's opening included.
        column: The prompt column; without it, the prompts of `chosen` and `rejected`.
        on_bad_row: As in `load_preferences`.
        limit: Stop after so many good rows.

    Returns:
        Prompts in the order of the source; those of preference pairs once each.

    Raises:
        PreferenceDataError: No such source, a bad row, or no good row at all.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    pairs = _PairParser(tokenizer, column, "chosen", "rejected")
    seen: set[str] = set()

    def parse(row: Row) -> str | None:
        if PLAIN_LINE in row:
            return row[PLAIN_LINE]
        is_pair = "chosen" in row and "rejected" in row
        if is_pair and column not in row:
            prompt = str(pairs(row)["prompt"])
        else:
            turns = take_turns(row, column, option="column")
            prompt, _ = split_prompt(turns, [], tokenizer)
        if is_pair and prompt in seen:
            return None
        seen.add(prompt)
        return prompt

    rows = read_rows(source, split=split)
    return list(parse_rows(rows, parse, source=source, on_bad_row=on_bad_row, limit=limit))


def load_demonstrations(
    source: Source,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    on_bad_row: OnBadRow = "error",
    prompt_column: str = "prompt",
    completion_column: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load demonstrations: replies to imitate, each with its prompt.

    The first that a row has is taken: the completion column; `completion`; `response`; `messages`,
    where the last assistant turn is the completion and what follows it is left out; `chosen`, so
    that preferences show what was preferred.

    Args:
        source: As in `load_preferences`.
        split: As in `load_preferences`.
        tokenizer: Renders messages by its chat template.
        on_bad_row: As in `load_preferences`.
        prompt_column: The prompt beside the completion.
        completion_column: The completion, where it has another name.
        limit: Stop after so many good rows.

    Returns:
        Text columns `prompt` and `completion`.

    Raises:
        PreferenceDataError: No such source, a bad row, or no good row at all.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    pairs = _PairParser(tokenizer, prompt_column, "chosen", "rejected")

    def parse(row: Row) -> dict[str, Any]:
        named = completion_column or next((c for c in ("completion", "response") if c in row), None)
        if named is None and "messages" in row:
            prompt, completion = split_last_turn(take_turns(row, "messages", option="messages"))
        elif named is None and "chosen" in row and "rejected" in row:
            pair = pairs(row)
            return {"prompt": pair["prompt"], "completion": pair["chosen"]}
        else:
            completion = take_turns(row, named or "completion", option="completion_column")
            prompt = take_turns(row, prompt_column, option="prompt_column")
        text, (reply,) = split_prompt(prompt, [completion], tokenizer)
        return {"prompt": text, "completion": reply}

    rows = read_rows(source, split=split)
    records = parse_rows(rows, parse, source=source, on_bad_row=on_bad_row, limit=limit)
    return _collect(records)


def split_by_prompt(dataset: Dataset, *, holdout: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a dataset so that no prompt is on both sides.

    Prompts are held out, not rows: a prompt with many pairs goes to one side with all of them, so
    the share of rows may differ from `holdout`. Rows keep their order.

    Args:
        dataset: With a `prompt` column.
        holdout: Share of distinct prompts in the second part, in (0, 1); at least one prompt is
            left on either side.
        seed: Of the drawing.

    Returns:
        (train, test).

    Raises:
        ValueError: `holdout` is out of range, or there are fewer than two distinct prompts.
    """
    if not 0 < holdout < 1:
        raise ValueError(f"holdout is {holdout}; required is a share inside (0, 1), such as 0.2.")
    number: dict[str, int] = {}
    row_prompt = [number.setdefault(prompt, len(number)) for prompt in dataset["prompt"]]
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


def preference_report(dataset: Dataset) -> dict[str, Any]:
    """Count what is odd about preference pairs, and measure their lengths.

    Args:
        dataset: With text columns `prompt`, `chosen` and `rejected`.

    Returns:
        `pairs`; distinct `prompts`; `duplicate_pairs`, rows that repeat an earlier row;
        `contradictory_pairs`, distinct pairs of replies to one prompt that stand in both orders;
        `identical_pairs`, where both replies are the same; `blank_replies`, replies of white space
        alone; `longer_chosen_share`, equal lengths counting half; and for `prompt`, `chosen` and
        `rejected` under `characters` the quantiles of their lengths.

    Raises:
        ValueError: The dataset is empty.
    """
    if len(dataset) == 0:
        raise ValueError("found no pairs; load at least one before asking for a report.")
    pairs: set[tuple[str, str, str]] = set()
    duplicates = blank = 0
    lengths = np.empty((len(dataset), 3))
    for index, (prompt, chosen, rejected) in enumerate(_iterate_pairs(dataset)):
        duplicates += (prompt, chosen, rejected) in pairs
        pairs.add((prompt, chosen, rejected))
        blank += (not chosen.strip()) + (not rejected.strip())
        lengths[index] = len(prompt), len(chosen), len(rejected)
    both_orders = sum((p, r, c) in pairs for p, c, r in pairs if c != r)
    quantiles = np.quantile(lengths, _QUANTILES, axis=0)  # [quantile, column]
    longer, shorter = lengths[:, 1] > lengths[:, 2], lengths[:, 1] < lengths[:, 2]
    return {
        "pairs": len(dataset),
        "prompts": len({prompt for prompt, _, _ in pairs}),
        "duplicate_pairs": duplicates,
        "contradictory_pairs": both_orders // 2,
        "identical_pairs": sum(c == r for _, c, r in _iterate_pairs(dataset)),
        "blank_replies": blank,
        "longer_chosen_share": float(0.5 + 0.5 * (longer.mean() - shorter.mean())),
        "characters": {
            column: {
                f"p{round(100 * share)}": int(value)
                for share, value in zip(_QUANTILES, quantiles[:, place], strict=True)
            }
            for place, column in enumerate(("prompt", "chosen", "rejected"))
        },
    }


class _PairParser:
    """Turns rows into pairs; remembers what the source's rows so far have taught about columns."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        prompt_column: str,
        chosen_column: str,
        rejected_column: str,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompt_column = prompt_column
        self.chosen_column = chosen_column
        self.rejected_column = rejected_column
        # A name the user gave is a promise that the column is there.
        self.has_prompt = prompt_column != "prompt"
        self.has_margin: bool | None = None

    def __call__(self, row: Row) -> dict[str, Any]:
        chosen = take_turns(row, self.chosen_column, option="chosen_column")
        rejected = take_turns(row, self.rejected_column, option="rejected_column")
        prompt = self._take_prompt(row)
        if chosen == rejected:
            raise _identical()
        text, (chosen_text, rejected_text) = split_prompt(
            prompt, [chosen, rejected], self.tokenizer
        )
        if chosen_text == rejected_text:
            raise _identical()
        pair: dict[str, Any] = {"prompt": text, "chosen": chosen_text, "rejected": rejected_text}
        if self.has_margin is None:
            self.has_margin = "margin" in row
        if self.has_margin:
            pair["margin"] = _take_margin(row)
        return pair

    def _take_prompt(self, row: Row) -> Turns | None:
        self.has_prompt = self.has_prompt or self.prompt_column in row
        if self.has_prompt:
            return take_turns(row, self.prompt_column, option="prompt_column")
        others = [name for name in row if name not in (self.chosen_column, self.rejected_column)]
        if nearest_name(self.prompt_column, others, cutoff=0.85):
            # A mistyped prompt column must not be taken for an implicit prompt.
            take_turns(row, self.prompt_column, option="prompt_column")
        return None


def _identical() -> PreferenceDataError:
    return PreferenceDataError(
        "chosen and rejected are identical; a preference needs two different replies. Drop the "
        'row (on_bad_row="skip").',
        reason="identical chosen and rejected",
    )


def _take_margin(row: Row) -> float:
    value = row.get("margin")
    try:
        margin = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        margin = math.nan
    if not math.isfinite(margin):
        raise PreferenceDataError(
            f"column 'margin' holds {type(value).__name__} {value!r}; required is a finite number "
            'in every row. Fill it, remove the column, or drop the row (on_bad_row="skip").',
            reason="bad margin",
        )
    return margin


def _iterate_pairs(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    for batch in dataset.with_format(None).iter(batch_size=_CHUNK_ROWS):
        columns: dict[str, list[str]] = dict(batch)
        yield from zip(columns["prompt"], columns["chosen"], columns["rejected"], strict=True)


def _collect(records: Iterable[dict[str, Any]]) -> Dataset:
    """Make a dataset, moving rows into Arrow by chunks so that text is not held twice."""
    parts: list[Dataset] = []
    rows = iter(records)
    while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
        features = Features(
            {name: Value("float64" if name == "margin" else "string") for name in chunk[0]}
        )
        columns = {name: [record[name] for record in chunk] for name in features}
        parts.append(Dataset.from_dict(columns, features=features))
    return concatenate_datasets(parts)

"""Parsing rows of any format into pairs with their labels.

A plain row is one pair; a row of a published format goes through its converter first and may give
several. The chosen reply is never the less probable one. Errors carry no location; the reader of
rows adds it.
"""

import math
import os
from dataclasses import replace
from typing import Any

from prefsearch.config.checks import closest
from rewardmodel.data.conversation import row_of
from rewardmodel.data.formats.fields import read_number
from rewardmodel.data.formats.format import ConvertOptions, Format
from rewardmodel.data.formats.registry import (
    FormatName,
    format_named,
    format_of_source,
    recognize,
)
from rewardmodel.data.parsing.finished import PAIR_COLUMNS, read_finished
from rewardmodel.data.parsing.prompt_columns import choose_columns, find_prompts, take_prompt
from rewardmodel.data.parsing.reply_text import OneKind, split_prompt, take_turns
from rewardmodel.data.parsing.shared_prompt import Turns, repeats, shared_prompt
from rewardmodel.data.rankings import pairs_of_ranking
from rewardmodel.data.rows import (
    PreferenceDataError,
    Row,
    SkippedPart,
    leave_aside,
    name_columns,
    note,
    peek,
)

_DEFAULTS = ("prompt", "chosen", "rejected")
_LABELS = ("margin", "chosen_probability", "confidence", "subset", *PAIR_COLUMNS)


class PairParser:
    """Parses rows into pairs; keeps what the first rows showed about the columns."""

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] = "",
        format: FormatName = "auto",
        options: ConvertOptions,
        prompt_column: str = "prompt",
        chosen_column: str = "chosen",
        rejected_column: str = "rejected",
        probability_column: str | None = None,
        implicit_prompt: bool = False,
        prompt_option: str = "prompt_column",
    ) -> None:
        self.options = replace(options, prompt_column=prompt_column)
        self.prompt_option = prompt_option
        self.columns = (prompt_column, chosen_column, rejected_column)
        self.implicit = implicit_prompt
        self.other_name: str | None = None  # of a prompt column that was found
        # A column that the user named must be there.
        self.has_prompt = prompt_column != "prompt"
        self.label_columns = {name: name for name in _LABELS}
        self.promised: set[str] = set()
        if probability_column is not None:
            self.label_columns["chosen_probability"] = probability_column
            self.promised.add("chosen_probability")
        self.labels: list[str] | None = None
        self.one_kind = OneKind()
        self.format = format_named(format)
        replies_named = self.columns[1:] != _DEFAULTS[1:] or probability_column is not None
        if implicit_prompt and self.has_prompt:
            raise ValueError(
                f"implicit_prompt is True, and the prompt's column is {prompt_column!r}; required "
                "is one of them: a prompt in a column, or in the beginning of the replies. Leave "
                "one out."
            )
        fixes = self.format is not None and not (self.format.any_prompt and self.has_prompt)
        if replies_named or implicit_prompt or (self.has_prompt and fixes):
            if self.format is not None:
                raise ValueError(
                    f"format is {format!r}, which fixes the columns, and columns are named or "
                    f"prompts called implicit too: {[*self.columns, probability_column]}, "
                    f'{implicit_prompt}. Leave that out, or pass format="plain".'
                )
            self.decided = True
        else:
            self.decided = format != "auto"
        if not self.decided and not self.has_prompt:
            self.format = format_of_source(source)
            self.decided = self.format is not None
        if options.query_tokens is not None and options.tokenizer is None:
            raise ValueError(
                f"query_tokens is {options.query_tokens} and there is no tokenizer to count with; "
                "pass tokenizer=AutoTokenizer.from_pretrained(NAME)."
            )

    def format_of(self, row: Row) -> Format | None:
        """The format of a source, determined at the first of its rows; None is plain."""
        if not self.decided:
            found = recognize(row)
            # A prompt column that the user names is read, by the formats that leave it open.
            if found is not None and (found.any_prompt or not self.has_prompt):
                self.format = found
            self.decided = True
        name = self.format.name if self.format else "plain"
        if self.options.query_tokens is not None and name != "tldr":
            raise PreferenceDataError(
                f"query_tokens is {self.options.query_tokens} and the rows are {name}; it cuts "
                'the queries of format "tldr" alone. Leave it out: a length limit cuts prompts '
                "later."
            )
        if self.options.margins and name not in ("ultrafeedback", "scores"):
            raise PreferenceDataError(
                f"margins is True and the rows are {name}, which have no scores; a column "
                "'margin' of plain rows is read without it. Leave it out."
            )
        return self.format

    def __call__(self, row: Row) -> list[dict[str, Any] | SkippedPart]:
        """The pairs of a row.

        Raises:
            PreferenceDataError: The row is bad; see `load_preferences`.
        """
        found = self.format_of(row)
        if found is None:
            return [self._pair(row, *self.columns, beside=row)]
        leave_aside(row, found.aside)
        pairs: list[dict[str, Any] | SkippedPart] = []
        for part in found.convert(row, self.options):
            if isinstance(part, SkippedPart):
                pairs.append(part)
            elif "ranks" in part:
                pairs += [
                    self._pair(pair, *_DEFAULTS, beside=row) for pair in pairs_of_ranking(part)
                ]
            else:
                pairs.append(self._pair(part, *_DEFAULTS, beside=row))
        return pairs

    def _pair(
        self, row: Row, prompt_column: str, chosen_column: str, rejected_column: str, *, beside: Row
    ) -> Any:
        """One pair; `beside` is the row as it was read."""
        chosen = take_turns(row, chosen_column, option="chosen_column")
        rejected = take_turns(row, rejected_column, option="rejected_column")
        if chosen == rejected:
            raise _identical()
        prompt = self._take_prompt(row, (prompt_column, chosen_column, rejected_column))
        prompt_turns, replies = split_prompt(
            prompt,
            [chosen, rejected],
            self.options.tokenizer,
            row=beside,
            keep_messages=self.options.keep_messages,
            implicit=self.implicit,
            finished=[read_finished(row, self.label_columns[c]) is not False for c in PAIR_COLUMNS],
        )
        if replies[0] == replies[1]:
            raise _identical()
        if self.labels is None:
            self.labels = [
                name
                for name, column in self.label_columns.items()
                if column in row or name in self.promised
            ]
        self._refuse_new_labels(row)
        self.one_kind(prompt_turns)
        pair = row_of(prompt_turns, chosen=replies[0], rejected=replies[1])
        return _orient(pair, {name: self._label(row, name) for name in self.labels})

    def _take_prompt(self, row: Row, columns: tuple[str, str, str]) -> Turns | None:
        """The prompt's column, or None where the replies begin with the prompt.

        Raises:
            PreferenceDataError: The column is missing, or another may be meant.
        """
        column, chosen, rejected = columns
        if self.implicit:
            return None
        self.has_prompt = self.has_prompt or column in row
        if self.has_prompt:
            return take_prompt(row, column, option=self.prompt_option)
        found = find_prompts(row, chosen, rejected)
        if self.other_name is None:
            shared = shared_prompt(row[chosen], row[rejected])
            if shared is not None:
                self._require_repeated(row, found, shared, row[chosen])
                return None
            if closest(column, [n for n in row if n not in columns], cutoff=0.85):
                # A mistyped prompt column must not be taken for an implicit prompt.
                return take_turns(row, column, option=self.prompt_option)
            if not found:
                return None
        if len(found) > 1:
            raise PreferenceDataError(
                f"there is no column {column!r}, and {name_columns(found)} may each be the prompt "
                f"or a part of it. {choose_columns(found, self.prompt_option)}",
                reason="several columns that may be the prompt",
            )
        self.other_name = self.other_name or found[0]
        note(row, f"prompt read from column {self.other_name!r}")
        return take_prompt(row, self.other_name, option=self.prompt_option)

    def _require_repeated(self, row: Row, found: list[str], shared: Turns, chosen: Turns) -> None:
        """Refuses columns that may belong to a prompt which stands in the replies.

        Raises:
            PreferenceDataError: One of them holds something that the replies do not repeat.
        """
        for name in found:
            value = peek(row, name)
            # A list of messages may be the whole chosen conversation.
            if not repeats(shared if isinstance(value, str) else chosen, value):
                raise PreferenceDataError(
                    f"there is no column {self.columns[0]!r}; the replies begin with a prompt, "
                    f"and column {name!r} holds something else. "
                    f"{choose_columns([name], self.prompt_option)} To leave it aside pass "
                    "implicit_prompt=True.",
                    reason=f"{name!r} beside a prompt in the replies",
                )

    def _refuse_new_labels(self, row: Row) -> None:
        """Refuses a label that the first row lacks: passed over, it would be taken for another."""
        for name in ("margin", "chosen_probability", *PAIR_COLUMNS):
            column = self.label_columns[name]
            if row.get(column) is not None and name not in (self.labels or ()):
                raise PreferenceDataError(
                    f"column {column!r} holds {row[column]!r}, and the first good row has no such "
                    "column; required is a value in every row or in none. Fill it in (a certain "
                    'chosen_probability is 1), or drop the row (on_bad_row="skip").',
                    reason=f"{name} that the first row lacks",
                )

    def _label(self, row: Row, name: str) -> float | str | bool | None:
        column = self.label_columns[name]
        if name in PAIR_COLUMNS:
            return read_finished(row, column)
        value = row.get(column)
        if name == "subset":
            if isinstance(value, list | dict):
                raise _bad_label(column, row, "text or null", name)
            return None if value in (None, "") else str(value)
        if name == "confidence" and value in (None, ""):
            return None
        number = read_number(value)
        if not math.isfinite(number) or (name == "chosen_probability" and not 0 <= number <= 1):
            required = {
                "margin": "a finite number",
                "chosen_probability": "a number in [0, 1], 0.5 for a tie,",
                "confidence": "a finite number or null",
            }[name]
            raise _bad_label(column, row, required, name)
        return number


def _orient(pair: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
    """Swaps the replies so that `chosen` is the more probable one.

    The margin is the lead of the first reply, so it changes its sign.
    """
    probability = labels.get("chosen_probability")
    if probability is not None and probability < 0.5:
        pair = {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}
        labels["chosen_probability"] = 1.0 - probability
        if "margin" in labels:
            labels["margin"] = -labels["margin"]
        ended = [labels.get(name) for name in PAIR_COLUMNS]
        for name, mark in zip(PAIR_COLUMNS, reversed(ended), strict=True):
            if name in labels or mark is not None:
                labels[name] = mark
    return {**pair, **labels}


def _identical() -> PreferenceDataError:
    return PreferenceDataError(
        "chosen and rejected are identical; a preference needs two different replies. Drop the "
        'row (on_bad_row="skip").',
        reason="identical chosen and rejected",
    )


def _bad_label(column: str, row: Row, required: str, name: str) -> PreferenceDataError:
    value = row.get(column)
    found = f"holds {type(value).__name__} {repr(value)[:60]}" if column in row else "is missing"
    return PreferenceDataError(
        f"column {column!r} {found}; required is {required} in every row. Fill it, remove the "
        'column, or drop the row (on_bad_row="skip").',
        reason=f"bad {name}",
    )

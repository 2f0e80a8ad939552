"""Verifiers: reward models that compare a response with a reference answer.

`AnswerMatch` compares the final answer of a response, as `rewardmodel.models.answers` extracts and
normalizes it; `ExactMatch` compares whole responses.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from rewardmodel.data.conversation import Conversation, Prompt, Reply, last_text
from rewardmodel.data.parsing.reply_text import OneKind, split_prompt, take_turns
from rewardmodel.data.rows import OnBadRow, PreferenceDataError, Row
from rewardmodel.data.sources.sources import load_records
from rewardmodel.data.text_rows import require_rows
from rewardmodel.models.answers import extract_answer, normalize_answer, same_answer, stated_answer

_PROMPT_COLUMNS = ("prompt", "question", "problem")
_ANSWER_COLUMNS = ("answer", "solution")


def load_references(
    source: str | os.PathLike[str],
    *,
    split: str = "train",
    prompt_column: str | None = None,
    answer_column: str | None = None,
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> dict[Prompt, str]:
    r"""Loads the reference answer to each prompt; other arguments as `load_preferences`.

    Of worked solutions the answer is taken: what stands after the last `####`, as in GSM8K, or in
    the last `\boxed{...}`, as in MATH; an answer with neither is taken whole. The columns default
    to the first of `prompt`, `question`, `problem`, and of `answer`, `solution`, that a row has.

    Returns:
        Prompts to answers, in the order of the source; a repeated prompt once.

    Raises:
        PreferenceDataError: No such source, a bad row or no good one, or two different answers to
            one prompt; the message names file and line.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    seen: dict[Prompt, str] = {}
    one_kind = OneKind()

    def parse(row: Row) -> tuple[Prompt, str]:
        turns = take_turns(
            row, prompt_column or _first_of(_PROMPT_COLUMNS, row), option="prompt_column"
        )
        prompt, _ = split_prompt(turns, [], None, row=row, keep_messages=True)
        one_kind(prompt)
        answer = _read_reference(row, answer_column or _first_of(_ANSWER_COLUMNS, row))
        known = seen.setdefault(prompt, answer)
        if not same_answer(known, answer):
            raise PreferenceDataError(
                f"the answer is {answer[:60]!r} and an earlier row has {known[:60]!r} for the same "
                f"prompt {str(prompt)[:80]!r}; required is one answer a prompt. Drop one of the "
                "rows.",
                reason="contradictory answers",
            )
        return prompt, known

    return dict(load_records(source, parse, split=split, on_bad_row=on_bad_row, limit=limit))


class _Verifier(ABC):
    """Scores 1 for right responses, else 0; a `RewardModel`, and a gold scorer."""

    _references: Mapping[Any, str]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> Tensor:
        """Scores responses, float32 [B]: 1.0 for right ones, else 0.0; see `RewardModel`.

        Raises:
            ValueError: If a prompt has no reference.
        """
        return torch.tensor(self(prompts, responses), dtype=torch.float32)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> list[float]:
        """The scores as a list."""
        require_rows(prompts, responses)
        pairs = zip(prompts, responses, strict=True)
        return [
            float(self._is_right(str(response), reference_to(self._references, prompt)))
            for prompt, response in pairs
        ]

    @abstractmethod
    def _is_right(self, response: str, reference: str) -> bool: ...


class AnswerMatch(_Verifier):
    """Scores 1 for responses that state the right answer, else 0."""

    def __init__(self, references: Mapping[Any, str], *, form: str = "auto") -> None:
        """Takes the reference answer to each prompt, and the `form` of `extract_answer`.

        Raises:
            ValueError: If a reference is empty, or there is no such form.
        """
        extract_answer("", form)
        self.form = form
        self._references = {prompt: normalize_answer(a) for prompt, a in references.items()}
        for prompt, reference in self._references.items():
            if not reference:
                raise ValueError(
                    f"references: the answer to {str(prompt)[:80]!r} is {references[prompt]!r}; "
                    "required: an answer. Fill it or leave the prompt out"
                )

    @classmethod
    def load(cls, source: str | os.PathLike[str], *, form: str = "auto", **options: Any) -> Self:
        """Loads the right answers from data; `options` and errors as `load_references`."""
        return cls(load_references(source, **options), form=form)

    def _is_right(self, response: str, reference: str) -> bool:
        answer = extract_answer(response, self.form)
        return answer is not None and normalize_answer(answer) == reference


class ExactMatch(_Verifier):
    """Scores 1 for responses that equal the reference, else 0."""

    def __init__(self, references: Mapping[Any, str], *, ignore_case: bool = False) -> None:
        """Takes the reference response to each prompt; spaces around it do not count."""
        self.ignore_case = ignore_case
        self._references = {prompt: self._tidy(text) for prompt, text in references.items()}

    def _is_right(self, response: str, reference: str) -> bool:
        return self._tidy(response) == reference

    def _tidy(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()


def reference_to(references: Mapping[Any, str], prompt: Prompt) -> str:
    """The reference to a prompt; of a conversation also that to its last message's text.

    Raises:
        ValueError: If it has none.
    """
    reference = references.get(prompt)
    if reference is None and isinstance(prompt, Conversation):
        # The answers may stand beside the bare questions that the conversations end with.
        reference = references.get(last_text(prompt))
    if reference is None:
        raise ValueError(
            f"no reference answer to the prompt {str(prompt)[:80]!r}; required: one of the "
            f"{len(references)} prompts with references, letter for letter. Load the "
            "references of these prompts, or with the text that is put around them"
        )
    return reference


def _first_of(columns: Iterable[str], row: Row) -> str:
    names = list(columns)
    return next((name for name in names if name in row), names[0])


def _read_reference(row: Row, column: str) -> str:
    """The answer in a column, or at the end of the worked solution there."""
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Tables write a missing number as NaN.
        answer = str(value) if math.isfinite(value) else ""
    else:
        text = take_turns(row, column, option="answer_column")
        answer = stated_answer(text) if isinstance(text, str) else ""
    if not normalize_answer(answer):
        raise PreferenceDataError(
            f"column {column!r} holds no answer; required is text or a finite number. Fill it or "
            'drop the row (on_bad_row="skip").',
            reason="no answer",
        )
    return answer.strip()

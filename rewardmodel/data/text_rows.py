"""Checks of prompts and responses as callers pass them, before tokenization.

A tokenizer raises a TypeError at half of a surrogate pair; here the error names the row.
"""

from collections.abc import Sequence
from typing import Any

from prefsearch.storage.json_text import unusable_text
from rewardmodel.data.conversation import Conversation, Prompt, Reply
from rewardmodel.interface import Finished, each_finished

_REMEDY = "Leave the character out, or read the text again as UTF-8"


def require_rows(prompts: Sequence[Prompt], responses: Sequence[Reply] | None = None) -> None:
    """Refuses prompts and responses that no model can read; `responses` may be None.

    Raises:
        ValueError: One is neither text nor a `Conversation`, or holds a lone surrogate; the message
            names the row. Or there are not as many responses as prompts.
    """
    for name, values in (("prompt", prompts), ("response", responses or ())):
        for row, value in enumerate(values):
            if not isinstance(value, str | Conversation):
                raise ValueError(
                    f"row {row}: the {name} is {type(value).__name__} {str(value)[:60]!a}; "
                    "required: text, or a rewardmodel.data.conversation.Conversation of messages"
                )
            found = unusable_text(
                value if isinstance(value, str) else value.columns(),
                nul=False,  # a byte-level model may generate one
            )
            if found is not None:
                raise ValueError(
                    f"row {row}, the {name}: {found[0]}; required: text that UTF-8 can hold. "
                    f"{_REMEDY}"
                )
    if responses is not None and len(prompts) != len(responses):
        raise ValueError(
            f"found {len(prompts)} prompts and {len(responses)} responses, one list shorter than "
            "the other; required: a response to each prompt"
        )


def require_text(text: str) -> str:
    """The text, if UTF-8 can hold it.

    Raises:
        ValueError: It holds a lone surrogate.
    """
    found = unusable_text(text, nul=False)
    if found is not None:
        raise ValueError(f"{found[0]}: {text[:60]!a}; required: text in UTF-8. {_REMEDY}")
    return text


def pair_rows(
    encoder: Any, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
) -> list[tuple[list[int], list[int]]]:
    """Ids of prompts and responses by a `TextEncoder`, each pair cut to its `max_length`.

    Raises:
        ValueError: As `require_rows`, or as `TextEncoder.pair`.
    """
    require_rows(prompts, responses)
    ends = each_finished(finished, len(prompts))
    return [
        encoder.pair(prompt, response, finished=ended)
        for prompt, response, ended in zip(prompts, responses, ends, strict=True)
    ]

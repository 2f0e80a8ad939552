"""Columns beside prompt and replies that belong to what the model reads.

`system` is the system message: a turn before the messages, a paragraph before plain text. Knows
nothing of where prompt and replies part.
"""

from typing import Any

from rewardmodel.data.rows import PreferenceDataError, Row, note, peek

_SYSTEM_NAMES = ("system", "system_prompt", "system_message", "system_instruction")


def with_system(row: Row, prompt: str) -> str:
    """A prompt of plain text behind the row's system message, a blank line between them.

    Raises:
        PreferenceDataError: As `take_system`.
    """
    system = take_system(row)
    if system is None:
        return prompt
    note(row, "system message put before the text of the prompt")
    return system + ("" if prompt.startswith("\n") else "\n\n") + prompt


def with_system_turn(row: Row, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages that begin with the row's system message, which may stand there already.

    Raises:
        PreferenceDataError: As `take_system`, or another system message stands there.
    """
    system = take_system(row)
    if system is None:
        return messages
    if not messages or messages[0]["role"] not in ("system", "developer"):
        return [{"role": "system", "content": system}, *messages]
    if str(messages[0]["content"]).strip() != system.strip():
        raise PreferenceDataError(
            f"the system column holds {system[:60]!r} and the messages begin with the system "
            f"message {str(messages[0]['content'])[:60]!r}; required is one of them. Remove the "
            'other, or drop the row (on_bad_row="skip").',
            reason="two system messages",
        )
    return messages


def take_system(row: Row) -> str | None:
    """The text of the row's system column, or None where there is none or it is blank.

    Raises:
        PreferenceDataError: It is not text, or two columns differ.
    """
    found: dict[str, str] = {}
    for name in row:
        if name.strip().lower() not in _SYSTEM_NAMES or peek(row, name) is None:
            continue
        value = row[name]
        if not isinstance(value, str):
            raise PreferenceDataError(
                f"column {name!r} holds {type(value).__name__}; required is the text of a system "
                "message, or null. Convert it, rename the column, or drop the row "
                '(on_bad_row="skip").',
                reason=f"value of {name!r} is not text",
            )
        if value.strip():
            found[name] = value
    if len(set(found.values())) > 1:
        raise PreferenceDataError(
            f"the columns {list(found)} hold different system messages; required is one. Remove or "
            'rename the others, or drop the row (on_bad_row="skip").',
            reason="two system messages",
        )
    return next(iter(found.values()), None)

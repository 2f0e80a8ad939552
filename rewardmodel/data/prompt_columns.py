"""Which columns beside the replies hold the prompt.

Published data have many names for it. The prompt is taken from the column that the user names, from
`prompt`, or from the one column with another usual name; where several could be meant, the error
names them. Knows nothing of what the replies hold.
"""

from rewardmodel.data.reply_text import take_turns
from rewardmodel.data.rows import PreferenceDataError, Row, peek
from rewardmodel.data.shared_prompt import Turns

# Beginning with what is read first: a prompt that is too long gives way from its left.
_NAMES = (
    *("context", "contexts", "passage", "passages", "document", "article", "background"),
    *("history", "dialogue", "dialog", "conversation", "conversations", "messages"),
    *("prompts", "instruction", "instructions", "question", "questions", "query", "problem"),
    *("request", "task", "post", "title", "user", "human", "user_input", "user_prompt"),
    *("question_text", "prompt_text", "source_text", "text", "input", "inputs"),
)
JOINT = "\n\n"
"""What stands between the parts of a prompt of several columns."""


def find_prompts(row: Row, *others: str) -> list[str]:
    """Columns that may hold a prompt by their names and values, in the order of reading.

    Args:
        row: Column names to values.
        others: Columns known to hold something else.
    """
    places = {
        name: _NAMES.index(usual)
        for name in row
        if name not in others
        and (usual := name.strip().lower().replace("-", "_")) in _NAMES
        and _is_turns(peek(row, name))
    }
    return sorted(places, key=lambda name: places[name])


def take_prompt(row: Row, column: str, *, option: str) -> Turns:
    """The prompt in a column, or in several joined by "+".

    A prompt of several columns is their texts with a blank line between them, parts that are null
    or empty left out.

    Args:
        row: Column names to values.
        column: A column's name, or names joined by "+", such as "instruction+input".
        option: The keyword argument by which the user can name another column.

    Raises:
        PreferenceDataError: A column is missing or holds no text and no messages.
    """
    if column in row or "+" not in column:
        if column not in row and (found := find_prompts(row)):
            raise PreferenceDataError(
                f"column {column!r} is missing; found {list(row)}. {choose_columns(found, option)}",
                reason=f"missing column {column!r}",
            )
        return take_turns(row, column, option=option)
    parts = []
    for name in column.split("+"):
        if name in row and row[name] in (None, "", []):
            continue
        part = take_turns(row, name, option=option)
        if not isinstance(part, str):
            raise PreferenceDataError(
                f"column {name!r} holds messages; required is text in each column of {column!r}, "
                f"which are joined. For the messages alone pass {option}={name!r}.",
                reason=f"messages in {name!r}",
            )
        parts.append(part)
    if not parts:
        raise PreferenceDataError(
            f"the columns of {column!r} are all null or empty; required is text in one of them. "
            'Fill it or drop the row (on_bad_row="skip").',
            reason=f"null or empty {column!r}",
        )
    return JOINT.join(parts)


def choose_columns(found: list[str], option: str) -> str:
    """The advice to name one of the columns found as the prompt, or all of them."""
    one = " or ".join(f"{option}={name!r}" for name in found)
    several = f", or {option}={'+'.join(found)!r} to join them" if len(found) > 1 else ""
    return f"To read the prompt from another column pass {one}{several}."


def _is_turns(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)
    return isinstance(value, str) and bool(value.strip())

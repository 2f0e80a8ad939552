"""Finding the columns that hold the prompt, or a whole conversation.

The prompt is taken from the column that the user names, from `prompt`, or from the one column with
another usual name; where several are possible, the error names them.
"""

from rewardmodel.data.conversation import Message
from rewardmodel.data.parsing.reply_text import take_turns
from rewardmodel.data.parsing.shared_prompt import Turns
from rewardmodel.data.rows import PreferenceDataError, Row, peek

# In the order of reading: a prompt that is too long is cut from its left.
_NAMES = (
    *("context", "contexts", "passage", "passages", "document", "article", "background"),
    *("history", "dialogue", "dialog", "conversation", "conversations", "messages"),
    *("prompts", "instruction", "instructions", "question", "questions", "query", "problem"),
    *("request", "task", "post", "title", "user", "human", "user_input", "user_prompt"),
    *("question_text", "prompt_text", "source_text", "text", "input", "inputs"),
)
_CONVERSATION_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog")
_SYSTEM_ROLES = ("system", "developer")
JOINT = "\n\n"
"""What stands between the parts of a prompt of several columns of text."""


def find_prompts(row: Row, *others: str) -> list[str]:
    """Columns that may hold a prompt by their names and values, in the order of reading.

    Messages that begin with a system turn come first, as `take_prompt` requires. `others` are
    columns known to hold something else.
    """
    places = {
        name: _NAMES.index(usual)
        for name in row
        if name not in others
        and (usual := name.strip().lower().replace("-", "_")) in _NAMES
        and _is_turns(peek(row, name))
    }
    return sorted(places, key=lambda name: (not _begins_with_system(peek(row, name)), places[name]))


def find_conversation(row: Row) -> str | None:
    """The column of messages that has a usual name of a conversation, or None.

    Of several, the first of `messages`, `conversations`, `conversation`, `dialogue` and `dialog`.
    """
    for usual in _CONVERSATION_NAMES:
        for name in row:
            if name.strip().lower() == usual and _is_messages(peek(row, name)):
                return name
    return None


def begins_with_prompt(turns: object) -> bool:
    """Whether messages begin with a user's or system turn, so that no prompt precedes them."""
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and first.get("role") in ("user", *_SYSTEM_ROLES)


def take_prompt(row: Row, column: str, *, option: str) -> Turns:
    """The prompt in a column, or in several joined by "+", such as "instruction+input".

    A prompt of several columns is their texts with a blank line between them, parts that are null
    or empty left out. Where one of them holds messages, the prompt is their messages, one after
    another, and texts beside them become user turns. Errors name `option`, the keyword argument of
    the column.

    Raises:
        PreferenceDataError: A column is missing or holds no text and no messages, or a system turn
            would not be the first.
    """
    if column in row or "+" not in column:
        if column not in row and (found := find_prompts(row)):
            raise PreferenceDataError(
                f"column {column!r} is missing; found {list(row)}. {choose_columns(found, option)}",
                reason=f"missing column {column!r}",
            )
        return take_turns(row, column, option=option)
    parts: dict[str, Turns] = {}
    for name in column.split("+"):
        if name in row and row[name] in (None, "", []):
            continue
        parts[name] = take_turns(row, name, option=option)
    if not parts:
        raise PreferenceDataError(
            f"the columns of {column!r} are all null or empty; required is text in one of them. "
            'Fill it or drop the row (on_bad_row="skip").',
            reason=f"null or empty {column!r}",
        )
    texts = [part for part in parts.values() if isinstance(part, str)]
    return JOINT.join(texts) if len(texts) == len(parts) else _joined_turns(parts, option)


def _joined_turns(parts: dict[str, Turns], option: str) -> list[Message]:
    """The messages of several columns in order, texts beside them as user turns."""
    turns: list[Message] = []
    texts: list[str] = []  # of columns side by side, which make one turn
    for name, part in parts.items():
        if isinstance(part, str):
            texts.append(part)
            continue
        turns += _user_turn(texts)
        texts = []
        if turns and _begins_with_system(part):
            raise _late_system_turn(parts, name, option)
        turns += part
    return turns + _user_turn(texts)


def _user_turn(texts: list[str]) -> list[Message]:
    return [{"role": "user", "content": JOINT.join(texts)}] if texts else []


def _late_system_turn(parts: dict[str, Turns], name: str, option: str) -> PreferenceDataError:
    others = [other for other in parts if other != name]
    alone = any(_begins_with_system(parts[other]) for other in others)
    instead = name if alone else "+".join([name, *others])
    remedy = "read it alone" if alone else "read it before the others"
    return PreferenceDataError(
        f"column {name!r} holds messages that begin with a system turn, and {next(iter(parts))!r} "
        f"stands before it; required is a system turn before all others. To {remedy} pass "
        f"{option}={instead!r}.",
        reason=f"system turn of {name!r} behind others",
    )


def choose_columns(found: list[str], option: str) -> str:
    """The advice to name one of the columns found as the prompt, or all of them."""
    one = " or ".join(f"{option}={name!r}" for name in found)
    several = f", or {option}={'+'.join(found)!r} to join them" if len(found) > 1 else ""
    return f"To read the prompt from another column pass {one}{several}."


def _is_turns(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)
    return isinstance(value, str) and bool(value.strip())


def _is_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


def _begins_with_system(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and first.get("role") in _SYSTEM_ROLES

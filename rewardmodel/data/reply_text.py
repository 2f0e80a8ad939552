"""Where the prompt ends and the reply begins, in text, transcripts and chat messages.

Every function here returns texts whose concatenation `prompt + reply` is what the reward model
reads, so nothing is lost or added at the seam. Nothing here knows files or datasets; errors carry
no place, the reader of rows puts it in front.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rewardmodel.data.rows import PreferenceDataError, Row, nearest_name, note
from rewardmodel.data.template_columns import with_system, with_system_turn
from rewardmodel.data.transcripts import prompt_end

ASSISTANT_TURN = "\n\nAssistant:"

Message = dict[str, Any]
Turns = str | list[Message]
"""Text, or chat messages of `role` and `content`."""


def take_turns(row: Row, column: str, *, option: str) -> Turns:
    """Return one column's text or messages, refusing everything else.

    Text of spaces alone is let through: an empty reply is something a human may have judged, and
    real data hold some. The empty string is a hole in the data.

    Args:
        row: Column names to values.
        column: The column wanted.
        option: The keyword argument by which the user can name another column.

    Raises:
        PreferenceDataError: The column is missing, or its value null, empty or not text.
    """
    if column not in row:
        names = list(row)
        nearest = nearest_name(column, names)
        remedy = f"pass {option}={nearest!r}" if nearest else f"pass {option}=NAME"
        raise PreferenceDataError(
            f"column {column!r} is missing; found {names}"
            + (f", nearest {nearest!r}" if nearest else "")
            + f". To read another column {remedy}, or rename it.",
            reason=f"missing column {column!r}",
        )
    value = row[column]
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return [_check_message(turn, column) for turn in value]
    if isinstance(value, str) and value:
        return value
    found = "null" if value is None else f"an empty {type(value).__name__}"
    if value is not None and (not isinstance(value, str | list) or value):
        raise PreferenceDataError(
            f"column {column!r} holds {type(value).__name__} ({_shorten(value)}); required is text "
            "or a list of {role, content} messages. Convert the value or drop the row "
            '(on_bad_row="skip").',
            reason=f"value of {column!r} is not text",
        )
    raise PreferenceDataError(
        f"column {column!r} is {found}; required is text or a list of {{role, content}} messages. "
        'Fill it or drop the row (on_bad_row="skip").',
        reason=f"null or empty {column!r}",
    )


def split_prompt(
    prompt: Turns | None,
    replies: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    row: Row = MappingProxyType({}),
    empty: bool = False,
    implicit: bool = False,
) -> tuple[str, list[str]]:
    """Return the prompt's text and each reply's text.

    Args:
        prompt: The explicit prompt, or None where two replies share it as their beginning.
        replies: Replies to the prompt; whole conversations where the prompt is None.
        tokenizer: Renders messages by its chat template; unused where everything is text.
        row: What stands beside them; see `rewardmodel.data.template_columns`.
        empty: Whether replies of text to a prompt of messages may be empty.
        implicit: Whether the user said that plain text begins with the prompt, so that a shared
            beginning needs no turn marker.

    Raises:
        PreferenceDataError: Mixed kinds, nothing shared, an empty reply, or no way to render.
    """
    if all(isinstance(reply, str) for reply in replies):
        texts = [reply for reply in replies if isinstance(reply, str)]
        if isinstance(prompt, list):
            turns: list[list[Message]] = [[{"role": "assistant", "content": t}] for t in texts]
            return _render(with_system_turn(row, prompt), turns, tokenizer, empty=empty)
        if prompt is None:
            prompt, texts = _split_texts(*texts, implicit=implicit)
        return with_system(row, prompt), texts
    conversations = [reply for reply in replies if isinstance(reply, list)]
    if len(conversations) < len(replies):
        raise PreferenceDataError(
            f"found {' and '.join(_kind(reply) for reply in replies)} as replies to one prompt; "
            "required is the same kind for both. Convert one of them.",
            reason="mixed text and messages",
        )
    if prompt is None:
        shared, conversations = _split_conversations(*conversations)
        return _render(with_system_turn(row, shared), conversations, tokenizer)
    opening = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if all(turns[: len(opening)] == opening for turns in conversations):
        conversations = [turns[len(opening) :] for turns in conversations]
    elif isinstance(prompt, str) and any(
        turns[0]["role"] != "assistant" for turns in conversations
    ):
        # A prompt column that repeats the question beside whole conversations, and maybe leaves
        # out their system turn: the conversations themselves say where they part.
        if len(conversations) == 1:
            opening, reply = split_last_turn(conversations[0])
            conversations = [reply]
        else:
            opening, conversations = _split_conversations(*conversations)
        if not repeats(opening, prompt):
            note(row, "prompt not used, which the conversation beside it does not repeat")
    return _render(with_system_turn(row, opening), conversations, tokenizer)


def split_last_turn(messages: Turns) -> tuple[list[Message], list[Message]]:
    """Return what precedes the assistant's last turn, and that turn; what follows is left out.

    Raises:
        PreferenceDataError: No assistant turn answers anything, or this is text.
    """
    if isinstance(messages, list):
        for index in range(len(messages) - 1, 0, -1):
            if messages[index]["role"] == "assistant":
                return messages[:index], messages[index : index + 1]
    found = [turn["role"] for turn in messages] if isinstance(messages, list) else "text"
    raise PreferenceDataError(
        f"found messages of {found}; required are messages in which an assistant answers. Mend or "
        'drop the row (on_bad_row="skip").',
        reason="no assistant turn",
    )


def common_prefix_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how many leading elements two sequences share, by bisection on slices."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def shared_prompt(first: Turns, second: Turns) -> Turns | None:
    """The prompt that two replies share by their turns, or None where they do not.

    Of messages these are the turns before the first that the assistant answers differently, of
    text all up to a turn marker; see `rewardmodel.data.transcripts`.
    """
    if isinstance(first, list) and isinstance(second, list):
        return first[: _shared_turns(first, second)] or None
    if isinstance(first, str) and isinstance(second, str):
        return first[: _marked_prompt(first, second) or 0] or None
    return None


def _marked_prompt(first: str, second: str) -> int | None:
    return prompt_end(first[: common_prefix_length(first, second)])


def _split_texts(first: str, second: str, *, implicit: bool) -> tuple[str, list[str]]:
    """Split two texts after the prompt they share.

    Transcripts are split after the last marker of an answer up to which both agree. Other text is
    split only where the user says that it begins with the prompt: before the last white space in
    the common prefix, so that no word is torn and a reply keeps its leading space.
    """
    cut = _marked_prompt(first, second)
    if cut is None and implicit:
        shared = first[: common_prefix_length(first, second)]
        if shared[-1:].isspace():
            cut = len(shared.rstrip())
        else:
            head = shared.rsplit(None, 1)  # [before, last word], or fewer where no space is left
            cut = len(head[0]) if len(head) == 2 else 0
    if cut is None or not first[:cut].strip():
        raise _nothing_shared(f"{_shorten(first)} and {_shorten(second)}", text=not implicit)
    return first[:cut], [_require_reply(first[cut:]), _require_reply(second[cut:])]


def repeats(whole: Turns, part: Turns) -> bool:
    """Whether every text of `part` stands in `whole`, white space aside."""
    text = " ".join(_words_of(whole))
    return all(words in text for words in _words_of(part))


def _words_of(turns: Turns) -> list[str]:
    texts = [turns] if isinstance(turns, str) else [str(turn["content"]) for turn in turns]
    return [" ".join(text.split()) for text in texts]


def _split_conversations(
    first: list[Message], second: list[Message]
) -> tuple[list[Message], list[list[Message]]]:
    """Split two conversations at the last shared turn that the assistant answers in both."""
    shared = _shared_turns(first, second)
    if not shared:
        raise _nothing_shared(f"{_shorten(first)} and {_shorten(second)}")
    return first[:shared], [first[shared:], second[shared:]]


def _shared_turns(first: list[Message], second: list[Message]) -> int:
    shared = common_prefix_length(first, second)
    while shared and not all(
        len(turns) > shared and turns[shared]["role"] == "assistant" for turns in (first, second)
    ):
        shared -= 1
    return shared


def _nothing_shared(found: str, *, text: bool = False) -> PreferenceDataError:
    marked = " up to a turn marker, such as 'Assistant:'," if text else ""
    told = "implicit_prompt=True if the replies begin with it unmarked, " if text else ""
    return PreferenceDataError(
        f"there is no prompt column and the replies do not begin with a shared prompt{marked} "
        f"but with {found}. Pass prompt_column=NAME if the prompt has another name, {told}or drop "
        'the row (on_bad_row="skip").',
        reason="no shared prompt",
    )


def _render(
    prompt: list[Message],
    replies: Sequence[list[Message]],
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    empty: bool = False,
) -> tuple[str, list[str]]:
    """Render messages; a reply is what the whole rendering adds to the prompt's."""
    if tokenizer is None:
        raise PreferenceDataError(
            "found chat messages and no tokenizer; a chat template is required to make text of "
            "them. Pass tokenizer=AutoTokenizer.from_pretrained(NAME) of a chat model."
        )
    if not tokenizer.chat_template:
        raise PreferenceDataError(
            f"found chat messages, and the tokenizer {_name(tokenizer)} has no chat "
            "template. Pass the tokenizer of a chat model, or set tokenizer.chat_template."
        )
    opening = _apply_template(tokenizer, prompt, add_generation_prompt=True)
    texts = []
    for reply in replies:
        if not empty and not any(turn["content"] for turn in reply):
            _require_reply("")
        whole = _apply_template(tokenizer, [*prompt, *reply], add_generation_prompt=False)
        if not whole.startswith(opening):
            agreed = common_prefix_length(whole, opening)
            raise PreferenceDataError(
                f"the chat template of {_name(tokenizer)} renders the prompt as "
                f"{_shorten(opening, agreed)} but prompt and reply together as "
                f"{_shorten(whole, agreed)}, parting after {agreed} characters; required is a "
                "template whose prompt rendering begins the whole one. Set "
                "tokenizer.chat_template to such a template, or pass rows of plain text.",
                reason="chat template renders the prompt differently",
            )
        text = whole[len(opening) :]
        texts.append(text if empty else _require_reply(text))
    return opening, texts


def _apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, add_generation_prompt: bool
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:  # templates refuse roles and orders by raise_exception
        raise PreferenceDataError(
            f"the chat template of {_name(tokenizer)} refuses these messages ({error}): "
            f"roles {[turn['role'] for turn in messages]}. Mend or drop the row "
            '(on_bad_row="skip"), or set another tokenizer.chat_template.',
            reason="refused by the chat template",
        ) from error
    return str(text)


def _require_reply(text: str) -> str:
    if not text:
        raise PreferenceDataError(
            "a reply is empty after the shared prompt; required is text on both sides. Fill it or "
            'drop the row (on_bad_row="skip").',
            reason="empty reply",
        )
    return text


def _check_message(turn: Message, column: str) -> Message:
    """Return the message without its null fields, which Arrow adds to fill up a column."""
    wrong = [key for key in ("role", "content") if not isinstance(turn.get(key), str)]
    if wrong:
        found = {key: type(turn.get(key)).__name__ for key in wrong}
        raise PreferenceDataError(
            f"a message in column {column!r} holds {found}; required are a text role and a text "
            "content. Convert it (text parts joined to one string) or drop the row "
            '(on_bad_row="skip").',
            reason=f"message in {column!r} is not text",
        )
    return {key: value for key, value in turn.items() if value is not None}


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.name_or_path or type(tokenizer).__name__


def _kind(turns: Turns) -> str:
    return "text" if isinstance(turns, str) else "messages"


def _shorten(value: object, around: int = 0) -> str:
    """Quote at most 60 characters of a value, those about a position."""
    text = value if isinstance(value, str) else repr(value)
    start = max(0, around - 30)
    part = text[start : start + 60]
    return ("..." if start else "") + repr(part) + ("..." if start + 60 < len(text) else "")

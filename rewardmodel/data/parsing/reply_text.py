"""Splitting rows into prompt and replies: text, transcripts and chat messages.

Texts are split such that `prompt + reply` is what the reward model reads; messages are kept for
each model to render, or rendered by a given tokenizer. Errors carry no location; the reader of rows
adds it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefsearch.config.checks import closest
from rewardmodel.data.chat_template import ChatTemplate, shorten
from rewardmodel.data.conversation import Conversation, Message, Prompt, Reply, reply_of
from rewardmodel.data.parsing.shared_prompt import Turns, repeats, split_conversations, split_texts
from rewardmodel.data.parsing.template_columns import (
    joined_parts,
    messages_of_json,
    refuse_media_parts,
    take_template,
    with_parsed_calls,
    with_system,
    with_system_turn,
    without_nulls,
)
from rewardmodel.data.parsing.transcripts import prompt_end
from rewardmodel.data.rows import PreferenceDataError, Row, note

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSISTANT_TURN = "\n\nAssistant:"
_FEW_WORDS = 4
_ANSWERING = ("assistant", "tool")


def take_turns(row: Row, column: str, *, option: str) -> Turns:
    """One column's text or messages; everything else is refused.

    Text of white space alone is allowed, since a human may have judged an empty reply; the empty
    string is a gap in the data. Errors name `option`, the keyword argument of the column.

    Raises:
        PreferenceDataError: The column is missing, or its value null, empty or not text.
    """
    if column not in row:
        names = list(row)
        nearest = next(iter(closest(column, names)), None)
        remedy = f"pass {option}={nearest!r}" if nearest else f"pass {option}=NAME"
        raise PreferenceDataError(
            f"column {column!r} is missing; found {names}"
            + (f", nearest {nearest!r}" if nearest else "")
            + f". To read another column {remedy}, or rename it.",
            reason=f"missing column {column!r}",
        )
    value = row[column]
    if isinstance(value, str) and (turns := messages_of_json(value)):
        note(row, f"messages read from the JSON text of {column!r}")
        value = turns
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return [_check_message(turn, column) for turn in value]
    if isinstance(value, str) and value:
        return value
    found = "null" if value is None else f"an empty {type(value).__name__}"
    if value is not None and (not isinstance(value, str | list) or value):
        raise PreferenceDataError(
            f"column {column!r} holds {type(value).__name__} ({shorten(value)}); required is text "
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
    tokenizer: "PreTrainedTokenizerBase | None",
    *,
    row: Row | None = None,
    empty: bool = False,
    keep_messages: bool = False,
    implicit: bool = False,
    finished: Sequence[bool] | None = None,
) -> tuple[Prompt, list[Reply]]:
    """The prompt and each reply.

    Args:
        prompt: The explicit prompt, or None where two replies share it as their beginning.
        replies: Replies to the prompt; whole conversations where the prompt is None.
        tokenizer: Renders messages by its chat template, or checks that it can render those that
            are kept; unused where everything is text.
        row: The row; see `rewardmodel.data.parsing.template_columns`.
        empty: Whether replies of text to a prompt of messages may be empty.
        keep_messages: Whether messages stay a `Conversation`, for each model to render.
        implicit: Whether plain text begins with the prompt, so that a shared beginning needs no
            turn marker.
        finished: Whether each reply is whole; the end of a turn is left off others. None takes all
            as whole.

    Returns:
        Texts where everything is text, or was rendered; else a `Conversation` and the replies to
        it, of single assistant messages their text.

    Raises:
        PreferenceDataError: Mixed kinds, nothing shared, an empty reply, or no way to render.
    """
    row = {} if row is None else row
    if all(isinstance(reply, str) for reply in replies):
        texts = [reply for reply in replies if isinstance(reply, str)]
        if isinstance(prompt, str):
            return with_system(row, prompt), _without_prompt(prompt, texts, row)
        if prompt is None:
            text, parts = split_texts(*texts, implicit=implicit)
            return with_system(row, text), [_require_reply(part) for part in parts]
        opening = prompt
        conversations: list[list[Message]] = [[{"role": "assistant", "content": t}] for t in texts]
    else:
        opening, conversations = _split_messages(prompt, replies, row)
    for turns in conversations:
        if not empty and not any(t.get("content") or t.get("tool_calls") for t in turns):
            _require_reply("")
    conversation = Conversation(tuple(with_system_turn(row, opening)), *take_template(row))
    kept = [reply_of(turns) for turns in conversations]
    if keep_messages:
        if tokenizer is not None and tokenizer.chat_template:
            _require_rendering(ChatTemplate(tokenizer), conversation, kept)
        return conversation, kept
    if tokenizer is None:
        raise PreferenceDataError(
            "found chat messages and no tokenizer; a chat template is required to make text of "
            "them. Pass tokenizer=AutoTokenizer.from_pretrained(NAME) of a chat model, or "
            "keep_messages=True for models to render them themselves."
        )
    template = ChatTemplate(tokenizer)
    whole = [True] * len(kept) if finished is None else finished
    rendered = [
        template.reply_text(conversation, reply, finished=ended)
        for reply, ended in zip(kept, whole, strict=True)
    ]
    return template.prompt_text(conversation), [
        text if empty else _require_reply(text) for text in rendered
    ]


def _without_prompt(prompt: str, replies: list[str], row: Row) -> list[Reply]:
    """Replies of text, without the prompt where all of them repeat it.

    A prompt of a few words without a turn marker may be repeated by chance, and so may one reply.
    """
    parts = [reply.removeprefix(prompt) for reply in replies]
    marked = len(prompt.split()) > _FEW_WORDS or prompt_end(prompt) is not None
    repeated = all(part and part != reply for part, reply in zip(parts, replies, strict=True))
    if not (marked and replies and repeated):
        return [*replies]
    if len(replies) == 1:
        note(row, "reply begins with a copy of the prompt, kept")
        return [*replies]
    note(row, "prompt that all replies repeat read once")
    return [*parts]


def _require_rendering(
    template: ChatTemplate, conversation: Conversation, replies: Sequence[Reply]
) -> None:
    """Refuses messages that the template cannot render."""
    template.prompt_text(conversation)
    for reply in replies:
        template.whole_text(conversation, reply)


def _split_messages(
    prompt: Turns | None, replies: Sequence[Turns], row: Row
) -> tuple[list[Message], list[list[Message]]]:
    """The prompt's messages and each reply's, where replies are messages."""
    conversations = [reply for reply in replies if isinstance(reply, list)]
    if len(conversations) < len(replies):
        raise PreferenceDataError(
            f"found {' and '.join(_kind(reply) for reply in replies)} as replies to one prompt; "
            "required is the same kind for both. Convert one of them.",
            reason="mixed text and messages",
        )
    if prompt is None:
        return split_conversations(*conversations)
    opening = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if all(turns[: len(opening)] == opening for turns in conversations):
        return opening, [turns[len(opening) :] for turns in conversations]
    if all(turns[0]["role"] in _ANSWERING for turns in conversations):
        return opening, conversations
    # Whole conversations are split by themselves, and may lack the system turn of the prompt
    # beside them, or have one that it lacks.
    shared, conversations = split_conversations(*conversations)
    opening_words, shared_words = _words_of(opening), _words_of(shared)
    if opening_words[len(opening_words) - len(shared_words) :] == shared_words:
        return opening, conversations
    if shared_words[len(shared_words) - len(opening_words) :] != opening_words and not repeats(
        shared, prompt
    ):
        if not isinstance(prompt, str):
            raise PreferenceDataError(
                f"the prompt is {shorten(opening)} and the replies are conversations that begin "
                f"with {shorten(shared)}; required are replies of the assistant's turns alone, or "
                "conversations that repeat the prompt. Remove the prompt's column or these turns, "
                'or drop the row (on_bad_row="skip").',
                reason="replies repeat another prompt",
            )
        note(row, "prompt not used, which the conversation beside it does not repeat")
    return shared, conversations


def _words_of(turns: list[Message]) -> list[tuple[str, list[str]]]:
    """Roles and words of messages, white space aside."""
    return [(str(turn["role"]), str(turn["content"]).split()) for turn in turns]


def _require_reply(text: str) -> str:
    if not text:
        raise PreferenceDataError(
            "a reply is empty after the shared prompt; required is text on both sides. Fill it or "
            'drop the row (on_bad_row="skip").',
            reason="empty reply",
        )
    return text


def _check_message(turn: Message, column: str) -> Message:
    """The message without its null fields, which Arrow adds to fill up a column.

    A message that calls tools may have no content; one of several parts of text is their text.
    Arguments of calls may be JSON text, as servers write them; templates read mappings.
    """
    turn = with_parsed_calls(without_nulls(turn))
    refuse_media_parts(turn.get("content"), column)
    if isinstance(turn.get("content"), list):
        turn = {**turn, "content": joined_parts(turn["content"])}
    if turn.get("tool_calls"):
        turn = {"content": "", **turn}
    wrong = [key for key in ("role", "content") if not isinstance(turn.get(key), str)]
    if wrong:
        found = {key: type(turn.get(key)).__name__ for key in wrong}
        raise PreferenceDataError(
            f"a message in column {column!r} holds {found}; required are a text role and a text "
            "content, or parts of type text. Convert it or drop the row "
            '(on_bad_row="skip").',
            reason=f"message in {column!r} is not text",
        )
    return turn


def _kind(turns: Turns) -> str:
    return "text" if isinstance(turns, str) else "messages"


class OneKind:
    """Refuses a source whose prompts are text in some rows and messages in others."""

    def __init__(self) -> None:
        self._first: type | None = None

    def __call__(self, prompt: Prompt) -> None:
        """Checks one row's prompt against the first row's.

        Raises:
            PreferenceDataError: It is of the other kind.
        """
        self._first = self._first or type(prompt)
        if type(prompt) is not self._first:
            found, before = (
                ("text", "messages") if isinstance(prompt, str) else ("messages", "text")
            )
            raise PreferenceDataError(
                f"the prompt is {found} and in the rows before it is {before}; required is one "
                'kind in a source. Convert this row, or drop it (on_bad_row="skip").',
                reason=f"prompt of {found} among {before}",
            )

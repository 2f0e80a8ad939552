"""The prompt that two replies share as their beginning, in transcripts, messages and other text.

A shared beginning is a prompt where turns mark it, or where the user sets `implicit_prompt`.
"""

from rewardmodel.data.chat_template import common_prefix_length, shorten
from rewardmodel.data.conversation import Message
from rewardmodel.data.parsing.transcripts import prompt_end
from rewardmodel.data.rows import PreferenceDataError

Turns = str | list[Message]
"""Text, or chat messages of `role` and `content`."""


def shared_prompt(first: Turns, second: Turns) -> Turns | None:
    """The prompt that two replies share by their turns, or None.

    Of messages these are the turns before the assistant's first differing one, of text all up to
    a turn marker; see `rewardmodel.data.parsing.transcripts`.
    """
    if isinstance(first, list) and isinstance(second, list):
        return first[: _shared_turns(first, second)] or None
    if isinstance(first, str) and isinstance(second, str):
        return first[: _marked(first, second) or 0] or None
    return None


def repeats(whole: Turns, part: Turns) -> bool:
    """Whether every text of `part` is in `whole`, white space aside."""
    text = " ".join(_texts(whole))
    return all(words in text for words in _texts(part))


def split_texts(first: str, second: str, *, implicit: bool) -> tuple[str, list[str]]:
    """Splits two texts after the prompt they share.

    Transcripts are split after the last shared marker of an answer. Other text is split only with
    `implicit`: before the last white space in the common prefix, so that no word is torn and a
    reply keeps its leading space.

    Raises:
        PreferenceDataError: Nothing is shared, or no turn marker shows that it is a prompt.
    """
    cut = _marked(first, second)
    if cut is None and implicit:
        shared = first[: common_prefix_length(first, second)]
        if shared[-1:].isspace():
            cut = len(shared.rstrip())
        else:
            head = shared.rsplit(None, 1)  # [before, last word], or fewer where no space is left
            cut = len(head[0]) if len(head) == 2 else 0
    if cut is None or not first[:cut].strip():
        raise _nothing_shared(f"{shorten(first)} and {shorten(second)}", implicit=implicit)
    return first[:cut], [first[cut:], second[cut:]]


def split_conversations(*conversations: list[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Splits conversations at the last shared turn that the assistant answers in all of them.

    A single one is split before the assistant's last turn.

    Raises:
        PreferenceDataError: There is none.
    """
    if len(conversations) == 1:
        opening, reply = split_last_turn(conversations[0])
        return opening, [reply]
    shared = _shared_turns(*conversations)
    if not shared:
        found = " and ".join(shorten(turns) for turns in conversations[:2])
        raise _nothing_shared(found, implicit=True)
    return conversations[0][:shared], [turns[shared:] for turns in conversations]


def split_last_turn(messages: Turns) -> tuple[list[Message], list[Message]]:
    """The turns before the assistant's last turn, and that turn; what follows is left out.

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


def _shared_turns(*conversations: list[Message]) -> int:
    first = conversations[0]
    shared = min(common_prefix_length(first, other) for other in conversations[1:])
    while shared and not all(
        len(turns) > shared and turns[shared]["role"] == "assistant" for turns in conversations
    ):
        shared -= 1
    return shared


def _marked(first: str, second: str) -> int | None:
    return prompt_end(first[: common_prefix_length(first, second)])


def _texts(turns: Turns) -> list[str]:
    texts = [turns] if isinstance(turns, str) else [str(turn.get("content")) for turn in turns]
    return [" ".join(text.split()) for text in texts]


def _nothing_shared(found: str, *, implicit: bool) -> PreferenceDataError:
    marked = "" if implicit else " up to a turn marker, such as 'Assistant:',"
    option = "" if implicit else "implicit_prompt=True if the replies begin with it unmarked, "
    return PreferenceDataError(
        f"there is no prompt column and the replies do not begin with a shared prompt{marked} "
        f"but with {found}. Pass prompt_column=NAME if the prompt has another name, {option}or "
        'drop the row (on_bad_row="skip").',
        reason="no shared prompt",
    )

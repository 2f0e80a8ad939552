"""Rendering conversations with a tokenizer's chat template.

Nothing is added to the template's text; its ids are those of
`tokenizer.apply_chat_template(messages, tokenize=True)`. A reply is what the whole rendering adds
to the prompt's, its generation prompt included. Some templates render the prompt otherwise in the
whole, such as those that leave thoughts out of past turns: a reward model can read the whole, but a
policy cannot continue the prompt.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardmodel.data.conversation import Conversation, Message, Reply, reply_messages
from rewardmodel.data.rows import PreferenceDataError

_PROBE = "Xprobe7reply"
_KEPT = 4096  # prompts whose renderings are cached


@dataclass(frozen=True)
class Frame:
    """The text that a template puts around an assistant's reply.

    Attributes:
        before: Between the generation prompt and the reply, such as a space.
        after: The end of the turn, such as "<|im_end|>" and a line break; may be empty.
    """

    before: str
    after: str

    @property
    def mark(self) -> str:
        """The end of the turn, without white space around it or the end of the whole text."""
        return (self.after.strip().splitlines() or [""])[0].rstrip()


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Takes a tokenizer; without a template, rendering is an error."""
        self.tokenizer = tokenizer
        self._opening = functools.lru_cache(_KEPT)(self._render_opening)
        self._frame = functools.lru_cache(_KEPT)(self._probe)

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @functools.cached_property
    def frame(self) -> Frame:
        """The frame of a reply to a single question; empty without a template."""
        if not self.exists:
            return Frame("", "")
        for roles in (("user",), ("system", "user")):
            messages = tuple({"role": role, "content": "question"} for role in roles)
            try:
                return self._frame(Conversation(messages))
            except PreferenceDataError:
                continue  # templates may require a system turn, or be refused later
        return Frame("", "")

    def prompt_text(self, conversation: Conversation) -> str:
        """The text of a prompt, up to where the assistant's reply begins.

        Raises:
            PreferenceDataError: No template, or it refuses the messages.
        """
        return self._opening(conversation)

    def reply_text(self, conversation: Conversation, reply: Reply, *, finished: bool = True) -> str:
        """The text that a reply adds to the prompt's, without the end of the turn unless finished.

        Raises:
            PreferenceDataError: No template, it refuses the messages, or the prompt's text is not
                the beginning of the whole.
        """
        opening = self._opening(conversation)
        whole = self.whole_text(conversation, reply, finished=finished)
        if not whole.startswith(opening):
            agreed = common_prefix_length(whole, opening)
            raise PreferenceDataError(
                f"the chat template of {self._name} renders the prompt as "
                f"{shorten(opening, agreed)} but prompt and reply together as "
                f"{shorten(whole, agreed)}, parting after {agreed} characters; required is a "
                "template whose prompt rendering begins the whole one. Set "
                "tokenizer.chat_template to such a template, or pass rows of plain text.",
                reason="chat template renders the prompt differently",
            )
        return whole[len(opening) :]

    def whole_text(self, conversation: Conversation, reply: Reply, *, finished: bool = True) -> str:
        """The text of a prompt and a reply, without the end of the turn unless finished.

        Raises:
            PreferenceDataError: No template, or it refuses the messages.
        """
        messages = reply_messages(reply)
        text = self._apply(conversation, messages, add_generation_prompt=False)
        return text if finished else text.removesuffix(self._frame(conversation).after)

    def content(self, text: str, conversation: Conversation | None = None) -> str:
        """The assistant's reply in a policy's decoded output.

        `conversation` is the prompt; None stands for any.
        """
        frame = self.frame if conversation is None else self._frame(conversation)
        text = text.removeprefix(frame.before)
        mark = frame.mark
        if mark and mark in text:
            space = frame.after[: frame.after.index(mark)]
            return text[: text.index(mark)].removesuffix(space)
        return text

    def closes(self, text: str) -> bool:
        """Whether text ends with the end of a turn, as rendered text does."""
        ends = (self.frame.after.strip(), self.frame.mark)
        return any(end and text.rstrip().endswith(end) for end in ends)

    def _render_opening(self, conversation: Conversation) -> str:
        return self._apply(conversation, (), add_generation_prompt=True)

    def _probe(self, conversation: Conversation) -> Frame:
        whole, opening = self.whole_text(conversation, _PROBE), self._opening(conversation)
        before, found, after = whole[common_prefix_length(whole, opening) :].rpartition(_PROBE)
        return Frame(before, after) if found else Frame("", "")

    def _apply(
        self,
        conversation: Conversation,
        reply: Sequence[Message],
        *,
        add_generation_prompt: bool,
    ) -> str:
        if not self.exists:
            raise PreferenceDataError(
                f"found chat messages, and the tokenizer {self._name} has no chat template; "
                "required: the one that the model was trained with. Pass the tokenizer of a chat "
                "model, or set tokenizer.chat_template and save the tokenizer again, or pass "
                "prompts of text."
            )
        messages = [*conversation.messages, *reply]
        if self._reads_parts:
            messages = _in_parts(messages)
        tools = conversation.tools
        return self._render(
            messages,
            tools=None if tools is None else list(tools),
            add_generation_prompt=add_generation_prompt,
            **(conversation.chat_template_kwargs or {}),
        )

    def _render(self, messages: Sequence[Message], **options: Any) -> str:
        held = self.tokenizer.chat_template
        if isinstance(held, Mapping) and "default" not in held and not options.get("tools"):
            raise PreferenceDataError(
                f"the tokenizer {self._name} has chat templates named {', '.join(held)}, and none "
                "named default; required is one for conversations. Set tokenizer.chat_template to "
                "one of them and save the tokenizer again.",
                reason="no default chat template",
            )
        try:
            return str(
                self.tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
            )
        # Templates refuse roles and orders by raise_exception, and fail at unknown values.
        except Exception as error:
            raise PreferenceDataError(
                f"the chat template of {self._name} refuses these messages ({error}): "
                f"roles {[turn['role'] for turn in messages]}. Mend or drop the row "
                '(on_bad_row="skip"), or set another tokenizer.chat_template.',
                reason="refused by the chat template",
            ) from error

    @functools.cached_property
    def _reads_parts(self) -> bool:
        """Whether the template reads contents as lists of parts, as those of multimodal models do.

        Raises:
            PreferenceDataError: It shows neither such parts nor text.
        """
        question: list[Message] = [{"role": "user", "content": _PROBE}]
        found = []
        for messages in (question, _in_parts(question)):
            try:
                found.append(_PROBE in self._render(messages, add_generation_prompt=False))
            except PreferenceDataError:  # it may require a system turn
                found.append(None)
        if found[0] is False and not found[1]:
            raise PreferenceDataError(
                f"the chat template of {self._name} shows no words of a user's message, be it text "
                "or parts of type text; required is a template that does. Set another "
                "tokenizer.chat_template.",
                reason="chat template without words",
            )
        return not found[0] and bool(found[1])

    @property
    def _name(self) -> str:
        return self.tokenizer.name_or_path or type(self.tokenizer).__name__


def _in_parts(messages: Sequence[Message]) -> list[Message]:
    """Messages whose text is a list of one part."""
    return [
        {**turn, "content": [{"type": "text", "text": turn["content"]}]}
        if isinstance(turn.get("content"), str)
        else turn
        for turn in messages
    ]


def common_prefix_length(first: Sequence[object], second: Sequence[object]) -> int:
    """The number of leading elements that two sequences share, by bisection on slices."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def shorten(value: object, around: int = 0) -> str:
    """Quotes at most 60 characters of a value, those around a position."""
    text = value if isinstance(value, str) else repr(value)
    start = max(0, around - 30)
    part = text[start : start + 60]
    return ("..." if start else "") + repr(part) + ("..." if start + 60 < len(text) else "")

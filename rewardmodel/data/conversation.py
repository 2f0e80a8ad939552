"""Conversations: prompts and replies as chat messages.

A prompt is text, or a `Conversation`; a reply is text, or the messages that follow the prompt's
where they are more than one assistant message of text. Datasets, files and records have TRL's
conversational format: `prompt` a list of {role, content} messages, optional columns `tools` and
`chat_template_kwargs`, and replies as lists of messages. `rewardmodel.data.chat_template` renders.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefsearch.storage.json_text import json_text, parse_json

Message = dict[str, Any]

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")
"""Columns of TRL's that a chat template is given beside the messages."""


@dataclass(frozen=True, eq=False)
class Conversation:
    """Chat messages, and the other variables of the template; equal where all of it is.

    Attributes:
        messages: Of `role` and `content` and whatever else the template reads, at least one.
        tools: JSON schemas of functions that the assistant may call, or None.
        chat_template_kwargs: Further variables of the template, such as `enable_thinking`.
    """

    messages: tuple[Message, ...]
    tools: tuple[object, ...] | None = None
    chat_template_kwargs: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        """Normalizes sequences and null entries."""
        if not self.messages:
            raise ValueError("messages: found none; required: at least one")
        normal = tuple(_ordered(message) for message in self.messages)
        object.__setattr__(self, "messages", normal)
        object.__setattr__(self, "tools", tuple(self.tools) if self.tools else None)
        kwargs = dict(self.chat_template_kwargs) if self.chat_template_kwargs else None
        object.__setattr__(self, "chat_template_kwargs", kwargs)

    @functools.cached_property
    def _key(self) -> str:
        return json_text(self.columns())

    def __eq__(self, other: object) -> bool:
        """Whether messages, tools and template variables are the same."""
        return isinstance(other, Conversation) and self._key == other._key

    def __hash__(self) -> int:
        """By the same fields as equality."""
        return hash(self._key)

    def __str__(self) -> str:
        """A transcript, for messages and reports."""
        return "\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in self.messages)

    def columns(self) -> dict[str, Any]:
        """As columns of a dataset or a record: `prompt`, and the others where they are set."""
        found: dict[str, Any] = {"prompt": [dict(message) for message in self.messages]}
        if self.tools is not None:
            found["tools"] = list(self.tools)
        if self.chat_template_kwargs is not None:
            found["chat_template_kwargs"] = dict(self.chat_template_kwargs)
        return found


Prompt = str | Conversation
"""Text that a reply continues, or a conversation that an assistant's turn follows."""
Reply = str | Conversation
"""The text of a reply, or the messages it consists of where they are more than one text."""


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """The prompt of a row of a dataset or record, with its `tools` and `chat_template_kwargs`."""
    value = row["prompt"]
    if isinstance(value, str | Conversation):
        return value
    return Conversation(tuple(value), *(_from_json(row.get(name)) for name in TEMPLATE_COLUMNS))


def reply_of(value: str | Conversation | Sequence[Message]) -> Reply:
    """A reply in normal form: one assistant message of text is that text."""
    if isinstance(value, str):
        return value
    messages = value.messages if isinstance(value, Conversation) else tuple(value)
    only = messages[0] if len(messages) == 1 else {}
    rest = {key for key, held in only.items() if held is not None} - {"role", "content"}
    if only.get("role") == "assistant" and isinstance(only.get("content"), str) and not rest:
        return str(only["content"])
    return Conversation(messages)


def prompts_of(dataset: Any) -> list[Prompt]:
    """The prompts of a `datasets.Dataset`, in its order."""
    names = [name for name in ("prompt", *TEMPLATE_COLUMNS) if name in dataset.column_names]
    columns = [dataset[name][:] for name in names]
    rows = zip(*columns, strict=True)
    return [prompt_of(dict(zip(names, values, strict=True))) for values in rows]


def replies_of(dataset: Any, column: str) -> list[Reply]:
    """The replies in one column of a `datasets.Dataset`, in its order."""
    return [reply_of(value) for value in dataset[column][:]]


def reply_messages(reply: Reply) -> list[Message]:
    """A reply as messages."""
    if isinstance(reply, Conversation):
        return [dict(message) for message in reply.messages]
    return [{"role": "assistant", "content": reply}]


def text_of(turns: Prompt | Reply, reader: str) -> str:
    """The text of a prompt or reply, for a `reader` (named in messages) that takes no messages.

    Raises:
        ValueError: If it is not text or one message without tools or calls; the message names what
            would be lost.
    """
    if isinstance(turns, str):
        return turns
    first, *others = turns.messages
    lost = [name for name in TEMPLATE_COLUMNS if getattr(turns, name) is not None]
    if others:
        roles = ", ".join(str(message["role"]) for message in turns.messages)
        lost.append(f"{len(turns.messages)} messages ({roles})")
    lost += [name for name in first if name not in ("role", "content", "name")]
    if lost:
        raise ValueError(
            f"found {', '.join(lost)} for {reader}, which reads text alone; required: one message "
            "without them. Pass the text, in the form that the model was trained on"
        )
    return str(first.get("content") or "")


def row_of(prompt: Prompt, **replies: Reply) -> dict[str, Any]:
    """A row of a dataset from a prompt and named replies, all messages where the prompt is."""
    if isinstance(prompt, str):
        return {"prompt": prompt, **replies}
    return prompt.columns() | {name: reply_messages(reply) for name, reply in replies.items()}


def prompt_record(prompt: Prompt) -> dict[str, Any]:
    """A prompt as fields of a record that is written as JSON; `prompt_of` reads them."""
    return prompt.columns() if isinstance(prompt, Conversation) else {"prompt": prompt}


def plain(text: Prompt | Reply) -> Any:
    """Text as it is, a conversation as its messages, for functions of the user's."""
    return [dict(m) for m in text.messages] if isinstance(text, Conversation) else text


def last_text(prompt: Any) -> str:
    """Text as it is; of a conversation, or its list of messages, the last message's."""
    if isinstance(prompt, str):
        return prompt
    messages = prompt.messages if isinstance(prompt, Conversation) else prompt
    return str(messages[-1].get("content") or "")


def _ordered(message: Mapping[str, object]) -> Message:
    """A message without null fields, its role and content first."""
    first = {name: message[name] for name in ("role", "content") if name in message}
    return first | {k: v for k, v in message.items() if k not in first and v is not None}


def _from_json(value: Any) -> Any:
    """A value that may be JSON text, as TRL allows for `tools`."""
    return parse_json(value) if isinstance(value, str) and value else value or None

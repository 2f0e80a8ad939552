"""Columns beside prompt and replies: system message, tools, template variables.

`system` is a turn before the messages, or a paragraph before plain text. `tools` and
`chat_template_kwargs` are passed to the chat template, as in TRL. Contents made of parts are joined
where all are text; images in messages are refused.
"""

from collections.abc import Mapping
from typing import Any

from prefsearch.storage.json_text import JsonFault, parse_json
from rewardmodel.data.rows import PreferenceDataError, Row, note, peek

# Of `tokenizer.apply_chat_template`: what decides where the text ends, and in what form it comes.
_RESERVED = frozenset(
    {
        *("conversation", "messages", "tools", "tokenize", "add_generation_prompt"),
        *(
            "continue_final_message",
            "return_dict",
            "return_tensors",
            "return_assistant_tokens_mask",
        ),
        *("padding", "truncation", "max_length", "chat_template", "tokenizer_kwargs"),
    }
)
_MEDIA_PARTS = frozenset({"image", "image_url", "video", "audio", "input_audio", "file"})
# Of a JSON schema: where null is a value and no gap that Arrow filled.
_NULLABLE = frozenset({"default", "const"})
_SYSTEM_NAMES = ("system", "system_prompt", "system_message", "system_instruction")


def with_system(row: Row, prompt: str) -> str:
    """A prompt of plain text after the row's system message, a blank line between them.

    Raises:
        PreferenceDataError: As `take_system`.
    """
    system = take_system(row)
    if system is None:
        return prompt
    note(row, "system message put before the text of the prompt")
    return system + ("" if prompt.startswith("\n") else "\n\n") + prompt


def with_system_turn(row: Row, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages that begin with the row's system message, unless they do already.

    Raises:
        PreferenceDataError: As `take_system`, or they begin with another system message.
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


def take_template(row: Row) -> tuple[tuple[Any, ...] | None, dict[str, Any] | None]:
    """The template's variables beside the messages: `tools` and `chat_template_kwargs`.

    Both may be JSON text. Nulls inside, which Arrow adds to make all rows alike, are left out.

    Raises:
        PreferenceDataError: A value is no list of tools or no mapping of template variables, or
            one of these is an argument of `apply_chat_template` that is set here.
    """
    tools = _from_json(row, "tools")
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)
    ):
        raise _bad_column("tools", tools, "a list of JSON schemas of functions")
    variables = _from_json(row, "chat_template_kwargs")
    if variables is not None and not isinstance(variables, Mapping):
        raise _bad_column("chat_template_kwargs", variables, "an object of template variables")
    taken = sorted(_RESERVED & set(variables or ()))
    if taken:
        raise _bad_column(
            "chat_template_kwargs",
            {name: (variables or {})[name] for name in taken},
            f"variables of the template, which {', '.join(taken)} is none of",
        )
    return tuple(tools) if tools else None, dict(variables) if variables else None


def without_nulls(value: Any) -> Any:
    """A value of JSON without null fields, lists and their elements kept."""
    if isinstance(value, Mapping):
        return {
            name: without_nulls(held)
            for name, held in value.items()
            if held is not None or name in _NULLABLE
        }
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def refuse_media_parts(content: object, column: str) -> None:
    """Refuses the content of a message with an image, video or audio part.

    Raises:
        PreferenceDataError: It has one.
    """
    parts = content if isinstance(content, list) else []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _MEDIA_PARTS:
            raise PreferenceDataError(
                f"a message in column {column!r} holds a part of type {kind!r}; required are "
                "messages of text alone, since the models here read text and would judge replies "
                "to something they were not shown. Remove the part if the text stands by itself, "
                'or drop the row (on_bad_row="skip").',
                reason=f"{kind!r} in a message",
            )


def joined_parts(content: Any) -> Any:
    """The text of a content made of text parts; anything else unchanged."""
    if not isinstance(content, list) or not content:
        return content
    texts: list[Any] = [
        part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
        for part in content
    ]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


def messages_of_json(text: str) -> list[dict[str, Any]] | None:
    """The messages in a JSON text, as in tables of text; None for any other text."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        found = parse_json(text)
    except JsonFault as fault:
        if fault.reason in ("not JSON", "nested too deep") or '"role"' not in text:
            return None
        raise _bad_messages(text[:60], fault) from fault
    valid = all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in found)
    return found if valid else None


def with_parsed_calls(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose tool calls have their arguments parsed, where they were JSON text.

    Raises:
        PreferenceDataError: The text is no JSON.
    """
    if not isinstance(message.get("tool_calls"), list):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function") if isinstance(call, Mapping) else None
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(function, Mapping) and isinstance(arguments, str):
            try:
                parsed = parse_json(arguments) if arguments.strip() else {}
            except JsonFault as error:
                raise _bad_column(
                    "arguments", arguments, f"JSON in the arguments of a call ({error})"
                ) from error
            call = {**call, "function": {**function, "arguments": parsed}}
        calls.append(call)
    return {**message, "tool_calls": calls}


def _bad_messages(shown: str, fault: JsonFault) -> PreferenceDataError:
    """The error of a text that holds messages as faulty JSON."""
    return PreferenceDataError(
        f"the text {shown!a} holds messages as JSON, and {fault}; required is JSON with one "
        'meaning. Mend it, or drop the row (on_bad_row="skip").',
        reason=fault.reason,
    )


def _from_json(row: Row, column: str) -> Any:
    if peek(row, column) is None:
        return None
    value = row[column]
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else None
        except JsonFault as error:
            raise _bad_column(column, value, f"JSON where it is text ({error})") from error
    return without_nulls(value)


def _bad_column(column: str, value: object, required: str) -> PreferenceDataError:
    shown = repr(value)
    shown = shown[:60] + "..." if len(shown) > 60 else shown
    return PreferenceDataError(
        f"column {column!r} holds {type(value).__name__} {shown}; required is {required}, or null. "
        'Mend it, or drop the row (on_bad_row="skip").',
        reason=f"bad {column!r}",
    )

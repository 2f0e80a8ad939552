"""Reading of the YAML file given by `--config`, with errors that name the line.

A file holds values alone. It has no aliases, which a few lines of can fill the memory, and no
`env`, which would let a file of settings change the process (`LD_PRELOAD`, `PYTHONPATH`).
"""

import os
import re
import typing
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from prefsearch.config.checks import check_value, nearest, setting_hint, shown
from prefsearch.config.settings import settings_of_class
from prefsearch.storage.text_files import what_lies_at

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LARGEST = 256 * 1024
"""Bytes of a file; the shipped ones have less than a hundredth of that."""
# Python and YAML 1.1 take more for numbers: 1_000, digits of other scripts, 010 for eight and 1:30
# for ninety. Such a text more likely is a slip, or means another number to its author.
_WHOLE = r"[-+]?(?:0|[1-9][0-9]*)"
_INTEGER = re.compile(_WHOLE)
_FLOAT = re.compile(
    rf"(?:{_WHOLE}(?:\.[0-9]*)?|[-+]?\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.?(?:inf|infinity|nan)",  # to be refused by name
    re.IGNORECASE,
)


# YAML's, without octal, hexadecimal, binary and sexagesimal numbers and without underscores.
_PLAIN_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?(?:0|[1-9][0-9]*)",
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}


def read_int(text: str) -> int:
    """Reads an integer.

    Raises:
        ValueError: If it is anything but decimal digits, behind a sign or not.
    """
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no integer in decimal digits")
    return int(text)


def read_float(text: str) -> float:
    """Reads a number such as 3, 0.5, -1e-3 or inf.

    Raises:
        ValueError: If it is anything else.
    """
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no number in decimal digits")
    lowered = text.lower()
    return float(lowered.replace(".", "") if lowered.endswith(("inf", "y", "nan")) else lowered)


class _Loader(yaml.SafeLoader):
    """Safe YAML loader without aliases; errors name the line.

    What is no number in decimal digits is text.
    """

    yaml_implicit_resolvers: typing.ClassVar = {
        first: [(tag, pattern) for tag, pattern in kinds if tag not in _PLAIN_NUMBERS]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(
                None,
                None,
                f"found the alias *{event.anchor}; write the value out",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError, RecursionError) as error:  # an odd date, a huge integer
            raise ConstructorError(
                None, None, f"found {shown(node.value)}, which cannot be read", node.start_mark
            ) from error


for _tag, _pattern in _PLAIN_NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list("-+.0123456789"))
    _read: Any = read_int if _tag.endswith("int") else read_float
    _Loader.add_constructor(_tag, lambda loader, node, read=_read: read(_scalar(loader, node)))


def read_configuration(path: str, config: "type[DataclassInstance]") -> dict[str, object]:
    """Reads the settings of a file.

    Args:
        path: The file.
        config: The dataclass whose fields the settings are.

    Returns:
        The values by name, each of the type and within the bounds that its field declares.

    Raises:
        ValueError: If it is no such file, no mapping, has unknown or repeated keys, or a value is
            wrong; the message names the file, and the line where there is one.
    """
    node, loader = _compose(path, _read_text(path))
    if not isinstance(node, yaml.MappingNode):
        kind = {yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}.get(type(node))
        raise ValueError(f"{path}: found {kind or 'nothing'}; required: a mapping of settings")
    known = list(settings_of_class(config))
    lines: dict[str, int] = {}
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key, value = (_construct(path, loader, part) for part in (key_node, value_node))
        if not isinstance(key, str) or key not in known:
            raise ValueError(_unknown(path, line, key, known))
        if key in lines:
            raise ValueError(
                f"{path}, line {line}: {key} stands in line {lines[key]}, too; required: once. "
                "Remove one of them"
            )
        lines[key] = line
        values[key] = _as_numbers(value, setting_hint(config, key))
        try:
            check_value(config, key, values[key])
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
    return values


def _unknown(path: str, line: int, key: object, known: list[str]) -> str:
    where = f"{path}, line {line}"
    if key == "env":
        return (
            f"{where}: found env; required: settings alone, since a file must not change the "
            "process. Set environment variables in the shell"
        )
    name = key if isinstance(key, str) else shown(key)
    hint = f"{nearest(name, known)}Required: some of {', '.join(known)}"
    return f"{where}: unknown setting {shown(name)[1:-1]}; {hint}"


def _read_text(path: str) -> str:
    """Reads a regular text file of limited size."""
    try:
        if other := what_lies_at(Path(path)):  # a pipe would be waited for, a device never ends
            raise ValueError(f"--config {path}: found {other[0]}; required: a YAML file")
        if (size := os.path.getsize(path)) > _LARGEST:
            raise ValueError(
                f"--config {path}: found {size:,} bytes; required: a YAML file of at most "
                f"{_LARGEST:,}"
            )
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"--config {path}: cannot be read ({reason})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: found no UTF-8; required: YAML in UTF-8") from error


def _compose(path: str, text: str) -> tuple[yaml.Node | None, _Loader]:
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_not_yaml(path, text, error)) from error


def _construct(path: str, loader: _Loader, node: yaml.Node) -> object:
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_not_yaml(path, "", error)) from error


def _not_yaml(path: str, text: str, error: Exception) -> str:
    """One-line description of a YAML error."""
    if isinstance(error, RecursionError):
        return f"--config {path}: found values nested too deeply; required: a mapping of settings"
    where, problem = "", " ".join(str(error).split())
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}"
        problem = " ".join(filter(None, (error.context, error.problem)))
    elif isinstance(error, ReaderError):
        where = f", line {text[: error.position].count(chr(10)) + 1}"
        found: Any = error.character  # a number, though typeshed has it as text
        problem = f"found the character {chr(found)!r}"
    return f"--config {path}{where}: cannot be read as YAML ({problem})"


def _scalar(loader: Any, node: Any) -> str:
    return str(loader.construct_scalar(node))


def _as_numbers(value: object, hint: object) -> object:
    """Converts numbers that YAML reads as strings, such as 1e-3."""
    parts = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    for part in parts:
        base = typing.get_args(part)[0] if typing.get_origin(part) is typing.Annotated else part
        if typing.get_origin(base) in (list, tuple) and isinstance(value, list):
            return [_as_numbers(item, typing.get_args(base)[0]) for item in value]
        if base in (int, float) and isinstance(value, str):
            try:
                return read_int(value) if base is int else read_float(value)
            except ValueError:
                return value
    return value

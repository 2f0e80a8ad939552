"""Checks that a configuration's values have the types its dataclass declares.

YAML and `TrlParser` bypass type hints and `Literal`: a quoted number in a file would travel as a
string to the first line that multiplies it. Each configuration calls `check_types` in its
`__post_init__`, so that the error names the key instead.
"""

import dataclasses
import types
import typing
from typing import Any, Literal, Union


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _fits(value: object, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in parts)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin in (list, tuple):
        item_hint = parts[0] if parts else Any
        return isinstance(value, (list, tuple)) and all(_fits(v, item_hint) for v in value)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def check_types(config: Any) -> None:
    """Checks every field of a dataclass instance against its type hint.

    Understands `int`, `float` (which takes an int), `bool`, `str`, `None`, `Literal`,
    unions, and lists and tuples of these.

    Raises:
        ValueError: Naming the key, the value found and what is required.
    """
    for field in dataclasses.fields(config):
        check_value(type(config), field.name, getattr(config, field.name))


def check_value(config: type, name: str, value: object) -> None:
    """Checks one value against the type hint of a dataclass's field.

    Raises:
        ValueError: As `check_types`.
    """
    hint = typing.get_type_hints(config)[name]
    if not _fits(value, hint):
        raise ValueError(
            f"{name}: found {value!r} ({type(value).__name__}); "
            f"required: {_describe(hint)}. Correct it in the YAML file or on the command line"
        )


def require(condition: bool, name: str, value: object, required: str) -> None:
    """Raises a `ValueError` that names a setting, its value and the bound it breaks."""
    if not condition:
        raise ValueError(f"{name}: found {value!r}; required: {required}")

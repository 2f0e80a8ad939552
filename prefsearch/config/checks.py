"""Validation of settings against the types and bounds of their dataclass.

YAML bypasses type hints: a quoted number would travel as a string to the first line that multiplies
it. Each class of settings calls `check_types` in its `__post_init__`, so that the error names the
key instead. Bounds of numbers stand in the hints, as `Annotated[int, Within(ge=1)]`; NaN and
infinities are refused without any.
"""

import contextlib
import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union

from prefsearch.config.bounds import ANY_TEXT, Within

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SHOWN = 80
"""The most characters of a value that a message shows."""


@functools.cache
def _hints(config: type) -> dict[str, object]:
    return typing.get_type_hints(config, include_extras=True)


def field_hint(config: type, name: str) -> object:
    """The type hint of a dataclass's own field, with its bounds."""
    return _hints(config)[name]


@functools.cache
def setting_hint(config: type, name: str) -> object:
    """The type hint of a setting, a field of a dataclass or of its parts, with its bounds.

    Raises:
        KeyError: If there is no such setting.
    """
    own = _hints(config)
    if name in own and not dataclasses.is_dataclass(own[name]):
        return own[name]
    for part in filter(dataclasses.is_dataclass, own.values()):
        with contextlib.suppress(KeyError):
            return setting_hint(typing.cast(type, part), name)
    raise KeyError(name)


def alternatives(hint: object) -> tuple[object, ...]:
    """The parts of a union, or the hint alone."""
    union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _split(hint: object) -> tuple[object, tuple[Within, ...]]:
    """Splits a hint into its type and its bounds."""
    if typing.get_origin(hint) is not Annotated:
        return hint, ()
    base, *extras = typing.get_args(hint)
    return base, tuple(extra for extra in extras if isinstance(extra, Within))


def without_bounds(hint: object) -> object:
    """A hint's type without what it is annotated with."""
    return _split(hint)[0]


def bounds_of(hint: object) -> tuple[Within, ...]:
    """The bounds of a numeric hint, or of the items of a list hint."""
    found: tuple[Within, ...] = ()
    for part in alternatives(hint):
        base, bounds = _split(part)
        found += bounds
        if typing.get_origin(base) in (list, tuple):
            found += tuple(bound for item in typing.get_args(base)[:1] for bound in bounds_of(item))
    return found


def holds_numbers(hint: object) -> bool:
    """Whether a hint allows numbers, or lists of them."""
    for part in alternatives(hint):
        base, _ = _split(part)
        items = typing.get_args(base)[:1] if typing.get_origin(base) in (list, tuple) else ()
        if base in (int, float) or any(map(holds_numbers, items)):
            return True
    return False


def describe_type(hint: object) -> str:
    """Describes the type that a hint requires."""
    if len(alternatives(hint)) > 1:
        return " or ".join(map(describe_type, alternatives(hint)))
    base, _ = _split(hint)
    if typing.get_origin(base) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(base))
    if typing.get_origin(base) in (list, tuple):
        return f"a list of {describe_type((*typing.get_args(base), object)[0])}"
    if base is type(None):
        return "null"
    return base.__name__ if isinstance(base, type) else str(base)


def describe_bounds(hint: object) -> str:
    """Describes the bounds of a hint; an empty string without bounds."""
    otherwise = "null" if type(None) in alternatives(hint) else ""
    return " and ".join(bound.describe(otherwise) for bound in bounds_of(hint))


def _fits(value: object, hint: object, *, bounded: bool = True) -> bool:
    """Whether a value has a hint's type, and lies within its bounds if `bounded`."""
    if len(alternatives(hint)) > 1:
        return any(_fits(value, part, bounded=bounded) for part in alternatives(hint))
    base, bounds = _split(hint)
    origin, parts = typing.get_origin(base), typing.get_args(base)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in parts)
    if origin in (list, tuple):
        item_hint = parts[0] if parts else object
        return isinstance(value, (list, tuple)) and all(
            _fits(item, item_hint, bounded=bounded) for item in value
        )
    if base in (int, float):
        kinds = (int, float) if base is float else int
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        finite = -math.inf < value < math.inf  # which math.isfinite cannot tell of a huge int
        return not bounded or (finite and all(bound.holds(value) for bound in bounds))
    if base is str:
        nul = ANY_TEXT in typing.get_args(hint)[1:]
        return isinstance(value, str) and (not bounded or is_writable(value, nul=nul))
    return base is Any or (isinstance(base, type) and isinstance(value, base))


def is_writable(text: str, *, nul: bool = False) -> bool:
    """Whether a string is a valid file name in UTF-8: no NUL, no lone surrogate.

    Args:
        text: A setting.
        nul: Whether it names no file and may hold NUL, as text of models may.
    """
    return (nul or "\0" not in text) and not any(
        "\ud800" <= character <= "\udfff" for character in text
    )


def shown(value: object) -> str:
    """A short repr of a value, for messages."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length():,} bits"
    if isinstance(value, str):
        text = repr(value[: _SHOWN + 1])
    else:
        try:
            text = repr(value)
        except (ValueError, RecursionError):  # a list of huge integers, or one nested too deeply
            text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}..."


def nearest(word: str, known: Iterable[str]) -> str:
    """A "did you mean" hint for a misspelled word, or an empty string."""
    spelled = {_plain_name(name): name for name in known}
    plain = _plain_name(word)
    if not plain:
        return ""
    begun = sorted((name for name in spelled if name.startswith(plain)), key=len)
    near = closest(plain, spelled)
    # Three letters are an abbreviation; fewer begin too many names.
    chosen = [*begun, *near] if len(plain) > 2 else [*near, *begun]
    return f"did you mean {spelled[chosen[0]]}? " if chosen else ""


def closest(word: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known words closest to a misspelled one, ignoring case."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=count, cutoff=cutoff)
    return [lowered[name] for name in found]


def _plain_name(name: str) -> str:
    return name.lower().replace("-", "_").strip("_")


def check_types(config: "DataclassInstance") -> None:
    """Checks every field of a dataclass instance against its type hint.

    Understands `int`, `float` (which takes an int), `bool`, `str`, `None`, `Literal`,
    unions, lists and tuples of these, and `Annotated` with bounds (`Within`).

    Raises:
        ValueError: Naming the key, the value found and what is required.
    """
    for field in dataclasses.fields(config):
        _check(field.name, getattr(config, field.name), field_hint(type(config), field.name))


def check_value(config: type, name: str, value: object) -> None:
    """Checks one value against the type hint of a setting.

    Raises:
        ValueError: As `check_types`.
    """
    _check(name, value, setting_hint(config, name))


def _check(name: str, value: object, hint: object) -> None:
    if not _fits(value, hint, bounded=False):
        raise ValueError(
            f"{name}: found {shown(value)} ({type(value).__name__}); "
            f"required: {describe_type(hint)}. Correct it in the YAML file or on the command line"
        )
    if not _fits(value, hint):
        wanted = describe_bounds(hint) or (
            "finite numbers" if holds_numbers(hint) else "text without NUL and lone surrogates"
        )
        each = "each " if isinstance(value, (list, tuple)) and bounds_of(hint) else ""
        require(False, name, value, each + wanted)


def require(condition: bool, name: str, value: object, required: str) -> None:
    """Raises a `ValueError` that names a setting, its value and the bound it breaks."""
    if not condition:
        raise ValueError(f"{name}: found {shown(value)}; required: {required}")

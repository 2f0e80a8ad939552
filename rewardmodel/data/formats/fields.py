"""Checked values of a row."""

import math
from collections.abc import Mapping
from typing import Any

from rewardmodel.data.rows import PreferenceDataError, Row

_SKIP = 'or drop the row (on_bad_row="skip")'


def missing(name: str, row: Row, required: str) -> PreferenceDataError:
    """The error of a missing field."""
    return PreferenceDataError(
        f"{name!r} is missing; found {list(row)}; required is {required}. Pass another format, add "
        f"the field {_SKIP}.",
        reason=f"missing {name!r}",
    )


def bad_value(name: str, value: object, required: str) -> PreferenceDataError:
    """The error of a field with a wrong value."""
    shown = repr(value)
    shown = shown[:60] + "..." if len(shown) > 60 else shown
    return PreferenceDataError(
        f"{name!r} holds {type(value).__name__} {shown}; required is {required}. Mend it {_SKIP}.",
        reason=f"bad {name!r}",
    )


def take_text(row: Row, name: str, *, blank: bool = True) -> str:
    """A text; `blank` allows it to be empty or of white space alone."""
    required = "text" if blank else "text that is not blank"
    if name not in row:
        raise missing(name, row, required)
    value = row[name]
    if not isinstance(value, str) or (not blank and not value.strip()):
        raise bad_value(name, value, required)
    return value


def take_mapping(row: Row, name: str) -> Mapping[str, Any]:
    """An object of named fields."""
    if name not in row:
        raise missing(name, row, "an object of named fields")
    if not isinstance(row[name], Mapping):
        raise bad_value(name, row[name], "an object of named fields")
    return row[name]


def take_list(row: Row, name: str, kind: type, *, required: str) -> list[Any]:
    """A list whose elements are all of one kind."""
    if name not in row:
        raise missing(name, row, required)
    value = row[name]
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise bad_value(name, value, required)
    return value


def take_number(row: Row, name: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [low, high]; a number written as text counts."""
    bounds = "" if math.isinf(low) and math.isinf(high) else f" in [{low:g}, {high:g}]"
    required = f"a finite number{bounds}"
    if name not in row:
        raise missing(name, row, required)
    number = read_number(row[name])
    if not (math.isfinite(number) and low <= number <= high):
        raise bad_value(name, row[name], required)
    return number


def read_number(value: object) -> float:
    """A number, or NaN for anything else (booleans and nulls too)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan

"""Rows as JSON lines."""

import datetime
import decimal
import math
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from prefsearch.storage.json_text import json_text


def json_lines(rows: Sequence[Mapping[str, object]] | Dataset) -> str:
    r"""Rows as JSON lines, each ended by \n; inverse of reading rows of text.

    NaN, a missing number in tables, becomes null; times and decimal numbers become text.

    Raises:
        ValueError: A value has no form in JSON; the message names row and column.
    """
    return "".join(_line(dict(row), number) + "\n" for number, row in enumerate(rows))


def json_values(value: Any, where: str) -> Any:
    """A value as `json_lines` writes it; `where` names it in messages.

    Raises:
        ValueError: It has no form in JSON.
    """
    if isinstance(value, Mapping):
        return {f"{key}": json_values(held, f"{where}[{key!r}]") for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(held, f"{where}[{index}]") for index, held in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
    elif value is None or isinstance(value, str | bool | int | float):
        return value
    elif isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    elif isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    raise ValueError(
        f"{where} holds {type(value).__name__} {str(value)[:40]!a}, which JSON cannot hold; "
        "required: text, numbers, lists or mappings. Remove the column, or convert it"
    )


def _line(row: Mapping[str, object], number: int) -> str:
    try:
        return json_text(row)
    except ValueError:
        columns = {
            name: json_values(value, f"row {number}, {name!r}") for name, value in row.items()
        }
        return json_text(columns)

"""Strict JSON serialization.

NaN and infinities are no JSON, although Python writes them: files with them cannot be read by
other programs. They are refused here, by the path to the first.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any


def json_text(
    value: Any,
    *,
    indent: int | None = None,
    ascii_only: bool = False,
    sort_keys: bool = False,
    separators: tuple[str, str] | None = None,
) -> str:
    """Serializes a value as JSON.

    Args:
        value: Plain Python: mappings, lists, texts, numbers, None.
        indent: Spaces a level; None writes one line.
        ascii_only: Whether other characters are escaped.
        sort_keys: Whether keys stand in order.
        separators: Between items, and between key and value; None takes the usual.

    Raises:
        ValueError: If a number in it is NaN or infinite, the message names where; or there is
            something in it that JSON does not have.
    """
    try:
        return json.dumps(
            value,
            indent=indent,
            ensure_ascii=ascii_only,
            sort_keys=sort_keys,
            separators=separators,
            allow_nan=False,
        )
    except TypeError as error:
        raise ValueError(f"found a value that JSON does not have ({error})") from error
    except ValueError as error:
        where, found = next(_not_finite(value, "value"), (None, None))
        if where is None:
            raise
        raise ValueError(
            f"{where}: found {found}, which JSON does not have; required: a finite number, or null"
        ) from error


def _not_finite(value: Any, where: str) -> Iterator[tuple[str, float]]:
    """Where numbers stand that are not finite, and which they are."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, float) and not math.isfinite(key):
                yield f"{where}, a key", key
            yield from _not_finite(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _not_finite(item, f"{where}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, value

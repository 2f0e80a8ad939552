"""Records gathered into a dataset by chunks, so that text is not held twice.

Knows which of the project's columns hold numbers or lists; everything else is text.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

CHUNK_ROWS = 10_000
_NUMBER = Value("float64")
_FEATURES: Mapping[str, Any] = {
    "margin": _NUMBER,
    "chosen_probability": _NUMBER,
    "confidence": _NUMBER,
    "responses": List(Value("string")),
    "ranks": List(Value("int64")),
}


def gather(records: Iterable[Mapping[str, Any]], features: Mapping[str, Any] = {}) -> Dataset:
    """Make a dataset of records that all have the columns of the first.

    Args:
        records: At least one; a null is allowed in any column.
        features: Arrow types of columns that are no text, beside the project's own.
    """
    known = {**_FEATURES, **features}
    parts: list[Dataset] = []
    rows = iter(records)
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        columns = {name: [record[name] for record in chunk] for name in chunk[0]}
        types = Features({name: known.get(name, Value("string")) for name in columns})
        parts.append(Dataset.from_dict(columns, features=types))
    return concatenate_datasets(parts)

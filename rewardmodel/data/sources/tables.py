"""Gathering records into a dataset, in chunks.

The types of the project's columns are known; lists of messages stay such lists, everything else is
text.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset, Features, Json, List, Value, concatenate_datasets

from rewardmodel.data.conversation import TEMPLATE_COLUMNS
from rewardmodel.data.parsing.finished import PAIR_COLUMNS

CHUNK_ROWS = 10_000
_NUMBER = Value("float64")
_FEATURES: Mapping[str, object] = {
    "margin": _NUMBER,
    "chosen_probability": _NUMBER,
    "confidence": _NUMBER,
    "finished": Value("bool"),
    **dict.fromkeys(PAIR_COLUMNS, Value("bool")),
    "responses": List(Value("string")),
    "ranks": List(Value("int64")),
    "tools": List(Json()),
    "chat_template_kwargs": Json(),
}
_OPTIONAL = (*TEMPLATE_COLUMNS, "finished")


def gather(records: Iterable[Mapping[str, object]], features: Mapping[str, object] = {}) -> Dataset:
    """Makes a dataset of at least one record, all with the columns of the first; nulls are allowed.

    `features` are Arrow types of further columns that are no text.
    """
    known = {**_FEATURES, **features}
    parts: list[Dataset] = []
    rows = iter(records)
    extra: set[str] = set()
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        columns = {name: [record[name] for record in chunk] for name in chunk[0]}
        for name in _OPTIONAL:  # rows may lack what others have
            columns[name] = [record.get(name) for record in chunk]
            if any(value is not None for value in columns[name]):
                extra.add(name)
        types = Features(
            {name: known.get(name) or _text_or_messages(columns[name]) for name in columns}
        )
        parts.append(Dataset.from_dict(columns, features=types))
    whole = concatenate_datasets(parts)
    return whole.remove_columns([name for name in _OPTIONAL if name not in extra])


def _text_or_messages(values: list[Any]) -> Any:
    return List(Json()) if any(isinstance(value, list) for value in values) else Value("string")

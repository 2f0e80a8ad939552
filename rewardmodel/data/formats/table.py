"""Data formats, recognized by hub id or by the columns of the first row.

`rewardmodel.choices.FORMATS` names them and where each is defined. Rows of no known format are
"plain": their columns are taken as they are.
"""

import os
from collections.abc import Mapping
from pkgutil import resolve_name

from rewardmodel import choices
from rewardmodel.data.formats.format import Format
from rewardmodel.data.rows import Row

FORMATS: Mapping[str, Format] = {
    name: resolve_name(place) for name, place in choices.FORMATS.items()
}


def format_named(name: str) -> Format | None:
    """The format of a name; None for "auto" and "plain".

    Raises:
        ValueError: There is no such format.
    """
    if name in ("auto", "plain"):
        return None
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; required is one of:\n{describe_formats()}")
    return FORMATS[name]


def format_of_source(source: str | os.PathLike[str]) -> Format | None:
    """The format of a hub id, or None."""
    return next((found for found in FORMATS.values() if os.fspath(source) in found.hub), None)


def hub_options(source: str | os.PathLike[str]) -> Mapping[str, str]:
    """Further arguments of `datasets.load_dataset` for a hub id."""
    found = format_of_source(source)
    return found.hub[os.fspath(source)] if found else {}


def recognize(row: Row) -> Format | None:
    """The format whose columns a row has, or None."""
    columns = set(row)
    return next(
        (found for found in FORMATS.values() if any(s <= columns for s in found.signatures)), None
    )


def describe_formats() -> str:
    """One line per format, for help and errors."""
    lines = [
        "  auto: by the hub id or the columns of the first row",
        "  plain: columns as they are",
    ]
    return "\n".join([*lines, *(f"  {f.name}: {f.description}" for f in FORMATS.values())])

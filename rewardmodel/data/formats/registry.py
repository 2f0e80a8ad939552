"""Registry of data formats, by name, hub id or the columns of the first row; imports nothing heavy.

Rows of no known format are "plain": their columns are taken as they are.
"""

import os
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rewardmodel.data.formats.format import Format
    from rewardmodel.data.rows import Row

FORMATS: dict[str, str] = {
    "hh": "rewardmodel.data.formats.hh:FORMAT",
    "tldr": "rewardmodel.data.formats.tldr:FORMAT",
    "ultrafeedback": "rewardmodel.data.formats.ultrafeedback:FORMAT",
    "rewardbench": "rewardmodel.data.formats.rewardbench:FORMAT",
    "rewardbench2": "rewardmodel.data.formats.rewardbench:FORMAT_2",
    "qa_feedback": "rewardmodel.data.formats.qa_feedback:FORMAT",
    "scores": "rewardmodel.data.formats.ranked:SCORES",
    "rankings": "rewardmodel.data.formats.ranked:RANKINGS",
}
"""Data formats by name, and where each is defined; a new one is a module and an entry here."""
if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[("auto", "plain", *FORMATS)]


def load_formats() -> "list[Format]":
    """All formats, in the order in which columns are matched."""
    return [resolve_name(place) for place in FORMATS.values()]


def format_named(name: str) -> "Format | None":
    """The format of a name; None for "auto" and "plain".

    Raises:
        ValueError: There is no such format.
    """
    if name in ("auto", "plain"):
        return None
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; required is one of:\n{describe_formats()}")
    return resolve_name(FORMATS[name])


def format_of_source(source: str | os.PathLike[str]) -> "Format | None":
    """The format of a hub id, or None."""
    return next((found for found in load_formats() if os.fspath(source) in found.hub), None)


def hub_options(source: str | os.PathLike[str]) -> Mapping[str, str]:
    """Further arguments of `datasets.load_dataset` for a hub id."""
    found = format_of_source(source)
    return found.hub[os.fspath(source)] if found else {}


def recognize(row: "Row") -> "Format | None":
    """The format whose columns a row has, or None."""
    columns = set(row)
    return next(
        (found for found in load_formats() if any(s <= columns for s in found.signatures)), None
    )


def describe_formats() -> str:
    """One line per format, for help and errors."""
    lines = [
        "  auto: by the hub id or the columns of the first row",
        "  plain: columns as they are",
    ]
    return "\n".join([*lines, *(f"  {f.name}: {f.description}" for f in load_formats())])

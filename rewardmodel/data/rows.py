"""A row of user data, the place it was read from, and what happens to the bad ones.

A row is a mapping of column names to whatever stood there. A place that could not be read is
handed on as a `PreferenceDataError` instead, so that one loop decides whether it ends the loading
or is counted. Knows neither files nor preferences.
"""

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
OnBadRow = Literal["error", "skip"]
Record = TypeVar("Record")


class PreferenceDataError(ValueError):
    """User data that cannot be used; the message names place, finding, requirement and remedy.

    Attributes:
        reason: The kind of bad row in a few words, by which skipped rows are counted; None where
            the fault is not one row's (a missing tokenizer, a missing file) and cannot be skipped.
    """

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        """Hold the message and the reason by which it is counted."""
        super().__init__(message)
        self.reason = reason

    def at(self, location: str) -> "PreferenceDataError":
        """Return the same error with the place in front."""
        return PreferenceDataError(f"{location}: {self}", reason=self.reason)


Place = tuple[str, Row | PreferenceDataError]
"""A location, `file:line` or `file[row]`, and what was found there."""


@dataclass(frozen=True)
class LeftOut:
    """A part of a good row that holds nothing to learn from: no fault, but counted.

    Attributes:
        reason: Why, in a few words, by which parts are counted.
    """

    reason: str


def parse_rows(
    places: Iterator[Place],
    parse: Callable[[Row], Record | list[Record | LeftOut] | None],
    *,
    source: object,
    on_bad_row: OnBadRow,
    limit: int | None,
) -> Iterator[Record]:
    """Yield `parse(row)` for each good row, and end or count at each bad one.

    A row may give several records, as a list. A row for which `parse` returns None is good but not
    wanted, such as a repeated prompt. `limit` counts records.

    Raises:
        PreferenceDataError: At the first bad row where `on_bad_row` is "error"; at the end where
            no row was good.
        ValueError: `on_bad_row` or `limit` is not allowed.
    """
    if on_bad_row not in ("error", "skip"):
        raise ValueError(f'on_bad_row is {on_bad_row!r}; use "error" or "skip".')
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; use a positive number of rows, or None for all.")
    skipped: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    first: PreferenceDataError | None = None
    kept = 0
    # Seen only where reading takes longer than two seconds.
    bar = tqdm(places, desc=f"reading {source}", unit=" rows", delay=2, leave=False)
    for location, row in bar:
        try:
            if isinstance(row, PreferenceDataError):
                raise row
            parsed = parse(row)
        except PreferenceDataError as error:
            placed = error.at(location)
            if on_bad_row == "error" or error.reason is None:
                raise placed from error
            skipped[error.reason] += 1
            first = first or placed
            continue
        records = parsed if isinstance(parsed, list) else [parsed]
        for record in cast("list[Record | LeftOut | None]", records):
            if isinstance(record, LeftOut):
                left_out[record.reason] += 1
            elif record is not None and kept != limit:
                yield record
                kept += 1
        if kept == limit:
            break
    counts, parts = _counted(skipped), _counted(left_out)
    if not kept:
        found = f" Skipped {counts}. The first was {first}" if skipped else ""
        found += f" Left out {parts}." if left_out else ""
        raise PreferenceDataError(f"{source}: no usable row.{found}")
    if left_out:
        logger.warning("%s: left out %d and kept %d (%s)", *(source, left_out.total(), kept, parts))
    if skipped:
        logger.warning(
            "%s: skipped %d bad rows and kept %d (%s). The first was %s",
            *(source, skipped.total(), kept, counts, first),
        )


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


def nearest_name(name: str, names: list[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of `names` most like `name` regardless of case, or None."""
    lowered = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=cutoff)
    return lowered[found[0]] if found else None

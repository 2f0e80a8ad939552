"""A row of user data, the place it was read from, and what happens to the bad ones.

A row is a mapping of column names to whatever stood there. A place that could not be read is
handed on as a `PreferenceDataError` instead, so that one loop decides whether it ends the loading
or is counted. Knows neither files nor preferences.
"""

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

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


def parse_rows(
    places: Iterator[Place],
    parse: Callable[[Row], Record | None],
    *,
    source: object,
    on_bad_row: OnBadRow,
    limit: int | None,
) -> Iterator[Record]:
    """Yield `parse(row)` for each good row, and end or count at each bad one.

    A row for which `parse` returns None is good but not wanted, such as a repeated prompt.

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
    first: PreferenceDataError | None = None
    kept = 0
    # Seen only where reading takes longer than two seconds.
    bar = tqdm(places, desc=f"reading {source}", unit=" rows", delay=2, leave=False)
    for location, row in bar:
        try:
            if isinstance(row, PreferenceDataError):
                raise row
            record = parse(row)
        except PreferenceDataError as error:
            placed = error.at(location)
            if on_bad_row == "error" or error.reason is None:
                raise placed from error
            skipped[error.reason] += 1
            first = first or placed
            continue
        if record is None:
            continue
        yield record
        kept += 1
        if kept == limit:
            break
    counts = ", ".join(f"{count} x {reason}" for reason, count in skipped.most_common())
    if not kept:
        raise PreferenceDataError(
            f"{source}: no usable row. Skipped {counts}. The first was {first}"
        )
    if skipped:
        logger.warning(
            "%s: skipped %d bad rows and kept %d (%s). The first was %s",
            *(source, skipped.total(), kept, counts, first),
        )


def nearest_name(name: str, names: list[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of `names` most like `name` regardless of case, or None."""
    lowered = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=cutoff)
    return lowered[found[0]] if found else None

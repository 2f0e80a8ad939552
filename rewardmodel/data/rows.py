"""Rows of user data with their locations, and the handling of bad ones.

A row is a mapping of column names to values. A location that could not be read yields a
`PreferenceDataError` instead, so that one loop decides whether to stop or to count it. A row
records which of its columns were read, so that loaders can name the unused ones.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from prefsearch.progress import track
from prefsearch.storage.json_text import unusable_text
from prefsearch.storage.visible_text import visible
from rewardmodel.choices import OnBadRow

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Record = TypeVar("Record")


class PreferenceDataError(ValueError):
    """User data that cannot be used; the message names location, finding, requirement and remedy.

    Attributes:
        reason: The kind of bad row in a few words, by which skipped rows are counted; None where
            the fault is not one row's (a missing tokenizer, a missing file) and cannot be skipped.
    """

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        """Takes the message and the reason by which it is counted."""
        super().__init__(message)
        self.reason = reason

    def at(self, location: str) -> "PreferenceDataError":
        """The same error with the location in front."""
        return PreferenceDataError(f"{location}: {self}", reason=self.reason)


Place = tuple[str, Row | PreferenceDataError]
"""A location, `file:line` or `file[row]`, and what was found there."""


class ColumnTrackingRow(dict[str, object]):
    """A row that records which of its columns were read.

    Attributes:
        read: Columns whose value was read; `in`, iterating and copying the row do not count.
        aside: Columns that the row's format is known to have and that are not used.
        notes: Remarks for the user, by which rows are counted.
    """

    def __init__(self, row: Row) -> None:
        """Copies the columns; none has been read."""
        super().__init__(row)
        self.read: set[str] = set()
        self.aside: frozenset[str] = frozenset()
        self.notes: list[str] = []

    def __getitem__(self, column: str) -> Any:
        """A column's value; records that it was read."""
        self.read.add(column)
        return super().__getitem__(column)

    def get(self, column: str, default: Any = None, /) -> Any:
        """A column's value or the default; records that it was read."""
        self.read.add(column)
        return super().get(column, default)


def peek(row: Row, column: str) -> Any:
    """A column's value or None, without counting the column as read."""
    return dict.get(row, column) if isinstance(row, dict) else row.get(column)


def leave_aside(row: Row, columns: frozenset[str]) -> None:
    """Records columns of a row that are known to be unused."""
    if isinstance(row, ColumnTrackingRow):
        row.aside = columns


def note(row: Row, text: str) -> None:
    """Records a remark on a row for the user."""
    if isinstance(row, ColumnTrackingRow):
        row.notes.append(text)


class ColumnUse:
    """The columns of a source and which of them were read, over all of its good rows."""

    def __init__(self) -> None:
        """Starts with no columns."""
        self._filled: dict[str, None] = {}  # in the order of the source
        self._read: set[str] = set()
        self._aside: set[str] = set()

    def add(self, row: ColumnTrackingRow) -> None:
        """Adds a row that was parsed."""
        self._filled.update(
            (column, None) for column in row if not _is_empty(dict.get(row, column))
        )
        self._read |= row.read
        self._aside |= row.aside

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that hold something and were read in no row."""
        return tuple(column for column in self._filled if column not in self._read)

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Unused columns that the source's format does not account for."""
        return tuple(column for column in self.unused if column not in self._aside)


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


_MEDIA = frozenset(
    f"{name}{ending}"
    for name in ("image", "video", "audio")
    for ending in ("", "s", "_url", "_urls", "_path", "_paths")
) | {"pixel_values"}


def refuse_media(row: Row) -> None:
    """Refuses a row with images, video or audio, which no model here reads.

    Raises:
        PreferenceDataError: Such a column holds something.
    """
    for column in row:
        if column.lower() in _MEDIA and not _is_empty(peek(row, column)):
            raise PreferenceDataError(
                f"column {column!r} holds {type(peek(row, column)).__name__}; required are rows of "
                "text alone, since the models here read text and would judge replies to something "
                "they were not shown. Remove the column if the text stands by itself, or drop the "
                'row (on_bad_row="skip").',
                reason=f"{column!r} beside the text",
            )


def refuse_unusable_text(row: Row) -> None:
    """Refuses a row with text that models and UTF-8 files cannot hold.

    Raises:
        PreferenceDataError: A text, or a name, holds a lone surrogate or a NUL character, or values
            are nested too deep.
    """
    found = unusable_text(row)
    if found is not None:
        raise PreferenceDataError(
            f"{found[0]}; required is text that UTF-8 can hold, without NUL characters, in values "
            'that are not nested deeper. Mend it, or drop the row (on_bad_row="skip").',
            reason=found[1],
        )


@dataclass(frozen=True)
class SkippedPart:
    """A part of a good row that is not used, but counted.

    Attributes:
        reason: Why, in a few words, by which parts are counted.
    """

    reason: str


def parse_rows(
    places: Iterator[Place],
    parse: Callable[[Row], Record | list[Record | SkippedPart] | None],
    *,
    source: object,
    on_bad_row: OnBadRow,
    limit: int | None,
    columns: ColumnUse | None = None,
) -> Iterator[Record]:
    """Yields `parse(row)` for each good row, and stops at or counts each bad one.

    A row may give several records, as a list, or None, such as for a repeated prompt. `limit`
    counts records. Columns that no good row was read for are named in one warning at the end, and
    gathered in `columns`.

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
    notes: Counter[str] = Counter()
    first: PreferenceDataError | None = None
    columns = columns or ColumnUse()
    kept = 0
    for location, found in track(places, visible(f"reading {source}")):
        try:
            if isinstance(found, PreferenceDataError):
                raise found
            refuse_unusable_text(found)
            refuse_media(found)
            row = ColumnTrackingRow(found)
            parsed = parse(row)
        except PreferenceDataError as error:
            placed = error.at(location)
            if on_bad_row == "error" or error.reason is None:
                raise placed from error
            skipped[error.reason] += 1
            first = first or placed
            continue
        columns.add(row)
        notes.update(row.notes)
        records = parsed if isinstance(parsed, list) else [parsed]
        for record in cast("list[Record | SkippedPart | None]", records):
            if isinstance(record, SkippedPart):
                left_out[record.reason] += 1
            elif record is not None and kept != limit:
                yield record
                kept += 1
        if kept == limit:
            break
    counts, parts = _counted(skipped), _counted(left_out)
    if not kept:
        why = f" Skipped {counts}. The first was {first}" if skipped else ""
        why += f" Left out {parts}." if left_out else ""
        raise PreferenceDataError(f"{source}: no usable row.{why}")
    if notes:
        logger.warning("%s: %s", source, _counted(notes))
    if columns.unexpected:
        logger.warning("%s: not used: %s", source, name_columns(columns.unexpected))
    if left_out:
        logger.warning("%s: left out %d and kept %d (%s)", *(source, left_out.total(), kept, parts))
    if skipped:
        logger.warning(
            "%s: skipped %d bad rows and kept %d (%s). The first was %s",
            *(source, skipped.total(), kept, counts, first),
        )


def name_columns(columns: Iterable[str]) -> str:
    """Columns as messages name them."""
    quoted = [repr(column) for column in columns]
    return f"column{'s' if len(quoted) > 1 else ''} {', '.join(quoted)}"


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())

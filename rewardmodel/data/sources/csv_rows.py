"""Rows of a CSV file under its header.

Lines end with a line feed, and fields in quotes keep every other character.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prefsearch.storage.text_files import MOST_LINE_BYTES, UnreadableFile, read_lines
from rewardmodel.data.rows import Place, PreferenceDataError, name_columns

_MOST_ROW_LINES = 1_000_000
_ENDLESS = "found a quoted field that does not end; required are fields whose quotes are closed"


def read_csv_rows(path: Path) -> Iterator[Place]:
    """Yields a row for each record under the header, with the line where it begins.

    Raises:
        UnreadableFile: The rest of the file cannot be read: a line or a field is too long, or a
            quoted field never ends.
        PreferenceDataError: Several columns have one name.
    """
    csv.field_size_limit(MOST_LINE_BYTES)  # replies longer than csv's 128 KiB are ordinary
    began = [0]
    reader = csv.reader(_lines(path, began), strict=True)
    header: list[str] | None = None
    while True:
        began[0] = reader.line_num
        location = f"{path}:{began[0] + 1}"  # a quoted field may run over several lines
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            endless = "unexpected end" in str(error) or "field limit" in str(error)
            if endless:
                raise UnreadableFile(location, f"{_ENDLESS} ({error}). Close its quote.") from error
            broken = _not_csv(error)
            if header is None:
                raise UnreadableFile(location, f"{broken}") from error
            yield location, broken
            continue
        if not fields:
            continue
        if any(_undecoded(field) for field in fields):
            problem = PreferenceDataError(
                "not UTF-8 text (some bytes of the row); save the file as UTF-8.",
                reason="not UTF-8",
            )
            if header is None:
                raise problem.at(location)
            yield location, problem
        elif header is None:
            header = _header(fields, location)
        elif len(fields) == len(header):
            yield location, dict(zip(header, fields, strict=True))
        else:
            yield location, _ragged(len(fields), len(header))


def _lines(path: Path, began: list[int]) -> Iterator[str]:
    """The lines; bytes that are not UTF-8 become surrogates, for their row to be refused.

    `began[0]` is the number of lines before the row that is being read; changed from outside.
    """
    for number, line in read_lines(path, blank_too=True):
        if number - began[0] > _MOST_ROW_LINES:
            raise UnreadableFile(
                f"{path}:{began[0] + 1}",
                f"{_ENDLESS} within {_MOST_ROW_LINES:,} lines. Close its quote.",
            )
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")


def _undecoded(field: str) -> bool:
    return not field.isascii() and any("\udc80" <= character <= "\udcff" for character in field)


def _header(fields: list[str], location: str) -> list[str]:
    twice = [name for name, count in Counter(fields).items() if count > 1]
    if twice:
        raise PreferenceDataError(
            f"{location}: the header names {name_columns(twice)} more than once; required is one "
            "column of each name. Rename or remove the others."
        )
    return fields


def _not_csv(error: csv.Error) -> PreferenceDataError:
    return PreferenceDataError(
        f"not CSV ({error}); required are fields with line breaks, commas or quotes in quotes, "
        "quotes inside them doubled, and rows that end with a line feed. Mend the row.",
        reason="not CSV",
    )


def _ragged(found: int, required: int) -> PreferenceDataError:
    return PreferenceDataError(
        f"found {found} fields under a header of {required} columns; required is one field a "
        "column. Quote the fields that contain commas or line breaks.",
        reason="wrong number of fields",
    )

"""Rows of one data file, each with its line or row: JSON, CSV, Parquet, plain text.

Files are streamed, all but a JSON list, and text is decoded line by line, so that an error names
the line it is on. Knows formats; does not know what the columns mean.
"""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from rewardmodel.data.rows import Place, PreferenceDataError, Row

PLAIN_LINE = "a line of plain text"
"""The one column of a `.txt` file, which names none."""

FILE_KINDS = (".jsonl", ".json", ".parquet", ".csv", ".txt")
_READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError, csv.Error)
_BATCH_ROWS = 1000


def file_kind(path: Path) -> str:
    """Return the file kind from the name, compression aside."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_file(path: Path) -> Iterator[Place]:
    """Yield a file's rows; where the rest cannot be read, or nothing is in it, an error.

    Raises:
        PreferenceDataError: The file's name says no known kind.
    """
    readers = {
        ".json": _read_json,
        ".jsonl": _read_json,
        ".csv": _read_csv,
        ".txt": _read_text,
        ".parquet": _read_parquet,
    }
    reader = readers.get(file_kind(path))
    if reader is None:
        raise PreferenceDataError(
            f"{path} ends in {path.suffix or 'nothing'!r}; required is one of "
            f"{', '.join(FILE_KINDS)} (.gz too). Convert or rename it."
        )
    read_any = False
    try:
        for place in reader(path):
            yield place
            read_any = True
    except _READ_ERRORS as error:
        yield (
            f"{path}",
            PreferenceDataError(
                f"unreadable from here on ({type(error).__name__}: {error}); required is a whole "
                f"{file_kind(path)} file in UTF-8. Write or download it again.",
                reason="unreadable rest of a file",
            ),
        )
        return
    if not read_any:
        yield (
            f"{path}",
            PreferenceDataError("the file holds no row; pass one that does.", reason="empty file"),
        )


def _open_bytes(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _read_lines(path: Path) -> Iterator[tuple[int, str | PreferenceDataError]]:
    """Yield the line number, from 1, and text of every line that is not blank."""
    with _open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield (
                    number,
                    PreferenceDataError(
                        f"not UTF-8 text ({error}); save the file as UTF-8.", reason="not UTF-8"
                    ),
                )


def _read_text(path: Path) -> Iterator[Place]:
    for number, line in _read_lines(path):
        row = line if isinstance(line, PreferenceDataError) else {PLAIN_LINE: line.rstrip("\r\n")}
        yield f"{path}:{number}", row


def _read_json(path: Path) -> Iterator[Place]:
    """Read objects one a line, or a list of objects, told apart by the first character."""
    for _, line in _read_lines(path):
        if isinstance(line, str) and line.lstrip().startswith("["):
            yield from _read_json_list(path)
            return
        break
    for number, line in _read_lines(path):
        if isinstance(line, PreferenceDataError):
            yield f"{path}:{number}", line
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            value = PreferenceDataError(
                f"not JSON ({error.msg} at column {error.colno}); required is one object a line, "
                "or one list of objects for the whole file. Mend the line.",
                reason="not JSON",
            )
        yield f"{path}:{number}", _require_object(value)


def _read_json_list(path: Path) -> Iterator[Place]:
    with _open_bytes(path) as file:
        text = file.read().decode("utf-8-sig")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        yield (
            f"{path}:{error.lineno}",
            PreferenceDataError(
                f"not JSON ({error.msg} at column {error.colno}); required is one list of objects "
                "for the whole file. Mend the line.",
                reason="not JSON",
            ),
        )
        return
    for index, value in enumerate(values):
        yield f"{path}[{index}]", _require_object(value)


def _require_object(value: Any) -> Row | PreferenceDataError:
    if isinstance(value, dict | PreferenceDataError):
        return value
    return PreferenceDataError(
        f"found a JSON {type(value).__name__}; required is an object of named columns.",
        reason="not an object",
    )


def _read_csv(path: Path) -> Iterator[Place]:
    csv.field_size_limit(sys.maxsize)  # replies longer than csv's 128 KiB default are ordinary
    with _open_bytes(path) as file:
        lines = (
            line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(file)
        )
        reader = csv.reader(lines, strict=True)
        header = next(reader, [])
        line = reader.line_num + 1  # a row's first line: a quoted field may run over several
        for fields in reader:
            location, line = f"{path}:{line}", reader.line_num + 1
            if not fields:
                continue
            if len(fields) == len(header):
                yield location, dict(zip(header, fields, strict=True))
                continue
            problem = PreferenceDataError(
                f"found {len(fields)} fields under a header of {len(header)} columns; required is "
                "one field a column. Quote the fields that contain commas or line breaks.",
                reason="wrong number of fields",
            )
            yield location, problem


def _read_parquet(path: Path) -> Iterator[Place]:
    index = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                yield f"{path}[{index}]", row
                index += 1

"""Rows of one data file, with their locations: JSON, CSV, Parquet, plain text.

Files are streamed, and text is decoded line by line, so that errors name their line.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prefsearch.storage.text_files import UnreadableFile, read_lines, refuse_special
from rewardmodel.data.rows import Place, PreferenceDataError, name_columns
from rewardmodel.data.sources.csv_rows import read_csv_rows
from rewardmodel.data.sources.json_rows import decoded, read_json_rows
from rewardmodel.data.sources.paths import FILE_KINDS, file_kind

PLAIN_LINE = "a line of plain text"
"""The one column of a `.txt` file, which names none."""

_READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError)
_BATCH_ROWS = 1000


def read_file(path: Path) -> Iterator[Place]:
    """Yields a file's rows, and an error where the rest cannot be read or there are none.

    Raises:
        PreferenceDataError: The file's suffix is unknown, it is no regular file, or several columns
            have one name.
    """
    readers = {
        ".json": read_json_rows,
        ".jsonl": read_json_rows,
        ".csv": read_csv_rows,
        ".txt": _read_text,
        ".parquet": _read_parquet,
    }
    kind = file_kind(path)
    if kind not in readers:
        twice = "; it is compressed twice" if kind == ".gz" else ""
        raise PreferenceDataError(
            f"{path} ends in {path.suffix or 'nothing'!r}{twice}; required is one of "
            f"{', '.join(FILE_KINDS)} (.gz too). Convert or rename it."
        )
    try:
        refuse_special(path)
    except UnreadableFile as error:
        raise PreferenceDataError(str(error)) from error
    read_any = False
    try:
        for place in readers[kind](path):
            yield place
            read_any = True
    except UnreadableFile as error:
        yield (
            error.place,
            PreferenceDataError(error.problem, reason="unreadable rest of a file"),
        )
        return
    except _READ_ERRORS as error:
        yield (
            f"{path}",
            PreferenceDataError(
                f"unreadable from here on ({type(error).__name__}: {error}); required is a whole "
                f"{kind} file in UTF-8. Write or download it again.",
                reason="unreadable rest of a file",
            ),
        )
        return
    if not read_any:
        yield (
            f"{path}",
            PreferenceDataError("the file holds no row; pass one that does.", reason="empty file"),
        )


def _read_text(path: Path) -> Iterator[Place]:
    for number, line in read_lines(path):
        text = decoded(line, number)
        if isinstance(text, str):
            text = text.removesuffix("\n").removesuffix("\r")
        yield f"{path}:{number}", {PLAIN_LINE: text} if isinstance(text, str) else text


def _read_parquet(path: Path) -> Iterator[Place]:
    index = 0
    with pq.ParquetFile(path) as file:
        twice = [name for name, n in Counter(file.schema_arrow.names).items() if n > 1]
        if twice:
            raise PreferenceDataError(
                f"{path}: {name_columns(twice)} is there more than once; required is one column of "
                "each name. Rename or remove the others."
            )
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                yield f"{path}[{index}]", row
                index += 1

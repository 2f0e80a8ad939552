"""Atomic file writes, and records in JSON Lines files.

A file written here is either the old one or the new one, never half of one. `records.jsonl` grows
a line at a time, so a killed run loses at most the line it was writing. This file does not know
what a record means.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from prefsearch.storage.errors import naming_path
from prefsearch.storage.json_text import json_text, to_plain
from prefsearch.storage.scratch_files import remove_leftovers_once, temporary_file

logger = logging.getLogger(__name__)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> Path:
    """Replace a file by `data` in one step, creating missing parent folders.

    The data goes to a temporary file beside the target, reaches the disk, and takes the target's
    name. A symbolic link is followed, so the link survives.

    Returns:
        The path as given.

    Raises:
        StorageError: the file could not be written; the old file, if any, is untouched and no
            temporary file is left.
    """
    path = Path(path)
    with naming_path(path, "write"):
        target = Path(os.path.realpath(path))
        # Renaming over a device or a pipe (/dev/full, say) would destroy it.
        if target.exists() and not target.is_file():
            code = errno.EISDIR if target.is_dir() else errno.EINVAL
            raise OSError(code, "the target exists and is not a regular file")
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_once(target.parent)
        temporary = temporary_file(target)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                _flush_to_disk(file)
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(target.parent)
    return path


def write_text_atomic(path: str | os.PathLike[str], text: str) -> Path:
    """Replace a file by `text` in UTF-8; see `write_bytes_atomic`."""
    return write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | os.PathLike[str], value: object) -> Path:
    """Replace a file by `value` as indented JSON; see `write_bytes_atomic`.

    Numpy and torch numbers and arrays, dataclasses and paths are written as plain JSON.

    Raises:
        ValueError: the value holds NaN or an infinity, a key that is not a string, or an object
            that JSON cannot hold.
        StorageError: the file could not be written.
    """
    text = json_text(to_plain(value), indent=2)
    return write_bytes_atomic(path, _json_bytes(text + "\n"))


def append_record(path: str | os.PathLike[str], record: Mapping[str, object]) -> None:
    """Append one record as one line of JSON and wait until it is on the disk.

    A torn last line that a killed run left behind is cut off first, with a warning: a record
    written after it would be lost with it. A file has one writer at a time.

    Raises:
        ValueError: the record holds NaN or an infinity, a key that is not a string, or an object
            that JSON cannot hold.
        StorageError: the line could not be written; what had been written of it is cut off again.
    """
    path = Path(path)
    plain = to_plain(record, "record")
    if not isinstance(plain, dict):
        raise ValueError(f"a record is a mapping, found {type(record).__name__}: wrap it in one")
    line = _json_bytes(json_text(plain) + "\n")
    with naming_path(path, "append to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            end = _end_of_last_record(path, file) if regular else 0
            try:
                view = memoryview(line)
                while view:  # an unbuffered write may take only part of the line
                    view = view[file.write(view) :]
                _flush_to_disk(file)
            except BaseException:
                if regular:
                    file.truncate(end)
                raise


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read every record of a file that `append_record` wrote.

    A last line without its newline that does not parse was torn by a kill: it is dropped with a
    warning. (A record is an object, so no proper prefix of one is valid JSON.) Blank lines are
    skipped.

    Raises:
        ValueError: any other line is not a JSON object; names the file and the line.
        StorageError: the file could not be read (`errno` is ENOENT where it does not exist).
    """
    path = Path(path)
    with naming_path(path, "read"):
        lines = path.read_bytes().split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(_parse_record(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(
                    f"{path}, line {number}: not a record ({error}). Each line is one JSON object; "
                    "repair or remove the line"
                ) from error
            logger.warning("%s, line %d: dropped a torn last record", path, number)
    return records


def _json_bytes(text: str) -> bytes:
    """JSON in UTF-8; lone surrogates, as names of files may hold them, are written as escapes."""
    return text.encode("utf-8", errors="backslashreplace")


def _parse_record(line: bytes) -> dict[str, Any]:
    """Parse one line; NaN, broken UTF-8 and anything but an object are ValueErrors."""
    record = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    if not isinstance(record, dict):
        raise ValueError(f"found a JSON {type(record).__name__}, required an object")
    return cast("dict[str, Any]", record)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"found {name}, which is not JSON")


def _end_of_last_record(path: Path, file: FileIO) -> int:
    """Leave `file` at the end of its last whole line and return that position in bytes."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    content = file.read(size)
    start = content.rfind(b"\n") + 1
    try:
        _parse_record(content[start:])
    except ValueError:
        logger.warning("%s: cut off a torn last record of %d bytes", path, size - start)
        file.truncate(start)
        return file.seek(start)
    file.seek(size)  # whole but for its newline
    file.write(b"\n")
    return size + 1


def _flush_to_disk(file: BinaryIO | FileIO) -> None:
    """Flush and fsync; a device such as /dev/null cannot be synchronized and needs no fsync."""
    file.flush()
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make a rename durable, where the file system can (some network ones cannot)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        logger.debug("cannot open %s to synchronize it", folder)
        return
    try:
        os.fsync(descriptor)
    except OSError:
        logger.debug("cannot synchronize %s", folder)
    finally:
        os.close(descriptor)

"""User text files: file-type checks and streaming of lines.

Only regular files are read: a pipe or a device could be endless, or empty at the second reading. A
line has a limit, so that a small compressed file cannot fill the memory. This file does not know
what the lines mean.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from prefsearch.storage.errors import naming_path

MOST_LINE_BYTES = 64 * 2**20
"""The longest line of a file, in bytes as they are when decompressed."""
MOST_BLANK_LINES = 1_000_000
"""Blank lines one behind another after which a file is no text."""

_GZIP = b"\x1f\x8b"
_NO_TEXT: tuple[tuple[bytes, str], ...] = (
    (rb"\x1f\x8b", "gzip data"),
    (rb"BZh[1-9]1AY&SY", "bzip2 data"),
    (rb"\xfd7zXZ\0", "xz data"),
    (rb"\(\xb5/\xfd", "zstandard data"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"PAR1\x15", "Parquet data"),
    (rb"\xff\xfe\0\0|\0\0\xfe\xff|[^\0]\0\0\0|\0\0\0[^\0]", "UTF-32 text"),
    (rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", "UTF-16 text"),
)
_KINDS = (
    (stat.S_ISDIR, "a folder", "Name a file inside it"),
    (
        stat.S_ISFIFO,
        "a pipe, which can be read only once",
        "Write its content to a file and name that",
    ),
    (stat.S_ISSOCK, "a socket", "Write its content to a file and name that"),
    (stat.S_ISCHR, "a device, which may never end", "Write its content to a file and name that"),
    (stat.S_ISBLK, "a device", "Write its content to a file and name that"),
)


class UnreadableFile(ValueError):
    """A file is of the wrong kind or cannot be read further.

    Attributes:
        place: The file, or file and line.
        problem: What was found, what is required and the remedy.
    """

    def __init__(self, place: object, problem: str) -> None:
        """Hold the place and the problem."""
        super().__init__(f"{place}: {problem}")
        self.place = f"{place}"
        self.problem = problem


def refuse_special(path: Path, *, folders: bool = False) -> None:
    """Raise if a path exists and is not a regular file; does not open it.

    Args:
        path: What the user named. A missing path passes; opening it raises.
        folders: Whether a folder is accepted.

    Raises:
        UnreadableFile: It is a pipe, a socket, a device, a folder, or a link that leads nowhere.
    """
    found = what_lies_at(path)
    if found is None or (folders and found[0] == "a folder"):
        return
    raise UnreadableFile(path, f"found {found[0]}; required is a regular file. {found[1]}.")


def what_lies_at(path: Path) -> tuple[str, str] | None:
    """Describe a path that is not a regular file, with the remedy; None otherwise."""
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a NUL byte in the path
        return f"a path that no file can have ({error})", "Correct the path"
    except OSError as error:
        if not os.path.islink(path):
            return None
        leads = f"a link to {os.readlink(path)!r}, which "
        if isinstance(error, FileNotFoundError):
            return leads + "does not exist", "Restore that file, or name another"
        return leads + f"cannot be followed ({error.strerror})", "Name the file itself"
    return next(((found, remedy) for is_kind, found, remedy in _KINDS if is_kind(mode)), None)


def open_text(path: Path) -> BinaryIO:
    """Open a regular file of text, decompressing it where its name ends in .gz.

    Raises:
        UnreadableFile: It is no regular file, or holds something else than UTF-8 text by its first
            bytes: compressed data, UTF-16.
        StorageError: It could not be opened or read.
    """
    refuse_special(path)
    compressed = path.suffix.lower() == ".gz"
    with naming_path(path, "read"), path.open("rb") as file:
        start = file.read(16)
    if compressed and start and not start.startswith(_GZIP):
        raise UnreadableFile(
            path,
            "unreadable: the name ends in .gz and the content is not gzip data; required is a file "
            "that gzip wrote. Take .gz off the name, or compress the file.",
        )
    if not compressed:
        _refuse_other_data(path, start)
        with naming_path(path, "read"):
            return path.open("rb")
    unpacked = cast("BinaryIO", gzip.open(path))  # noqa: SIM115  (the caller closes it)
    try:  # damaged data are an OSError, EOFError or zlib.error, here and at every later line
        _refuse_other_data(path, unpacked.read(16), inside="inside the gzip file ")
        unpacked.seek(0)
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def read_lines(path: Path, *, blank_too: bool = False) -> Iterator[tuple[int, bytes]]:
    r"""Yield number, from 1, and bytes of every line that is not blank; a line ends with \n alone.

    Args:
        path: A file as `open_text` takes it.
        blank_too: Whether blank lines are yielded, too.

    Raises:
        UnreadableFile: As `open_text`; or a line is longer than `MOST_LINE_BYTES`, or more than
            `MOST_BLANK_LINES` lines in succession are blank.
        StorageError: The file could not be opened.
    """
    number, blank = 0, 0
    with open_text(path) as file:
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            if len(line) > MOST_LINE_BYTES:
                raise too_long(path, number)
            blank = 0 if line.strip() else blank + 1
            if blank_too or not blank:
                yield number, line
            if blank > MOST_BLANK_LINES:
                raise UnreadableFile(
                    f"{path}:{number}",
                    f"more than {MOST_BLANK_LINES:,} blank lines in succession; required are lines "
                    "of text. Write or download the file again.",
                )


def too_long(path: Path, number: int) -> UnreadableFile:
    """The error of a line that is longer than `MOST_LINE_BYTES`."""
    return UnreadableFile(
        f"{path}:{number}",
        f"the line is longer than {MOST_LINE_BYTES // 2**20} MiB; required are shorter lines. "
        "Break it into lines, or download the file again.",
    )


def first_character(path: Path) -> str:
    """The first character of a file of text that is not white space; empty where there is none.

    Raises:
        UnreadableFile: As `open_text`.
        StorageError: The file could not be opened.
    """
    with open_text(path) as file:
        for _ in range(MOST_BLANK_LINES):
            start = file.readline(4096)
            shown = start.removeprefix(b"\xef\xbb\xbf").lstrip()
            if shown or not start:
                return shown[:1].decode("ascii", errors="replace")
    return ""


def _refuse_other_data(path: Path, start: bytes, *, inside: str = "") -> None:
    for pattern, name in _NO_TEXT:
        if re.match(pattern, start, re.DOTALL):
            remedy = "Save it as UTF-8" if name.startswith("UTF") else "Decompress or convert it"
            raise UnreadableFile(
                path,
                f"found {name} {inside}by the first bytes; required is UTF-8 text. {remedy}.",
            )

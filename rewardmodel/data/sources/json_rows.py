"""Rows of a JSON file: objects one a line, or one list of objects for the whole file.

A list is read element by element, so that a file on one line is not held in memory, and a faulty
element is a bad row among good ones.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from prefsearch.storage.json_text import (
    JsonFault,
    StrictDecoder,
    parse_json,
)
from prefsearch.storage.text_files import (
    MOST_LINE_BYTES,
    UnreadableFile,
    first_character,
    open_text,
    read_lines,
)
from rewardmodel.data.rows import Place, PreferenceDataError, Row

_LINES = "one object a line, or one list of objects for the whole file"
_LIST = "one list of objects for the whole file"
_CHUNK_BYTES = 2**20
_SPACES = re.compile(r"[ \t\r\n]*")


def read_json_rows(path: Path) -> Iterator[Place]:
    """Yields the objects of a file; lines and lists are distinguished by the first character.

    Raises:
        UnreadableFile: The rest of the file cannot be read; see `text_files.read_lines`.
    """
    if first_character(path) == "[":
        yield from _read_list(path)
        return
    for number, line in read_lines(path):
        text = decoded(line, number)
        yield f"{path}:{number}", _parsed(text) if isinstance(text, str) else text


def decoded(line: bytes, number: int) -> str | PreferenceDataError:
    """The text of a line without byte order mark, or the error of one that is not UTF-8."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return PreferenceDataError(
            f"not UTF-8 text ({error}); save the file as UTF-8.", reason="not UTF-8"
        )


def bad_json(fault: JsonFault, required: str) -> PreferenceDataError:
    """The error of a row that is faulty JSON."""
    column = "" if fault.key is None else "column "
    return PreferenceDataError(
        f'{column}{fault}; required is {required}. Mend it, or drop the row (on_bad_row="skip").',
        reason=fault.reason,
    )


def _parsed(line: str) -> Row | PreferenceDataError:
    try:
        return _require_object(parse_json(line))
    except JsonFault as fault:
        return bad_json(fault, _LINES)


def _require_object(value: object) -> Row | PreferenceDataError:
    if isinstance(value, dict):
        return value
    return PreferenceDataError(
        f"found a JSON {type(value).__name__}; required is an object of named columns.",
        reason="not an object",
    )


def _read_list(path: Path) -> Iterator[Place]:
    decoder = StrictDecoder()
    with open_text(path) as file:
        text = _Window(file, path)
        text.expect("[")
        index = 0
        while not (index == 0 and text.peek() == "]"):
            value = text.take(decoder)
            fault = decoder.fault(value)
            if fault is None:
                yield f"{path}[{index}]", _require_object(value)
            else:
                yield (
                    f"{path}:{text.place(text.taken)[0]}",
                    bad_json(fault, f"{_LIST}; this is element {index}"),
                )
            index += 1
            if text.peek() == "]":
                break
            text.expect(",")
        text.expect("]")
        if text.peek():
            text.refuse("text behind the list")


class _Window:
    """The part of a file that is being read, as text; bytes that are not UTF-8 are surrogates.

    Attributes:
        position: The next character.
        taken: Where the value that was taken last began.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Starts before the first character."""
        self.position = 0
        self.taken = 0
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._text = ""
        self._start = (1, 1)  # line and column of the text's first character
        self._ended = False

    def place(self, position: int) -> tuple[int, int]:
        """Line and column, from 1, of a position in the text."""
        line, column = self._start
        breaks = self._text.count("\n", 0, position)
        if breaks:
            return line + breaks, position - self._text.rfind("\n", 0, position)
        return line, column + position

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        passed = 0
        while True:
            spaces = _SPACES.match(self._text, self.position)
            assert spaces is not None  # it matches the empty text, too
            self.position = spaces.end()
            if self.position < len(self._text):
                return self._text[self.position]
            passed += len(spaces[0])
            if passed > MOST_LINE_BYTES:
                self.refuse(f"more than {MOST_LINE_BYTES // 2**20} MiB of white space")
            if not self._fill():
                return ""

    def expect(self, character: str) -> None:
        """Skips a character.

        Raises:
            UnreadableFile: Another one is next.
        """
        found = self.peek()
        if found != character:
            self.refuse(f"{found or 'the end of the file'!r} in place of {character!r}")
        self.position += 1

    def take(self, decoder: StrictDecoder) -> Any:
        """The next value.

        Raises:
            UnreadableFile: There is none, or it is longer than `MOST_LINE_BYTES`.
        """
        self.peek()
        while True:
            try:
                value, end = decoder.decode(self._text, self.position)
            except json.JSONDecodeError as error:
                # What the text cuts off is an error at its end, or at the start of a string.
                cut = error.pos > len(self._text) - 16 or error.msg.startswith("Unterminated")
                if cut and not self._ended:
                    self._fill()
                    continue
                self.refuse(error.msg, error.pos)
            except RecursionError:
                self.refuse("lists or objects nested too deep")
            if end < len(self._text) or not self._fill():
                self.taken, self.position = self.position, end
                return value

    def refuse(self, found: str, position: int | None = None) -> NoReturn:
        """Stops the reading at a position.

        Raises:
            UnreadableFile: Always.
        """
        line, column = self.place(self.position if position is None else position)
        raise UnreadableFile(
            f"{self._path}:{line}",
            f"not JSON ({found} at column {column}); required is {_LIST}. Mend the line.",
        )

    def _fill(self) -> bool:
        """Reads on, and drops what lies behind; returns whether there was more."""
        if self._ended:
            return False
        waiting = len(self._text) - self.position
        if waiting > MOST_LINE_BYTES:
            self.refuse(f"an element longer than {MOST_LINE_BYTES // 2**20} MiB")
        data = self._file.read(max(_CHUNK_BYTES, waiting))
        self._ended = not data
        more = self._decoder.decode(data, self._ended)
        self._start = self.place(self.position)
        self._text = self._text[self.position :] + more
        self.position = 0
        return bool(data)

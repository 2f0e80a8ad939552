"""Strict JSON: serialization and parsing.

Python's reader and writer accept what is not JSON or is ambiguous: NaN, numbers beyond any float, a
key given twice, half of a surrogate pair. Here they are errors that name the place.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from prefsearch.storage.errors import naming_path
from prefsearch.storage.text_files import refuse_special

MOST_DEPTH = 200
"""Levels of lists and objects inside each other; more cannot be walked safely."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]|[^\s"{}\[\]:,]+', re.DOTALL)
_TWICE = "a key given twice"
_FAULTY = object()
_FEWEST_DIGITS_BEYOND_FLOATS = 309
_Held = Mapping[object, object] | list[object] | tuple[object, ...]
_DEEP = f"nested deeper than {MOST_DEPTH} levels"


def json_text(
    value: object,
    *,
    indent: int | None = None,
    ascii_only: bool = False,
    sort_keys: bool = False,
    separators: tuple[str, str] | None = None,
) -> str:
    """Serializes a value as JSON.

    Args:
        value: Plain Python: mappings, lists, texts, numbers, None.
        indent: Spaces a level; None writes one line.
        ascii_only: Whether other characters are escaped.
        sort_keys: Whether keys stand in order.
        separators: Between items, and between key and value; None takes the usual.

    Raises:
        ValueError: If it holds NaN, an infinity or an object that JSON does not have; names where.
    """
    try:
        return json.dumps(
            value,
            indent=indent,
            ensure_ascii=ascii_only,
            sort_keys=sort_keys,
            separators=separators,
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        to_plain(value)  # names where the value stands
        raise ValueError(f"found a value that JSON does not have ({error})") from error


def plain_number(value: object) -> object:
    """Convert a torch tensor, numpy array or numpy scalar to Python; others are unchanged."""
    torch = sys.modules.get("torch")  # where it was never imported, there are no tensors
    if torch is not None and isinstance(value, torch.Tensor):
        return cast("Any", value).detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return cast("object", value.tolist())
    return value


def to_plain(value: object, where: str = "value") -> Any:
    """Convert a value to plain JSON types; errors name it by `where`.

    Raises:
        ValueError: the value holds NaN or an infinity, a key that is not a string, or an object
            that JSON cannot hold.
    """
    value = plain_number(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"{where}: found {value}, which JSON does not have; required: a finite number, or "
                "null"
            )
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, Mapping):
        plain: dict[str, object] = {}
        for key, item in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise ValueError(
                    f"{where} has the key {key!r} of type {type(key).__name__}; JSON keys are "
                    "strings and would not come back as they were: write str(key)"
                )
            plain[key] = to_plain(item, f"{where}[{key!r}]")
        return plain
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = cast("Sequence[object]", value)
        return [to_plain(item, f"{where}[{i}]") for i, item in enumerate(items)]
    raise ValueError(
        f"{where}: found a {type(value).__name__}, which JSON does not have; required: numbers, "
        "strings, lists, mappings, arrays, dataclasses or paths"
    )


class JsonFault(ValueError):
    """Text that is not the JSON required.

    Attributes:
        reason: The kind of fault in a few words.
        line: Of the text, from 1.
        key: Under which the faulty value stands in the outermost object, where there is one.
    """

    def __init__(self, message: str, *, reason: str, line: int = 1, key: str | None = None) -> None:
        """Hold the message, the kind, the line and the key."""
        super().__init__(message if key is None else f"{key!r} holds {message}")
        self.reason = reason
        self.line = line
        self.key = key


class StrictDecoder:
    """JSON decoder that collects nonstandard input in `faults` as (reason, literal)."""

    def __init__(self) -> None:
        """Begin without faults."""
        self.faults: list[tuple[str, str]] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=lambda name: self._note("a number that is not finite", name),
            parse_int=self._int,
            parse_float=self._float,
        )

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """The value that begins at `start`, and where it ends.

        Raises:
            json.JSONDecodeError: There is no whole value.
            RecursionError: It is nested too deep for Python.
        """
        self.faults.clear()
        return self._decoder.raw_decode(text, start)

    def fault(self, value: object, text: str = "") -> JsonFault | None:
        """The first fault of the value decoded last, or None.

        Args:
            value: That value.
            text: It is the whole of, to name the line.
        """
        if not self.faults:
            found = unusable_text(value)
            if found is None:
                return None
            return JsonFault(found[0], reason=found[1], line=_line_of(text, found[1], ""))
        reason, literal = self.faults[0]
        key = None
        if isinstance(value, dict):
            fields = cast("dict[str, object]", value)
            key = next((name for name, held in fields.items() if held is _FAULTY), None)
        shown = literal if len(literal) <= 40 else f"{literal[:20]}... of {len(literal)} characters"
        message = f"{reason}: {shown!a}" if reason == _TWICE else f"{shown}, {reason}"
        return JsonFault(message, reason=reason, line=_line_of(text, reason, literal), key=key)

    def _note(self, reason: str, literal: str) -> object:
        self.faults.append((reason, literal))
        return _FAULTY

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            self._note(_TWICE, twice)
        return made

    def _int(self, digits: str) -> object:
        if len(digits) < _FEWEST_DIGITS_BEYOND_FLOATS:
            return int(digits)
        try:
            float(number := int(digits))
        except ValueError:  # Python reads no more than 4300 digits
            return self._note("a number of too many digits", digits)
        except OverflowError:
            return self._note("a number that is too large", digits)
        return number

    def _float(self, literal: str) -> object:
        number = float(literal)
        return (
            number if math.isfinite(number) else self._note("a number that is too large", literal)
        )


def parse_json(text: str) -> Any:
    """Parses a text that holds exactly one JSON value.

    Raises:
        JsonFault: It is not JSON; or a key is given twice, a number is not finite or has thousands
            of digits, lists and objects are nested deeper than `MOST_DEPTH` levels, or a text holds
            a NUL character or a lone surrogate.
    """
    decoder = StrictDecoder()
    try:
        value, end = decoder.decode(text, _behind_spaces(text, 0))
        if (end := _behind_spaces(text, end)) < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except json.JSONDecodeError as error:
        where = "" if error.lineno == 1 else f"line {error.lineno} "
        raise JsonFault(
            f"not JSON ({error.msg} at {where}column {error.colno})",
            reason="not JSON",
            line=error.lineno,
        ) from error
    except RecursionError as error:
        raise JsonFault(_DEEP, reason="nested too deep", line=_line_of(text, "deep", "")) from error
    fault = decoder.fault(value, text)
    if fault is not None:
        raise fault
    return value


def read_json(path: str | os.PathLike[str], *, mapping: bool = False) -> Any:
    """Reads a JSON file.

    Args:
        path: A regular file in UTF-8.
        mapping: Whether an object is required, and nothing else.

    Raises:
        ValueError: It is no regular file, not UTF-8, or not JSON as `parse_json` requires it; names
            the file and the line.
        StorageError: It could not be read.
    """
    path = Path(path)
    refuse_special(path)
    with naming_path(path, "read"):
        data = path.read_bytes()
    try:
        value = parse_json(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: not UTF-8 text ({error}); required is JSON in UTF-8. Write or "
            "download the file again"
        ) from error
    except JsonFault as error:
        raise ValueError(
            f"{path}:{error.line}: {error}; required is JSON in UTF-8. Write or download the file "
            "again"
        ) from error
    if mapping and not isinstance(value, dict):
        raise ValueError(
            f"{path}: found a JSON {type(value).__name__}; required: an object of named values. "
            "Write or download the file again"
        )
    return value


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON file that must hold an object; see `read_json`."""
    return cast("dict[str, Any]", read_json(path, mapping=True))


def unusable_text(value: object, *, nul: bool = True) -> tuple[str, str] | None:
    r"""What in a value neither models nor files of UTF-8 can hold: (description, reason), or None.

    Args:
        value: A text, or mappings and sequences of such, keys included.
        nul: Whether a NUL character counts. Texts that a model of bytes wrote may hold one.
    """
    waiting: list[tuple[object, str, int]] = [(value, "", 0)]
    while waiting:
        held, where, depth = waiting.pop()
        if isinstance(held, str):
            found = _bad_character(held, nul=nul)
            if found is not None:
                at, reason = found
                of = f"{where} holds" if where else "the text holds"
                return f"{of} {reason}, {held[at]!a}, at character {at + 1}", reason
        elif isinstance(held, Mapping | list | tuple):
            if depth == MOST_DEPTH:
                return _DEEP, "nested too deep"
            below = list(_members(cast("_Held", held), where))
            waiting += [(item, name, depth + 1) for item, name in reversed(below)]
    return None


def _members(held: _Held, where: str) -> Iterator[tuple[object, str]]:
    if isinstance(held, Mapping):
        for key, item in held.items():
            name = f"{where}[{key!a}]" if where else f"{key!a}"
            if isinstance(key, str):
                yield key, f"the name {name}"
            yield item, name
    else:
        for index, item in enumerate(held):
            yield item, f"{where}[{index}]"


def _bad_character(text: str, *, nul: bool) -> tuple[int, str] | None:
    if nul and "\0" in text:
        return text.index("\0"), "a NUL character"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return error.start, "a lone surrogate"
    return None


def _behind_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _line_of(text: str, reason: str, literal: str) -> int:
    """The line on which a fault is, found by walking over the tokens; 1 where it is not found."""
    if "\n" not in text.rstrip("\n"):
        return 1
    open_keys: list[set[str]] = []
    last: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "{[":
            open_keys.append(set())
            fault = len(open_keys) > MOST_DEPTH and reason in ("deep", "nested too deep")
        elif word in "}]":
            open_keys[-1:] = []
            fault = False
        elif word == ":" and last is not None and open_keys:
            key = last[0][1:-1]
            key = json.loads(last[0]) if "\\" in key else key
            fault = reason == _TWICE and key == literal and key in open_keys[-1]
            open_keys[-1].add(key)
        elif word[0] == '"':
            fault = reason in ("a lone surrogate", "a NUL character") and bool(
                _bad_character(json.loads(word, strict=False), nul=True)
            )
        else:
            fault = word == literal
        if fault:
            return text.count("\n", 0, token.start()) + 1
        last = token
    return 1

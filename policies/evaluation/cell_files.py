"""Resumable JSON-lines file of one method and budget: one line a prompt, batch after batch.

A finished batch is appended and reaches the disk, so a killed run loses the batch it was at and
nothing else. The main process appends to `CELL.jsonl`, every other to `CELL.rank-R.jsonl`; what is
done is what any of them holds, so a run goes on with as many processes as there are then. Which
batches a process does is known by their numbers, so none has to ask another.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prefsearch.distributed import Processes
from prefsearch.progress import track
from prefsearch.run.directory import DamagedRunError
from prefsearch.storage.files import append_record, read_records, write_text_atomic
from prefsearch.storage.json_text import json_text, to_plain

Line = dict[str, Any]
"""What is kept of a prompt; `prompt` is its number."""
Fields = Mapping[str, type | tuple[type, ...]]
"""The types of what each line of a cell holds."""

_CHECKSUM = "checksum"


class CellFile:
    """The lines of one cell.

    Attributes:
        path: Where they end up, ordered by prompt.
    """

    def __init__(
        self,
        path: Path,
        *,
        prompts: int,
        batch_size: int,
        processes: Processes,
        fields: Fields | None = None,
        length: int | None = None,
    ) -> None:
        """Finds what was done before.

        Args:
            path: Of the cell, its name ending in `.jsonl`.
            prompts: How many there are.
            batch_size: Prompts a batch.
            processes: Who does the cell.
            fields: What each line must hold; None asks for the prompt's number alone.
            length: Of every list in a line; None for any.

        Raises:
            DamagedRunError: If a line is not as it was written; names file and line.
        """
        self._fields = {"prompt": int, **(fields or {})}
        self._length = length
        self.path = path
        self._prompts = prompts
        self._batch_size = batch_size
        self._processes = processes
        name = path.name if processes.main else f"{path.stem}.rank-{processes.rank}.jsonl"
        self._own = path.with_name(name)
        self._known = {line["prompt"] for line in self._read()}

    def fill(self, work: Callable[[int], Iterable[Mapping[str, object]]], *, label: str) -> None:
        """Does this process's batches that are not done yet.

        Args:
            work: Makes the lines of a batch, by the batch's number.
            label: Of the progress bar.
        """
        count = -(-self._prompts // self._batch_size)
        left = [i for i in self._processes.share(count) if not self._known >= self._within(i)]
        for batch in track(left, label, enabled=self._processes.main):
            for line in work(batch):
                if line["prompt"] not in self._known:  # the batch may have been cut short before
                    append_record(self._own, with_checksum(line))
                    self._known.add(line["prompt"])

    def close(self) -> list[Line] | None:
        """Waits for all processes; the main one brings all lines into one file.

        Returns:
            The lines by prompt in the main process, None in the others.

        Raises:
            ConnectionError: If another process has ended.
        """
        self._processes.wait()
        if not self._processes.main:
            return None
        found = {line["prompt"]: _without_checksum(line) for line in self._read()}
        lines = [found[prompt] for prompt in range(self._prompts)]
        text = "".join(json_text(line) + "\n" for line in lines)
        write_text_atomic(self.path, text)
        for other in self._others():
            other.unlink()
        return lines

    # ----------------------------------------------------------------------------------- internals

    def _within(self, batch: int) -> set[int]:
        first = batch * self._batch_size
        return set(range(first, min(first + self._batch_size, self._prompts)))

    def _others(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}.rank-*.jsonl"))

    def _read(self) -> list[Line]:
        files = [file for file in (self.path, *self._others()) if file.is_file()]
        return [
            line
            for file in files
            for line in read_lines(file, self._fields, prompts=self._prompts, length=self._length)
        ]


def read_lines(
    path: Path, fields: Fields, *, prompts: int | None = None, length: int | None = None
) -> list[Line]:
    """Reads the lines of a cell.

    Args:
        path: The file.
        fields: What each line must hold.
        prompts: How many prompts there are; None takes any numbers of prompts.
        length: Of every list; None takes any.

    Raises:
        DamagedRunError: If a line is not as it was written; names file and line.
    """
    lines: list[Line] = []
    try:
        lines = read_records(path)
    except ValueError as error:  # which names file and line
        raise DamagedRunError(str(error)) from error
    for number, line in enumerate(lines, start=1):
        found = _find_fault(line, fields, prompts, length)
        if found is not None:
            raise DamagedRunError(
                f"{path}, line {number}: found {found}. Restore the file from a copy, or remove "
                "the line, and its prompt is done again"
            )
    return lines


def with_checksum(line: Mapping[str, object]) -> Line:
    """A line with a checksum of all but its seconds, which no two runs have in common."""
    plain: Line = to_plain(line, "line")
    return {**plain, _CHECKSUM: _checksum(plain)}


def _without_checksum(line: Line) -> Line:
    return {name: value for name, value in line.items() if name != _CHECKSUM}


def _checksum(line: Line) -> int:
    kept = {k: v for k, v in line.items() if k not in ("seconds", _CHECKSUM)}
    return zlib.crc32(json_text(kept, sort_keys=True).encode())


def _find_fault(line: Line, fields: Fields, prompts: int | None, length: int | None) -> str | None:
    """What is wrong with a line, and what is required, or None."""
    for name, kinds in fields.items():
        if name not in line:
            return f"no {name!r}; required: {', '.join(fields)}"
        value = line[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            return f"{name} {str(value)[:40]!r} ({type(value).__name__}); required: {_name(kinds)}"
        if length is not None and isinstance(value, list) and len(value) != length:
            return f"{len(value)} items in {name}; required: {length}"
    if line.get(_CHECKSUM, (made := _checksum(line))) != made:
        return f"the checksum {line[_CHECKSUM]} for a line of checksum {made}; required: the same"
    if prompts is not None and not 0 <= line["prompt"] < prompts:
        return f"prompt {line['prompt']}; required: 0 to {prompts - 1}"
    return None


def _name(kinds: type | tuple[type, ...]) -> str:
    several = kinds if isinstance(kinds, tuple) else (kinds,)
    return " or ".join("null" if kind is type(None) else kind.__name__ for kind in several)

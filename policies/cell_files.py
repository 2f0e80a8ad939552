"""What a cell of a measurement has found so far, on disk: one line a prompt, batch after batch.

A finished batch is appended and reaches the disk, so a killed run loses the batch it was at and
nothing else. The main process appends to `CELL.jsonl`, every other to `CELL.rank-R.jsonl`; what is
done is what any of them holds, so a run goes on with as many processes as there are then. Which
batches a process does is known by their numbers, so none has to ask another.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.progress import track

from policies.sharding import Processes
from search.evaluation.json_text import json_text
from search.evaluation.records import append_record, read_records, write_text_atomic

Line = dict[str, Any]
"""What is kept of a prompt; `prompt` is its number."""


class CellFile:
    """The lines of one cell.

    Attributes:
        path: Where they end up, ordered by prompt.
    """

    def __init__(self, path: Path, *, prompts: int, batch_size: int, processes: Processes) -> None:
        """Finds what was done before.

        Args:
            path: Of the cell, its name ending in `.jsonl`.
            prompts: How many there are.
            batch_size: Prompts a batch.
            processes: Who does the cell.
        """
        self.path = path
        self._prompts = prompts
        self._batch_size = batch_size
        self._processes = processes
        name = path.name if processes.main else f"{path.stem}.rank-{processes.rank}.jsonl"
        self._own = path.with_name(name)
        self._known = {line["prompt"] for line in self._read()}

    def fill(self, work: Callable[[int], Iterable[Mapping[str, Any]]], *, label: str) -> None:
        """Does this process's batches that are not done yet.

        Args:
            work: Makes the lines of a batch, by the batch's number.
            label: Of the progress bar.
        """
        count = -(-self._prompts // self._batch_size)
        left = [i for i in self._processes.share(count) if not self._known >= self._within(i)]
        for batch in track(left, label, transient=True, disable=self._processes.quiet):
            for line in work(batch):
                if line["prompt"] not in self._known:  # the batch may have been cut short before
                    append_record(self._own, line)
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
        found = {line["prompt"]: line for line in self._read()}
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
        files = [self.path, *self._others()]
        return [line for file in files if file.is_file() for line in read_records(file)]

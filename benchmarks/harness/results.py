"""Command lines and results files of the benchmarks."""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness.documents import update
from benchmarks.harness.provenance import ROOT, provenance, require_sources, source_digest
from benchmarks.harness.worker import Json
from prefsearch.storage.files import write_json_atomic

Cell = TypeVar("Cell")


def benchmark_parser(doc: str | None, name: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring.

    Args:
        doc: The docstring.
        name: Of the results file that `--out` is by default; None for no file.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = None if name is None else ROOT / "docs" / "results" / f"{name}.json"
    shown = "none" if name is None else f"docs/results/{name}.json"
    parser.add_argument("--out", type=Path, default=default, help=f"JSON file; default: {shown}")
    return parser


def require_positive(
    parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str
) -> None:
    """Ends the program where an option is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            parser.error(f"{flag}: found {getattr(options, name)}; required: at least 1")


class Results:
    """A results file, with the provenance of the moment before anything is measured.

    Attributes:
        provenance: See `benchmarks.harness.provenance`.
        digest: `source_digest` of the start.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str] | None,
        out: Path | None,
        *,
        seeds: Sequence[int],
        rounds: int | None = None,
        versions: Json | None = None,
    ) -> None:
        """Records the provenance.

        Args:
            name: In `SOURCES`.
            words: The command line after the script; None for that of this process.
            out: The file; None to write nothing.
            seeds: All that are run.
            rounds: How often each figure is measured, where that is one number.
            versions: Of packages in other processes.
        """
        words = sys.argv[1:] if words is None else words
        self.provenance = provenance(name, words, seeds=seeds, rounds=rounds, versions=versions)
        self.digest: str = self.provenance["source_digest"]
        self._name, self._out = name, out

    def write(self, content: Json) -> None:
        """Writes the file.

        Raises:
            ValueError: If source files have changed since the start.
        """
        if self._out is not None:
            require_sources(self._name, self.digest)
            write_json_atomic(self._out, {"provenance": self.provenance, **content})

    def publish(self, content: Json | None = None) -> None:
        """Rewrites the documents that show the file; with content, writes the file before.

        Call it when all pictures are drawn.
        """
        if content is not None:
            self.write(content)
        if self._out is not None:
            update(self._out)
            print(f"wrote {self._out.name}")


def load_cells(name: str, out: Path | None, expected: Json) -> list[Json]:
    """The finished cells of an earlier run, which `--resume` keeps; none where there is no file.

    Args:
        name: In `SOURCES`.
        out: The results file.
        expected: Its other content, such as `settings`.

    Raises:
        ValueError: If that differs, or the source files do.
    """
    if out is None or not out.is_file():
        return []
    earlier = json.loads(out.read_text(encoding="utf-8"))
    found = {**earlier, "source files": earlier.get("provenance", {}).get("source_digest")}
    for key, value in {**expected, "source files": source_digest(name)}.items():
        if found.get(key) != value:
            raise ValueError(
                f"{out.name} was measured with other {key}: found {found.get(key)}, required "
                f"{value} to continue it. Run without --resume to start again, or set another --out"
            )
    return earlier["cells"]


def select_cells(cells: Collection[Cell], words: Sequence[str] | None) -> list[Cell]:
    """The cells whose `name` contains one of some words; all where no words are given.

    Raises:
        SystemExit: If no name does.
    """
    named = [(str(getattr(cell, "name", cell)), cell) for cell in cells]
    chosen = [cell for name, cell in named if not words or any(word in name for word in words)]
    if not chosen:
        names = ", ".join(name for name, _ in named)
        raise SystemExit(f"--only: no cell's name holds {words}; there are: {names}")
    return chosen


def measure_in_process(
    function: Callable[..., float], *arguments: object, module: str, threads: int
) -> float:
    """What a function returns in a new process, such as a peak of memory.

    Args:
        function: Called there.
        arguments: Of the function.
        module: Imported before the process is forked, by a server that uses no thread.
        threads: Of torch.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    with context.Pool(1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.apply(function, arguments)


def wide_console(width: int = 160) -> Console:
    """A console for wide tables; without a terminal rich would take 80 columns."""
    shown = None if sys.stdout.isatty() else width
    return Console(width=shown, markup=False, highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the terminal; all columns but the first are aligned to the right."""
    made = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        made.add_column(name, justify="right" if number else "left")
    for row in rows:
        made.add_row(*row)
    return made

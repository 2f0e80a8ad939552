"""Finding the rows of a source: a file, a folder of files, a saved dataset, or the hub."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from rewardmodel.choices import OnBadRow
from rewardmodel.data.formats.registry import hub_options
from rewardmodel.data.rows import (
    ColumnUse,
    Place,
    PreferenceDataError,
    Record,
    Row,
    SkippedPart,
    parse_rows,
)
from rewardmodel.data.sources.files import read_file
from rewardmodel.data.sources.paths import FILE_KINDS, checked_path, file_kind, refuse_special_data

_SPLIT_WORDS = (
    {"train", "training"},
    {"validation", "valid", "val", "dev"},
    {"test", "testing", "eval", "evaluation"},
)
_BATCH_ROWS = 1000


def read_rows(source: str | os.PathLike[str], *, split: str) -> Iterator[Place]:
    """Opens a source and returns its rows, each with its location.

    A location is `file:line` in text files and `file[row]` elsewhere, rows counted from 0.

    Args:
        source: A file (`.json`, `.jsonl`, `.csv`, `.txt`, each also with `.gz`, or `.parquet`), a
            folder from `save_to_disk`, a folder of data files, or a dataset id on the hub.
        split: Of a hub dataset, saved dataset or folder; a single file has none and is read whole.

    Returns:
        An iterator of (location, row), the row replaced by a `PreferenceDataError` where it could
        not be read.

    Raises:
        PreferenceDataError: No such path, dataset or split.
    """
    path = checked_path(source)
    if path.is_file():
        return read_file(path)
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            for part in path.rglob("*"):
                refuse_special_data(part)
            return _read_dataset(_open_saved(path, split), f"{path}")
        return _read_files(_split_files(path, split))
    return _read_dataset(_open_hub(str(source), split), f"{source}/{split}")


def load_records(
    source: str | os.PathLike[str],
    parse: Callable[[Row], Record | list[Record | SkippedPart] | None],
    *,
    split: str,
    on_bad_row: OnBadRow,
    limit: int | None,
    columns: ColumnUse | None = None,
) -> Iterator[Record]:
    """The records that `parse` makes of a source's rows; see `read_rows` and `parse_rows`."""
    rows = read_rows(source, split=split)
    return parse_rows(
        rows, parse, source=source, on_bad_row=on_bad_row, limit=limit, columns=columns
    )


def _open_hub(name: str, split: str) -> datasets.Dataset:
    options: Mapping[str, Any] = hub_options(name)
    try:
        return datasets.load_dataset(name, split=split, trust_remote_code=False, **options)
    # ValueError: unknown split or missing configuration. RuntimeError: script-based dataset.
    except (OSError, ValueError, RuntimeError) as error:
        raise PreferenceDataError(
            f"{name!r} is no file or folder here, and as a dataset of the Hugging Face hub its "
            f"split {split!r} could not be loaded ({type(error).__name__}: {error}). Check the "
            "name, the split and the network, or download the dataset and pass a local path."
        ) from error


def _open_saved(path: Path, split: str) -> datasets.Dataset:
    try:
        saved = datasets.load_from_disk(str(path))
    except IndexError:  # datasets 5.2 saves a dataset without rows but cannot load it
        return datasets.Dataset.from_dict({})
    # What datasets raises where a file of the folder holds other JSON than it wrote.
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
        pa.ArrowException,
    ) as error:
        raise PreferenceDataError(
            f"{path} looks like a dataset from save_to_disk but could not be loaded "
            f"({type(error).__name__}: {error}); save it again."
        ) from error
    if isinstance(saved, datasets.Dataset):
        return saved
    if split not in saved:
        raise PreferenceDataError(f"{path} has no split {split!r}; choose one of {list(saved)}.")
    return saved[split]


def _split_files(folder: Path, split: str) -> list[Path]:
    """The data files of a split, recognized by a word of the relative path as on the hub."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if file_kind(path) in FILE_KINDS
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    for path in files:
        refuse_special_data(path)
    # A folder's notes and manifests are no data; .txt counts only where nothing else is there.
    files = [path for path in files if file_kind(path) != ".txt"] or files
    if not files:
        raise PreferenceDataError(
            f"{folder} holds no data file; required is a folder from save_to_disk, or files "
            f"ending in {', '.join(FILE_KINDS)} (.gz too). Pass the folder that holds them."
        )
    words = {
        path: set(re.split(r"[^a-z0-9]+", f"{path.relative_to(folder)}".lower())) for path in files
    }
    wanted = {split.lower()}.union(*(group for group in _SPLIT_WORDS if split.lower() in group))
    chosen = [path for path in files if words[path] & wanted]
    if (
        not chosen
        and split == "train"
        and not set().union(*_SPLIT_WORDS) & set().union(*words.values())
    ):
        return files
    if not chosen:
        names = ", ".join(f"{path.relative_to(folder)}" for path in files[:10])
        raise PreferenceDataError(
            f"{folder} has no file for the split {split!r}; found {names}. Pass another split, "
            "or one of the files itself."
        )
    return chosen


def _read_files(files: list[Path]) -> Iterator[Place]:
    for path in files:
        yield from read_file(path)


def _read_dataset(dataset: datasets.Dataset, name: str) -> Iterator[Place]:
    if len(dataset) == 0:
        yield name, PreferenceDataError("the dataset holds no row.", reason="empty dataset")
    index = 0
    for batch in dataset.with_format(None).iter(batch_size=_BATCH_ROWS):
        columns: dict[str, list[object]] = dict(batch)
        for values in zip(*columns.values(), strict=True):
            yield f"{name}[{index}]", dict(zip(columns, values, strict=True))
            index += 1

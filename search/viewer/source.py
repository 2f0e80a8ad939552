"""Open a file of search trees: tensors written by `save_tree`, or JSON of the text searches.

JSON is one tree, an object with a `tree` in it, or a line for each prompt with a `tree` in some.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from prefsearch.storage.errors import naming_path
from prefsearch.storage.text_files import refuse_special
from search.viewer.file import SavedTree, load_tree
from search.viewer.json_export import view_nested
from search.viewer.view import TreeView, view_tree


@dataclass(frozen=True)
class TreeSource:
    """The trees of one file.

    Attributes:
        path: The file.
        title: What the trees are, if the file has a title.
        count: How many there are.
        facts: What they have in common.
        view: Lists the nodes of one of them, by number.
    """

    path: Path
    title: str
    count: int
    facts: str
    view: Callable[[int], TreeView]


def open_trees(path: str | os.PathLike[str]) -> TreeSource:
    """Opens a file of search trees.

    Raises:
        ValueError: If the file holds no tree, or a damaged one; names the file.
        StorageError: If the file could not be read.
    """
    path = Path(path)
    refuse_special(path, folders=True)  # opening a folder names the remedy itself
    with naming_path(path, "read"), path.open("rb") as file:
        start = file.read(64)
    # A safetensors file opens with the length of its header in 8 bytes; text has no NUL byte.
    if b"\0" in start[:8] or start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return _open_tensors(path, load_tree(path))
    roots = _find_roots(path)
    views = [_view_root(path, where, root) for where, root in roots]
    return TreeSource(path, "Search tree", len(views), "JSON", views.__getitem__)


def _open_tensors(path: Path, saved: SavedTree) -> TreeSource:
    tree, labels = saved.tree, saved.labels

    def view(row: int) -> TreeView:
        known = labels is not None and 0 <= row < len(labels)
        return view_tree(tree, row, labels=labels[row] if labels and known else None)

    facts = f"up to {tree.num_simulations} simulations, {tree.num_actions} actions"
    return TreeSource(path, saved.title or "Search tree", tree.batch_size, facts, view)


def _find_roots(path: Path) -> list[tuple[str, object]]:
    """The roots in a JSON file or in JSON lines, and where they stand."""
    with naming_path(path, "read"):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(path, f"bytes that are not UTF-8 ({error})")
    try:
        found = json.loads(text)
        values = cast("list[object]", found) if isinstance(found, list) else [found]
        places = [f"[{i}]" if isinstance(found, list) else "" for i in range(len(values))]
    except RecursionError:
        _refuse(path, "JSON nested too deep to be read", "Show the tree's safetensors file.")
    except ValueError as error:
        values, places = _lines(path, text, error)
    roots = [
        (place, root)
        for place, value in zip(places, values, strict=True)
        if (root := _root_of(value)) is not None
    ]
    if not roots:
        _refuse(
            path,
            "JSON without a search tree",
            "Write trees with `prefsearch policy plan --keep_trees N` or `--save_trees FOLDER`.",
        )
    return roots


def _lines(path: Path, text: str, whole: ValueError) -> tuple[list[object], list[str]]:
    values: list[object] = []
    places: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            # In the first line these are no JSON lines at all: report the error of the whole text.
            cause = f"line {number}: {error}" if values else str(whole)
            _refuse(path, f"neither JSON nor JSON lines ({cause})")
        places.append(f", line {number}")
    return values, places


def _root_of(value: object) -> object:
    """The root in a JSON value: a node itself, or what stands under `tree`."""
    if not isinstance(value, Mapping):
        return None
    fields = cast("Mapping[str, object]", value)
    return fields if "visits" in fields else fields.get("tree")


def _view_root(path: Path, where: str, root: object) -> TreeView:
    try:
        return view_nested(root)
    except ValueError as error:
        raise ValueError(f"{path}{where}: {error}. Write the file again.") from error


def _refuse(path: Path, found: str, remedy: str = "Write the file again.") -> NoReturn:
    raise ValueError(
        f"{path}: found {found}; required a file of `save_tree`, or JSON with nodes "
        f"of text, visits and value. {remedy}"
    )

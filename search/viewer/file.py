"""Save and load search trees: one safetensors file holds a batch of trees and their nodes' text.

A file holds tensors and JSON only, so opening one runs no code. All indices are checked on loading:
a damaged file is an error with its name, never a wrong number later.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import write_bytes_atomic
from prefsearch.storage.json_text import json_text
from prefsearch.storage.text_files import refuse_special
from search.model import to_list
from search.tree import Tree

Labels = Sequence[Mapping[int, str]]
"""For each of B rows, the text of its nodes by column; a node without text may be left out."""

_VERSION_KEY = "prefsearch_tree"
_VERSION = 1
# What safetensors reads back; a larger header is written without complaint and lost.
_MOST_HEADER_BYTES = 100_000_000
_EMBEDDINGS = "embeddings"
_AXES: dict[str, tuple[str, str]] = {
    "node_visits": ("BN", "integer"),
    "raw_values": ("BN", "float"),
    "node_values": ("BN", "float"),
    "parents": ("BN", "integer"),
    "action_from_parent": ("BN", "integer"),
    "children_index": ("BNA", "integer"),
    "children_prior_logits": ("BNA", "float"),
    "children_visits": ("BNA", "integer"),
    "children_rewards": ("BNA", "float"),
    "children_discounts": ("BNA", "float"),
    "children_values": ("BNA", "float"),
    "valid_actions": ("BNA", "bool"),
    "terminal": ("BN", "bool"),
}


@dataclass(frozen=True)
class SavedTree:
    """What a tree file holds.

    Attributes:
        tree: B trees on the CPU, dtypes as saved; `embeddings` is empty if they were left out.
        labels: For each row, the text of its nodes by column; None if none were saved.
        title: What the trees are, or None.
    """

    tree: Tree
    labels: list[dict[int, str]] | None
    title: str | None


def save_tree(
    tree: Tree,
    path: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    title: str | None = None,
    embeddings: bool = True,
) -> Path:
    """Writes B trees to one safetensors file, in one rename.

    Args:
        tree: The trees, on any device; views and transposed leaves are written as what they show.
        path: The file; an old one is replaced.
        labels: For each of the B rows, text by node column: what the action that led there added,
            and at the root what the search began from.
        title: What the trees are.
        embeddings: Whether to write the model's state at each node, often the largest part.

    Returns:
        The path as given.

    Raises:
        ValueError: If the labels do not fit the trees or take more than 100 MB, or a leaf has a
            dtype that safetensors lacks.
        StorageError: If the file could not be written; an old one is untouched.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    unused = ~_reached(tree)
    for field in dataclasses.fields(tree):
        value = getattr(tree, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = _plain_copy(value)
        elif isinstance(value, Mapping) and (embeddings or field.name != _EMBEDDINGS):
            for name, leaf in cast("Mapping[str, Tensor]", value).items():
                copy = _plain_copy(leaf)
                if field.name == _EMBEDDINGS:
                    copy[unused] = 0  # undefined there: what an earlier search left in memory
                tensors[f"{field.name}.{name}"] = copy
    metadata = {_VERSION_KEY: str(_VERSION)}
    if title is not None:
        metadata["title"] = json_text(title, ascii_only=True)  # ASCII, so a lone surrogate survives
    if labels is not None:
        problem = _labels_problem(labels, tree.batch_size, tree.num_simulations + 1)
        if problem:
            _refuse(path, *problem, remedy="Pass one mapping of column to text for each row.")
        rows = [{str(column): text for column, text in row.items()} for row in labels]
        metadata["labels"] = json_text(rows, ascii_only=True)
    try:
        data = safetensors.torch.save(tensors, metadata)
    except KeyError as error:
        names = [n for n, tensor in tensors.items() if tensor.dtype == error.args[0]]
        _refuse(
            path,
            f"{', '.join(names)} of {error.args[0]}",
            "dtypes that safetensors holds",
            remedy="Leave the model's memory out with embeddings=False.",
        )
    header = int.from_bytes(data[:8], "little")
    if header > _MOST_HEADER_BYTES:
        _refuse(
            path,
            f"labels of {header} bytes",
            f"at most {_MOST_HEADER_BYTES} bytes",
            remedy="Save fewer rows in a file, or shorter texts.",
        )
    return write_bytes_atomic(path, data)


def load_tree(path: str | os.PathLike[str]) -> SavedTree:
    """Reads what `save_tree` wrote, and checks it.

    Raises:
        ValueError: If the file is truncated, damaged or no tree file, a field is missing, shapes or
            kinds disagree, or an index leads nowhere.
        StorageError: If the file could not be read.
    """
    path = Path(path)
    refuse_special(path, folders=True)
    with naming_path(path, "read"):
        data = path.read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = cast("dict[str, str]", header.get("__metadata__") or {})
    # A dtype unknown to this torch is a KeyError, an odd shape a TypeError or RuntimeError.
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        _refuse(path, f"no readable safetensors ({error})", "a file that save_tree wrote whole")
    _check_version(path, metadata)
    tree = Tree(**_fields(path, tensors))
    _check_form(path, tree)
    _check_links(path, tree)
    title = _read_json(path, metadata, "title")
    if not (title is None or isinstance(title, str)):
        _refuse(path, f"a title of kind {type(title).__name__}", "text")
    return SavedTree(tree, _read_labels(path, metadata, tree), title)


def _plain_copy(tensor: Tensor) -> Tensor:
    """A contiguous tensor on the CPU that shares memory with no other, as safetensors requires."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _reached(tree: Tree) -> Tensor:
    """`[B, N]` bool on the CPU, True at the root and at every node that has a parent."""
    reached = tree.parents.cpu() >= 0
    reached[:, Tree.ROOT] = True
    return reached


def _refuse(path: Path, found: str, required: str, *, remedy: str | None = None) -> NoReturn:
    remedy = remedy or "Save the tree again with search.viewer.file.save_tree."
    raise ValueError(f"{path}: found {found}; required {required}. {remedy}")


def _check_version(path: Path, metadata: Mapping[str, str]) -> None:
    version = metadata.get(_VERSION_KEY)
    if version is None:
        _refuse(path, "safetensors without a search tree (weights?)", f"{_VERSION_KEY} metadata")
    if version != str(_VERSION):
        _refuse(
            path,
            f"version {version!r} of the tree format",
            f"version {_VERSION}",
            remedy="Open it with the prefsearch that wrote it, or a newer one.",
        )


def _fields(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of a `Tree` from named tensors; `field.leaf` names a leaf of a mapping."""
    known = {field.name: field for field in dataclasses.fields(Tree)}
    found: dict[str, Any] = {_EMBEDDINGS: {}}
    for name, tensor in tensors.items():
        field, dot, leaf = name.partition(".")
        if field not in known or (dot and field in _AXES) or name == _EMBEDDINGS:
            _refuse(path, f"a tensor {name!r}", f"fields of a tree: {', '.join(known)}")
        if dot:
            found.setdefault(field, {})[leaf] = tensor
        else:
            found[field] = tensor
    none = dataclasses.MISSING
    missing = [
        name
        for name, field in known.items()
        if name not in found and field.default is none and field.default_factory is none
    ]
    if missing:
        _refuse(path, f"no {', '.join(missing)}", "every field of a tree")
    return found


def _check_form(path: Path, tree: Tree) -> None:
    """Checks that the fields agree on B, N and A, none of them 0, and hold the right kind."""
    if tree.children_index.ndim != 3 or 0 in tree.children_index.shape:
        shape = list(tree.children_index.shape)
        _refuse(path, f"children_index of shape {shape}", "[B, N, A], none of them 0")
    sizes = dict(zip("BNA", tree.children_index.shape, strict=True))
    for name, (axes, kind) in _AXES.items():
        tensor: Tensor = getattr(tree, name)
        shape = [sizes[axis] for axis in axes]
        if list(tensor.shape) != shape:
            _refuse(
                path, f"{name} of shape {list(tensor.shape)}", f"{shape}, as children_index has it"
            )
        if _kind(tensor) != kind:
            _refuse(path, f"{name} of {tensor.dtype}", f"a dtype of kind {kind}")
    for name, leaf in tree.embeddings.items():
        if list(leaf.shape[:2]) != [sizes["B"], sizes["N"]]:
            where = f"{_EMBEDDINGS}.{name} of shape {list(leaf.shape)}"
            _refuse(path, where, f"[{sizes['B']}, {sizes['N']}, ...]")


def _kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bool"
    if tensor.dtype.is_floating_point:
        return "float"
    signed = not tensor.dtype.is_complex and tensor.dtype.is_signed
    return "integer" if signed else "complex or unsigned"


def _check_links(path: Path, tree: Tree) -> None:
    """Checks that parents and children name each other, so that every walk ends at the root."""
    parents, actions = tree.parents.long(), tree.action_from_parent.long()  # [B, N]
    reached = _reached(tree)
    # Unused columns are never read, whatever they hold.
    children = tree.children_index.long().masked_fill(~reached.unsqueeze(-1), Tree.NONE)
    column = torch.arange(parents.shape[1])
    _check_range(path, "parents", parents, low=-1, below=column)
    _check_range(path, "action_from_parent", actions, low=-1, below=children.shape[2])
    _check_range(path, "children_index", children, low=-1, below=parents.shape[1])
    for name in ("node_visits", "children_visits"):
        _check_range(path, name, getattr(tree, name), low=0)
    used = parents >= 0
    row, node = used.nonzero(as_tuple=True)  # [M] each
    parent, action = parents[row, node], actions[row, node]
    edges = int((children >= 0).sum())
    agree = (
        bool(((actions >= 0) == used).all())
        and torch.equal(children[row, parent, action], node)
        and edges == len(node)
    )
    if not agree:
        _refuse(
            path,
            f"{len(node)} nodes with a parent and {edges} edges that do not belong together",
            "children_index, parents and action_from_parent that name each other",
        )


def _check_range(
    path: Path, name: str, tensor: Tensor, *, low: int, below: Tensor | int | None = None
) -> None:
    bad = tensor < low
    if below is not None:
        # A parent has a column before its children's: column 0, the root, has none.
        bad |= tensor >= below if isinstance(below, int) else tensor >= below.clamp(min=0)
    if bool(bad.any()):
        where = cast("list[int]", to_list(bad.nonzero()[0]))
        last = below if isinstance(below, int) else where[1] if below is not None else None
        required = f"at least {low}" + ("" if last is None else f" and below {last}")
        _refuse(path, f"{name}{where} = {int(tensor[tuple(where)])}", required)


def _read_json(path: Path, metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key]) if key in metadata else None
    except (ValueError, RecursionError) as error:
        _refuse(path, f"a {key} that is no JSON ({error})", "JSON")


def _read_labels(
    path: Path, metadata: Mapping[str, str], tree: Tree
) -> list[dict[int, str]] | None:
    saved = _read_json(path, metadata, "labels")
    if saved is None:
        return None
    try:
        labels = [{int(column): text for column, text in row.items()} for row in saved]
    except (ValueError, TypeError, AttributeError) as error:
        _refuse(path, f"labels that are not read ({error})", "a list of column to text")
    problem = _labels_problem(labels, tree.batch_size, tree.num_simulations + 1)
    if problem:
        _refuse(path, *problem)
    return labels


def _labels_problem(labels: Labels, rows: int, columns: int) -> tuple[str, str] | None:
    """What was found and what is required, or None."""
    if len(labels) != rows:
        return f"labels of {len(labels)} rows", f"labels of {rows}, one mapping a tree"
    for row, texts in enumerate(labels):
        for column, text in cast("Mapping[object, object]", texts).items():
            if isinstance(column, bool) or not isinstance(column, int):
                return f"labels[{row}] with the key {column!r}", "node columns, which are ints"
            if not 0 <= column < columns:
                return f"labels[{row}] of column {column}", f"columns 0 to {columns - 1}"
            if not isinstance(text, str):
                return f"labels[{row}][{column}] = {text!r}", "text"
    return None

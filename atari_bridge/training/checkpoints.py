"""A run's whole state on disk, and back: safetensors and JSON, never pickles.

A checkpoint is a folder that appears in one rename, complete, under its numbers of decisions and
updates; the one before stays until then. This file knows how tensors, optimizers and random states
become files, not what a run does with them.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor

from prefsearch.storage.digests import describe_files, digest_of_values, find_damage
from prefsearch.storage.files import naming_path, to_plain, write_json_atomic
from prefsearch.storage.folders import remove_folder
from prefsearch.storage.json_reading import read_json
from prefsearch.storage.weights import load_tensor_file, load_weights

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
VERSION = 1
_HEADER = 2**16  # most bytes of a file that are not numbers
_FOLDER = re.compile(r"decisions-(\d{9,})-updates-(\d{9,})")


def checkpoint_name(decisions: int, updates: int) -> str:
    """The folder of the checkpoint after so many decisions and updates."""
    return f"decisions-{decisions:09d}-updates-{updates:09d}"


def _in_order(folder: Path) -> list[Path]:
    """A folder's checkpoints, the oldest first."""
    found = {path: _FOLDER.fullmatch(path.name) for path in folder.glob("decisions-*")}
    numbered = [(int(m[1]), int(m[2]), path) for path, m in found.items() if m]
    return [path for *_, path in sorted(numbered)]


def newest_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint in a run's folder of checkpoints, or None."""
    return next(reversed(_in_order(folder)), None)


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that is as it was written; damaged ones are named in the log.

    Raises:
        ValueError: If there are checkpoints and none is whole; the message names the first damage.
    """
    damaged: list[str] = []
    for path in reversed(_in_order(folder)):
        try:
            read_manifest(path)
        except ValueError as error:
            damaged.append(str(error))
            continue
        for what in damaged:
            logger.warning("%s. Going on from %s", what.removesuffix(f". {_REMEDY}"), path)
        return path
    if damaged:
        raise ValueError(damaged[0])
    return None


def drop_older(folder: Path, *, keep: int) -> None:
    """Removes all checkpoints of a folder but the `keep` newest, by their numbers."""
    for path in _in_order(folder)[:-keep]:
        remove_folder(path)


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes what the checkpoint is, with size and digest of every file that lies in it already."""
    files = describe_files([folder], base=folder)
    manifest = {"format": "prefsearch-atari", "version": VERSION, **facts, "files": files}
    manifest = to_plain(manifest)
    write_json_atomic(folder / MANIFEST, {**manifest, "sha256": digest_of_values(manifest)})


def read_manifest(folder: Path, *, check_files: bool = True) -> dict[str, Any]:
    """Reads and checks a checkpoint's manifest.

    Args:
        folder: The checkpoint.
        check_files: Also compare the files with what was written.

    Raises:
        ValueError: If the folder is no checkpoint of this project, of another version, or a file
            is missing or not what was written; naming it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) if folder.is_dir() else ""
        what = f"a folder that holds {held or 'nothing'}" if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{folder}: found {what}; required: a checkpoint with {MANIFEST}, such as "
            "runs/NAME/checkpoints/decisions-000010000-updates-000008000 of `prefsearch atari "
            "train`"
        )
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}). {_REMEDY}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "prefsearch-atari":
        raise ValueError(f"{path}: found JSON of something else; required: format prefsearch-atari")
    if manifest.get("version") != VERSION:
        raise ValueError(
            f"{path}: found version {manifest.get('version')!r}; required: {VERSION}. Read it with "
            "the release of prefsearch that wrote it"
        )
    digest = manifest.pop("sha256", None)  # earlier releases wrote none
    if digest is not None and digest != digest_of_values(manifest):
        raise ValueError(f"{path}: found other values than were written. {_REMEDY}")
    if not isinstance(manifest.get("files"), dict):
        raise ValueError(
            f"{path}: found no files; required: a mapping of the checkpoint's. {_REMEDY}"
        )
    found = find_damage(manifest["files"], base=folder) if check_files else None
    if found is not None:
        raise ValueError(f"{found}. {_REMEDY}")
    return manifest


_REMEDY = (
    "Copy this checkpoint again; or remove its folder, to go on from the one before if "
    "keep_checkpoints kept one"
)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, max_part_bytes: int | None = None
) -> None:
    """Writes tensors of any device as one file, or in parts where a bound asks for it.

    Args:
        path: Of the first part; the others lie beside it, "network-1.safetensors" and so on.
        tensors: By name.
        max_part_bytes: Largest file; one tensor that is larger makes a file alone. None: no bound.
    """
    parts: list[dict[str, Tensor]] = [{}]
    room = full = float("inf") if max_part_bytes is None else max_part_bytes - _HEADER
    for name, tensor in tensors.items():
        if tensor.nbytes > room and parts[-1]:
            parts.append({})
            room = full
        parts[-1][name] = tensor.detach().cpu().contiguous().clone()
        room -= tensor.nbytes
    with naming_path(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(parts):
            save_file(part, path.with_stem(f"{path.stem}-{number}") if number else path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads tensors of all parts to the CPU. That none is missing, `read_manifest` knows.

    Raises:
        ValueError: If a file is damaged.
    """
    tensors: dict[str, Tensor] = {}
    for part in [path, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]:
        tensors |= load_tensor_file(part, remedy=_REMEDY)
    return tensors


def save_numpy(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as one file."""
    with naming_path(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays({k: np.ascontiguousarray(a) for k, a in arrays.items()}, path)


def load_numpy(path: Path) -> dict[str, np.ndarray]:
    """Reads arrays; errors as `load_tensors`."""
    try:
        return load_arrays(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}). {_REMEDY}") from error


def save_optimizer(
    path: Path, optimizer: torch.optim.Optimizer, *, max_part_bytes: int | None = None
) -> None:
    """Writes moments as `save_tensors` does; an optimizer's settings are the configuration's."""
    moments = {
        f"{number}.{name}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }
    save_tensors(path, moments, max_part_bytes=max_part_bytes)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Hands saved moments to an optimizer of the same parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(path).items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            # Fused optimizers walk through memory: a moment must lie there as its parameter does.
            tensor = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def load_module(path: Path, module: torch.nn.Module) -> None:
    """Loads weights into a module.

    Raises:
        ValueError: If names or shapes are not those of the module, or a weight is not finite.
    """
    remedy = "Take the network settings that the checkpoint was made with, or copy it again"
    load_weights(path, load_tensors(path), module, remedy=remedy)

"""Files of a checkpoint: safetensors and JSON, never pickles.

A checkpoint is a folder that appears in one rename, named by its decisions and updates.
"""

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

from prefsearch.storage import checkpoints
from prefsearch.storage.errors import naming_path
from prefsearch.storage.weights import load_tensor_file, load_weights

MANIFEST = "checkpoint.json"
VERSION = 2
_KIND = "prefsearch-atari"
_HEADER = 2**16  # most bytes of a file that are not numbers
_FOLDER = re.compile(r"decisions-(\d{9,})-updates-(\d{9,})")
_REMEDY = (
    "Copy this checkpoint again; or remove its folder, to go on from the one before if "
    "keep_checkpoints kept one"
)


def checkpoint_name(decisions: int, updates: int) -> str:
    """The folder of the checkpoint after so many decisions and updates."""
    return f"decisions-{decisions:09d}-updates-{updates:09d}"


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder of checkpoints, oldest first."""
    return checkpoints.numbered_checkpoints(folder, _FOLDER)


def write_manifest(folder: Path, facts: Mapping[str, object]) -> None:
    """Describes a checkpoint, with size and digest of every file that lies in it already."""
    checkpoints.write_manifest(folder / MANIFEST, kind=_KIND, version=VERSION, facts=facts)


def read_manifest(folder: Path, *, check_files: bool = True) -> dict[str, Any]:
    """Reads and checks a checkpoint's manifest; see `prefsearch.storage.checkpoints`."""
    return checkpoints.read_manifest(
        folder / MANIFEST,
        kind=_KIND,
        version=VERSION,
        required=f"a checkpoint with {MANIFEST}, such as runs/NAME/checkpoints/"
        f"{checkpoint_name(10_000, 8_000)} of `prefsearch atari train`",
        remedy=_REMEDY,
        check_files=check_files,
    )


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, max_part_bytes: int | None = None
) -> None:
    """Writes tensors of any device as one file, or as several of bounded size.

    Args:
        path: Of the first file; the others are "network-1.safetensors" and so on.
        tensors: By name.
        max_part_bytes: Largest file, but for a single tensor that is larger. None: no bound.
    """
    parts: list[dict[str, Tensor]] = [{}]
    free = full = float("inf") if max_part_bytes is None else max_part_bytes - _HEADER
    for name, tensor in tensors.items():
        if tensor.nbytes > free and parts[-1]:
            parts.append({})
            free = full
        parts[-1][name] = tensor.detach().cpu().contiguous().clone()
        free -= tensor.nbytes
    with naming_path(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(parts):
            save_file(part, path.with_stem(f"{path.stem}-{number}") if number else path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads tensors of all files to the CPU; `read_manifest` checks that none is missing.

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
    """Reads arrays.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return load_arrays(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}). {_REMEDY}") from error


def save_optimizer(
    path: Path, optimizer: torch.optim.Optimizer, *, max_part_bytes: int | None = None
) -> None:
    """Writes an optimizer's moments; its settings are in the configuration."""
    moments = {
        f"{number}.{name}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }
    save_tensors(path, moments, max_part_bytes=max_part_bytes)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Loads moments into an optimizer of the same parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(path).items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            # Fused optimizers need moments in the memory format of their parameters.
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

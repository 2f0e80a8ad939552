"""Reading of run files, the recorded environment, and seeds of steps."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prefsearch.storage.digests import digest_of_values
from prefsearch.storage.errors import naming_path

_RECORDED_PACKAGES = (
    "prefsearch", "torch", "numpy", "transformers", "trl", "accelerate", "peft", "datasets",
)  # fmt: skip
REMEDY = "Restore it from a copy, or begin a new run in another folder with --out"


class DamagedRunError(ValueError):
    """A file of a run is missing or is not what the run wrote; the message names it."""


@dataclass(frozen=True)
class Step:
    """Record of a finished step.

    Attributes:
        order: Its number among the steps.
        result: What it found.
        files: What it left, as `prefsearch.storage.digests` describes files.
    """

    order: int
    result: dict[str, Any]
    files: dict[str, object]


def read_mapping(path: Path, parse: Callable[[str], object]) -> dict[str, Any]:
    """Reads a mapping from a run file.

    Raises:
        DamagedRunError: If it is none.
    """
    with naming_path(path, "read"):
        data = path.read_bytes()
    try:
        found = parse(data.decode("utf-8")) if data.strip() else None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise DamagedRunError(f"{path}: cannot be read ({what}). {REMEDY}") from error
    if not isinstance(found, dict):
        kind = "an empty file" if not data.strip() else f"a {type(found).__name__}"
        raise DamagedRunError(f"{path}: found {kind}; required: a mapping. {REMEDY}")
    return found


def read_step(path: Path) -> Step:
    """Reads the file of a finished step.

    Raises:
        DamagedRunError: If it is not one.
    """
    remedy = f"Restore it from a copy; or remove {path}, and the step is taken again"
    try:
        found = read_mapping(path, json.loads)
    except DamagedRunError as error:
        raise DamagedRunError(str(error).replace(REMEDY, remedy)) from error
    # Earlier releases wrote no digest.
    digest = found.pop("sha256", None)
    if digest is not None and digest != digest_of_values(found):
        raise DamagedRunError(f"{path}: found other values than were written. {remedy}")
    order, result, files = found.get("order"), found.get("result"), found.get("files", {})
    if not (isinstance(order, int) and isinstance(result, dict) and isinstance(files, dict)):
        held = ", ".join(f"{k}: {type(v).__name__}" for k, v in found.items()) or "nothing"
        raise DamagedRunError(
            f"{path}: found {held}; required: order (a number), result and files (mappings). "
            f"{remedy}"
        )
    return Step(order, result, files)


def step_seed(seed: int, name: str) -> int:
    """The seed of one step: a function of the run's seed and the step's name alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def environment() -> dict[str, Any]:
    """Package versions, git commit, thread count and device."""
    import torch

    versions: dict[str, str] = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        here = Path(__file__).resolve().parent
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5,
            check=True,
        )  # fmt: skip
        commit = done.stdout.strip()
    return {
        "versions": versions,
        "commit": commit,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }

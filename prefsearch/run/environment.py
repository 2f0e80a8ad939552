"""Versions and hardware that a run's numbers depend on, and the seed of each of its steps."""

import contextlib
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

_RECORDED_PACKAGES = (
    "prefsearch", "torch", "numpy", "transformers", "trl", "accelerate", "peft", "datasets",
)  # fmt: skip


def step_seed(seed: int, name: str) -> int:
    """The seed of one step: a function of the run's seed and the step's name alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def environment() -> dict[str, Any]:
    """Versions, commit, threads and device, as a run records them."""
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

"""A run on disk: `runs/NAME/` with its configuration, records, figures, checkpoints and report.

A run is a sequence of named steps. A step leaves a folder, a JSON result, or both; each appears
under its final name in one rename, so after a kill a step is either done or not begun. Started
again with `resume` a run skips what is done. Every step seeds itself from the run's seed and its
own name, never from what ran before it, and so ends with the same numbers whether it was
interrupted or not.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import yaml

from search.evaluation.json_text import json_text
from search.evaluation.records import (
    StorageError,
    naming_path,
    read_records,
    write_json_atomic,
    write_text_atomic,
)

_RECORDED_PACKAGES = (
    "prefsearch", "torch", "numpy", "transformers", "trl", "accelerate", "peft", "datasets",
)  # fmt: skip


_ARTEFACTS = {"config.json", "adapter_config.json", "value_head.json"}


class RunExistsError(ValueError):
    """The folder of a new run is in use, or the run in it was made with other settings."""


def step_seed(seed: int, name: str) -> int:
    """The seed of one step: a function of the run's seed and the step's name alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def environment() -> dict[str, Any]:
    """What a result depends on beside its configuration: versions, commit, threads."""
    versions: dict[str, str] = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        here = Path(__file__).resolve().parent
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5,
            check=True,
        )  # fmt: skip
        commit = asked.stdout.strip()
    return {
        "versions": versions,
        "commit": commit,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }


class RunDirectory:
    """One run's folder. Make it with `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures = path / "figures"
        self.checkpoints = path / "checkpoints"
        self.records = path / "records.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.report = path / "report.html"

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any], *, resume: bool) -> Self:
        """Begins a run in a new or empty folder, or continues the one that is there.

        Args:
            path: The run's folder.
            config: The resolved configuration, JSON-like values.
            resume: Continue a run of the same configuration. Where there is none, begin it.

        Raises:
            RunExistsError: If the folder holds something and `resume` is off, or if the run in it
                was made with other settings.
            StorageError: If the folder cannot be written.
        """
        run = cls(Path(path))
        settings = json.loads(json_text(dict(config)))
        used = run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir()))
        saved_path = run.path / "config.yaml"
        if used and not resume:
            raise RunExistsError(
                f"{run.path} exists and is not empty; required: a new or empty folder. Continue "
                "that run with --resume, or choose another folder with --out"
            )
        if used and not saved_path.is_file():
            raise RunExistsError(
                f"{run.path} holds no config.yaml, so it is no run to continue. "
                "Choose another folder with --out"
            )
        if used:
            saved = yaml.safe_load(saved_path.read_text(encoding="utf-8"))
            changed = sorted(
                key for key in saved.keys() | settings.keys() if saved.get(key) != settings.get(key)
            )
            if changed:
                what = "; ".join(f"{k}: {saved.get(k)!r} -> {settings.get(k)!r}" for k in changed)
                raise RunExistsError(
                    f"{run.path} was made with other settings ({what}); required: the same "
                    "settings to continue it. Choose another folder with --out"
                )
        if not used:  # first, so that a kill leaves either nothing or a run to continue
            write_text_atomic(saved_path, yaml.safe_dump(settings, sort_keys=False))
        with naming_path(run.path, "write to"):
            for folder in (run.path, run.figures, run.checkpoints, run.path / "steps"):
                folder.mkdir(parents=True, exist_ok=True)
            for litter in run.path.rglob("*.partial-*"):
                shutil.rmtree(litter, ignore_errors=True)
        if not (run.path / "environment.json").is_file():
            write_json_atomic(run.path / "environment.json", environment())
        return run

    def result(self, step: str) -> dict[str, Any] | None:
        """The result of a finished step, or None."""
        path = self.path / "steps" / f"{step}.json"
        return json.loads(path.read_text(encoding="utf-8"))["result"] if path.is_file() else None

    def finish(
        self, step: str, result: Mapping[str, Any], *, records: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """Marks a step as done and keeps its result and its records.

        `metrics.jsonl` holds one line a step and `records.jsonl` the records of all steps; both are
        made from the finished steps, so a kill can neither lose nor double a line.

        Raises:
            StorageError: If the disk is full; the step is then not done.
            ValueError: If a value is NaN or infinite.
        """
        steps = self.path / "steps"
        if records:
            lines = (json_text({"step": step, **record}, ascii_only=True) for record in records)
            write_text_atomic(steps / f"{step}.jsonl", "\n".join(lines) + "\n")
        done = {path.stem: json.loads(path.read_text()) for path in steps.glob("*.json")}
        order = done[step]["order"] if step in done else len(done)
        done[step] = {"order": order, "result": json.loads(json_text(dict(result)))}
        write_json_atomic(steps / f"{step}.json", done[step])
        names = sorted(done, key=lambda name: done[name]["order"])
        metrics = [
            json_text({"step": name, **done[name]["result"]}, ascii_only=True) for name in names
        ]
        write_text_atomic(self.metrics, "\n".join(metrics) + "\n")
        kept = [steps / f"{name}.jsonl" for name in names]
        text = "".join(path.read_text(encoding="utf-8") for path in kept if path.is_file())
        write_text_atomic(self.records, text)
        return done[step]["result"]

    def step_records(self, step: str) -> list[dict[str, Any]]:
        """The records of one finished step."""
        path = self.path / "steps" / f"{step}.jsonl"
        return read_records(path) if path.is_file() else []

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Gives a scratch folder that becomes `checkpoints/NAME` if the block ends well.

        Raises:
            StorageError: If the disk is full or cannot be written; nothing is left behind.
        """
        with new_folder(self.checkpoints / name) as scratch:
            yield scratch


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives a scratch folder beside `target` that takes its name if the block ends well.

    A model's folder that already has the name is replaced only then.

    Raises:
        ValueError: If the name belongs to a folder that holds something else.
        StorageError: If the disk is full or cannot be written; nothing is left behind.
    """
    held = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if held and not held & _ARTEFACTS:
        raise ValueError(
            f"{target} holds {', '.join(sorted(held)[:5])} and no model; required: a new folder, "
            "or a model's to replace. Choose another one"
        )
    scratch = target.with_name(f"{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        with naming_path(target, "write"):
            scratch.mkdir(parents=True)
            yield scratch
            if target.exists():
                shutil.rmtree(target)
            os.replace(scratch, target)
    except StorageError:
        raise
    except Exception as error:
        # safetensors reports a full disk as an error of its own.
        if "No space left on device" not in str(error):
            raise
        with naming_path(target, "write"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


__all__ = [
    "RunDirectory",
    "RunExistsError",
    "StorageError",
    "environment",
    "new_folder",
    "step_seed",
]

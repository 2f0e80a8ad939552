"""What a results file records of how it was measured, and the sources that its figures depend on.

Every benchmark writes a mapping `provenance` into its JSON: the command, the commit and whether
files differed from it, date, machine, package versions, seeds, rounds, and a digest of the contents
of the files named in `SOURCES`. `benchmarks/documents.py` compares that digest with the files of
today and marks figures that are older than the code.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.evaluation.records import write_json_atomic

ROOT = Path(__file__).resolve().parent.parent
NOT_RECORDED = "not recorded"  # of runs made before the programs recorded it
FIELDS = (
    "command",
    "commit",
    "uncommitted_changes",
    "date",
    "machine",
    "versions",
    "seeds",
    "rounds",
    "source_digest",
)
_GAMES = ("search/**/*.py", "atari_bridge/**/*.py")
_REWARD_MODEL = ("rewardmodel/**/*.py",)
_TEXT = ("search/**/*.py", "rewardmodel/**/*.py", "policies/*.py")
SOURCES: Mapping[str, tuple[str, ...]] = {
    "atari_compile": (*_GAMES, "benchmarks/atari_compile.py"),
    "atari_cpu": (*_GAMES, "configs/atari_bridge/ale_cpu.yaml", "benchmarks/atari_cpu.py"),
    "atari_speed": (
        *_GAMES,
        "configs/atari_bridge/ale_cpu.yaml",
        "benchmarks/atari.py",
        *(f"benchmarks/atari_{part}.py" for part in ("cells", "lightzero", "ours", "worker")),
    ),
    "atari_true_simulator": (*_GAMES, "benchmarks/atari_true_simulator.py"),
    "cartpole": (*_GAMES, "configs/atari_bridge/cartpole.yaml", "benchmarks/cartpole.py"),
    "demo": (*_TEXT, "benchmarks/demo_seeds.py"),
    "hh_minilm": (
        *_REWARD_MODEL,
        "configs/rewardmodel/hh_minilm.yaml",
        "benchmarks/reward_baselines.py",
    ),
    "leaves_per_step": ("search/**/*.py", "benchmarks/leaves_per_step.py"),
    "planning_core": (
        "search/*.py",
        "benchmarks/planning_core.py",
        *(
            f"benchmarks/planning_core_{part}.py"
            for part in ("grid", "mctx", "run", "torch", "worker")
        ),
    ),
    "planning_cuda": ("search/*.py", "benchmarks/planning_cuda.py"),
    "real_data": (*_TEXT, "docs/real_data.sh", "benchmarks/real_data.py"),
    "reward_scoring": (
        *_REWARD_MODEL,
        "benchmarks/reward_models.py",
        "benchmarks/reward_scoring*.py",
    ),
    "reward_training": (
        *_REWARD_MODEL,
        "benchmarks/reward_models.py",
        "benchmarks/reward_training.py",
    ),
    "text_gains": (
        *_TEXT,
        "benchmarks/text_gains.py",
        "benchmarks/text_search_models.py",
    ),
    "text_planner_defaults": (
        *_TEXT,
        "benchmarks/text_planner_defaults.py",
        "benchmarks/text_planner_toys.py",
    ),
    "text_search": (*_TEXT, "benchmarks/text_search*.py"),
    "text_search_one_thread": (*_TEXT, "benchmarks/text_search*.py"),
}
_PACKAGES = (
    "prefsearch", "torch", "numpy", "numba", "transformers", "trl", "accelerate", "peft",
    "datasets", "gymnasium", "ale-py",
)  # fmt: skip


def source_files(name: str, root: Path = ROOT) -> list[Path]:
    """The files that a result depends on, in the order of their paths.

    Args:
        name: In `SOURCES`.
        root: The repository.

    Raises:
        ValueError: If a pattern matches no file, as after a rename.
    """
    found: set[Path] = set()
    for pattern in SOURCES[name]:
        matched = {path for path in root.glob(pattern) if path.is_file()}
        if not matched:
            raise ValueError(
                f"the sources of {name!r} name {pattern!r}, which matches no file; required: a "
                "pattern that matches. Change it in SOURCES of benchmarks/provenance.py"
            )
        found |= matched
    return sorted(found)


def source_digest(name: str, root: Path = ROOT) -> str:
    """A digest of the paths and contents of a result's source files."""
    digest = hashlib.sha256()
    for path in source_files(name, root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def provenance(
    name: str,
    command: Sequence[str],
    *,
    seeds: Sequence[int],
    rounds: int | None = None,
    versions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What to keep beside figures. Call it before anything is measured.

    Args:
        name: Of the results file without its ending, in `SOURCES`.
        command: The words of the command line; folders of this machine are cut to their names.
        seeds: All seeds that were run.
        rounds: How often each figure was measured, where that is one number.
        versions: Of packages in other processes, beside those of this one.
    """
    commit, changed = _commit()
    return {
        "command": shlex.join(_without_folders(word) for word in command),
        "commit": commit,
        "uncommitted_changes": changed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**_versions(), **(versions or {})},
        "seeds": list(seeds),
        "rounds": rounds,
        "sources": list(SOURCES[name]),
        "source_digest": source_digest(name),
    }


def machine() -> dict[str, Any]:
    """The class of machine, as far as a time depends on it."""
    cpu, memory = platform.processor() or platform.machine(), None
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
        memory = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]) * 1024 / 1e9
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": memory,
        "system": platform.system(),
        "load_average": os.getloadavg()[0],
    }


def same_sources(earlier: Mapping[str, Any], name: str) -> bool:
    """Whether a results file was measured with the source files of today."""
    return earlier.get("provenance", {}).get("source_digest") == source_digest(name)


def hold_sources(run: Path, name: str) -> None:
    """Binds a run's folder to the source files it was begun with, in a file beside it.

    What a run keeps for its continuation is then never pooled with figures of other code.

    Raises:
        ValueError: If the folder holds a run of other source files, or of unknown ones.
    """
    kept = run.with_name(f"{run.name}.sources.json")
    now = source_digest(name)
    begun = run.is_dir() and any(run.iterdir())
    if not begun:
        write_json_atomic(kept, {"source_digest": now})
        return
    then = NOT_RECORDED
    if kept.is_file():
        then = json.loads(kept.read_text(encoding="utf-8"))["source_digest"]
    if then != now:
        raise ValueError(
            f"{run} was begun with other source files (digest found: {then}; required: {now}). "
            "Remove the folder, or choose another one, to measure the code of today"
        )


def _without_folders(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _commit() -> tuple[str | None, bool | None]:
    """The commit, and whether tracked files differ from it; None outside a git checkout."""
    asked = ("git", "rev-parse", "HEAD"), ("git", "status", "--porcelain", "-uno")
    try:
        head, changed = (
            subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for command in asked
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    return head, bool(changed)

"""Provenance of results files, and the source files that their figures depend on.

Every benchmark writes a mapping `provenance` into its JSON: the command, the commit and whether
files differed from it, date, machine, package versions, seeds, rounds, and a digest of the contents
of the files that `SOURCES` leads to: all that its modules import, and the data named beside them.
`benchmarks/harness/documents.py` compares that digest with the current files and marks figures that
are older than the code.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness.import_closure import import_closure
from benchmarks.harness.worker import ROOT, Json
from prefsearch.storage.files import write_json_atomic

NOT_RECORDED = "not recorded"  # of runs made before the programs recorded it
CHANGED = "changed during the run"
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


@dataclass(frozen=True)
class Sources:
    """What a results file is made with.

    Attributes:
        command: What writes it, for a shell in the repository.
        imports: Modules that it runs in other processes or imports by a computed name. Of the
            commands of `prefsearch`, those that it runs: all of them import everything.
        data: Patterns of further files, such as configurations and scripts.
    """

    command: str
    imports: tuple[str, ...] = ()
    data: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        """How the command begins, without variables and options."""
        found = re.search(r"(?:python )?\S+\.(?:py|sh)\b", self.command)
        assert found is not None
        return found.group()

    @property
    def roots(self) -> tuple[str, ...]:
        """Modules whose imports lead to every file that the figures depend on."""
        if not self.script.startswith("python "):
            return self.imports
        path = self.script.removeprefix("python ").removesuffix(".py")
        return (path.replace("/", "."), *self.imports)


# Imported by benchmarks without any influence on figures: they show figures or note their origin.
LEFT_OUT = (
    "benchmarks/harness/documents*.py",
    "benchmarks/harness/import_closure.py",
    "benchmarks/harness/unsourced_numbers.py",
    "benchmarks/harness/provenance.py",
    "prefsearch/report/plotting.py",
    "search/evaluation/figures.py",
    "prefsearch/report/page.py",
    "prefsearch/report/style.py",
    "search/viewer/*.py",
)
_COMMAND = ("prefsearch.cli.entry", "prefsearch.cli.command_line")  # of any `prefsearch COMMAND`
_GAME = "configs/atari_bridge/ale_cpu.yaml"
_PEERS = "benchmarks/peers.sh"
SOURCES: Mapping[str, Sources] = {
    "atari_compile": Sources(
        "python benchmarks/atari/compile.py",
        data=(_GAME, "configs/atari_bridge/efficientzero.yaml"),
    ),
    "atari_cpu": Sources("python benchmarks/atari/cpu.py", data=(_GAME,)),
    "atari_speed": Sources(
        "python benchmarks/atari/atari.py",
        ("benchmarks.atari.ours", "benchmarks.atari.lightzero"),
        (_GAME, _PEERS),
    ),
    "atari_true_simulator": Sources("python benchmarks/atari/true_simulator.py"),
    "cartpole": Sources(
        "python benchmarks/atari/cartpole.py", data=("configs/atari_bridge/cartpole.yaml",)
    ),
    "demo": Sources("python benchmarks/text/demo_seeds.py", (*_COMMAND, "policies.demo")),
    "hh_minilm": Sources(
        "python benchmarks/reward/baselines.py --run runs/hh_minilm "
        "--out docs/results/hh_minilm.json",
        (*_COMMAND, "rewardmodel.cli.train"),
        ("configs/rewardmodel/hh_minilm.yaml",),
    ),
    "leaves_per_step": Sources("python benchmarks/core/leaves_per_step.py"),
    "planning_core": Sources(
        "python benchmarks/core/planning_core.py",
        ("benchmarks.core.torch_side", "benchmarks.core.mctx_side"),
        (_PEERS,),
    ),
    "planning_cuda": Sources("python benchmarks/core/planning_cuda.py"),
    "real_data": Sources(
        "RESULTS=docs/results/real_data.json docs/real_data.sh",
        (
            "benchmarks.reward.real_data",
            *_COMMAND,
            "rewardmodel.cli.data",
            "rewardmodel.cli.train",
            "rewardmodel.cli.evaluate",
            "policies.cli.train",
            "policies.cli.evaluate",
        ),
        ("docs/real_data.sh",),
    ),
    "reward_scoring": Sources(
        "python benchmarks/reward/scoring.py --out docs/results/reward_scoring.json"
    ),
    "reward_training": Sources(
        "python benchmarks/reward/training.py --out docs/results/reward_training.json"
    ),
    "text_gains": Sources(
        "python benchmarks/text/text_gains.py", (*_COMMAND, "policies.cli.evaluate")
    ),
    "text_planner_defaults": Sources(
        "python benchmarks/text/planner_defaults.py --policy runs/demo/checkpoints/sft"
    ),
    "text_search": Sources(
        "python benchmarks/text/text_search.py --out docs/results/text_search.json", data=(_PEERS,)
    ),
    "text_search_one_thread": Sources(
        "python benchmarks/text/text_search.py --cells search-8 --threads 1 --rounds 3 "
        "--out docs/results/text_search_one_thread.json",
        data=(_PEERS,),
    ),
}
_PACKAGES = (
    "prefsearch", "torch", "numpy", "numba", "transformers", "trl", "accelerate", "peft",
    "datasets", "gymnasium", "ale-py",
)  # fmt: skip


def source_files(name: str, root: Path = ROOT) -> list[Path]:
    """The files that a result depends on, in the order of their paths.

    Raises:
        ValueError: If a module or pattern leads to no file, as after a rename.
    """
    found = set(import_closure(SOURCES[name].roots, root, left_out=LEFT_OUT))
    for pattern in SOURCES[name].data:
        matched = {path for path in root.glob(pattern) if path.is_file()}
        if not matched:
            raise ValueError(
                f"the sources of {name!r} name {pattern!r}, which matches no file; required: a "
                "pattern that matches. Change it in SOURCES of benchmarks/harness/provenance.py"
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
    words: Sequence[str],
    *,
    seeds: Sequence[int],
    rounds: int | None = None,
    versions: Json | None = None,
) -> Json:
    """What is kept beside figures. Call it before anything is measured.

    Args:
        name: Of the results file without its ending, in `SOURCES`.
        words: The command line after the script; folders of this machine are cut to their names.
        seeds: All seeds that were run.
        rounds: How often each figure was measured, where that is one number.
        versions: Of packages in other processes, beside those of this one.
    """
    commit, changed = _commit()
    options = shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)
    return {
        "command": f"{SOURCES[name].script} {options}".rstrip(),
        "commit": commit,
        "uncommitted_changes": changed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**_versions(), **(versions or {})},
        "seeds": list(seeds),
        "rounds": rounds,
        "sources": [*SOURCES[name].roots, *SOURCES[name].data],
        "source_digest": source_digest(name),
    }


def machine() -> Json:
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


def same_sources(earlier: Json, name: str) -> bool:
    """Whether a results file was measured with the current source files."""
    return earlier.get("provenance", {}).get("source_digest") == source_digest(name)


def require_sources(name: str, digest: str) -> None:
    """Checks that the source files are still those of a digest.

    Raises:
        ValueError: If a source file has changed since.
    """
    now = source_digest(name)
    if now != digest:
        raise ValueError(
            f"the source files of {name!r} changed while it was measured (digest found: {now}; "
            f"required: {digest}, that of the start). Nothing more is written. Put the files back "
            "and start the command again, or remove what its run has kept and measure anew"
        )


@contextmanager
def held_sources(run: Path, name: str, digest: str) -> Iterator[None]:
    """Checks before and after a block that a run's folder is of the source files of a digest.

    The digest is kept in a file beside the folder, so that a run that is continued never pools
    figures of two versions of the code. A folder that was written to while files changed is
    refused from then on.

    Args:
        run: The folder.
        name: Of the results file, in `SOURCES`.
        digest: `source_digest` of its provenance, taken before anything ran.

    Raises:
        ValueError: If source files have changed since, or the folder is a run of others or of
            unknown ones.
    """
    require_sources(name, digest)
    kept = run.with_name(f"{run.name}.sources.json")
    if not (run.is_dir() and any(run.iterdir())):
        write_json_atomic(kept, {"source_digest": digest})
    then = NOT_RECORDED
    if kept.is_file():
        then = json.loads(kept.read_text(encoding="utf-8"))["source_digest"]
    if then != digest:
        raise ValueError(
            f"{run} was begun with other source files (digest found: {then}; required: {digest}). "
            "Remove the folder, or choose another one, to measure the current code"
        )
    try:
        yield
    finally:
        if not _are_sources(name, digest):
            write_json_atomic(kept, {"source_digest": CHANGED})
    require_sources(name, digest)


def _are_sources(name: str, digest: str) -> bool:
    """Whether source files have a digest; not if one of them is missing."""
    try:
        return source_digest(name) == digest
    except ValueError:
        return False


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _commit() -> tuple[str | None, bool | None]:
    """The commit, and whether tracked files differ from it; None outside a git checkout."""
    commands = ("git", "rev-parse", "HEAD"), ("git", "status", "--porcelain", "-uno")
    try:
        head, changed = (
            subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    return head, bool(changed)

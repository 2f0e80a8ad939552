"""Trains CartPole by its configuration with several seeds and keeps how long games last on the way.

    python benchmarks/atari/cartpole.py    # about three minutes a seed on one core

Intervals are over training seeds. A run that was stopped goes on from its checkpoint, with the same
source files only; the same command started twice shares the seeds between two processes. Writes
`docs/results/cartpole.json` and the figures of docs/atari.md.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.cli.train import train
from benchmarks.harness.documents import update
from benchmarks.harness.provenance import ROOT, held_sources, provenance, require_sources
from benchmarks.harness.seed_runs import each_seed
from prefsearch.cli.command_line import parse
from prefsearch.cli.entry import shipped_configurations
from prefsearch.statistics.intervals import interval_over_seeds
from prefsearch.storage.files import read_records, write_json_atomic

NAME = "cartpole"
RETURNS = ("search_return", "sampled_return", "policy_return")


def curve(run: Path) -> list[dict[str, Any]]:
    """The evaluations of a run in order: decisions, updates and three intervals over games."""
    return [
        {key: row[key] for key in ("decisions", "updates", *RETURNS)}
        for row in read_records(run / "metrics.jsonl")
        if row["step"].startswith("evaluation")
    ]


def over_seeds(curves: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The curve of all seeds: decisions, and each return with its interval over seeds.

    Raises:
        ValueError: If seeds were not evaluated after the same decisions.
    """
    rows = []
    for found in zip(*curves.values(), strict=True):
        decisions = {row["decisions"] for row in found}
        if len(decisions) > 1:
            raise ValueError(f"evaluations after {sorted(decisions)} decisions; required: the same")
        means = {name: [[row[name]["estimate"]] for row in found] for name in RETURNS}
        rows.append(
            {"decisions": found[0]["decisions"]}
            | {name: asdict(interval_over_seeds(values)) for name, values in means.items()}
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Trains and writes."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--decisions", type=int, help="default: those of the configuration")
    parser.add_argument("--runs", type=Path, default=Path("runs/cartpole_benchmark"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / f"{NAME}.json")
    own = parser.parse_args(words)
    if len(own.seeds) < 2:
        parser.error(f"--seeds: found {own.seeds}; required: two or more, intervals are over seeds")
    about = provenance(NAME, ["python", "benchmarks/atari/cartpole.py", *words], seeds=own.seeds)
    config = str(shipped_configurations()[f"atari_bridge/{NAME}"])

    def job(seed: int) -> AtariTrainArgs:
        flags = ["--config", config, "--out", str(own.runs / f"seed-{seed}"), "--seed", str(seed)]
        flags += ["--resume", "true"]
        if own.decisions:
            flags += ["--total_decisions", str(own.decisions)]
        return parse(AtariTrainArgs, flags, prog=NAME)

    def run(seed: int) -> list[dict[str, Any]]:
        folder = own.runs / f"seed-{seed}"
        with held_sources(folder, NAME, about["source_digest"]):
            train(job(seed))
        return curve(folder)

    curves = each_seed(own.seeds, own.runs / "locks", run)
    games = job(own.seeds[0]).evaluation_games
    by_seed = {str(seed): found for seed, found in curves.items()}
    results = {"provenance": about, "games": games, "curve": over_seeds(curves), "by_seed": by_seed}
    require_sources(NAME, about["source_digest"])
    write_json_atomic(own.out, results)
    update(own.out)


if __name__ == "__main__":
    main()

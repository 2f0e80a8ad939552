"""Trains CartPole by its configuration with several seeds and records the lengths of games.

    python benchmarks/atari/cartpole.py    # about three minutes a seed on one core

Intervals are over training seeds. A run that was stopped continues from its checkpoint, with the
same source files only; the same command started twice shares the seeds between two processes.
Writes `docs/results/cartpole.json` and the figures of docs/atari.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.cli.train import train
from benchmarks.atari.shipped import shipped_job
from benchmarks.harness.provenance import held_sources
from benchmarks.harness.results import Results, benchmark_parser
from benchmarks.harness.seed_runs import each_seed
from benchmarks.harness.worker import Json
from prefsearch.statistics.seed_intervals import interval_over_seeds
from prefsearch.storage.files import read_records

NAME = "cartpole"
RETURNS = ("search_return", "sampled_return", "policy_return")


def curve(run: Path) -> list[Json]:
    """The evaluations of a run in order: decisions, updates and three intervals over games."""
    return [
        {key: row[key] for key in ("decisions", "updates", *RETURNS)}
        for row in read_records(run / "metrics.jsonl")
        if row["step"].startswith("evaluation")
    ]


def over_seeds(curves: Mapping[int, Sequence[Json]]) -> list[Json]:
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and writes."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--decisions", type=int, help="default: those of the configuration")
    parser.add_argument("--runs", type=Path, default=Path("runs/cartpole_benchmark"))
    options = parser.parse_args(arguments)
    seeds = options.seeds
    if len(seeds) < 2:
        parser.error(f"--seeds: found {seeds}; required: two or more, intervals are over seeds")
    file = Results(NAME, arguments, options.out, seeds=seeds)

    def job(seed: int) -> AtariTrainArgs:
        changes = {"seed": seed, "resume": True}
        if options.decisions:
            changes["total_decisions"] = options.decisions
        return shipped_job(NAME, options.runs / f"seed-{seed}", changes)

    def run(seed: int) -> list[Json]:
        folder = options.runs / f"seed-{seed}"
        with held_sources(folder, NAME, file.digest):
            train(job(seed))
        return curve(folder)

    curves = each_seed(seeds, options.runs / "locks", run)
    by_seed = {str(seed): found for seed, found in curves.items()}
    games = job(seeds[0]).evaluation_games
    file.publish({"games": games, "curve": over_seeds(curves), "by_seed": by_seed})


if __name__ == "__main__":
    main()

"""Atari on two CPU cores: several training seeds, evaluated with and without search.

    python benchmarks/atari/cpu.py --seeds 1 2 3 --runs runs/atari_cpu

Trains each seed by `configs/atari_bridge/ale_cpu.yaml`, plays games with the trained agent at
several search budgets, with its policy alone and at random, and writes
`docs/results/atari_cpu.json` and `.png`. Games end after five minutes of play (4,500
decisions, 18,000 frames: the limit of Mnih et al. 2015). Each training seed is evaluated on games
of its own, as is random play, and no training run plays them: an interval over seeds thus covers
all randomness.

Finished parts are kept: a run that was stopped continues from its checkpoint, and finished seeds
are not run again. `--minutes` pauses training after so long.

Two choices were made before seeds 1 to 3 were run, on seed 100, which is not reported: the
settings, and the headline, an action sampled from a search of as many simulations as in training.
In a game without randomness the best action of every moment easily repeats itself; it is reported
beside.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from atari_bridge.cli.args import AtariEvaluateArgs, AtariTrainArgs
from atari_bridge.cli.evaluate import evaluate_all
from atari_bridge.cli.train import train
from atari_bridge.reference.scores import human_normalized
from atari_bridge.training.agent import load_agent
from benchmarks.atari.budget_figure import budget_curves
from benchmarks.atari.shipped import shipped_job
from benchmarks.harness.provenance import held_sources
from benchmarks.harness.results import Results, benchmark_parser
from benchmarks.harness.worker import Json
from prefsearch.statistics.seed_intervals import SeedInterval, interval_over_seeds
from prefsearch.statistics.significance import count_verdicts, describe_required_seeds
from prefsearch.storage.files import read_records

_BUDGETS = [2, 8, 16, 50]
_FIVE_MINUTES = 4_500  # decisions of four frames
NAME = "atari_cpu"


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, evaluates, and writes."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/atari_cpu"))
    parser.add_argument("--games", type=int, default=32, help="an evaluation")
    parser.add_argument("--minutes", type=float, help="of training in this call, for each seed")
    options = parser.parse_args(arguments)
    file = Results(NAME, arguments, options.out, seeds=options.seeds)
    found: list[Json] = []
    for seed in options.seeds:
        folder = options.runs / f"seed-{seed}"
        job = shipped_job("ale_cpu", folder, {"seed": seed, "resume": True})
        job = replace(job, minutes=options.minutes)
        with held_sources(folder, NAME, file.digest):
            train(job)
            done = [row for row in read_records(folder / "metrics.jsonl") if "seconds" in row]
            if done[-1]["decisions"] < job.agent.length.total_decisions:
                continue  # paused; the next call continues
            found.append(_evaluated(folder, seed, options.games, done))
        file.write(_summary(found, job))
        budget_curves(
            found,
            options.out.with_suffix(""),
            title=f"{job.agent.environment.game}: what search adds",
        )
    if found:
        file.publish()


def _evaluated(folder: Path, seed: int, games: int, parts: Sequence[Json]) -> Json:
    """One seed's evaluations, each made once."""
    job = AtariEvaluateArgs(
        checkpoint=str(folder),
        budgets=_BUDGETS,
        games=games,
        max_decisions=_FIVE_MINUTES,
        seed=1_000 + seed,
        out=str(folder / "evaluated.json"),
        threads=1,
    )
    evaluate_all(job, load_agent(folder))
    curve = [
        row
        for row in read_records(folder / "metrics.jsonl")
        if row["step"].startswith("evaluation")
    ]
    return {
        "training_seed": seed,
        "training_seconds": sum(part["seconds"] for part in parts),
        "updates": parts[-1]["updates"],
        "decisions": parts[-1]["decisions"],
        "frames": parts[-1]["frames"],
        "curve": curve,
        **json.loads(Path(job.out).read_text(encoding="utf-8")),
    }


def _summary(found: Sequence[Json], job: AtariTrainArgs) -> Json:
    """Means with intervals over seeds (of one seed: over its games), and each seed.

    Differences from a baseline are paired by game: game n begins alike for every agent of a seed.
    """
    returns = {
        name: [np.array(run["evaluations"][name]["returns"]) for run in found]
        for name in found[0]["evaluations"]
    }
    means = {name: interval_over_seeds(values, item="games") for name, values in returns.items()}
    above = {
        baseline: {
            name: interval_over_seeds(
                [one - other for one, other in zip(values, returns[baseline], strict=True)],
                item="games",
            )
            for name, values in returns.items()
            if name != baseline
        }
        for baseline in ("random", "policy, sampled")
    }
    headline = f"search, {job.agent.search.num_simulations} simulations, sampled"
    gains = {k: v for k, v in above["policy, sampled"].items() if k != "random"}
    return {
        "game": job.agent.environment.game,
        "headline": headline,
        "over_seeds": {
            name: {
                **_plain(interval),
                "human_normalized": human_normalized(job.agent.environment.game, interval.estimate),
            }
            for name, interval in means.items()
        },
        "above": {
            baseline: {name: _plain(interval) for name, interval in found_gains.items()}
            for baseline, found_gains in above.items()
        },
        "most_decisions": _FIVE_MINUTES,
        "interval": f"95 %, Student's t, {gains[headline].scope}; of a run's own: over its games",
        "verdicts": {
            baseline: count_verdicts({k: v for k, v in found_gains.items() if k != "random"})
            for baseline, found_gains in above.items()
        },
        "power": describe_required_seeds(
            gains, difference=0.1 * abs(means["policy, sampled"].estimate)
        ),
        "settings": asdict(job),
        "runs": list(found),
    }


def _plain(interval: SeedInterval) -> Json:
    """An interval as in JSON."""
    return json.loads(json.dumps(asdict(interval)))


if __name__ == "__main__":
    main()

"""Atari on two CPU cores: several training seeds, judged with and without search.

    python benchmarks/atari/cpu.py --seeds 1 2 3 --runs runs/atari_cpu

Trains each seed by `configs/atari_bridge/ale_cpu.yaml`, plays games with the trained agent at
several search budgets, with its policy alone and at random, and writes
`docs/results/atari_cpu.json` and `.png`. Games are broken off after five minutes of play (4,500
decisions, 18,000 frames: the limit of Mnih et al. 2015). Each training seed is judged on games of
its own, which no training run plays, random play too: so an interval over seeds holds all chance.

Whatever is finished is kept: a run that was stopped goes on from its checkpoint, and seeds that are
done are not done again. `--minutes` pauses training after so long.

Chosen before seeds 1 to 3 were looked at, on seed 100, which is not reported: the settings, and
that the headline is an action sampled from what a search of as many simulations as in training
found. In a game without chance the best action of every moment is easily a rut; it is reported
beside.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from atari_bridge.cli.args import AtariEvaluateArgs, AtariTrainArgs
from atari_bridge.cli.evaluate import evaluate_all
from atari_bridge.cli.train import train
from atari_bridge.reference.scores import human_normalized
from atari_bridge.training.agent import load_agent
from benchmarks.atari.budget_figure import budget_curves
from benchmarks.harness.documents import update
from benchmarks.harness.provenance import ROOT, held_sources, provenance
from prefsearch.cli.command_line import parse
from prefsearch.cli.entry import shipped_configurations
from prefsearch.statistics.intervals import SeedInterval, interval_over_seeds
from prefsearch.statistics.verdicts import count_verdicts, describe_need
from prefsearch.storage.files import read_records, write_json_atomic

_BUDGETS = [2, 8, 16, 50]
_FIVE_MINUTES = 4_500  # decisions of four frames
_RESULTS = ROOT / "docs" / "results"
NAME = "atari_cpu"


def main() -> None:
    """Trains, judges, and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/atari_cpu"))
    parser.add_argument("--games", type=int, default=32, help="an evaluation")
    parser.add_argument("--minutes", type=float, help="of training in this call, for each seed")
    parser.add_argument("--out", type=Path, default=_RESULTS / "atari_cpu.json")
    own = parser.parse_args()
    command = ["python", "benchmarks/atari/cpu.py", *sys.argv[1:]]
    about = provenance(NAME, command, seeds=own.seeds)
    config = str(shipped_configurations()["atari_bridge/ale_cpu"])
    found: list[dict[str, Any]] = []
    for seed in own.seeds:
        folder = own.runs / f"seed-{seed}"
        words = ["--config", config, "--out", str(folder), "--seed", str(seed), "--resume", "true"]
        job = replace(parse(AtariTrainArgs, words, prog="atari_cpu"), minutes=own.minutes)
        with held_sources(folder, NAME, about["source_digest"]):
            train(job)
            done = [row for row in read_records(folder / "metrics.jsonl") if "seconds" in row]
            if done[-1]["decisions"] < job.agent.length.total_decisions:
                continue  # paused; the next call goes on
            found.append(_judged(folder, seed, own.games, done))
        write_json_atomic(own.out, {"provenance": about, **_summary(found, job)})
        budget_curves(
            found, own.out.with_suffix(""), title=f"{job.agent.environment.game}: what search adds"
        )
    if found:
        update(own.out)


def _judged(
    folder: Path, seed: int, games: int, parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One seed's evaluations, each made once."""
    job = AtariEvaluateArgs(
        checkpoint=str(folder),
        budgets=_BUDGETS,
        games=games,
        max_decisions=_FIVE_MINUTES,
        seed=1_000 + seed,
        out=str(folder / "judged.json"),
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


def _summary(found: Sequence[Mapping[str, Any]], job: AtariTrainArgs) -> dict[str, Any]:
    """Means over seeds with the interval over seeds (of one seed, over its games), and each seed.

    What is above a baseline is taken game by game: game n begins alike for every agent of a seed.
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
        "power": describe_need(gains, difference=0.1 * abs(means["policy, sampled"].estimate)),
        "settings": asdict(job),
        "runs": list(found),
    }


def _plain(interval: SeedInterval) -> dict[str, Any]:
    """An interval as JSON will have it."""
    return json.loads(json.dumps(asdict(interval)))


if __name__ == "__main__":
    main()

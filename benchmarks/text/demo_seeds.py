"""Runs the demo with several seeds and writes what it measured into `docs/results/demo.json`.

    python benchmarks/text/demo_seeds.py --seeds 1 2 3 4 5 6 7 8

Each seed has its own world, models and held-out prompts, so intervals are over seeds; the figures
of each seed are kept beside them. A finished seed is not run again, a killed one continues, and the
same command started twice shares the seeds between two processes. Gains of best-of-N against a
reward model of few labels are over all seeds; the picture of over-optimization is that of the
first.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from benchmarks.harness.provenance import ROOT, held_sources
from benchmarks.harness.results import Results, benchmark_parser
from benchmarks.harness.seed_runs import each_seed
from benchmarks.harness.worker import Json
from policies.evaluation.cells import (
    BEST_OF_N,
    Array,
    best_of_n_clusters,
    cell_row,
    curves,
    summarize,
)
from prefsearch.statistics.seed_intervals import interval_over_seeds
from prefsearch.storage.files import read_records, write_json_atomic
from search.evaluation.figures import gain_curves

NAME = "demo"
FEW_LABELS = "reward-few"  # the demo's name of its second reward model
FALL_FROM = 8  # the N from which gold is compared; fixed beforehand


def run_seed(seed: int, out: Path, threads: int, digest: str) -> float:
    """Runs one demo and returns its minutes, those of an earlier run if it was finished.

    Raises:
        ValueError: If source files have changed, or an earlier run was begun with others.
    """
    clock = out / "minutes.json"
    with held_sources(out, NAME, digest):
        if not clock.is_file():
            began = time.perf_counter()
            command = [sys.executable, "-m", "prefsearch", "demo", "--resume"]
            command += ["--seed", str(seed), "--out", str(out), "--threads", str(threads)]
            subprocess.run(command, cwd=ROOT, check=True)
            write_json_atomic(clock, {"minutes": (time.perf_counter() - began) / 60})
    return json.loads(clock.read_text())["minutes"]


def records_of(out: Path, seed: int) -> list[Json]:
    """A run's records, marked with their seed."""
    found = read_records(out / "records.jsonl")
    return [{**record, "run": seed} for record in found if "gold" in record]


def scores(
    records: list[Json],
    policy: str,
    budget: str,
    *,
    reward_model: str = "reward",
    key: str = "gold",
) -> dict[int, Array]:
    """Scores of best-of-N (or of one sample) by seed, one value a prompt in their order."""
    wanted = {"policy": policy, "method": BEST_OF_N, "budget": budget, "reward_model": reward_model}
    kept = [r for r in records if wanted.items() <= r.items()]
    return {seed: np.array([r[key] for r in sorted(kept, key=lambda r: r["prompt"])
                            if r["run"] == seed])
            for seed in dict.fromkeys(r["run"] for r in kept)}  # fmt: skip


def over_prompts(records: list[Json], better: dict[int, Array], worse: dict[int, Array]) -> Json:
    """How far some scores are above others, paired by prompt, with the interval over seeds."""
    one = [r for r in records if r["policy"] == "sft" and r["reward_model"] == "reward"]
    differences = [better[seed] - worse[seed] for seed in worse]
    return asdict(interval_over_seeds(differences, clusters=best_of_n_clusters(one)))


def above_base(records: list[Json], policy: str, budget: str) -> Json:
    """Gold of best-of-N above one sample of the base policy, paired by prompt."""
    return over_prompts(records, scores(records, policy, budget), scores(records, "sft", "1"))


def few_labels(records: list[Json], pairs: list[int]) -> Json | None:
    """Best-of-N against the reward model of few labels, by its own score and by gold.

    The change is from `FALL_FROM` to the largest N: from the N at which gold is highest in these
    records it would fall by chance alone.

    Args:
        records: Of all seeds.
        pairs: How many labels that reward model saw; several numbers where seeds differ.

    Returns:
        `above_one_sample` and `change` in `proxy` and `gold`, each with its interval over seeds;
        None where no larger N than `FALL_FROM` was measured against such a reward model.
    """
    few = [r for r in records if r["reward_model"] == FEW_LABELS]
    counts = sorted({int(r["budget"]) for r in few if r["method"] == BEST_OF_N})
    if FALL_FROM not in counts or counts[-1] == FALL_FROM:
        return None

    def difference(key: str, n: int, than: int) -> Json:
        better, worse = (
            scores(few, "sft", str(count), reward_model=FEW_LABELS, key=key) for count in (n, than)
        )
        return over_prompts(records, better, worse)

    return {
        "pairs": pairs,
        "above_one_sample": [
            {"budget": str(n)} | {key: difference(key, n, 1) for key in ("proxy", "gold")}
            for n in counts
            if n > 1
        ],
        "change": {"from": str(FALL_FROM), "to": str(counts[-1])}
        | {key: difference(key, counts[-1], FALL_FROM) for key in ("proxy", "gold")},
    }


def cells_of(records: list[Json]) -> list[Json]:
    """All cells without their seconds, which vary on a shared machine."""
    rows = [cell_row(cell) for cell in summarize(records, seed=0)]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all seeds and writes the pooled figures."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    options = parser.parse_args(arguments)
    file = Results(NAME, arguments, options.out, seeds=options.seeds)
    folders = {seed: options.runs / f"demo-seed-{seed}" for seed in options.seeds}
    minutes = each_seed(
        options.seeds,
        options.runs / "demo-seeds",
        lambda seed: run_seed(seed, folders[seed], options.threads, file.digest),
    )
    records: list[Json] = []
    accuracies, few_pairs = {}, set()
    for seed, folder in folders.items():
        summary = json.loads((folder / "summary.json").read_text())
        accuracies[str(seed)] = summary["steps"]["reward"]["accuracy"]
        few_pairs.add(summary["steps"][FEW_LABELS]["pairs"])
        records += records_of(folder, seed)
    base = [r for r in records if r["policy"] == "sft" and r["reward_model"] == "reward"]
    tuned = [r for r in records if r["policy"] == "tuned"]
    first = folders[options.seeds[0]]
    configuration = yaml.safe_load((first / "config.yaml").read_text())
    cells = summarize(base, seed=0)
    gain_curves(
        curves(cells),
        options.out.parent / "demo_gains.png",
        x_label="generated tokens a prompt",
        y_label=f"mean score, 95 % {cells[0].proxy.scope}",
        title="Planning against the reward model, seeds " + " ".join(map(str, options.seeds)),
    )
    source = first / "figures" / "overoptimization.png"
    shutil.copyfile(source, options.out.parent / "demo_overoptimization.png")
    file.publish(
        {
            "minutes": {str(seed): round(value, 2) for seed, value in minutes.items()},
            "configuration": {k: v for k, v in configuration.items() if k != "seed"},
            "held_out_prompts": sum(map(len, scores(records, "sft", "1").values())),
            "reward_model_accuracy": accuracies,
            "best_of_16_above_base": above_base(records, "sft", "16"),
            "fine_tuned_above_base_without_search": above_base(records, "tuned", "1"),
            "base": cells_of(base),
            "fine_tuned": cells_of(tuned),
            "few_labels": few_labels(records, sorted(few_pairs)),
        }
    )


if __name__ == "__main__":
    main()

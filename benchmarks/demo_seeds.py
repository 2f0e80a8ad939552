"""Runs the demo with several seeds and pools what it measured into `docs/results/demo.json`.

    python benchmarks/demo_seeds.py --seeds 1 2 3

Each seed has its own world, models and held-out prompts. Pooled intervals are bootstrapped over all
prompts of all seeds and say nothing about seeds that were not run; the estimate of each seed stands
beside them. A finished seed is not run again. The report's picture is copied from the first seed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from policies.evaluation import cell_row, summarise
from search.evaluation.metrics import paired_difference
from search.evaluation.records import read_records, write_json_atomic

ROOT = Path(__file__).resolve().parent.parent
OFFSET = 1_000_000  # keeps the prompts of different seeds apart


def run_seed(seed: int, out: Path) -> float:
    """Runs one demo and returns its minutes, those of an earlier run if it was finished."""
    clock = out / "minutes.json"
    if not clock.is_file():
        began = time.perf_counter()
        command = [sys.executable, "-m", "prefsearch", "demo", "--resume"]
        subprocess.run([*command, "--seed", str(seed), "--out", str(out)], cwd=ROOT, check=True)
        write_json_atomic(clock, {"minutes": (time.perf_counter() - began) / 60})
    return json.loads(clock.read_text())["minutes"]


def records_of(out: Path, seed: int) -> list[dict[str, Any]]:
    """A run's records, its prompts numbered apart from other seeds'."""
    found = read_records(out / "records.jsonl")
    return [{**r, "prompt": seed * OFFSET + r["prompt"]} for r in found if "gold" in r]


def gold(records: list[dict[str, Any]], policy: str, budget: str) -> list[float]:
    """Gold of best-of-N (or of one sample), one value a prompt in their order."""
    kept = [
        r
        for r in records
        if (r["policy"], r["method"], r["budget"], r["reward_model"])
        == (policy, "best-of-N", budget, "reward")
    ]
    return [r["gold"] for r in sorted(kept, key=lambda r: r["prompt"])]


def main() -> None:
    """Runs all seeds and writes the pooled figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "demo.json")
    options = parser.parse_args()
    pooled: list[dict[str, Any]] = []
    minutes, accuracies, per_seed = {}, {}, {}
    for seed in options.seeds:
        out = options.runs / f"demo-seed-{seed}"
        minutes[seed] = round(run_seed(seed, out), 2)
        summary = json.loads((out / "summary.json").read_text())
        accuracies[seed] = summary["steps"]["reward"]["accuracy"]
        per_seed[seed] = [
            {key: row[key] for key in ("policy", "method", "budget", "tokens", "gold")}
            for row in summary["rows"]
        ]
        pooled += records_of(out, seed)
    base = [r for r in pooled if r["policy"] == "sft" and r["reward_model"] == "reward"]
    tuned = [r for r in pooled if r["policy"] == "tuned"]
    one = gold(pooled, "sft", "1")
    first = options.runs / f"demo-seed-{options.seeds[0]}"
    configuration = yaml.safe_load((first / "config.yaml").read_text())
    environment = json.loads((first / "environment.json").read_text())
    flags = " ".join(map(str, options.seeds))
    write_json_atomic(
        options.out,
        {
            "command": f"python benchmarks/demo_seeds.py --seeds {flags}",
            "seeds": options.seeds,
            "minutes": minutes,
            "configuration": {k: v for k, v in configuration.items() if k != "seed"},
            "versions": environment["versions"],
            "machine": "two shared CPU cores",
            "held_out_prompts": len(one),
            "reward_model_accuracy": accuracies,
            "best_of_16_above_base": asdict(
                paired_difference(gold(pooled, "sft", "16"), one, seed=0)
            ),
            "fine_tuned_above_base_without_search": asdict(
                paired_difference(gold(pooled, "tuned", "1"), one, seed=0)
            ),
            "base": [cell_row(cell) for cell in summarise(base, seed=0)],
            "fine_tuned": [cell_row(cell) for cell in summarise(tuned, seed=0)],
            "per_seed": per_seed,
        },
    )
    for name in ("gains", "overoptimisation", "tree"):
        source = first / "figures" / f"{name}.png"
        shutil.copyfile(source, options.out.parent / f"demo_{name}.png")
    print(f"wrote {options.out.name}")


if __name__ == "__main__":
    main()

"""Runs the demo with several seeds and pools what it measured into `docs/results/demo.json`.

    python benchmarks/demo_seeds.py --seeds 1 2 3

Each seed has its own world, models and held-out prompts. Pooled intervals are bootstrapped over all
prompts of all seeds and say nothing about seeds that were not run; the estimate of each seed stands
beside them. A finished seed is not run again. The picture of over-optimisation is
that of the first seed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from policies.evaluation import cell_row, curves, summarise
from policies.gain_report import method_name
from search.evaluation.figures import gain_curves
from search.evaluation.metrics import paired_difference
from search.evaluation.records import read_records, write_json_atomic, write_text_atomic

ROOT = Path(__file__).resolve().parent.parent
MARKS = ("<!-- results of the demo -->", "<!-- end of the results -->")
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


def cells_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All cells but their seconds, which a shared machine makes of little use."""
    rows = [cell_row(cell) for cell in summarise(records, seed=0)]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def show(interval: Mapping[str, float] | None, *, sign: bool = False) -> str:
    """An interval in two decimals, or a dash."""
    if interval is None:
        return "–"
    form = "+.2f" if sign else ".2f"
    low, high = interval["low"], interval["high"]
    return f"{interval['estimate']:{form}} [{low:{form}}, {high:{form}}]"


def markdown(results: Mapping[str, Any]) -> str:
    """The README's account of the results."""
    minutes = results["minutes"].values()
    seeds = ", ".join(map(str, results["seeds"]))
    gain, learned = (
        show(results[key], sign=True)
        for key in ("best_of_16_above_base", "fine_tuned_above_base_without_search")
    )
    lines = [
        f"Seeds {seeds}, {results['held_out_prompts']} held-out prompts in all, 95 % intervals "
        f"over prompts; {min(minutes):.1f} to {max(minutes):.1f} minutes a seed on "
        f"{results['cores']} shared CPU cores; "
        f"`{results['command']}`, kept in "
        "[docs/results/demo.json](docs/results/demo.json) with each seed's own figures.",
        "",
        f"- Best-of-16 above the base policy in gold utility: **{gain}**.",
        f"- Fine-tuned policy above the base policy, both without search: **{learned}**.",
        "",
        "| policy | method, budget | tokens a prompt | gold utility | above best-of-N at equal "
        "tokens |",
        "|---|---|---|---|---|",
    ]
    cells = [("base", cell) for cell in results["base"]]
    cells += [("fine-tuned", c) for c in results["fine_tuned"] if c["budget"] in ("1", "16")]
    for policy, cell in cells:
        lines.append(
            f"| {policy} | {method_name(cell)} | {cell['tokens']:.0f} | {show(cell['gold'])} | "
            f"{show(cell['gain_at_equal_tokens'], sign=True)} |"
        )
    lines += [
        "",
        "A method gains over best-of-N where the last column's interval lies above zero, loses "
        "where it lies below, and is undecided elsewhere. The budget is N for best-of-N, segments "
        "a step for beam search, simulations a decision for tree search.",
    ]
    return "\n".join(lines)


def write_readme(results: Mapping[str, Any]) -> None:
    """Puts the account of the results between the README's marks."""
    path = ROOT / "README.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    text = f"{before}{MARKS[0]}\n{markdown(results)}\n{MARKS[1]}{after}"
    write_text_atomic(path, text)


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
        minutes[str(seed)] = round(run_seed(seed, out), 2)
        summary = json.loads((out / "summary.json").read_text())
        accuracies[str(seed)] = summary["steps"]["reward"]["accuracy"]
        per_seed[str(seed)] = [
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
    results: dict[str, Any] = {
        "command": f"python benchmarks/demo_seeds.py --seeds {flags}",
        "seeds": options.seeds,
        "minutes": minutes,
        "configuration": {k: v for k, v in configuration.items() if k != "seed"},
        "versions": environment["versions"],
        "cores": os.cpu_count(),
        "held_out_prompts": len(one),
        "reward_model_accuracy": accuracies,
        "best_of_16_above_base": asdict(paired_difference(gold(pooled, "sft", "16"), one, seed=0)),
        "fine_tuned_above_base_without_search": asdict(
            paired_difference(gold(pooled, "tuned", "1"), one, seed=0)
        ),
        "base": cells_of(base),
        "fine_tuned": cells_of(tuned),
        "per_seed": per_seed,
    }
    write_json_atomic(options.out, results)
    write_readme(json.loads(options.out.read_text()))
    gain_curves(
        curves(summarise(base, seed=0)),
        options.out.parent / "demo_gains.png",
        x_label="generated tokens a prompt",
        y_label="mean score",
        title=f"Planning against the reward model, seeds {flags}",
    )
    source = first / "figures" / "overoptimisation.png"
    shutil.copyfile(source, options.out.parent / "demo_overoptimisation.png")
    print(f"wrote {options.out.name}")


if __name__ == "__main__":
    main()

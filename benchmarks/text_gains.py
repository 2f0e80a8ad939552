"""Every method of search over text in the embedded world, at equal tokens, over several seeds.

    python benchmarks/text_gains.py --seeds 1 2 3 4 5 6 7 8

For each seed: the demo's policy and reward model are trained, a value head is fitted to the scores
of sampled responses to training prompts, and `prefsearch policy evaluate` runs all planners over a
ladder of budgets on held-out prompts, with the value head at the leaves (guided decoding, which
looks at every token, with one fitted at every token). Intervals are over seeds. What was finished
is not done again, so the command goes on after a kill, and the same command started twice shares
the seeds between two processes. Writes `docs/results/text_gains.json`, two pictures, and the table
of `docs/text_search.md`.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

import prefsearch
from benchmarks.seed_runs import each_seed
from policies.collection import sample_responses
from policies.demo import PROPOSAL, Demo, DemoConfig
from policies.evaluation import cell_row, curves, summarise
from policies.gain_fits import fit_rows
from policies.gain_report import closing_table, gains_of, method_name, scope_of, show_interval
from policies.language_model import Policy
from policies.leaf_values import fit_value_head
from policies.measuring import load_pool
from policies.methods import TITLES
from policies.pooled import Pool
from policies.proposals import Unit
from rewardmodel.sequence import SequenceRewardModel
from rewardmodel.simulated_requests import sample_requests
from search.evaluation.figures import gain_curves
from search.evaluation.records import read_records, write_json_atomic, write_text_atomic
from search.evaluation.run_directory import RunDirectory
from search.evaluation.verdicts import count_verdicts, describe_need

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    "sentences": {
        "value_head": "value_sentence",
        "methods": ["rejection", "beam", "dvts", "muzero", "gumbel"],
        "budgets": [4, 8, 16, 32],
        "pool": 64,
    },
    "tokens": {"value_head": "value_token", "methods": ["guided"], "budgets": [4, 8], "pool": 8},
}
PAGE = ROOT / "docs" / "text_search.md"
MARKS = ("<!-- gains -->", "<!-- end of the gains -->")
DIFFERENCE = 0.2  # of gold utility: the smallest that is worth deciding
COSTS = {"gain_at_equal_tokens": "generated tokens", "gain_at_equal_model_tokens": "tokens read"}
VALUE_PROMPTS, VALUE_RESPONSES = 1500, 4


def train(seed: int, folder: Path, threads: int) -> Demo:
    """Trains the demo's policy and reward model and a value head, as far as that is not done."""
    demo = Demo(
        DemoConfig(out=str(folder), seed=seed, resume=True, threads=threads), Console(quiet=True)
    )
    demo.step("sft", "policy", demo.sft)
    demo.step("compare", "comparisons", demo.compare)
    demo.step("reward", "reward model", demo.reward)
    demo.step("value", "value heads", lambda: fit_heads(demo))
    return demo


def fit_heads(demo: Demo) -> dict[str, Any]:
    """Fits value heads to reward-model scores of the policy's responses to training prompts.

    Returns:
        What `fit_value_head` says of the head at the ends of sentences and of that at every token.
    """
    policy = Policy.load(str(demo.models / "sft"))
    reward_model = SequenceRewardModel.load(str(demo.models / "reward"))
    requests = sample_requests(VALUE_PROMPTS, seed=demo.seed("value-requests"))
    samples = sample_responses(
        policy,
        [request.prompt for request in requests],
        VALUE_RESPONSES,
        proposal=PROPOSAL,
        seed=demo.seed("value-samples"),
    )
    prompts, responses = samples.flat()
    scores = reward_model.score(prompts, responses)
    sizes: dict[Unit, dict[str, int]] = {
        "sentence": {},
        "token": {"batch_size": 2048, "epochs": 6},  # nine times the states
    }
    return {
        unit: fit_value_head(
            policy,
            replace(PROPOSAL, unit=unit),
            prompts,
            responses,
            scores,
            demo.models / f"value_{unit}",
            seed=demo.seed("value"),
            **size,
        )
        for unit, size in sizes.items()
    }


def evaluate(demo: Demo, folder: Path, name: str, *, count: int, batch: int) -> RunDirectory:
    """Runs `prefsearch policy evaluate` on held-out prompts; a finished run is not run again."""
    requests = sample_requests(count, seed=demo.config.seed, held_out=True)
    prompts = folder / "prompts.jsonl"
    lines = [json.dumps({"prompt": request.prompt}) for request in requests]
    write_text_atomic(prompts, "\n".join(lines) + "\n")
    settings = {
        **RUNS[name],
        "policy": str(demo.models / "sft"),
        "reward_model": str(demo.models / "reward"),
        "value_head": str(demo.models / str(RUNS[name]["value_head"])),
        "dataset": str(prompts),
        "gold": "simulated",
        "unit": PROPOSAL.unit,
        "max_new_tokens": PROPOSAL.max_new_tokens,
        "search_batch_size": batch,
        "seed": demo.config.seed,
        "out": str(folder / name),
        "resume": True,
    }
    config = folder / f"{name}.yaml"
    write_text_atomic(config, yaml.safe_dump(settings, sort_keys=False))
    run = RunDirectory(folder / name)
    if not run.report.is_file():
        code = prefsearch.main(["policy", "evaluate", "--config", str(config)])
        if code:
            raise SystemExit(code)
    return run


def records_of(runs: Mapping[str, RunDirectory], seed: int) -> tuple[list[Any], Pool]:
    """Records of a seed, marked with it, and its pool."""
    records = read_records(runs["sentences"].records)
    guided = read_records(runs["tokens"].records)
    records += [record for record in guided if record["method"] == TITLES["guided"]]
    return [{**record, "run": seed} for record in records], load_pool(runs["sentences"])


def write_page(results: Mapping[str, Any]) -> None:
    """Puts the table of all cells between the page's marks."""
    lines = [
        f"{results['held_out_prompts']} held-out prompts over seeds "
        f"{', '.join(map(str, results['seeds']))}; 95 % intervals "
        f"{scope_of(cell['gold'] for cell in results['cells'])}; `{results['command']}`, kept in "
        "[results/text_gains.json](results/text_gains.json) with each seed's figures.",
        "",
        "| method, budget | generated tokens | tokens models read | gold utility "
        "| at equal generated tokens | at equal tokens read | KL, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in results["cells"]:
        parts = []
        if cell["kl_low"] is not None:
            parts.append(f"at least {cell['kl_low']['estimate']:.1f}")
        if cell["kl"] is not None:
            parts.append(f"at most {cell['kl']:.1f}")
        lines.append(
            f"| {method_name(cell)} | {cell['tokens']:.0f} | {cell['model_tokens']:.0f} "
            f"| {show_interval(cell['gold'])} "
            f"| {show_interval(cell['gain_at_equal_tokens'], sign=True)} "
            f"| {show_interval(cell['gain_at_equal_model_tokens'], sign=True)} "
            f"| {', '.join(parts)} |"
        )
    rows = [{"policy": "base", **cell} for cell in results["cells"]]
    for key, name in COSTS.items():
        compared = gains_of(rows, key)
        if not compared:
            continue
        need = describe_need(compared, difference=DIFFERENCE)
        lines += ["", f"At equal {name}: {count_verdicts(compared)} {need}".rstrip()]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    text = "\n".join(lines)
    write_text_atomic(PAGE, f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def main() -> None:
    """Runs all seeds and writes the pooled figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--prompts", type=int, default=200, help="held-out prompts a seed")
    parser.add_argument("--batch", type=int, default=50, help="prompts searched side by side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "text_gains")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "text_gains.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    records: list[dict[str, Any]] = []
    pools, fitted, per_seed = {}, {}, {}

    def run(seed: int) -> tuple[Demo, dict[str, RunDirectory]]:
        began = time.perf_counter()
        folder = options.runs / f"seed-{seed}"
        demo = train(seed, folder / "models", options.threads)
        runs = {
            name: evaluate(demo, folder, name, count=options.prompts, batch=options.batch)
            for name in RUNS
        }
        print(f"seed {seed}: {(time.perf_counter() - began) / 60:.1f} minutes")
        return demo, runs

    for seed, (demo, runs) in each_seed(options.seeds, options.runs / "locks", run).items():
        mine, pools[seed] = records_of(runs, seed)
        fitted[str(seed)] = demo.folder.result("value")
        per_seed[str(seed)] = [
            {key: cell_row(cell)[key] for key in ("method", "budget", "tokens", "model_tokens",
                                                 "gold", *COSTS)}
            for cell in summarise(mine, seed=0)
        ]  # fmt: skip
        records += mine
    cells = summarise(records, seed=0, pool=pools)
    first = RunDirectory(options.runs / f"seed-{options.seeds[0]}" / "sentences")
    flags = " ".join(map(str, options.seeds))
    # Seconds on a shared machine say little; costs are in tokens.
    rows = [{k: v for k, v in cell_row(cell).items() if k != "seconds"} for cell in cells]
    results = {
        "command": f"python benchmarks/text_gains.py --seeds {flags} --prompts {options.prompts}",
        "seeds": options.seeds,
        "held_out_prompts": options.prompts * len(options.seeds),
        "value_heads": fitted,
        "configuration": {
            **asdict(PROPOSAL),
            "runs": RUNS,
            "value_prompts": VALUE_PROMPTS,
            "value_responses": VALUE_RESPONSES,
        },
        "environment": json.loads((first.path / "environment.json").read_text()),
        "cores": os.cpu_count(),
        "cells": rows,
        "fits": fit_rows(cells, records),
        "per_seed": per_seed,
    }
    write_json_atomic(options.out, results)
    if options.out.parent == PAGE.parent / "results":
        write_page(json.loads(options.out.read_text(encoding="utf-8")))
    for cost, name in (("tokens", "generated tokens a prompt"),
                       ("model_tokens", "tokens that models read, a prompt")):  # fmt: skip
        gain_curves(
            curves(cells, cost=cost),  # type: ignore[arg-type]
            options.out.with_name(f"text_gains_{cost}.png"),
            x_label=name,
            y_label=f"mean score, 95 % {cells[0].proxy.scope}",
            title=f"Planning against the reward model, seeds {flags}",
        )
    shown = [{"policy": "base", **cell_row(cell)} for cell in cells]
    Console().print(closing_table(shown, title="Gold utility on held-out prompts"))


if __name__ == "__main__":
    main()

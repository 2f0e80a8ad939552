"""Every method of search over text in the synthetic task, at equal tokens, over several seeds.

    python benchmarks/text/text_gains.py --seeds 1 2 3 4 5 6 7 8

For each seed: the demo's policy and reward model are trained, a value head is fitted to the scores
of sampled responses to training prompts, and `prefsearch policy evaluate` runs all planners at
several budgets on held-out prompts, with the value head at the leaves (controlled decoding, which
looks at every token, with one fitted at every token). Intervals are over seeds. Finished parts
are not run again, so the command continues after a kill, and the same command started twice shares
the seeds between two processes. Writes `docs/results/text_gains.json`, two pictures, and the table
of `docs/text_search.md`.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch
import yaml
from rich.console import Console

from benchmarks.harness.provenance import ROOT, held_sources
from benchmarks.harness.results import Results, benchmark_parser
from benchmarks.harness.seed_runs import each_seed
from benchmarks.harness.worker import Json
from benchmarks.text.models import counted_tokens
from policies.cli.demo_args import DemoArgs
from policies.demo import PROPOSAL, Demo
from policies.evaluation.cells import cell_row, curves, summarize
from policies.evaluation.gain_fits import fit_rows
from policies.evaluation.gain_format import closing_table
from policies.evaluation.pooled import Pool
from policies.evaluation.runner import load_pool
from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Unit
from policies.planning.options import TITLES
from policies.planning.value_head import fit_value_head
from prefsearch.cli import entry
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.files import read_records, write_text_atomic
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.synthetic.requests import sample_requests
from search.evaluation.figures import gain_curves

RUNS = {
    "sentences": {
        "value_head": "value_sentence",
        "methods": ["rejection", "beam", "dvts", "muzero", "gumbel_muzero"],
        "budgets": [4, 8, 16, 32],
        "pool": 64,
    },
    "tokens": {
        "value_head": "value_token",
        "methods": ["controlled_decoding"],
        "budgets": [4, 8],
        "pool": 8,
    },
}
NAME = "text_gains"
VALUE_PROMPTS, VALUE_RESPONSES = 1500, 4


def train(seed: int, folder: Path, threads: int) -> Demo:
    """Trains the demo's policy and reward model and a value head, as far as that is not done."""
    demo = Demo(
        DemoArgs(out=str(folder), seed=seed, resume=True, threads=threads), Console(quiet=True)
    )
    demo.step("sft", "policy", demo.sft)
    demo.step("compare", "comparisons", demo.compare)
    demo.step("reward", "reward model", demo.reward)
    demo.step("value", "value heads", lambda: fit_heads(demo))
    return demo


def fit_heads(demo: Demo) -> Json:
    """Fits value heads to reward-model scores of the policy's responses to training prompts.

    Returns:
        `sentence` and `token`: what `fit_value_head` gives for the head at the ends of sentences
        and for that at every token, with `read_tokens` that the policy was given for it.
        `samples`: tokens generated and read to sample and score the responses that both learn
        from. Tokens read include padding.
    """
    policy = Policy.load(str(demo.models / "sft"))
    reward_model = SequenceRewardModel.load(str(demo.models / "reward"))
    requests = sample_requests(VALUE_PROMPTS, seed=demo.seed("value-requests"))
    with counted_tokens(policy.model) as read, counted_tokens(reward_model.model) as scored:
        samples = sample_responses(
            policy,
            [request.prompt for request in requests],
            VALUE_RESPONSES,
            proposal=PROPOSAL,
            seed=demo.seed("value-samples"),
        )
        prompts, responses = samples.flat()
        finished = samples.flat_finished()
        scores = reward_model.score(prompts, responses, finished=finished)
    found: Json = {
        "samples": {
            "generated_tokens": sum(map(sum, samples.tokens)),
            "read_tokens": sum(read) + sum(scored),
        }
    }
    sizes: dict[Unit, dict[str, int]] = {
        "sentence": {},
        "token": {"batch_size": 2048, "epochs": 6},  # nine times the states
    }
    for unit, size in sizes.items():
        with counted_tokens(policy.model) as read:
            fitted = fit_value_head(
                policy,
                replace(PROPOSAL, unit=unit),
                prompts,
                responses,
                scores,
                demo.models / f"value_{unit}",
                seed=demo.seed("value"),
                finished=finished,
                **size,
            )
        found[unit] = {**fitted, "read_tokens": sum(read)}
    return found


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
        code = entry.main(["policy", "evaluate", "--config", str(config)])
        if code:
            raise SystemExit(code)
    return run


def records_of(runs: Mapping[str, RunDirectory], seed: int) -> tuple[list[Json], Pool]:
    """Records of a seed, marked with it, and its pool."""
    records = read_records(runs["sentences"].records)
    guided = read_records(runs["tokens"].records)
    records += [record for record in guided if record["method"] == TITLES["controlled_decoding"]]
    return [{**record, "run": seed} for record in records], load_pool(runs["sentences"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all seeds and writes the pooled figures."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--prompts", type=int, default=200, help="held-out prompts a seed")
    parser.add_argument("--batch", type=int, default=50, help="prompts searched side by side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "text_gains")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    file = Results(NAME, arguments, options.out, seeds=options.seeds)

    def run(seed: int) -> tuple[Demo, dict[str, RunDirectory]]:
        began = time.perf_counter()
        folder = options.runs / f"seed-{seed}"
        with held_sources(folder, NAME, file.digest):
            demo = train(seed, folder / "models", options.threads)
            runs = {
                name: evaluate(demo, folder, name, count=options.prompts, batch=options.batch)
                for name in RUNS
            }
        print(f"seed {seed}: {(time.perf_counter() - began) / 60:.1f} minutes")
        return demo, runs

    records: list[Json] = []
    pools, fitted = {}, {}
    for seed, (demo, runs) in each_seed(options.seeds, options.runs / "locks", run).items():
        mine, pools[seed] = records_of(runs, seed)
        fitted[str(seed)] = demo.folder.result("value")
        records += mine
    cells = summarize(records, seed=0, pool=pools)
    axes: tuple[tuple[Literal["tokens", "model_tokens"], str], ...] = (
        ("tokens", "generated tokens a prompt"),
        ("model_tokens", "tokens that models read, a prompt"),
    )
    for cost, name in axes:
        gain_curves(
            curves(cells, cost=cost),
            options.out.with_name(f"text_gains_{cost}.png"),
            x_label=name,
            y_label=f"mean score, 95 % {cells[0].proxy.scope}",
            title="Planning against the reward model, seeds " + " ".join(map(str, options.seeds)),
        )
    # Costs are in tokens, since seconds on a shared machine vary.
    rows = [{k: v for k, v in cell_row(cell).items() if k != "seconds"} for cell in cells]
    file.publish(
        {
            "held_out_prompts": options.prompts * len(options.seeds),
            "value_heads": fitted,
            "configuration": {
                **asdict(PROPOSAL),
                "runs": RUNS,
                "value_prompts": VALUE_PROMPTS,
                "value_responses": VALUE_RESPONSES,
            },
            "cells": rows,
            "fits": fit_rows(cells, records),
        }
    )
    shown = [{"policy": "base", **cell_row(cell)} for cell in cells]
    Console().print(closing_table(shown, title="Gold utility on held-out prompts"))


if __name__ == "__main__":
    main()

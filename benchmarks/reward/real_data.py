"""Collects what the steps of docs/real_data.sh measured into one results file.

    python benchmarks/reward/real_data.py begin --run runs/hh      # first: notes the source files
    python benchmarks/reward/real_data.py collect --run runs/hh --out docs/results/real_data.json

docs/real_data.sh calls both. The figures of docs/real_data.md are made from the file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness.provenance import held_sources
from benchmarks.harness.results import Results, benchmark_parser
from benchmarks.harness.worker import Json

NAME = "real_data"


def collect(run: Path) -> Json:
    """The figures of a finished run of the script."""
    policy, reward = _result(run / "sft", "sft"), _result(run / "reward", "train")
    evaluated = _json(run / "evaluation.json")
    settings = yaml.safe_load((run / "evaluate" / "config.yaml").read_text(encoding="utf-8"))
    keys = ("method", "budget", "tokens", "proxy", "gain_at_equal_tokens")
    return {
        "pairs": {"training": reward["pairs"], "held_out": evaluated["pairs"]},
        "policy": {key: policy[key] for key in ("rows", "cut", "loss_last")},
        "reward_model": {
            "accuracy": evaluated["accuracy"],
            "longer_reply": evaluated["baselines"]["longer reply"],
            "bag_of_words": evaluated["baselines"]["bag of words"],
            "accuracy_where_shorter_chosen": evaluated["accuracy_where_shorter_chosen"],
            "accuracy_where_longer_chosen": evaluated["accuracy_where_longer_chosen"],
        },
        "limit": settings["limit"],
        "prompts": len(_json(run / "evaluate" / "data" / "prompts.json")),
        "cells": [
            {key: row[key] for key in keys} for row in _json(run / "evaluate" / "summary.json")
        ],
    }


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _result(run: Path, step: str) -> Json:
    return _json(run / "steps" / f"{step}.json")["result"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Begins or collects."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("what", choices=("begin", "collect"))
    parser.add_argument("--run", type=Path, required=True, help="the script's OUT")
    options = parser.parse_args(arguments)
    if options.what == "collect" and options.out is None:
        parser.error("--out: found none; required to collect, as in --out results.json")
    file = Results(NAME, (), options.out, seeds=[0])
    with held_sources(options.run, NAME, file.digest):
        found = collect(options.run) if options.what == "collect" else None
    if found is not None:
        file.publish(found)


if __name__ == "__main__":
    main()

"""Collects what the steps of docs/real_data.sh measured into one results file.

    python benchmarks/reward/real_data.py begin --run runs/hh      # first: holds the source files
    python benchmarks/reward/real_data.py collect --run runs/hh --out docs/results/real_data.json

docs/real_data.sh calls both. The figures of docs/real_data.md are made from the file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import yaml

from benchmarks.harness.documents import update
from benchmarks.harness.provenance import held_sources, provenance
from prefsearch.storage.files import write_json_atomic

NAME = "real_data"
COMMAND = ("docs/real_data.sh",)


def collect(run: Path) -> dict[str, Any]:
    """The figures of a finished run of the script.

    Args:
        run: The script's OUT.
    """
    policy, reward = _result(run / "sft", "sft"), _result(run / "reward", "train")
    judged = _json(run / "evaluation.json")
    settings = yaml.safe_load((run / "evaluate" / "config.yaml").read_text(encoding="utf-8"))
    keys = ("method", "budget", "tokens", "proxy", "gain_at_equal_tokens")
    return {
        "pairs": {"training": reward["pairs"], "held_out": judged["pairs"]},
        "policy": {key: policy[key] for key in ("rows", "cut", "loss_last")},
        "reward_model": {
            "accuracy": judged["accuracy"],
            "longer_reply": judged["baselines"]["longer reply"],
            "bag_of_words": judged["baselines"]["bag of words"],
            "accuracy_where_shorter_chosen": judged["accuracy_where_shorter_chosen"],
            "accuracy_where_longer_chosen": judged["accuracy_where_longer_chosen"],
        },
        "limit": settings["limit"],
        "prompts": len(_json(run / "evaluate" / "data" / "prompts.json")),
        "cells": [
            {key: row[key] for key in keys} for row in _json(run / "evaluate" / "summary.json")
        ],
    }


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _result(run: Path, step: str) -> dict[str, Any]:
    return _json(run / "steps" / f"{step}.json")["result"]


def main(arguments: list[str] | None = None) -> None:
    """Begins or collects."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("begin", "collect"))
    parser.add_argument("--run", type=Path, required=True, help="the script's OUT")
    parser.add_argument("--out", type=Path, help="JSON file; required to collect")
    options = parser.parse_args(arguments)
    about = provenance(NAME, COMMAND, seeds=[0])
    if options.what == "collect" and options.out is None:
        parser.error("--out: found none; required to collect, as in --out results.json")
    with held_sources(options.run, NAME, about["source_digest"]):
        found = collect(options.run) if options.what == "collect" else None
    if found is not None:
        write_json_atomic(options.out, {"provenance": about, **found})
        update(options.out)


if __name__ == "__main__":
    main()

"""Compares a trained reward model with cheap baselines on the held-out pairs of its run.

    prefsearch reward train --config configs/rewardmodel/hh_minilm.yaml
    python benchmarks/reward/baselines.py --run runs/hh_minilm --out docs/results/hh_minilm.json

Scores the held-out pairs of a run with its model and with each baseline: the longer reply, a bag of
words, and the run's transformer from scratch. Accuracies and the paired differences from the
model's have intervals over prompts.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset

from benchmarks.harness.documents_numbers import interval
from benchmarks.harness.provenance import NOT_RECORDED
from benchmarks.harness.results import Results, benchmark_parser, table, wide_console
from benchmarks.harness.worker import Json
from rewardmodel.data.preferences import load_preferences, split_by_prompt
from rewardmodel.evaluation.baselines import bag_of_words_accuracy
from rewardmodel.evaluation.clustered import (
    clustered_accuracy,
    clustered_mean,
    length_margins,
    number_prompts,
)
from rewardmodel.evaluation.scoring import preference_margins
from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.tokenization import load_tokenizer

NAME = "hh_minilm"
MODEL = "reward model"


def held_out_pairs(settings: Json) -> tuple[Dataset, Dataset]:
    """The pairs that a run trained on and held out."""
    data = load_preferences(
        settings["dataset"],
        split=settings["split"],
        format=settings["format"],
        tokenizer=load_tokenizer(settings["model"]),
        on_bad_row=settings["on_bad_row"],
        limit=settings["limit"],
    )
    return split_by_prompt(data, holdout=settings["holdout"], seed=settings["seed"])


def margins_of(run: Path, training: Dataset, held_out: Dataset, *, seed: int) -> Json:
    """Margins [P] of the model and of every baseline."""
    found: Json = {}
    folders = {MODEL: run / "checkpoints" / "model", "from scratch": run / "scratch" / "model"}
    for name, folder in folders.items():
        if folder.is_dir():
            found[name] = preference_margins(load_reward_model(str(folder)), held_out)
    found["bag of words"] = bag_of_words_accuracy(training, held_out, seed=seed).margins
    found["longer reply"] = length_margins(held_out)
    return found


def compare(margins: Json, groups: Any, *, seed: int) -> dict[str, Json]:
    """Accuracies, and how much more often the model is right than each other.

    Args:
        margins: [P] each, the model's under `MODEL`.
        groups: int [P], the number of each pair's prompt.
        seed: Of the bootstrap.
    """
    right = {name: (m > 0) + 0.5 * (m == 0) for name, m in margins.items()}
    return {
        name: {
            "accuracy": asdict(clustered_accuracy(own, groups)),
            "model_above": None
            if name == MODEL
            else asdict(clustered_mean(right[MODEL] - right[name], groups, seed)),
        }
        for name, own in margins.items()
    }


def trained_by(run: Path, about: Json) -> Json:
    """The provenance with the commit that trained the run.

    Where that is not the commit that scores it, the source files of the training are not known.
    """
    then = json.loads((run / "environment.json").read_text(encoding="utf-8"))["commit"]
    if then == about["commit"]:
        return about
    return {**about, "commit": then, "source_digest": NOT_RECORDED}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints and keeps the comparison."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of `reward train`")
    options = parser.parse_args(arguments)
    settings = yaml.safe_load((options.run / "config.yaml").read_text(encoding="utf-8"))
    seed = settings["seed"]
    file = Results(NAME, arguments, options.out, seeds=[seed])
    training, held_out = held_out_pairs(settings)
    margins = margins_of(options.run, training, held_out, seed=seed)
    rows = compare(margins, np.asarray(number_prompts(held_out)), seed=seed)
    file.provenance = trained_by(options.run, file.provenance)
    lines = [
        [name, *(interval(value, ".3f") for value in row.values())] for name, row in rows.items()
    ]
    title = f"{len(held_out)} held-out pairs, 95 % intervals over prompts"
    wide_console().print(table(title, ("", "accuracy", "model above"), lines))
    steps = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))["result"]
        for path in sorted((options.run / "steps").glob("*.json"))
    }
    file.publish(
        {
            "settings": settings,
            "pairs": {"training": len(training), "held_out": len(held_out)},
            "comparison": rows,
            "run": steps,
        }
    )


if __name__ == "__main__":
    main()

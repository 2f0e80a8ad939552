"""`prefsearch reward evaluate`: what a reward model is worth on preference pairs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset
from rich.console import Console

from rewardmodel.evaluation import (
    bag_of_words_accuracy,
    evaluate_reward_model,
    longer_reply_accuracy,
)
from rewardmodel.preferences import load_preferences, split_by_prompt
from rewardmodel.rows import OnBadRow
from rewardmodel.sequence import SequenceRewardModel
from search.evaluation.records import write_json_atomic
from search.evaluation.settings import check_types, require


@dataclass
class EvaluateJob:
    """Measure a reward model on preference pairs.

    Attributes:
        model: Folder or hub id of a trained reward model.
        dataset: Preference pairs, as for `train`.
        split: Split of a hub dataset or folder.
        holdout: Measure on this share of the prompts, the same that `train` held out with the same
            seed; 0 measures on all.
        training_dataset: Pairs for the bag-of-words baseline to learn from, where `holdout` is 0.
        seed: Of the split and the bootstrap.
        max_length: Tokens of prompt and response together; null takes the model's context.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: JSON file for the figures.
    """

    model: str = ""
    dataset: str = ""
    split: str = "train"
    holdout: float = 0.0
    training_dataset: str | None = None
    seed: int = 0
    max_length: int | None = None
    limit: int | None = None
    on_bad_row: OnBadRow = "error"
    out: str | None = None

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.model), "model", self.model, "a hub id or folder, by --model")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(0 <= self.holdout < 1, "holdout", self.holdout, "in [0, 1)")


def evaluate(job: EvaluateJob) -> None:
    """Measures a saved reward model; see `EvaluateJob`."""
    console = Console()
    reward_model = SequenceRewardModel.load(job.model, max_length=job.max_length)
    tokenizer = reward_model.encoder.tokenizer
    data = load_preferences(
        job.dataset,
        split=job.split,
        tokenizer=tokenizer,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
    )
    training = None
    if job.holdout:
        training, data = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    elif job.training_dataset:
        training = load_preferences(
            job.training_dataset, tokenizer=tokenizer, on_bad_row=job.on_bad_row
        )
    result = measure(reward_model, training, data, seed=job.seed)
    if job.out:
        write_json_atomic(job.out, {"settings": asdict(job), **result})
    show_measures(console, result)


def measure(
    reward_model: SequenceRewardModel, training: Dataset | None, held_out: Dataset, *, seed: int
) -> dict[str, Any]:
    """Held-out accuracy with its intervals, beside the baselines."""
    found = asdict(evaluate_reward_model(reward_model, held_out, seed=seed))
    found["baselines"] = {"longer reply": asdict(longer_reply_accuracy(held_out))}
    if training is not None and len(training) > 0:
        words = bag_of_words_accuracy(training, held_out, seed=seed)
        found["baselines"]["bag of words"] = asdict(words.accuracy)
    return found


def show_measures(console: Console, result: Mapping[str, Any]) -> None:
    """Prints accuracy and baselines."""
    rows = {"reward model": result["accuracy"], **result["baselines"]}
    console.print(f"Held-out accuracy on {result['pairs']} pairs (95 % interval):")
    for name, value in rows.items():
        low, high = value["low"], value["high"]
        console.print(f"  {name:<14} {value['estimate']:.3f} [{low:.3f}, {high:.3f}]")
    console.print(f"  log loss {result['log_loss']['estimate']:.3f}, ECE {result['ece']:.3f}")

"""The jobs behind `prefsearch reward`: train, evaluate, and the simulated human's world.

A job reads its data, calls one function of this package and writes a run's folder.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from rich.console import Console

from rewardmodel.evaluation import (
    bag_of_words_accuracy,
    evaluate_reward_model,
    longer_reply_accuracy,
)
from rewardmodel.preferences import load_preferences, preference_report, split_by_prompt
from rewardmodel.sequence import SequenceRewardModel
from rewardmodel.simulated import SimulatedHuman, demonstrations, sample_requests
from rewardmodel.tokenization import load_tokenizer
from rewardmodel.training import Optimisation, train_reward_model
from search.evaluation.records import write_json_atomic, write_text_atomic
from search.evaluation.run_directory import RunDirectory, step_seed
from search.evaluation.settings import check_types, require

BadRows = Literal["error", "skip"]


def json_lines(rows: Sequence[Mapping[str, Any]] | Dataset) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)


@dataclass
class TrainJob(Optimisation):
    """Train a reward model on preference pairs and measure it on held-out prompts.

    Attributes:
        model: What to begin from: hub id or folder of a language model or classifier.
        dataset: Preference pairs: hub id, folder, or .json, .jsonl, .jsonl.gz, .parquet, .csv file.
        split: Split of a hub dataset or folder.
        holdout: Share of the prompts kept for measuring.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    model: str = ""
    dataset: str = ""
    split: str = "train"
    holdout: float = 0.1
    limit: int | None = None
    on_bad_row: BadRows = "error"
    out: str = "runs/reward"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.model), "model", self.model, "a hub id or folder, by --model")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(0 < self.holdout < 1, "holdout", self.holdout, "in (0, 1)")


def settings_of(job: Any) -> dict[str, Any]:
    """A job's settings as a run keeps them: all but where it is and whether it is resumed."""
    return {k: v for k, v in asdict(job).items() if k not in ("out", "resume")}


def optimisation_of(job: Optimisation) -> Optimisation:
    """The training settings alone."""
    names = [f.name for f in dataclasses.fields(Optimisation)]
    return Optimisation(**{name: getattr(job, name) for name in names})


def train(job: TrainJob) -> None:
    """Trains, measures and saves; see `TrainJob`."""
    console = Console()
    tokenizer = load_tokenizer(job.model)
    data = load_preferences(
        job.dataset,
        split=job.split,
        tokenizer=tokenizer,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
    )
    training, held_out = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    run = RunDirectory.open(job.out, settings_of(job), resume=job.resume)
    folder = run.checkpoints / "model"
    if run.result("train") is None:
        write_json_atomic(run.path / "data_report.json", preference_report(data))
        outcome = train_reward_model(
            job.model,
            training,
            folder,
            optimisation=optimisation_of(job),
            checkpoints=run.path / "trainer",
        )
        run.finish("train", outcome)
    result = run.result("evaluate")
    if result is None:
        reward_model = SequenceRewardModel.load(str(folder), max_length=job.max_length)
        result = run.finish("evaluate", measure(reward_model, training, held_out, seed=job.seed))
    show_measures(console, result)
    console.print(f"Model: {folder}")


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
    on_bad_row: BadRows = "error"
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


@dataclass
class SplitJob:
    """Split preference pairs by prompt into train.jsonl and test.jsonl, and report on them.

    Attributes:
        dataset: Preference pairs, as for `train`.
        split: Split of a hub dataset or folder.
        holdout: Share of the prompts that go to test.jsonl.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        seed: Of the split.
        out: Folder for train.jsonl, test.jsonl and data_report.json.
    """

    dataset: str = ""
    split: str = "train"
    holdout: float = 0.1
    limit: int | None = None
    on_bad_row: BadRows = "error"
    seed: int = 0
    out: str = "runs/split"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(0 < self.holdout < 1, "holdout", self.holdout, "in (0, 1)")


def split(job: SplitJob) -> None:
    """Splits text pairs; see `SplitJob`."""
    data = load_preferences(
        job.dataset, split=job.split, on_bad_row=job.on_bad_row, limit=job.limit
    )
    folder = Path(job.out)
    parts = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    for name, part in zip(("train", "test"), parts, strict=True):
        write_text_atomic(folder / f"{name}.jsonl", json_lines(part))
    write_json_atomic(folder / "data_report.json", preference_report(data))
    Console().print(f"{len(parts[0])} and {len(parts[1])} pairs: {folder}")


@dataclass
class WorldJob:
    """Write the embedded world's demonstrations and held-out prompts to files.

    Attributes:
        out: Folder for demonstrations.jsonl, prompts.jsonl and held_out_prompts.jsonl.
        demonstrations: Texts to learn to write from.
        prompts: Prompts to sample from, and as many held-out ones.
        seed: Of the world.
    """

    out: str = "runs/world"
    demonstrations: int = 6000
    prompts: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(self.demonstrations > 0, "demonstrations", self.demonstrations, "at least 1")
        require(self.prompts > 0, "prompts", self.prompts, "at least 1")


def world(job: WorldJob) -> None:
    """Writes the embedded world; see `WorldJob`."""
    folder = Path(job.out)
    told = demonstrations(job.demonstrations, seed=job.seed)
    write_text_atomic(folder / "demonstrations.jsonl", json_lines(told))
    for name, held_out in (("prompts", False), ("held_out_prompts", True)):
        seed = step_seed(job.seed, name)  # other requests than the demonstrations answer
        requests = sample_requests(job.prompts, seed=seed, held_out=held_out)
        rows = [{"prompt": request.prompt} for request in requests]
        write_text_atomic(folder / f"{name}.jsonl", json_lines(rows))
    Console().print(f"World: {folder}")


@dataclass
class LabelJob:
    """Let the simulated human compare responses, two by two, into preference pairs.

    Attributes:
        responses: JSON lines of `prompt` and `responses`, as `prefsearch policy sample` writes
            them.
        out: File for the preference pairs.
        seed: Of the human's choices.
    """

    responses: str = ""
    out: str = "runs/world/preferences.jsonl"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks types."""
        check_types(self)
        require(bool(self.responses), "responses", self.responses, "a file, by --responses")


def label(job: LabelJob) -> None:
    """Labels pairs; see `LabelJob`."""
    triples = []
    lines = Path(job.responses).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            prompt, texts = row["prompt"], row["responses"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{job.responses}:{number}: found {line[:60]!r}; required: a JSON object with "
                "prompt and responses. Write it with `prefsearch policy sample`"
            ) from error
        triples += [(prompt, a, b) for a, b in zip(texts[::2], texts[1::2], strict=False)]
    if not triples:
        raise ValueError(f"{job.responses} holds no pair; required: two responses a prompt or more")
    pairs, ties = SimulatedHuman().label(*zip(*triples, strict=True), seed=job.seed)
    write_text_atomic(job.out, json_lines(pairs))
    Console().print(f"{len(pairs)} pairs, {ties} ties left out: {job.out}")

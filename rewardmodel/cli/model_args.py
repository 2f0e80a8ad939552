"""Arguments of the commands that train, evaluate, score with and combine reward models."""

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from prefsearch.cli.outputs import Output
from prefsearch.config.bounds import (
    FractionBelowOne,
    NonNegative,
    ProperFraction,
    Rows,
    Seed,
    Size,
    Tokens,
    Weight,
)
from prefsearch.config.checks import require
from rewardmodel.choices import SEPARATOR, Aggregate, ChosenFormat, Kind, OnBadRow
from rewardmodel.cli.data_args import CheckedArgs, DataArgs, PairArgs
from rewardmodel.data.sources.paths import checked_path
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig

_MODEL_AND_DATA = MappingProxyType(
    {"model": "a hub id, folder or package, by --model", **DataArgs.REQUIRED}
)


@dataclass
class RewardTrainArgs(PairArgs):
    """Train a reward model on human comparisons and measure it on held-out prompts.

    Attributes:
        model: What to begin from, a language model or classifier: hub id, folder, .gguf file, or
            package:NAME/FOLDER of an installed package that carries one.
        listwise: Learn whole rankings of several responses, by the loss of `rankings`, not
            pair by pair.
        input_format: Whether the model is given prompt and response as one "text" (messages by its
            chat template) or as a "pair" of segments, as encoders are; "auto" takes what the base
            was trained on, or looks.
        holdout: Share of the prompts kept for measuring.
        reference: Demonstrations whose mean score becomes zero: a dataset of prompts and
            completions, or "chosen" for the chosen replies of the training pairs; null leaves the
            zero where training put it.
        load_in_4bit: Hold the base in 4 bits by bitsandbytes and train adapters on it (QLoRA);
            needs lora_rank and the extra `qlora`.
        load_in_8bit: The same in 8 bits.
        scratch_baseline: Also train a small transformer from random weights on the same pairs, to
            see what the base is worth.
        hub_model_id: Upload the model, with its card, to this hub repository; null keeps it here.
        hub_private: Make that repository private.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    REQUIRED: ClassVar = _MODEL_AND_DATA

    model: str = ""
    listwise: bool = False
    holdout: ProperFraction = 0.1
    input_format: ChosenFormat = "auto"
    reference: str | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    scratch_baseline: bool = False
    hub_model_id: str | None = None
    hub_private: bool = True
    out: str = "runs/reward"
    resume: bool = False
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def check(self) -> None:
        """Checks that columns and quantization go with the rest."""
        if self.listwise:
            wanted = "unset, since rankings with listwise have no such column"
            _require_unset(self, wanted, except_for="prompt_column")
        quantized = self.load_in_4bit or self.load_in_8bit
        rank = self.optim.lora_rank
        require(rank > 0 or not quantized, "lora_rank", rank, "more than 0 with load_in_4bit, 8bit")
        one = not (self.load_in_4bit and self.load_in_8bit)
        require(one, "load_in_8bit", self.load_in_8bit, "false with load_in_4bit")

    def check_inputs(self) -> None:
        """Checks that the reference is there, too."""
        super().check_inputs()
        if self.reference and self.reference != "chosen":
            checked_path(self.reference)


@dataclass
class TrainPrmArgs(DataArgs):
    """Train a process reward model on judged steps and measure it on held-out prompts.

    Attributes:
        model: What to begin from, a language model or token classifier: hub id, folder, .gguf file
            or package:NAME/FOLDER.
        dataset: Rows of a prompt, a list of steps (completions) and a label in [0, 1] for each.
        separator: What stands between steps.
        holdout: Share of the prompts kept for measuring.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    REQUIRED: ClassVar = MappingProxyType(
        {**_MODEL_AND_DATA, "separator": "a text, such as a line break"}
    )

    model: str = ""
    separator: str = SEPARATOR
    holdout: ProperFraction = 0.1
    out: str = "runs/process"
    resume: bool = False
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass
class RewardEvaluateArgs(PairArgs):
    """Measure a reward model on preference pairs or on RewardBench.

    Attributes:
        model: A trained reward model or ensemble: hub id, folder or package:NAME/FOLDER.
        dataset: Preference pairs, as for `train`; or RewardBench, as `benchmark` names it.
        split: Split of a hub dataset or folder; null takes "train", of a benchmark its own.
        benchmark: "pairs" measures on preference pairs; "rewardbench" and "rewardbench2" score
            that benchmark by its own rules.
        holdout: Measure on this share of the prompts, the same that `train` held out with the same
            seed; 0 measures on all.
        training_dataset: Pairs for the bag-of-words baseline to learn from, where `holdout` is 0,
            in the same columns; those of prompts that are measured on are left out.
        calibrate: Also fit a temperature, and measure what it mends on prompts it was not fitted
            to.
        edits: Human edits: rows of prompt, original and edited, or qa-feedback's corrections. Those
            of prompts that `holdout` or `training_dataset` leaves to training are left out.
        probes: Also score replies with their last sentence removed and repeated.
        check_batches: Also score texts alone and in batches, and report the largest difference.
        seed: Of the split and the bootstrap.
        max_length: Tokens of prompt and response together; null takes the model's context.
        input_format: Whether the model is given prompt and response as one "text" (messages by its
            chat template) or as a "pair" of segments, as encoders are; "auto" takes what it was
            trained on, or looks.
        out: Folder for report.html, evaluation.json and figures, or a .json file for the figures
            alone.
    """

    REQUIRED: ClassVar = _MODEL_AND_DATA
    DATA: ClassVar = ("training_dataset", "edits", "dataset")
    MODELS: ClassVar = ("model",)

    model: str = ""
    split: str | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    benchmark: Literal["pairs", "rewardbench", "rewardbench2"] = "pairs"
    holdout: FractionBelowOne = 0.0
    training_dataset: str | None = None
    calibrate: bool = False
    edits: str | None = None
    probes: bool = False
    check_batches: bool = False
    seed: Seed = 0
    max_length: Tokens | None = None
    input_format: ChosenFormat = "auto"
    out: str | None = None

    def check(self) -> None:
        """Checks that what is measured goes with the benchmark."""
        wanted = "unset where holdout is not 0, whose other prompts are learned from"
        both = bool(self.holdout and self.training_dataset)
        require(not both, "training_dataset", self.training_dataset, wanted)
        if self.benchmark != "pairs":
            wanted = f"unset, for benchmark is {self.benchmark}"
            for name in ("holdout", "training_dataset", "calibrate", "probes", "check_batches"):
                require(not getattr(self, name), name, getattr(self, name), wanted)
            require(self.format == "auto", "format", self.format, wanted)
            _require_unset(self, wanted)

    def outputs(self) -> list[Output]:
        """What is written."""
        if self.out is None:
            return []
        alone = Path(self.out).suffix == ".json"
        return [Output("out", self.out, None if alone else ("evaluation.json", "report.html"))]


@dataclass
class ScoreArgs(DataArgs):
    """Score responses with a reward model of any kind.

    Attributes:
        model: Hub id, folder or package:NAME/FOLDER of a reward model or ensemble; or a function,
            python:package.module:name or python:path/to/file.py:name, whose module's code is run;
            or several of them, ensemble:NAME,NAME.
        kind: "auto" looks what lies there; else "sequence", "process", "multi_head", "ensemble" or
            "function".
        aggregate: How members, heads or steps become one score; null takes the model's own way.
        dataset: Rows of a prompt and a response, of a prompt and a list of responses, or of
            messages whose last turn is the response.
        response_column: The column of a response or of a list of them; null takes responses,
            response, or whole conversations from messages.
        max_length: Tokens of prompt and response together; null takes the model's own.
        input_format: Whether the model is given prompt and response as one "text" (messages by its
            chat template) or as a "pair" of segments, as encoders are; "auto" takes what it was
            trained on, or looks.
        batch_size: Rows a forward pass; null takes the kind's default.
        out: File for the rows with their scores, .jsonl; beside them the scores of the members of
            an ensemble, or of the steps where the model scores steps.
    """

    REQUIRED: ClassVar = _MODEL_AND_DATA
    MODELS: ClassVar = ("model",)
    WRITES: ClassVar = None

    model: str = ""
    kind: Kind = "auto"
    aggregate: str | None = None
    response_column: str | None = None
    max_length: Tokens | None = None
    input_format: ChosenFormat = "auto"
    batch_size: Size | None = None
    out: str = "scores.jsonl"

    def check(self) -> None:
        """Checks the file's name."""
        require(self.out.endswith(".jsonl"), "out", self.out, "a file that ends in .jsonl")


@dataclass
class AverageArgs(CheckedArgs):
    """Average the weights of reward models that were fine-tuned from one base (WARM).

    Attributes:
        models: Folders of the models, two or more.
        weights: Of each model, scaled to sum to 1; null takes all alike.
        out: Folder for the averaged model.
    """

    REQUIRED: ClassVar = MappingProxyType({"models": "folders, by --models A B ..."})
    MODELS: ClassVar = ("models",)

    models: list[str] | None = None
    weights: list[Weight] | None = None
    out: str = "runs/average"

    def outputs(self) -> list[Output]:
        """What is written."""
        return [Output("out", self.out, (), replaced=True)]


@dataclass
class EnsembleArgs(CheckedArgs):
    """Make an ensemble of reward models: a folder with an ensemble.json that names them.

    Attributes:
        models: Folders or hub ids of the members, of any kind; no functions, whose code would be
            run by whoever loads the folder. Name those where it is used:
            ensemble:FOLDER,python:FILE.py:name.
        aggregate: "mean", "min", "mean_minus_std" or "mean_minus_variance".
        weight: Of the members' disagreement, in the last two.
        standardize_on: Prompts and responses on which each member gets mean 0 and deviation 1, as
            for `score`; null takes the members' scores as they are.
        limit: Use this many rows of those; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: Folder for ensemble.json.
    """

    REQUIRED: ClassVar = MappingProxyType({"models": "folders or hub ids, by --models A B ..."})
    MODELS: ClassVar = ("models",)
    DATA: ClassVar = ("standardize_on",)
    WRITES: ClassVar = (".", "ensemble.json")

    models: list[str] | None = None
    aggregate: Aggregate = "mean"
    weight: NonNegative = 1.0
    standardize_on: str | None = None
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    out: str = "runs/ensemble"


def _require_unset(args: PairArgs, wanted: str, *, except_for: str = "") -> None:
    """Refuses names of columns where the rows have none of these columns."""
    for name, found in args.columns().items():
        usual = getattr(PairArgs, name)
        require(name == except_for or found == usual, name, found, wanted)

"""Arguments of the commands that read rows: the base of them all, and those on data alone."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from prefsearch.cli.outputs import Output
from prefsearch.config.bounds import Count, ProperFraction, Rows, Seed, Tokens, Within
from prefsearch.config.checks import check_types, require
from rewardmodel.choices import OnBadRow
from rewardmodel.data.formats.registry import FormatName
from rewardmodel.data.sources.paths import checked_path
from rewardmodel.pretrained.paths import keep_inputs
from rewardmodel.pretrained.source import MEMBERS, PACKAGE, place_of
from rewardmodel.synthetic.requests import count_held_out

_WORLD = ("demonstrations", "prompts", "held_out_prompts")


@dataclass
class CheckedArgs:
    """Arguments with their checks: types, what is required, what is written."""

    REQUIRED: ClassVar[MappingProxyType[str, str]] = MappingProxyType({})
    """What must be given, and what it must be."""
    MODELS: ClassVar[tuple[str, ...]] = ()
    """Models that are read."""
    DATA: ClassVar[tuple[str, ...]] = ()
    """Data that are read."""
    WRITES: ClassVar[tuple[str, ...] | None] = ()
    """Files that are written in the folder `out`; None: `out` is a file."""

    def __post_init__(self) -> None:
        """Checks types, bounds, and that no output takes the place of an input."""
        check_types(self)
        for name, wanted in self.REQUIRED.items():
            require(bool(getattr(self, name)), name, getattr(self, name), wanted)
        self.check()
        keep_inputs(self, *self.DATA, *self.MODELS)

    def check(self) -> None:
        """Checks what settings require of each other."""

    def outputs(self) -> list[Output]:
        """What is written."""
        out: str | None = getattr(self, "out", None)
        return [] if out is None else [Output("out", out, self.WRITES)]

    def check_inputs(self) -> None:
        """Checks that files and packages that are named are there; opens none.

        Raises:
            ValueError: Naming the first that is not.
        """
        for name in self.DATA:
            if source := getattr(self, name):
                checked_path(source)
        for name in self.MODELS:
            found = getattr(self, name) or ""
            for source in [found] if isinstance(found, str) else found:
                for member in source.removeprefix(MEMBERS).split(","):
                    if member.startswith(PACKAGE):
                        place_of(member)


@dataclass
class DataArgs(CheckedArgs):
    """Rows of data.

    Attributes:
        dataset: Hub id, folder, or .json, .jsonl, .csv, .parquet or .txt file.
        split: Split of a hub dataset or folder.
        prompt_column: The prompt's column, or several joined by "+", such as instruction+input.
        limit: Use this many rows; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
    """

    # The loaders' keyword arguments that are flags of another name.
    FLAGS: ClassVar = MappingProxyType({"tokenizer": "model", "column": "prompt_column"})
    REQUIRED: ClassVar = MappingProxyType({"dataset": "a hub id or file, by --dataset"})
    DATA: ClassVar = ("dataset",)

    dataset: str = ""
    split: str = "train"
    prompt_column: str = "prompt"
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"


@dataclass
class PairArgs(DataArgs):
    """Preference pairs.

    Attributes:
        format: What the rows are: auto (by hub id or columns), plain (columns as they are), hh,
            tldr, ultrafeedback, rewardbench, rewardbench2, qa_feedback, scores or rankings.
        chosen_column: The preferred reply's column.
        rejected_column: The other reply's column.
        probability_column: The column of the probability that chosen is the better reply; null
            takes chosen_probability where there is one.
        implicit_prompt: Take the beginning that chosen and rejected share for the prompt, in plain
            text without turn markers, too.
    """

    format: FormatName = "auto"
    chosen_column: str = "chosen"
    rejected_column: str = "rejected"
    probability_column: str | None = None
    implicit_prompt: bool = False

    def columns(self) -> dict[str, Any]:
        """The keyword arguments of `load_preferences` that say which columns hold what."""
        return {
            "prompt_column": self.prompt_column,
            "chosen_column": self.chosen_column,
            "rejected_column": self.rejected_column,
            "probability_column": self.probability_column,
            "implicit_prompt": self.implicit_prompt,
        }

    def rows(self) -> dict[str, Any]:
        """The keyword arguments of `load_preferences` but its tokenizer."""
        return {
            "split": self.split,
            "format": self.format,
            "on_bad_row": self.on_bad_row,
            "limit": self.limit,
            **self.columns(),
        }


@dataclass
class SplitArgs(PairArgs):
    """Split preference pairs by prompt into train.jsonl and test.jsonl, and report on them.

    Attributes:
        model: Hub id or folder whose tokenizer renders messages; null keeps messages.
        holdout: Share of the prompts that go to test.jsonl.
        seed: Of the split.
        out: Folder for train.jsonl, test.jsonl and data_report.json.
    """

    MODELS: ClassVar = ("model",)
    WRITES: ClassVar = ("train.jsonl", "test.jsonl", "data_report.json")

    model: str | None = None
    holdout: ProperFraction = 0.1
    seed: Seed = 0
    out: str = "runs/split"


@dataclass
class InspectArgs(PairArgs):
    """Report on preference pairs before training: counts, labels, lengths, what a limit cuts.

    Attributes:
        model: Hub id or folder whose tokenizer counts tokens, of messages those of its chat
            template; null counts characters alone.
        max_length: Tokens of prompt and response together, to see what it would cut.
        out: Folder for data_report.json and data_report.html.
    """

    MODELS: ClassVar = ("model",)
    WRITES: ClassVar = ("data_report.json", "data_report.html")

    model: str | None = None
    max_length: Tokens | None = None
    out: str = "runs/inspect"

    def check(self) -> None:
        """Checks that there is a tokenizer to count with."""
        if self.max_length is not None:
            require(bool(self.model), "model", self.model, "a tokenizer for max_length, by --model")


@dataclass
class ConvertArgs(PairArgs):
    """Write preferences of any supported format as plain pairs, one JSON object a line.

    Attributes:
        model: Hub id or folder whose tokenizer renders messages and counts query_tokens; null
            keeps messages as they are.
        margins: Write the difference of two scores as margin (ultrafeedback and scores).
        query_tokens: Cut the queries of format tldr to so many tokens; 512 in the paper.
        out: File for the pairs.
    """

    MODELS: ClassVar = ("model",)
    WRITES: ClassVar = None

    model: str | None = None
    margins: bool = False
    query_tokens: Tokens | None = None
    out: str = "runs/pairs.jsonl"

    def check(self) -> None:
        """Checks the file's name, and that there is a tokenizer to count with."""
        require(self.out.endswith(".jsonl"), "out", self.out, "a file that ends in .jsonl")
        if self.query_tokens is not None:
            require(bool(self.model), "model", self.model, "a tokenizer to count with, by --model")


@dataclass
class WorldArgs(CheckedArgs):
    """Write the synthetic task's demonstrations and held-out prompts to files.

    Attributes:
        out: Folder for demonstrations.jsonl, prompts.jsonl and held_out_prompts.jsonl.
        demonstrations: Texts to learn to write from.
        prompts: Prompts to sample from, and as many held-out ones: at most as many as there are
            held-out sets of things.
        seed: Of the draws. What is held out is the same for all seeds; consecutive seeds write
            different held-out prompts.
    """

    WRITES: ClassVar = tuple(f"{name}.jsonl" for name in _WORLD)

    out: str = "runs/world"
    demonstrations: Annotated[int, Within(ge=1, le=10_000_000)] = 6000
    prompts: Count = 200
    seed: Seed = 0

    def check(self) -> None:
        """Checks that there are so many prompts."""
        most = count_held_out()
        bounds = f"1 to {most}, the held-out assignments of the synthetic task"
        require(1 <= self.prompts <= most, "prompts", self.prompts, bounds)


@dataclass
class LabelArgs(CheckedArgs):
    """Let the simulated human compare responses, two by two, into preference pairs.

    Attributes:
        responses: JSON lines of `prompt` and `responses`, and `finished` of each, as `prefsearch
            policy sample` writes them.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: File for the preference pairs.
        seed: Of the human's choices.
    """

    REQUIRED: ClassVar = MappingProxyType({"responses": "a file, by --responses"})
    DATA: ClassVar = ("responses",)
    WRITES: ClassVar = None

    responses: str = ""
    on_bad_row: OnBadRow = "error"
    out: str = "runs/world/preferences.jsonl"
    seed: Seed = 0

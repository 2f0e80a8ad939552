"""`prefsearch reward average`, `ensemble`, `score`, `train_steps`: all kinds of reward model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from prefsearch.cli.console import PlainConsole
from prefsearch.cli.outputs import Output, settle_outputs
from prefsearch.cli.run_settings import fields_of, open_run
from prefsearch.config.bounds import NonNegative, ProperFraction, Rows, Size, Tokens, Weight
from prefsearch.config.checks import check_types, require
from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.folders import remove_folder
from rewardmodel.data.conversation import text_of
from rewardmodel.data.json_lines import json_lines, json_values
from rewardmodel.data.parsing.finished import finished_marks
from rewardmodel.data.parsing.prompt_columns import (
    begins_with_prompt,
    find_conversation,
    take_prompt,
)
from rewardmodel.data.parsing.reply_text import split_prompt, take_turns
from rewardmodel.data.parsing.shared_prompt import Turns, repeats, split_last_turn
from rewardmodel.data.preferences import split_by_prompt
from rewardmodel.data.rows import (
    OnBadRow,
    PreferenceDataError,
    ReadRow,
    Row,
    note,
    parse_rows,
    peek,
)
from rewardmodel.data.sources.sources import read_rows
from rewardmodel.data.steps import SEPARATOR, load_steps, split_steps
from rewardmodel.evaluation.process import evaluate_process_model
from rewardmodel.interface import (
    StepRewardModel,
    UncertainRewardModel,
    member_scores_of,
    score_replies,
)
from rewardmodel.models.aggregation import Aggregate
from rewardmodel.models.averaging import average_weights
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.ensemble_file import refuse_functions, write_ensemble
from rewardmodel.models.functions import UserCodeError
from rewardmodel.models.loading import Kind, load_members, load_reward_model
from rewardmodel.models.process import ProcessRewardModel
from rewardmodel.pretrained.digest import digest_model, digest_rows
from rewardmodel.pretrained.input_format import ChosenFormat
from rewardmodel.pretrained.places import keep_inputs
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.process import train_process_model


@dataclass
class AverageJob:
    """Average the weights of reward models that were fine-tuned from one base (WARM).

    Attributes:
        models: Folders of the models, two or more.
        weights: Of each model, scaled to sum to 1; null takes all alike.
        out: Folder for the averaged model.
    """

    models: list[str] | None = None
    weights: list[Weight] | None = None
    out: str = "runs/average"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.models), "models", self.models, "folders, by --models A B ...")
        keep_inputs(self, "models")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, (), replaced=True)]


def average(job: AverageJob) -> None:
    """Averages weights; see `AverageJob`."""
    found = average_weights(job.models or [], Path(job.out), job.weights)
    PlainConsole().print(
        f"{len(found['models'])} models averaged, {found['parameters']:,} weights. Model: {job.out}"
    )


@dataclass
class EnsembleJob:
    """Make an ensemble of reward models: a folder with an ensemble.json that names them.

    Attributes:
        models: Folders or hub ids of the members, of any kind; no functions, whose code would be
            run by whoever loads the folder. Name those where it is used:
            ensemble:FOLDER,python:FILE.py:name.
        aggregate: "mean", "min", "mean_minus_deviation" or "mean_minus_variance".
        weight: Of the members' disagreement, in the last two.
        standardize_on: Prompts and responses on which each member gets mean 0 and deviation 1, as
            for `score`; null takes the members' scores as they are.
        limit: Use this many rows of those; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: Folder for ensemble.json.
    """

    models: list[str] | None = None
    aggregate: Aggregate = "mean"
    weight: NonNegative = 1.0
    standardize_on: str | None = None
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    out: str = "runs/ensemble"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.models), "models", self.models, "folders or hub ids, by --models A B ...")
        keep_inputs(self, "models", "standardize_on")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, (".", "ensemble.json"))]


def ensemble(job: EnsembleJob) -> None:
    """Writes an ensemble; see `EnsembleJob`."""
    sources = job.models or []
    refuse_functions(sources)
    members = load_members(sources)  # they exist and load, or the user hears of it now
    made = EnsembleRewardModel(members, job.aggregate, weight=job.weight)
    scaled = job.standardize_on is not None
    if job.standardize_on is not None:
        rows = load_responses(job.standardize_on, limit=job.limit, on_bad_row=job.on_bad_row)
        prompts = [row["prompt"] for row in rows for _ in row["responses"]]
        texts = [text for row in rows for text in row["responses"]]
        finished = [told for row in rows for told in row["finished"]]
        made = made.standardize(prompts, texts, finished=finished)
    path = write_ensemble(
        job.out,
        sources,
        aggregate=job.aggregate,
        weight=job.weight,
        shifts=made.shifts if scaled else None,
        scales=made.scales if scaled else None,
    )
    PlainConsole().print(f"{len(sources)} members, {job.aggregate}: {path}")


@dataclass
class ScoreJob:
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
        split: Split of a hub dataset or folder.
        prompt_column: The prompt's column, or several joined by "+".
        response_column: The column of a response or of a list of them; null takes responses,
            response, or whole conversations from messages.
        limit: Use this many rows; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        max_length: Tokens of prompt and response together; null takes the model's own.
        input_format: Whether the model is given prompt and response as one "text" (messages by its
            chat template) or as a "pair" of segments, as encoders are; "auto" takes what it was
            trained on, or looks.
        batch_size: Rows a forward pass; null takes the kind's default.
        out: File for the rows with their scores, .jsonl; beside them the scores of the members of
            an ensemble, or of the steps where the model scores steps.
    """

    model: str = ""
    kind: Kind = "auto"
    aggregate: str | None = None
    dataset: str = ""
    split: str = "train"
    prompt_column: str = "prompt"
    response_column: str | None = None
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    max_length: Tokens | None = None
    input_format: ChosenFormat = "auto"
    batch_size: Size | None = None
    out: str = "scores.jsonl"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.model), "model", self.model, "a hub id, folder or package, by --model")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(self.out.endswith(".jsonl"), "out", self.out, "a file that ends in .jsonl")
        keep_inputs(self, "dataset", "model")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out)]


def score(job: ScoreJob) -> None:
    """Scores a file of responses; see `ScoreJob`."""
    reward_model = load_reward_model(
        job.model,
        max_length=job.max_length,
        batch_size=job.batch_size,
        kind=job.kind,
        input_format=job.input_format,
        aggregate=job.aggregate,
    )
    rows = load_responses(
        job.dataset,
        split=job.split,
        prompt_column=job.prompt_column,
        response_column=job.response_column,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
    )
    json_lines([row["row"] for row in rows])  # refuses what cannot be written before it is scored
    scored: list[dict[str, Any]] = []
    # Many rows at a time: those of one prompt share it, and rows of like length share a pass.
    for start in tqdm(range(0, len(rows), 64), desc="scoring", delay=2, leave=False):
        try:
            scored += _scored(reward_model, rows[start : start + 64])
        except UserCodeError as error:
            last = min(start + 64, len(rows)) - 1
            named = f"row {start}" if last == start else f"one of the rows {start} to {last}"
            raise UserCodeError(f"{named}: {error}") from error
    write_text_atomic(job.out, json_lines(scored))
    count = sum(len(row["responses"]) for row in rows)
    PlainConsole().print(f"{count} responses scored: {job.out}")


def load_responses(
    source: str,
    *,
    split: str = "train",
    prompt_column: str = "prompt",
    response_column: str | None = None,
    on_bad_row: OnBadRow = "error",
    limit: Rows | None = None,
) -> list[dict[str, Any]]:
    """Loads prompts with one response or several each.

    Without a column of responses, messages in `messages` (or `conversations`, `conversation` or
    `dialogue`) that end with the assistant's turn are a prompt and its response.

    Returns:
        Rows with `prompt`, `responses` (a list), `several` (whether a list stood there), `finished`
        (whether each ended by itself, by the column of that name) and `row`, the row as it was
        read.

    Raises:
        PreferenceDataError: No such source, a bad row or no good one; the message names file and
            line.
    """

    def parse(row: Row) -> dict[str, Any]:
        column = response_column or ("responses" if "responses" in row else "response")
        parted = _part_conversation(row, prompt_column, column)
        try:  # what is written again behind the scores must be writable before they are made
            kept = json_values(dict(row), "the row")
        except ValueError as error:
            raise PreferenceDataError(f"{error}", reason="a value that JSON cannot hold") from error
        return {**_parse(parted, prompt_column, column), "row": kept}

    rows = read_rows(source, split=split)
    return list(parse_rows(rows, parse, source=source, on_bad_row=on_bad_row, limit=limit))


def _part_conversation(row: Row, prompt_column: str, response_column: str) -> Row:
    """The row with prompt and response in their columns, where one conversation holds both."""
    if response_column in row and prompt_column in row:
        return row
    name = response_column if response_column in row else find_conversation(row)
    whole = None if name is None else peek(row, name)
    if name is None or not isinstance(whole, list) or not begins_with_prompt(whole):
        return row
    if whole[-1].get("role") != "assistant":
        return row
    prompt, response = split_last_turn(take_turns(row, name, option="response_column"))
    beside = peek(row, prompt_column)
    if name not in ("messages", response_column):
        note(row, f"conversation read from column {name!r}")
    if prompt_column != name and isinstance(beside, str) and not repeats(prompt, beside):
        note(row, "prompt not used, which the conversation beside it does not repeat")
    parted = ReadRow({**row, prompt_column: prompt, response_column: response})
    if isinstance(row, ReadRow):  # what is read of the one is read of the other
        parted.read, parted.notes = row.read, row.notes
    return parted


def _parse(row: Row, prompt_column: str, response_column: str) -> dict[str, Any]:
    """Prompt, responses, whether a list of them stood there, and which are finished."""
    if prompt_column in row and not isinstance(row[prompt_column], str | list):
        raise PreferenceDataError(
            f"column {prompt_column!r} is {repr(row[prompt_column])[:80]} among {list(row)}; "
            "required is text, or a list of messages.",
            reason="prompt is not text",
        )
    if row.get(prompt_column) == "":  # a text may well continue nothing
        turns: Turns = ""
    else:
        turns = take_prompt(row, prompt_column, option="prompt_column")
    found = row.get(response_column)
    # A list is several responses, or the messages of one.
    several = isinstance(found, list) and not any(isinstance(item, dict) for item in found)
    replies: Any = found if several else [found]
    if not replies or not all(_is_reply(reply) for reply in replies):
        raise PreferenceDataError(
            f"found no responses among {list(row)} in {response_column!r}; required is text or "
            "messages, or a list of them. To read another column than `response` or `responses` "
            "pass response_column=NAME.",
            reason="no responses",
        )
    prompt, responses = split_prompt(
        turns,
        [_turns_of(reply, response_column) for reply in replies],
        None,
        row=row,
        keep_messages=True,
        empty=True,
    )
    return {
        "prompt": prompt,
        "responses": responses,
        "several": several,
        "finished": finished_marks(row, len(responses)),
    }


def _turns_of(reply: Any, column: str) -> Turns:
    """A reply's text, which may be empty, or its messages."""
    return take_turns({column: reply}, column, option="response_column") if reply else reply


def _is_reply(value: Any) -> bool:
    """Whether a value is text or a list of messages."""
    turns = isinstance(value, list) and bool(value)
    return isinstance(value, str) or (turns and all(isinstance(t, dict) for t in value))


def _scored(reward_model: Any, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as they were read, with their scores."""
    prompts = [row["prompt"] for row in rows for _ in row["responses"]]
    texts = [text for row in rows for text in row["responses"]]
    finished = [told for row in rows for told in row["finished"]]
    scores = score_replies(reward_model, prompts, texts, finished=finished)
    columns: dict[str, list[Any]] = {"score": scores.tolist()}
    if isinstance(reward_model, UncertainRewardModel):
        members = member_scores_of(reward_model, prompts, texts, finished=finished)
        columns["member_scores"] = members.T.tolist()
    if isinstance(reward_model, StepRewardModel):
        separator = getattr(reward_model, "separator", SEPARATOR)
        steps = [split_steps(text_of(text, "a process model"), separator) for text in texts]
        columns["step_scores"] = [row.tolist() for row in reward_model.step_scores(prompts, steps)]
    made, at = [], 0
    for row in rows:
        here = slice(at, at + len(row["responses"]))
        at = here.stop
        for name, values in columns.items():
            key = "scores" if row["several"] and name == "score" else name
            row["row"][key] = values[here] if row["several"] else values[here][0]
        made.append(row["row"])
    return made


@dataclass
class TrainStepsJob(OptimConfig):
    """Train a process reward model on judged steps and measure it on held-out prompts.

    Attributes:
        model: What to begin from, a language model or token classifier: hub id, folder, .gguf file
            or package:NAME/FOLDER.
        dataset: Rows of a prompt, a list of steps (completions) and a label in [0, 1] for each.
        split: Split of a hub dataset or folder.
        prompt_column: The prompt's column, or several joined by "+".
        separator: What stands between steps.
        holdout: Share of the prompts kept for measuring.
        limit: Use this many rows; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    model: str = ""
    dataset: str = ""
    split: str = "train"
    prompt_column: str = "prompt"
    separator: str = SEPARATOR
    holdout: ProperFraction = 0.1
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    out: str = "runs/process"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.model), "model", self.model, "a hub id, folder or package, by --model")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(bool(self.separator), "separator", self.separator, "a text, such as a line break")
        settle_outputs(self)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ())]


def train_steps(job: TrainStepsJob) -> None:
    """Trains, measures and saves; in several processes as `prefsearch reward train` does."""
    data: Dataset = load_steps(
        job.dataset,
        split=job.split,
        prompt_column=job.prompt_column,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
    )
    training, held_out = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    inputs = {"model": digest_model(job.model), "dataset": digest_rows(data)}
    run, processes = open_run(job, inputs)
    main = processes.is_main_process
    folder = run.checkpoints / "model"
    if run.result("train") is None:
        outcome = train_process_model(
            job.model,
            training,
            folder,
            optimization=fields_of(OptimConfig, job),
            separator=job.separator,
            checkpoints=run.path / "trainer",
            keep_checkpoints=True,
        )
        if main:
            run.finish("train", outcome, files=[folder])
    if not main:
        return
    remove_folder(run.path / "trainer")
    result = run.result("evaluate")
    if result is None:
        reward_model = ProcessRewardModel.load(str(folder), max_length=job.max_length)
        result = run.finish("evaluate", asdict(evaluate_process_model(reward_model, held_out)))
    accuracy, f1 = result["accuracy"], result["f1"]
    console = PlainConsole()
    console.print(
        f"Held-out accuracy on {result['steps']} steps {accuracy['estimate']:.3f} "
        f"[{accuracy['low']:.3f}, {accuracy['high']:.3f}] (95 % interval over responses), F1 of "
        "first errors "
        f"{'-' if f1 is None else format(f1, '.3f')}"
    )
    console.print(f"Model: {folder}")

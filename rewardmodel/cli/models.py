"""`prefsearch reward score`, `average`, `ensemble` and `train_prm`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from prefsearch.cli.console import PlainConsole
from prefsearch.config.bounds import Rows
from prefsearch.config.settings import run_settings
from prefsearch.distributed import join_processes
from prefsearch.progress import track
from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.folders import remove_folder
from rewardmodel.cli.model_args import AverageArgs, EnsembleArgs, ScoreArgs, TrainPrmArgs
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
    ColumnTrackingRow,
    OnBadRow,
    PreferenceDataError,
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
from rewardmodel.models.averaging import average_weights
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.ensemble_file import refuse_functions, write_ensemble
from rewardmodel.models.functions import UserCodeError
from rewardmodel.models.loading import load_members, load_reward_model
from rewardmodel.models.process import ProcessRewardModel
from rewardmodel.pretrained.digest import digest_model, digest_rows
from rewardmodel.training.process import train_process_model


def average(args: AverageArgs) -> None:
    """Averages weights."""
    found = average_weights(args.models or [], Path(args.out), args.weights)
    PlainConsole().print(
        f"{len(found['models'])} models averaged, {found['parameters']:,} weights. "
        f"Model: {args.out}"
    )


def ensemble(args: EnsembleArgs) -> None:
    """Writes an ensemble."""
    sources = args.models or []
    refuse_functions(sources)
    members = load_members(sources)  # they exist and load, or the user hears of it now
    made = EnsembleRewardModel(members, args.aggregate, weight=args.weight)
    scaled = args.standardize_on is not None
    if args.standardize_on is not None:
        rows = load_responses(args.standardize_on, limit=args.limit, on_bad_row=args.on_bad_row)
        prompts = [row["prompt"] for row in rows for _ in row["responses"]]
        texts = [text for row in rows for text in row["responses"]]
        finished = [mark for row in rows for mark in row["finished"]]
        made = made.standardize(prompts, texts, finished=finished)
    path = write_ensemble(
        args.out,
        sources,
        aggregate=args.aggregate,
        weight=args.weight,
        shifts=made.shifts if scaled else None,
        scales=made.scales if scaled else None,
    )
    PlainConsole().print(f"{len(sources)} members, {args.aggregate}: {path}")


def score(args: ScoreArgs) -> None:
    """Scores a file of responses."""
    reward_model = load_reward_model(
        args.model,
        max_length=args.max_length,
        batch_size=args.batch_size,
        kind=args.kind,
        input_format=args.input_format,
        aggregate=args.aggregate,
    )
    rows = load_responses(
        args.dataset,
        split=args.split,
        prompt_column=args.prompt_column,
        response_column=args.response_column,
        on_bad_row=args.on_bad_row,
        limit=args.limit,
    )
    json_lines([row["row"] for row in rows])  # refuses what cannot be written before it is scored
    scored: list[dict[str, Any]] = []
    # Many rows at a time: those of one prompt share it, and rows of like length share a pass.
    for start in track(range(0, len(rows), 64), "scoring"):
        try:
            scored += _scored(reward_model, rows[start : start + 64])
        except UserCodeError as error:
            last = min(start + 64, len(rows)) - 1
            named = f"row {start}" if last == start else f"one of the rows {start} to {last}"
            raise UserCodeError(f"{named}: {error}") from error
    write_text_atomic(args.out, json_lines(scored))
    count = sum(len(row["responses"]) for row in rows)
    PlainConsole().print(f"{count} responses scored: {args.out}")


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
    parted = ColumnTrackingRow({**row, prompt_column: prompt, response_column: response})
    if isinstance(row, ColumnTrackingRow):  # what is read of the one is read of the other
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
    finished = [mark for row in rows for mark in row["finished"]]
    scores = score_replies(reward_model, prompts, texts, finished=finished)
    columns: dict[str, list[object]] = {"score": scores.tolist()}
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


def train_prm(args: TrainPrmArgs) -> None:
    """Trains, measures and saves; in several processes as `prefsearch reward train` does."""
    data: Dataset = load_steps(
        args.dataset,
        split=args.split,
        prompt_column=args.prompt_column,
        on_bad_row=args.on_bad_row,
        limit=args.limit,
    )
    training, held_out = split_by_prompt(data, holdout=args.holdout, seed=args.optim.seed)
    inputs = {"model": digest_model(args.model), "dataset": digest_rows(data)}
    processes = join_processes(training=True)
    run = processes.open_run(args.out, run_settings(args), resume=args.resume, inputs=inputs)
    main = processes.main
    folder = run.checkpoints / "model"
    if run.result("train") is None:
        outcome = train_process_model(
            args.model,
            training,
            folder,
            optimization=args.optim,
            separator=args.separator,
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
        reward_model = ProcessRewardModel.load(str(folder), max_length=args.optim.max_length)
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

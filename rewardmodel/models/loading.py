"""From a name to the reward model, or gold judge, that it stands for."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from prefsearch.storage.json_reading import read_object
from rewardmodel.choices import AGGREGATES, KINDS, ChosenFormat, Kind, OnBadRow
from rewardmodel.interface import RewardModel
from rewardmodel.models.adapter_members import load_adapter_members, shared_base
from rewardmodel.models.ensemble import ENSEMBLE_FILE, EnsembleRewardModel
from rewardmodel.models.ensemble_file import MOST_MEMBERS
from rewardmodel.models.functions import FunctionRewardModel
from rewardmodel.models.multi_head import MultiHeadRewardModel, reward_heads
from rewardmodel.models.process import STEP_AGGREGATES, ProcessRewardModel
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.models.verifiers import AnswerMatch
from rewardmodel.pretrained.adapters import adapter_folder
from rewardmodel.pretrained.checkpoints import read_config
from rewardmodel.pretrained.files import ADAPTER_CONFIG
from rewardmodel.pretrained.source import (
    ANSWERS,
    FUNCTION,
    MEMBERS,
    SIMULATED,
    names_function,
    resolve_model,
)
from rewardmodel.synthetic.world import SimulatedHuman

FORMS = (
    "a hub id, a folder, a .gguf file, package:NAME/FOLDER, python:package.module:name, "
    "python:path/to/file.py:name, answers:FILE, ensemble:NAME,NAME or simulated"
)
"""What a reward model, or a gold judge, may be named by."""


def load_reward_model(
    source: str,
    *,
    max_length: int | None = None,
    batch_size: int | None = None,
    kind: Kind = "auto",
    aggregate: str | None = None,
    input_format: ChosenFormat = "auto",
    answer_form: str = "auto",
    on_bad_row: OnBadRow = "error",
) -> Any:
    """Loads a reward model of any kind.

    Args:
        source: A hub id, folder, `package:NAME/FOLDER` or `.gguf` file: of a sequence classifier
            with one label, or with several that are reward heads (`reward_heads` in config.json),
            of a token classifier (a process reward model), or of an adapter of one of them; a
            folder with an `ensemble.json`; a function, `python:package.module:name` or
            `python:path/to/file.py:name`, whose module's code is run; `answers:FILE`, exact match
            with the reference answers of a file; `ensemble:NAME,NAME`, several of these by their
            names; or `simulated`, the embedded world's human.
        max_length: Tokens of prompt and response; None takes what the model was trained with.
        batch_size: Rows a forward pass; None takes the kind's default.
        kind: What to take it for; "auto" looks.
        aggregate: How members, heads or steps become one score; None takes the kind's default or
            what is written in `ensemble.json`.
        input_format: Whether a sequence or multi-head model is given prompt and response as one
            "text" or as a "pair" of segments; "auto" takes what it was trained on, or looks
            (`rewardmodel.pretrained.input_format`). Of an ensemble, for each such member.
        answer_form: How `answers:FILE` reads answers; see `extract_answer`.
        on_bad_row: Of that file: "error" ends at the first bad row, "skip" leaves bad rows out.

    Returns:
        A `RewardModel`.

    Raises:
        ValueError: If there is no reward model, or it is of another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: found {kind!r}; required: one of {', '.join(KINDS)}")
    found = kind_of(source) if kind == "auto" else kind
    try:
        if found == "function":
            _refuse_aggregate(aggregate, found, ())
            return _load_function(source, answer_form, on_bad_row)
        return _load_model(
            source if source.startswith(MEMBERS) else resolve_model(source),
            found,
            max_length=max_length,
            batch_size=batch_size,
            aggregate=aggregate,
            input_format=input_format,
        )
    except ValueError as error:
        other = found if kind == "auto" else _kind_or_none(source)
        if other in (None, found):
            raise
        what = str(error).partition("; required")[0]  # whose remedy is for a model of that kind
        raise ValueError(
            f"kind: found {found!r}, and {source!r} is a {other} model ({what}); required: the "
            f"kind that it is. Pass kind={other!r}, or kind='auto'"
        ) from error


def _kind_or_none(source: str) -> Kind | None:
    try:
        return kind_of(source)
    except ValueError:
        return None


def _load_model(
    source: str,
    found: Kind,
    *,
    max_length: int | None,
    batch_size: int | None,
    aggregate: str | None,
    input_format: ChosenFormat,
) -> RewardModel:
    """Loads a model of a known kind that is no function."""
    options: dict[str, Any] = {"max_length": max_length}
    if source.startswith(MEMBERS):
        _refuse_aggregate(aggregate, found, AGGREGATES if found == "ensemble" else ())
        members = load_members(
            _named_members(source),
            max_length=max_length,
            batch_size=batch_size,
            input_format=input_format,
        )
        return EnsembleRewardModel(members, "mean" if aggregate is None else cast(Any, aggregate))
    if found != "process":
        options["input_format"] = input_format
    elif input_format == "pair":
        raise ValueError(
            f"input_format: found 'pair', and {source} scores steps, each behind the ones before; "
            'required: "auto" or "text"'
        )
    if batch_size is not None:
        options["batch_size"] = batch_size
    if found == "sequence":
        _refuse_aggregate(aggregate, found, ())
        return SequenceRewardModel.load(source, **options)
    _refuse_aggregate(aggregate, found, STEP_AGGREGATES if found == "process" else AGGREGATES)
    if aggregate is not None:
        options["aggregate"] = aggregate
    loaders: dict[str, Callable[..., RewardModel]] = {
        "process": ProcessRewardModel.load,
        "multi_head": MultiHeadRewardModel.load,
        "ensemble": EnsembleRewardModel.load,
    }
    return loaders[found](source, **options)


def load_members(
    sources: Sequence[str],
    *,
    max_length: int | None = None,
    batch_size: int | None = None,
    input_format: ChosenFormat = "auto",
) -> list[RewardModel]:
    """Loads several reward models, the base of adapters that have one in common once.

    Raises:
        ValueError: If one cannot be loaded.
    """
    sources = [
        s if names_function(s) or s.startswith(MEMBERS) else resolve_model(s) for s in sources
    ]
    if shared_base(sources) is not None:
        options: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
        options |= {"max_length": max_length, "input_format": input_format}
        return [*load_adapter_members(sources, **options)]
    found: list[RewardModel] = []
    for source in sources:
        takes_format = kind_of(source) not in ("process", "function")
        found.append(
            load_reward_model(
                source,
                max_length=max_length,
                batch_size=batch_size,
                input_format=input_format if takes_format else "auto",
            )
        )
    return found


def kind_of(source: str) -> Kind:
    """Looks what kind of reward model lies somewhere.

    Raises:
        ValueError: If none does; the message lists the kinds.
    """
    if source.startswith(MEMBERS):
        return "ensemble"
    if names_function(source):
        return "function"
    name, source = source, resolve_model(source)
    if (Path(source) / ENSEMBLE_FILE).is_file():
        return "ensemble"
    adapter = adapter_folder(source)
    if adapter is not None:
        task = read_object(adapter / ADAPTER_CONFIG).get("task_type")
        if task == "TOKEN_CLS":
            return "process"
        if task == "SEQ_CLS":
            return "multi_head" if (reward_heads(source) or 1) > 1 else "sequence"
        raise ValueError(_nothing_at(name, f"an adapter for {task}"))
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in Path(source).iterdir())[:8]) or "nothing"
        raise ValueError(_nothing_at(name, held))
    config = read_config(source)
    if config.get("reward_heads"):
        return "multi_head"
    kinds = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith("ForTokenClassification") for name in kinds):
        return "process"
    if any(name.endswith("ForSequenceClassification") for name in kinds):
        return "sequence"
    raise ValueError(_nothing_at(name, ", ".join(kinds) or "a config.json without architectures"))


def _named_members(source: str) -> list[str]:
    """The names in `ensemble:NAME,NAME`."""
    names = [name.strip() for name in source.removeprefix(MEMBERS).split(",")]
    if not all(names):
        raise ValueError(
            f"found {source!r}; required: the members' names behind {MEMBERS}, separated by commas"
        )
    if len(names) > MOST_MEMBERS:
        raise ValueError(
            f"found {len(names)} names behind {MEMBERS}; required: at most {MOST_MEMBERS}, since "
            "each is loaded"
        )
    return names


def _load_function(source: str, answer_form: str, on_bad_row: OnBadRow) -> Any:
    """A function, reference answers, or the simulated human, as a reward model."""
    if source == SIMULATED:
        return FunctionRewardModel(SimulatedHuman().utilities, name=SIMULATED)
    if source.startswith(ANSWERS):
        file = os.path.expanduser(source.removeprefix(ANSWERS))
        return AnswerMatch.load(file, form=answer_form, on_bad_row=on_bad_row)
    return FunctionRewardModel.load(source.removeprefix(FUNCTION))


def _refuse_aggregate(aggregate: str | None, kind: str, known: Sequence[str]) -> None:
    if aggregate is not None and aggregate not in known:
        what = f"one of {', '.join(known)}" if known else "none"
        raise ValueError(f"aggregate: found {aggregate!r} for a {kind} model; required: {what}")


def _nothing_at(source: str, found: str) -> str:
    return (
        f"no reward model at {source!r}: found {found}; required: a classifier of sequences with "
        "one label (a sequence model) or several reward_heads (multi_head), a classifier of tokens "
        f"(process), an adapter of one of them, a folder with {ENSEMBLE_FILE} (ensemble), or "
        f"{FUNCTION}package.module:name (function). `prefsearch reward train` makes the first. A "
        f"model is named by {FORMS}"
    )

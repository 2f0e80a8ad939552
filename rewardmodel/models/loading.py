"""Loading a reward model of any kind by its name."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefsearch.storage.json_text import read_object
from rewardmodel.choices import AGGREGATES, KINDS, STEP_AGGREGATES, ChosenFormat, Kind, OnBadRow
from rewardmodel.interface import RewardModel
from rewardmodel.models.adapter_members import load_adapter_members, shared_base
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.ensemble_file import ENSEMBLE_FILE, MOST_MEMBERS, members_of, read_ensemble
from rewardmodel.models.functions import FunctionRewardModel
from rewardmodel.models.implicit import TOKEN_AGGREGATES, WITHOUT_ADAPTER, ImplicitRewardModel
from rewardmodel.models.multi_head import MultiHeadRewardModel, reward_heads
from rewardmodel.models.process import ProcessRewardModel
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.models.token_value import TokenValueModel
from rewardmodel.models.verifiers import AnswerMatch
from rewardmodel.pretrained.adapters import adapter_folder
from rewardmodel.pretrained.checkpoints import read_config
from rewardmodel.pretrained.files import ADAPTER_CONFIG
from rewardmodel.pretrained.source import (
    ANSWERS,
    FUNCTION,
    IMPLICIT,
    MEMBERS,
    SIMULATED,
    named_members,
    names_function,
    resolve_model,
)
from rewardmodel.synthetic.human import SimulatedHuman

FORMS = (
    "a hub id, a folder, a .gguf file, package:NAME/FOLDER, python:package.module:name, "
    "python:path/to/file.py:name, answers:FILE, ensemble:NAME,NAME, implicit:POLICY,REFERENCE or "
    "simulated"
)
"""The forms of a reward model's name."""
_LOADERS: Mapping[str, Callable[..., RewardModel]] = {
    "sequence": SequenceRewardModel.load,
    "process": ProcessRewardModel.load,
    "multi_head": MultiHeadRewardModel.load,
    "token_value": TokenValueModel.load,
}
_AGGREGATES: Mapping[str, tuple[str, ...]] = {
    "process": STEP_AGGREGATES,
    "multi_head": AGGREGATES,
    "implicit": TOKEN_AGGREGATES,
    "ensemble": AGGREGATES,
}
_TEXT_ONLY = ("process", "token_value", "implicit")


def load_reward_model(
    source: str | os.PathLike[str],
    *,
    max_length: int | None = None,
    batch_size: int | None = None,
    kind: Kind = "auto",
    aggregate: str | None = None,
    input_format: ChosenFormat = "auto",
    answer_form: str = "auto",
    on_bad_row: OnBadRow = "error",
) -> RewardModel:
    """Loads a reward model of any kind.

    Args:
        source: A hub id, folder, `package:NAME/FOLDER` or `.gguf` file: of a sequence classifier
            with one label, or with several that are reward heads (`reward_heads` in config.json),
            of a token classifier (a process reward model), or of an adapter of one of them; a
            folder with an `ensemble.json`; `implicit:POLICY,REFERENCE`, DPO's implicit reward (of
            an adapter, `implicit:ADAPTER` takes its base as the reference); a function,
            `python:package.module:name` or `python:path/to/file.py:name`, whose module is
            imported; `answers:FILE`, exact match with the reference answers in a file;
            `ensemble:NAME,NAME`; or `simulated`, the simulated human.
        max_length: Tokens of prompt and response; None takes what the model was trained with.
        batch_size: Rows per forward pass; None takes the kind's default.
        kind: "auto" detects the kind. "token_value" reads a sequence model's head at every token;
            "implicit" takes an adapter of a policy, with its base as the reference.
        aggregate: How members, heads, steps or tokens become one score; None takes the kind's
            default, or the setting in `ensemble.json`.
        input_format: Whether a sequence or multi-head model reads prompt and response as one
            "text" or as a "pair" of segments; "auto" detects it
            (`rewardmodel.pretrained.input_format`). Of an ensemble, for each such member.
        answer_form: How `answers:FILE` reads answers; see `extract_answer`.
        on_bad_row: Of that file: "error" stops at the first bad row, "skip" leaves bad rows out.

    Raises:
        ValueError: If there is no reward model, or it is of another kind.
    """
    source = os.fspath(source)
    if kind not in KINDS:
        raise ValueError(f"kind: found {kind!r}; required: one of {', '.join(KINDS)}")
    found = kind_of(source) if kind == "auto" else kind
    try:
        known = _AGGREGATES.get(found, ())
        if aggregate is not None and aggregate not in known:
            what = f"one of {', '.join(known)}" if known else "none"
            raise ValueError(
                f"aggregate: found {aggregate!r} for a {found} model; required: {what}"
            )
        if found == "function":
            return _load_function(source, answer_form, on_bad_row)
        return _load_model(
            source if named_members(source) else resolve_model(source),
            found,
            aggregate=aggregate,
            input_format=input_format,
            max_length=max_length,
            **({} if batch_size is None else {"batch_size": batch_size}),
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
    source: str, kind: Kind, *, aggregate: str | None, input_format: ChosenFormat, **options: Any
) -> RewardModel:
    """Loads a model of a known kind that is no function."""
    if kind == "ensemble":
        return _load_ensemble(source, aggregate, input_format=input_format, **options)
    if kind in _TEXT_ONLY and input_format == "pair":
        raise ValueError(
            f"input_format: found 'pair', and {source} is a {kind} model, which reads prompt and "
            'response as one text; required: "auto" or "text"'
        )
    if kind == "implicit":
        return _load_implicit(source, aggregate, **options)
    if kind not in _TEXT_ONLY:
        options["input_format"] = input_format
    if aggregate is not None:
        options["aggregate"] = aggregate
    return _LOADERS[kind](source, **options)


def _load_ensemble(source: str, aggregate: Any, **options: Any) -> EnsembleRewardModel:
    """Loads the members that a name lists, or the `ensemble.json` of a folder."""
    names = named_members(source)
    if names is not None:
        _require_names(source, names)
        return EnsembleRewardModel(load_members(names, **options), aggregate or "mean")
    written = read_ensemble(Path(source) / ENSEMBLE_FILE)
    return EnsembleRewardModel(
        load_members(members_of(Path(source)), **options),
        aggregate or written.get("aggregate", "mean"),
        weight=float(written.get("weight", 1.0)),
        shifts=written.get("shifts"),
        scales=written.get("scales"),
    )


def _load_implicit(source: str, aggregate: str | None, **options: Any) -> ImplicitRewardModel:
    """Loads a policy and its reference."""
    policy, *rest = named_members(source) or [source]
    if not policy or len(rest) > 1 or not all(rest):
        raise ValueError(
            f"found {source!r}; required: {IMPLICIT}POLICY,REFERENCE, or {IMPLICIT}ADAPTER, whose "
            "base is the reference"
        )
    return ImplicitRewardModel.load(
        policy,
        reference=rest[0] if rest else WITHOUT_ADAPTER,
        length_normalized=aggregate == "mean",
        **options,
    )


def load_members(
    sources: Sequence[str], *, input_format: ChosenFormat = "auto", **options: Any
) -> list[RewardModel]:
    """Loads several reward models; adapters of one base share it.

    Args:
        sources: Names, as `load_reward_model` takes them.
        input_format: See there; of the members that have one.
        options: `max_length` and `batch_size`, see there.

    Raises:
        ValueError: If one cannot be loaded.
    """
    sources = [s if names_function(s) or named_members(s) else resolve_model(s) for s in sources]
    if shared_base(sources) is not None:
        options = {name: value for name, value in options.items() if value is not None}
        return [*load_adapter_members(sources, input_format=input_format, **options)]
    return [
        load_reward_model(
            source,
            input_format="auto" if kind_of(source) in (*_TEXT_ONLY, "function") else input_format,
            **options,
        )
        for source in sources
    ]


def kind_of(source: str) -> Kind:
    """The kind of reward model that a name stands for.

    Raises:
        ValueError: If there is none; the message lists the kinds.
    """
    if named_members(source) is not None:
        return "implicit" if source.startswith(IMPLICIT) else "ensemble"
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


def _require_names(source: str, names: Sequence[str]) -> None:
    if not all(names):
        raise ValueError(
            f"found {source!r}; required: the members' names behind {MEMBERS}, separated by commas"
        )
    if len(names) > MOST_MEMBERS:
        raise ValueError(
            f"found {len(names)} names behind {MEMBERS}; required: at most {MOST_MEMBERS}, since "
            "each is loaded"
        )


def _load_function(source: str, answer_form: str, on_bad_row: OnBadRow) -> RewardModel:
    """A function, reference answers, or the simulated human, as a reward model."""
    if source == SIMULATED:
        return FunctionRewardModel(SimulatedHuman().utilities, name=SIMULATED)
    if source.startswith(ANSWERS):
        file = os.path.expanduser(source.removeprefix(ANSWERS))
        return AnswerMatch.load(file, form=answer_form, on_bad_row=on_bad_row)
    return FunctionRewardModel.load(source.removeprefix(FUNCTION))


def _nothing_at(source: str, found: str) -> str:
    return (
        f"no reward model at {source!r}: found {found}; required: a classifier of sequences with "
        "one label (a sequence model) or several reward_heads (multi_head), a classifier of tokens "
        f"(process), an adapter of one of them, a folder with {ENSEMBLE_FILE} (ensemble), "
        f"{IMPLICIT}POLICY,REFERENCE or {IMPLICIT}ADAPTER (implicit, a policy trained by DPO), or "
        f"{FUNCTION}package.module:name (function). `prefsearch reward train` makes the first. A "
        f"model is named by {FORMS}"
    )

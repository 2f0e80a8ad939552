"""From a folder, a hub id or a function's name to the reward model that lies there."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from rewardmodel.adapter_members import load_adapter_members, shared_base
from rewardmodel.aggregation import AGGREGATES
from rewardmodel.checkpoints import is_adapter, read_config
from rewardmodel.ensemble import ENSEMBLE_FILE, EnsembleRewardModel
from rewardmodel.functions import FunctionRewardModel
from rewardmodel.input_format import ChosenFormat
from rewardmodel.interface import RewardModel
from rewardmodel.multi_head import MultiHeadRewardModel, reward_heads
from rewardmodel.process import STEP_AGGREGATES, ProcessRewardModel
from rewardmodel.sequence import SequenceRewardModel

Kind = Literal["auto", "sequence", "process", "multi_head", "ensemble", "function"]
KINDS: tuple[str, ...] = get_args(Kind)
FUNCTION = "python:"
"""What the name of a function begins with: `python:package.module:name`."""


def load_reward_model(
    source: str,
    *,
    max_length: int | None = None,
    batch_size: int | None = None,
    kind: Kind = "auto",
    aggregate: str | None = None,
    input_format: ChosenFormat = "auto",
) -> Any:
    """Loads a reward model of any kind.

    Args:
        source: A local folder or hub id: of a sequence classifier with one label, or with several
            that are reward heads (`reward_heads` in config.json), of a token classifier (a process
            reward model), or of an adapter of one of them; a folder with an `ensemble.json`; or
            `python:package.module:name`, a function, whose module's code is run.
        max_length: Tokens of prompt and response; None takes what the model was trained with.
        batch_size: Rows a forward pass; None takes the kind's default.
        kind: What to take it for; "auto" looks.
        aggregate: How members, heads or steps become one score; None takes the kind's default or
            what is written in `ensemble.json`.
        input_format: Whether a sequence or multi-head model is given prompt and response as one
            "text" or as a "pair" of segments; "auto" takes what it was trained on, or looks
            (`rewardmodel.input_format`). Of an ensemble, for each such member.

    Returns:
        A `RewardModel`.

    Raises:
        ValueError: If there is no reward model, or it is of another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: found {kind!r}; required: one of {', '.join(KINDS)}")
    found = kind_of(source) if kind == "auto" else kind
    if found == "function":
        _refuse_aggregate(aggregate, found, ())
        return FunctionRewardModel.load(source.removeprefix(FUNCTION))
    options: dict[str, Any] = {"max_length": max_length}
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
    if source.startswith(FUNCTION):
        return "function"
    if (Path(source) / ENSEMBLE_FILE).is_file():
        return "ensemble"
    if is_adapter(source):
        task = read_adapter_task(source)
        if task == "TOKEN_CLS":
            return "process"
        if task == "SEQ_CLS":
            return "multi_head" if (reward_heads(source) or 1) > 1 else "sequence"
        raise ValueError(_nothing_at(source, f"an adapter for {task}"))
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in Path(source).iterdir())[:8]) or "nothing"
        raise ValueError(_nothing_at(source, held))
    config = read_config(source)
    if config.get("reward_heads"):
        return "multi_head"
    kinds = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith("ForTokenClassification") for name in kinds):
        return "process"
    if any(name.endswith("ForSequenceClassification") for name in kinds):
        return "sequence"
    raise ValueError(_nothing_at(source, ", ".join(kinds) or "a config.json without architectures"))


def read_adapter_task(source: str) -> str | None:
    """The task that an adapter's folder says it was made for."""
    path = Path(source) / "adapter_config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("task_type")


def _refuse_aggregate(aggregate: str | None, kind: str, known: Sequence[str]) -> None:
    if aggregate is not None and aggregate not in known:
        what = f"one of {', '.join(known)}" if known else "none"
        raise ValueError(f"aggregate: found {aggregate!r} for a {kind} model; required: {what}")


def _nothing_at(source: str, found: str) -> str:
    return (
        f"no reward model at {source!r}: found {found}; required: a classifier of sequences with "
        "one label (a sequence model) or several reward_heads (multi_head), a classifier of tokens "
        f"(process), an adapter of one of them, a folder with {ENSEMBLE_FILE} (ensemble), or "
        f"{FUNCTION}package.module:name (function). `prefsearch reward train` makes the first"
    )

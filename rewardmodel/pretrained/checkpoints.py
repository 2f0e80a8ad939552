"""Loading classifiers of sequences and tokens, and reading model configurations.

The head of a model that is about to be trained may be missing and is then initialized; of a trained
model no weight may be missing (`rewardmodel.pretrained.weights`).
"""

import logging
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from prefsearch.storage.json_text import read_object
from prefsearch.storage.weights import WeightsError
from rewardmodel.pretrained.adapters import adapter_folder, load_adapter, load_causal
from rewardmodel.pretrained.config_fields import read_own_settings, require_own_settings
from rewardmodel.pretrained.files import ADAPTER_WEIGHTS, check_adapter_files, require_architectures
from rewardmodel.pretrained.head_shape import head_labels
from rewardmodel.pretrained.source import resolve_model
from rewardmodel.pretrained.weights import HEAD_PARTS, ShapesError, cannot_load, load_pretrained

_logger = logging.getLogger(__name__)

Task = Literal["SEQ_CLS", "TOKEN_CLS"]
_NAMES: dict[Task, str] = {"SEQ_CLS": "sequence classifier", "TOKEN_CLS": "token classifier"}


def read_config(source: str) -> dict[str, Any]:
    """A folder's `config.json`, or that of a model of the hub.

    Raises:
        ValueError: If there is none, it is no JSON, or a setting of reward models in it is wrong.
    """
    source = resolve_model(source)
    path = Path(source) / "config.json"
    if path.is_file():
        config = read_object(path)
        require_own_settings(path, config)
        require_architectures(path, config)
        return config
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False).to_dict()
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise cannot_load(source, "model", error) from error
        raise ValueError(
            f"no config.json at {source!r} ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}). Name a model's folder or a hub id"
        ) from error
    require_own_settings(f"{source}, config.json", config)
    return config


def load_classifier(
    source: str, *, task: Task, labels: int | None, init_head: bool, **options: Any
) -> Any:
    """Loads a classifier of sequences or tokens.

    Args:
        source: Hub id, folder, package or GGUF file; adapters included, a policy's is merged.
        task: Which kind.
        labels: Outputs of its head; None takes as many as the weights have, whatever the
            configuration has.
        init_head: Whether the model may lack a head, as before training; a missing linear `score`
            is drawn from N(0, 1/(d+1)), Stiennon et al. 2020 (https://arxiv.org/abs/2009.01325),
            any other head as transformers does.
        options: Of `from_pretrained`; float32 where no dtype is given.

    Raises:
        ValueError: If nothing can be loaded there, or weights other than the head are missing.
    """
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    source = resolve_model(source)
    auto: Any = {
        "SEQ_CLS": AutoModelForSequenceClassification,
        "TOKEN_CLS": AutoModelForTokenClassification,
    }[task]
    options = {"dtype": torch.float32, **options}
    known = labels if labels is not None else _held_labels(source, task)
    if known is not None:
        options["num_labels"] = known
    if adapter_folder(source) is not None:
        return _load_adapter(source, task, auto, options, init_head=init_head)
    try:
        model, missing = load_pretrained(
            auto, source, what=_NAMES[task], head="new" if init_head else "trained", **options
        )
    except ShapesError as error:
        if not error.only_head:
            raise
        raise ShapesError(_other_shapes(source, task, labels)) from error
    head = getattr(model, "score", None)
    fresh = any(name.startswith("score.") for name in missing)
    if fresh and isinstance(head, torch.nn.Linear):
        torch.nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
        if head.bias is not None:
            torch.nn.init.zeros_(head.bias)
    return model


def _held_labels(source: str, task: Task) -> int | None:
    """The number of labels of a checkpoint's head; None where it cannot be read."""
    try:
        return head_labels(source, task)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, EOFError) as error:
        _logger.debug("%s: the weights could not be looked at (%s)", source, error)
        return None  # an error when it is loaded


def _other_shapes(source: str, task: Task, labels: int | None) -> str:
    """The message for weights that do not fit, usually those of a head for something else."""
    config = read_config(source)
    kinds = ", ".join(config.get("architectures") or []) or "a model of unknown kind"
    held = head_labels(source, task) or len(config.get("id2label") or ()) or 2  # the default
    wanted = "" if labels is None else f" of {labels} label{'s' if labels > 1 else ''}"
    return (
        f"{source} holds weights of other shapes than a {_NAMES[task]}{wanted}: it is {kinds}"
        + (f" of {held} labels" if "Classification" in kinds else "")
        + f"; required: such a {_NAMES[task]}, or a language model or encoder. Begin from the base "
        "that it was trained from"
    )


def _load_adapter(
    source: str, task: Task, auto: Any, options: dict[str, Any], *, init_head: bool
) -> Any:
    """Loads an adapter: of a classifier as it is, of a policy merged under a new head."""
    folder = adapter_folder(source) or Path(source)
    settings = check_adapter_files(folder)
    found = settings.get("task_type")
    if found == task:
        own_head = _require_head(folder, settings["base_model_name_or_path"])
        head = "replaced" if own_head else "trained"
        model = load_adapter(
            auto, source, what=_NAMES[task], head=head, is_trainable=init_head, **options
        )
        for name, value in read_own_settings(folder / "config.json").items():  # peft keeps none
            setattr(model.config, name, value)
        return model
    if found in ("SEQ_CLS", "TOKEN_CLS"):
        raise WeightsError(
            f"{source} is an adapter of a {_NAMES[found]}; required: of a {_NAMES[task]}. Load it "
            "with rewardmodel.models.loading.load_reward_model, which looks at the kind"
        )
    with tempfile.TemporaryDirectory() as merged:
        load_causal(source, merge=True, dtype=options["dtype"]).save_pretrained(merged)
        options = {name: value for name, value in options.items() if name != "num_labels"} | {
            "labels": options.get("num_labels")
        }
        return load_classifier(merged, task=task, init_head=init_head, **options)


def _require_head(source: Path, base: str) -> bool:
    """Whether an adapter has a head of its own; refuses it if its base has none, either."""
    with safe_open(source / ADAPTER_WEIGHTS, framework="pt") as weights:
        names = [part for name in weights.keys() for part in name.split(".")]  # noqa: SIM118
    if HEAD_PARTS & set(names):
        return True
    kinds = read_config(base).get("architectures") or []
    if not any(kind.endswith("Classification") for kind in kinds):
        raise WeightsError(
            f"{source} has no trained head: the adapter holds none and its base {base!r} is "
            f"{', '.join(kinds) or 'no classifier'}; required: one, since it would be drawn at "
            'random. Train with task_type="SEQ_CLS" and modules_to_save=["score"], as `prefsearch '
            "reward train --lora_rank` does"
        )
    return False

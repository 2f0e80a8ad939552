"""Loading adapters on their bases, and causal language models with or without one."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedTokenizerBase

from prefsearch.storage.weights import WeightsError, require_finite_weights
from rewardmodel.pretrained.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_files
from rewardmodel.pretrained.source import named_members, names_function, resolve_model
from rewardmodel.pretrained.weights import (
    RETAKE,
    cannot_load,
    load_pretrained,
    without_doubled_warnings,
)

_CAUSAL = "causal language model"


def load_causal(source: str, *, merge: bool, dtype: Any = None) -> Any:
    """Loads a causal language model.

    Args:
        source: As `rewardmodel.pretrained.source.resolve_model` takes it; adapters included.
        merge: Whether an adapter is merged into its base.
        dtype: Of the weights; None takes the checkpoint's on a GPU, else float32.

    Raises:
        ValueError: If nothing can be loaded there, or weights are missing, left over, of other
            shapes, or not finite.
    """
    from transformers import AutoModelForCausalLM

    source = resolve_model(source)
    usual: Any = "auto" if torch.cuda.is_available() else torch.float32
    options: dict[str, Any] = {"dtype": usual if dtype is None else dtype}
    if adapter_folder(source) is not None:
        adapted = load_adapter(AutoModelForCausalLM, source, what=_CAUSAL, **options)
        return adapted.merge_and_unload() if merge else adapted
    model, _ = load_pretrained(AutoModelForCausalLM, source, what=_CAUSAL, **options)
    return model


def adapter_folder(source: str) -> Path | None:
    """The folder of an adapter, also of one on the hub; None for everything else."""
    from transformers.utils.hub import cached_file
    from transformers.utils.peft_utils import find_adapter_config_file

    if names_function(source) or named_members(source) is not None:
        return None
    source = resolve_model(source)
    if Path(source).is_dir():
        return Path(source) if (Path(source) / ADAPTER_CONFIG).is_file() else None
    try:
        found = find_adapter_config_file(source)
        if found is not None:
            cached_file(source, ADAPTER_WEIGHTS)
    except (OSError, ValueError):
        return None  # an error when it is loaded
    return None if found is None else Path(found).parent


def load_adapter(
    auto: Any,
    source: str,
    *,
    what: str,
    head: str = "language",
    is_trainable: bool = False,
    **options: Any,
) -> Any:
    """Loads an adapter on its base; `what` and `head` as `load_pretrained`, `options` for the base.

    Raises:
        ValueError: As `load_pretrained`, of adapter and base.
    """
    from peft import PeftConfig
    from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
    from transformers import AutoTokenizer

    folder = adapter_folder(source) or Path(source)
    settings = check_adapter_files(folder)
    base = resolve_model(settings["base_model_name_or_path"])
    if adapter_folder(base) is not None:
        raise ValueError(
            f"{folder / ADAPTER_CONFIG}: found the base {base!r}, an adapter itself; required: a "
            "whole model. Merge that adapter into its base with merge_and_unload() and save it"
        )
    try:
        config: Any = PeftConfig.from_pretrained(str(folder), trust_remote_code=False)
        kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING[config.task_type]
        if config.revision is not None and not Path(base).is_dir():
            options["revision"] = config.revision
    except Exception as error:
        raise cannot_load(source, f"adapter of a {what}", error) from error
    try:
        model, _ = load_pretrained(auto, base, what=what, head=head, **options)
    except ValueError as error:
        raise type(error)(f"{error} (the base of the adapter {source})") from error
    try:
        if (folder / "tokenizer_config.json").is_file():  # tokens that were added for the adapter
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False
            )
            if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
                model.resize_token_embeddings(len(tokenizer))
        with without_doubled_warnings():
            adapted = kind.from_pretrained(
                model,
                str(folder),
                config=config,
                is_trainable=is_trainable,
                use_safetensors=True,
                trust_remote_code=False,
            )
    except Exception as error:
        raise cannot_load(source, f"adapter of a {what}", error) from error
    require_adapter_weights(folder, adapted, name="default")
    return adapted


def require_adapter_weights(folder: Path, adapted: Any, *, name: str) -> None:
    """Refuses an adapter whose file lacks weights, has some left over, or some that are not finite.

    `name` is the adapter's in the peft model.

    Raises:
        WeightsError: Naming them.
    """
    from peft import get_peft_model_state_dict

    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        held = set(file.keys())
    own = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    lacking = sorted(own.keys() - held)
    if lacking:
        raise WeightsError(
            f"{folder} holds no weights for {len(lacking)} parts of the adapter that its "
            f"{ADAPTER_CONFIG} describes, such as {lacking[0]}; required: all of them, since "
            "they would be drawn at random. Train or save it again"
        )
    left = held - own.keys()
    if left:  # embeddings may be kept beside an adapter
        known = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=True)
        left -= known.keys()
    if left:
        raise WeightsError(
            f"{folder} holds {len(left)} weights that its {ADAPTER_CONFIG} does not describe, "
            f"such as {min(left)}; required: those of one adapter on this base. Put the "
            f"{ADAPTER_CONFIG} there that the adapter was saved with"
        )
    require_finite_weights(folder, own.items(), remedy=RETAKE)

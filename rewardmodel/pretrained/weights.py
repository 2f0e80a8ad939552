"""Loading models whole: all weights present and finite, from safetensors, without running code.

transformers initializes missing weights at random, and may run code from a model's folder. All
models are loaded here, where missing, left-over, misshapen or non-finite weights are errors.
"""

import contextlib
import inspect
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from prefsearch.storage.weights import WeightsError, require_finite_weights
from rewardmodel.pretrained.config_fields import require_own_settings
from rewardmodel.pretrained.files import check_model_files

HEAD_PARTS = {
    "score", "classifier", "pre_classifier", "pooler", "classification_head", "head", "summary",
    "sequence_summary", "logits_proj", "seq_relationship",
}  # fmt: skip
"""Parts of classifiers that a language model's or an encoder's checkpoint need not have."""
_LANGUAGE_HEADS = {
    "lm_head", "embed_out", "cls", "predictions", "lm_predictions", "mask_predictions",
    "generator_predictions", "generator_lm_head", "discriminator_predictions", "vocab_transform",
    "vocab_layer_norm", "vocab_projector", "pred_layer", "lm_loss", "decoder", "final_logits_bias",
}  # fmt: skip
"""Parts of language models that a classifier made from one leaves out."""
_VALUE_HEADS = {"v_head", "value_head"}  # beside the policy that reinforcement learning made
_COMPUTED = {"inv_freq", "position_ids", "masked_bias"}  # old checkpoints hold them
_DOUBLED = (
    "Initializing zero-element tensors", "Found missing adapter keys", "`is_gradient_checkpointing`"
)  # fmt: skip
"""What warnings say that errors say, too, or that users can do nothing about."""
RETAKE = "Take a checkpoint from before training diverged, or copy the files again"
"""What helps against weights that are not finite."""


class ShapesError(WeightsError):
    """Weights of other shapes than the model's.

    Attributes:
        only_head: Whether they are those of a classifier's head alone.
    """

    only_head = False


def load_pretrained(
    auto: Any, source: str, *, what: str, head: str = "language", **options: Any
) -> tuple[Any, set[str]]:
    """Loads a whole model, not an adapter.

    Args:
        auto: An auto class of transformers.
        source: Folder or hub id.
        what: The kind of model, for messages, such as "causal language model".
        head: "language" requires all weights; "trained" is that of a classifier, "new" one that
            may be missing, "replaced" one that an adapter brings, so that the checkpoint's may be
            of another shape, too.
        options: Of `from_pretrained`.

    Returns:
        The model, and the names of the weights of its head that the checkpoint lacked.

    Raises:
        WeightsError: If weights are missing, left over, of other shapes, or not finite.
        ValueError: If nothing can be loaded there, or only by running code that lies there.
    """
    if Path(source).is_dir() and "gguf_file" not in options:
        try:
            check_model_files(Path(source))
        except ValueError as error:
            raise WeightsError(f"no {what} could be loaded from {source!r}: {error}") from error
    try:
        with without_doubled_warnings():
            model, loading = auto.from_pretrained(
                source,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused here
                use_safetensors=True,
                trust_remote_code=False,
                **options,
            )
    except Exception as error:
        raise cannot_load(source, what, error) from error
    if head != "language":
        require_own_settings(f"{source}, config.json", vars(model.config))
    _refuse_other_shapes(source, model, loading["mismatched_keys"], head=head)
    missing = _refuse_missing(source, model, loading["missing_keys"], head=head)
    if getattr(model, "hf_quantizer", None) is None:  # which keeps scales beside the weights
        _refuse_left_over(source, model, loading["unexpected_keys"], head=head)
    require_finite_weights(source, _weights(model), remedy=RETAKE)
    return model, missing


@contextlib.contextmanager
def without_doubled_warnings() -> Iterator[None]:
    """Suppresses warnings of the libraries about faults that are errors here."""
    with warnings.catch_warnings():
        for message in _DOUBLED:
            warnings.filterwarnings("ignore", message=message)
        yield


def cannot_load(source: str, what: str, error: Exception) -> ValueError:
    """The error for a model that the libraries could not load."""
    lines = str(error).strip().splitlines() or [""]
    reason = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
    if "trust_remote_code" in str(error):
        return ValueError(
            f"{source} needs code of its own (auto_map in its config.json), which is not run; "
            f"required: a {what} whose architecture transformers has itself. Take such a model, or "
            "convert this one to such an architecture"
        )
    if "Padding_idx" in reason:
        return ValueError(
            f"{source}: config.json holds a pad_token_id that lies beyond its vocab_size; "
            "required: the id of a token. Put the config.json there that the weights were saved "
            "with"
        )
    return ValueError(
        f"no {what} could be loaded from {source!r} ({type(error).__name__}: {reason}). Name a "
        "folder with config.json and model.safetensors, or a hub id"
    )


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a model's parameters and of the buffers that are saved."""
    yield from model.named_parameters()
    saved = model.state_dict(keep_vars=True)
    yield from ((name, b) for name, b in model.named_buffers() if name in saved)


def _refuse_other_shapes(source: str, model: Any, mismatched: Iterable[Any], *, head: str) -> None:
    wrong = sorted(tuple(found) for found in mismatched)
    if head == "replaced":
        wrong = [found for found in wrong if not HEAD_PARTS & set(found[0].split("."))]
    if wrong:
        name, held, described = wrong[0]
        error = ShapesError(
            f"{source} holds weights of other shapes than the {type(model).__name__} that its "
            f"config.json describes: {name} is {list(held)} and not {list(described)} "
            f"({len(wrong)} differ); required: the same. Put the config.json there that the "
            "weights were saved with"
        )
        error.only_head = all(HEAD_PARTS & set(key.split(".")) for key, *_ in wrong)
        raise error


def _refuse_missing(
    source: str, model: PreTrainedModel, keys: Iterable[str], *, head: str
) -> set[str]:
    """Refuses weights drawn at random; returns those of the head, where it may be new."""
    missing = sorted(keys)
    body = [key for key in missing if head == "language" or not HEAD_PARTS & set(key.split("."))]
    if body:
        raise WeightsError(
            f"{source} holds no weights for {len(body)} parts of the {type(model).__name__} that "
            f"its config.json describes, such as {', '.join(body[:3])}; required: all of them, "
            "since they would be drawn at random. The weights are of another architecture or "
            "incomplete: put the config.json beside them that they were saved with"
        )
    # A pooler may be missing where the classifier does not read it.
    lacking = [key for key in missing if "pooler" not in key.split(".")]
    if lacking and head == "trained":
        raise WeightsError(
            f"{source} has no trained head ({', '.join(lacking[:3])} missing); required: one, "
            "since it would be drawn at random. Train a reward model from it with `prefsearch "
            "reward train`"
        )
    return set(missing)


def _unread_pooler(body: str, held: Any) -> tuple[str, ...]:
    """Name prefixes of a pooler that a body may leave out; empty where it never has one."""
    if "add_pooling_layer" not in inspect.signature(type(held).__init__).parameters:
        return ()
    return ("pooler.", f"{body}.pooler.")


def _refuse_left_over(
    source: str, model: PreTrainedModel, keys: Iterable[str], *, head: str
) -> None:
    """Refuses weights that the model has no parameters for, except other heads."""
    body = model.base_model_prefix
    held = dict(model.named_modules()).get(body) if body else None
    own = [name for name, _ in held.named_children()] if held is not None else []
    unread = _unread_pooler(body, held)
    allowed = _VALUE_HEADS | (_LANGUAGE_HEADS if head != "language" else set())
    left = []
    for key in sorted(keys):
        parts = set(key.split("."))
        # A layer too many, or a whole part that this use of the body leaves out.
        inside = any(key.startswith(f"{body}.{name}.") for name in own)
        if (
            key.rpartition(".")[2] in _COMPUTED
            or key.startswith(unread)
            or (not inside and (head in ("new", "replaced") or parts & allowed))
        ):
            continue
        left.append(key)
    if not left:
        return
    if head == "language" and HEAD_PARTS & {part for key in left for part in key.split(".")}:
        raise WeightsError(
            f"{source} is a reward model or another classifier: it holds the head {left[0]}; "
            "required: a policy, a causal language model. Name the model that it was trained from, "
            "or give it as the reward model"
        )
    raise WeightsError(
        f"{source} holds {len(left)} weights for which the {type(model).__name__} that its "
        f"config.json describes has no place, such as {', '.join(left[:3])}; required: no others "
        "than the model's, since it would compute something else without them. Put the "
        "config.json there that the weights were saved with"
    )

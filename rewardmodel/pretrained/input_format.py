"""The input format of a reward model: one text, or a pair of segments.

Models trained here keep it in config.json (`input_format`, with a version). Of others, those with
a chat template or a causal backbone read one text; an encoder without a template whose tokenizer
separates two segments was usually trained on `tokenizer(question, answer)` and reads pairs.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rewardmodel.choices import CHOSEN_FORMATS, ChosenFormat
from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.prefix_cache.sessions import head_of
from rewardmodel.pretrained.config_fields import FORMAT_VERSION, InputFormat, require_own_settings
from rewardmodel.pretrained.tokenization import TextEncoder, TrainedOn

_logger = logging.getLogger(__name__)

_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
_ROUGH_TOLERANCE = 0.05  # half precision
_LENGTH, _PADDED = 6, 12


def input_format_of(
    source: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chosen: ChosenFormat = "auto",
) -> InputFormat:
    """The format that a model was trained on: the one in its configuration, or else detected.

    Raises:
        ValueError: If `chosen` is no format, or a later version wrote the configuration.
    """
    if chosen not in CHOSEN_FORMATS:
        raise ValueError(
            f"input_format: found {chosen!r}; required: one of {', '.join(CHOSEN_FORMATS)}"
        )
    written = _written(source, plain_model(model).config)
    if chosen != "auto":
        if written not in (None, chosen):
            _logger.warning(
                "%s was trained on input of the format %r and is given %r", source, written, chosen
            )
        return chosen
    if written is not None:
        return written
    if not _reads_pairs(model, tokenizer):
        return "text"
    _logger.info(
        "%s is an encoder whose tokenizer makes pairs: it is given tokenizer(prompt, response). "
        "If it was trained on one text, set input_format: text",
        source,
    )
    return "pair"


def keep_input_format(config: Any, input_format: InputFormat, *, messages: bool) -> None:
    """Writes the format into a model's configuration, and whether it was trained on messages."""
    config.input_format = {"version": FORMAT_VERSION, "name": input_format, "messages": messages}


def trained_on(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TrainedOn | None:
    """The kind of prompts that a model was trained on, or None where it is unknown.

    Models trained here have it in their configuration; another model with a chat template was
    usually trained on conversations.
    """
    held = getattr(plain_model(model).config, "input_format", None)
    if isinstance(held, dict) and "messages" in held:
        return "messages" if held["messages"] else "text"
    return "template" if held is None and getattr(tokenizer, "chat_template", None) else None


def _written(source: str, config: Any) -> InputFormat | None:
    """The format in a configuration, or None."""
    held = getattr(config, "input_format", None)
    require_own_settings(f"{source}, config.json", {"input_format": held})
    return None if held is None else held["name"]


def _reads_pairs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a model seems to be an encoder of pairs."""
    return (
        not getattr(tokenizer, "chat_template", None)
        and separates_segments(tokenizer)
        and _looks_ahead(model)
    )


def separates_segments(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer puts tokens of its own between two segments."""
    if not getattr(tokenizer, "is_fast", False):
        return False
    segments = tokenizer("a", "b").sequence_ids()
    if 0 not in segments or 1 not in segments:
        return False
    return None in segments[segments.index(0) : segments.index(1)]


@torch.inference_mode()
def _looks_ahead(model: PreTrainedModel) -> bool:
    """Whether a text's first hidden state depends on its last token, as in encoders."""
    plain = plain_model(model)
    if getattr(plain.config, "is_encoder_decoder", False):
        return True  # it reads a text by its encoder
    rows = plain.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(6, device=model.device) * 37 + 11) % rows
    pair = torch.stack([ids, ids])
    pair[1, -1] = (pair[1, -1] + 1) % rows
    training = model.training
    model.eval()
    try:
        first = plain.base_model(input_ids=pair).last_hidden_state[:, 0].float()
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return False
    finally:
        model.train(training)
    return bool((first[0] - first[1]).abs().max() > 1e-6 * first.abs().max())


def require_usual_inputs(source: str, model: PreTrainedModel, encoder: TextEncoder) -> None:
    """Refuses a classifier whose scores depend on padding, or that uses other token types.

    `source` is named in messages.

    Raises:
        ValueError: Naming the fault and what is required.
    """
    remedy = "Take another model, such as a BERT, DeBERTa or ModernBERT, or a causal one"
    types = _pair_types(encoder)
    if types is not None and types[0] != types[1]:
        raise ValueError(
            f"{source}: the tokenizer gives the tokens of a pair the types {types[0]}; required: "
            f"{types[1]}, 0 in the first segment and 1 in the second. {remedy}"
        )
    scores = _padded_scores(model, encoder.tokenizer.pad_token_id)
    # Heads that are one layer are read at the last token, wherever the model itself would look.
    if scores is None or _alike(*scores, model.dtype) or head_of(model) is not None:
        return
    raise ValueError(
        f"{source}: {type(plain_model(model)).__name__} scores a text {scores[0][0].item():.4g} by "
        f"itself and {scores[1][0].item():.4g} with padding on its right; required: a model that "
        f"does not read padding, with which the texts of a batch are filled up. {remedy}"
    )


def _pair_types(encoder: TextEncoder) -> tuple[list[int], list[int]] | None:
    """Token types of a pair by the tokenizer, and as made here; None without types."""
    if not encoder.has_token_types:
        return None
    made = encoder.tokenizer("a", "b")
    second = made.sequence_ids().index(1)
    found = list(made["token_type_ids"])
    return found, [int(place >= second) for place in range(len(found))]


@torch.inference_mode()
def _padded_scores(model: Any, pad_id: int) -> tuple[Tensor, Tensor] | None:
    """The outputs of a text alone and with padding behind it; None for token classifiers."""
    plain = plain_model(model)
    rows = plain.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(_LENGTH, device=model.device) * 37 + 11) % rows
    ids = torch.where(ids == pad_id, (ids + 1) % rows, ids)
    end = getattr(plain.config, "eos_token_id", None)
    if isinstance(end, int) and end < rows:
        ids[-1] = end  # where the classifiers of encoders with a decoder read
    padded = torch.full((1, _PADDED), pad_id, device=model.device)
    padded[0, :_LENGTH] = ids
    mask = (torch.arange(_PADDED, device=model.device) < _LENGTH).long()[None]
    training = model.training
    model.eval()
    try:
        alone = model(input_ids=ids[None], attention_mask=mask[:, :_LENGTH]).logits
        filled = model(input_ids=padded, attention_mask=mask).logits
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return None
    finally:
        model.train(training)
    if alone.dim() != 2:  # a token classifier's are read at the tokens
        return None
    return alone[0].float(), filled[0].float()


def _alike(alone: Tensor, filled: Tensor, dtype: torch.dtype) -> bool:
    tolerance = _TOLERANCES.get(dtype, _ROUGH_TOLERANCE) * alone.abs().max()
    return bool((alone - filled).abs().max() <= tolerance) or not bool(alone.isfinite().all())

"""Refusing models whose inputs are unusual, which would be scored wrongly.

Batches are padded on the right with an attention mask, and the tokens of a pair have type 0 in the
first segment and 1 in the second. XLNet, for one, reads its score at the last position of a row,
padding included, and gives its last token type 2.
"""

from typing import Any

import torch
from torch import Tensor

from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.prefix_cache.sessions import head_of
from rewardmodel.pretrained.tokenization import TextEncoder

_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
_ROUGH_TOLERANCE = 0.05  # half precision
_LENGTH, _PADDED = 6, 12


def require_usual_inputs(source: str, model: Any, encoder: TextEncoder) -> None:
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

"""Choosing the batch layout that a model supports, by trial."""

import logging
from typing import Any

import torch
from transformers import PreTrainedModel

from rewardmodel.prefix_cache.backbone import Backbone, plain_model
from rewardmodel.prefix_cache.sessions import head_of
from rewardmodel.training.batching.layouts import Layout, PackedLayout, PlainLayout, PrefixLayout
from rewardmodel.training.loss_config import LossConfig

_logger = logging.getLogger(__name__)
_TOLERANCE = 1e-3  # of the scores' own spread, in float32
_ROUGH_TOLERANCE = 0.05  # half precision


def choose_layout(
    model: PreTrainedModel,
    objective: LossConfig,
    *,
    pad_id: int,
    max_tokens: int,
    checkpointing: bool,
) -> Layout:
    """The layout of the objective, or of "auto" the first that the model supports.

    Attention windows shorter than `max_tokens` go into the mask; gradient checkpointing excludes a
    cache.

    Raises:
        ValueError: The layout named is not supported by the model.
    """
    training = model.training
    model.eval()
    try:
        layout = _find(
            model, objective, pad_id=pad_id, max_tokens=max_tokens, checkpointing=checkpointing
        )
    finally:
        model.train(training)
    if objective.layout not in ("auto", layout.name):
        raise ValueError(
            f"layout: found {objective.layout!r}, and {type(plain_model(model)).__name__} can only "
            f"be trained in the {layout.name!r} one"
            + (" with gradient_checkpointing" if checkpointing else "")
            + '; take "auto"'
        )
    return layout


def _find(
    model: PreTrainedModel,
    objective: LossConfig,
    *,
    pad_id: int,
    max_tokens: int,
    checkpointing: bool,
) -> Layout:
    head: Any = head_of(model)
    plain = PlainLayout(pad_id, head)
    if head is None or objective.layout == "plain":
        return plain
    backbone = Backbone(model, max_tokens=max_tokens, language_head=False)
    if not backbone.shares:
        return plain
    packed = PackedLayout(pad_id, head, backbone, objective.pack_tokens)
    prefix = PrefixLayout(pad_id, head, backbone)
    wanted = packed if objective.layout == "packed" or checkpointing else prefix
    if checkpointing and objective.layout == "prefix":
        return packed
    if _agrees(model, wanted, plain):
        return wanted
    _logger.warning(
        "%s gives no or other scores in the %s layout: each response is trained with its prompt",
        type(plain_model(model)).__name__,
        wanted.name,
    )
    return plain


@torch.inference_mode()
def _agrees(model: PreTrainedModel, layout: Layout, plain: PlainLayout) -> bool:
    """Whether two small groups of unlike lengths score the same in both layouts."""
    rows = plain_model(model).get_input_embeddings().weight.shape[0]
    ids = [(i * 37 + 11) % rows for i in range(40)]
    groups = [
        ([ids[:7] + ids[20:23], ids[:7] + ids[30:35]], 7),
        ([ids[3:7] + ids[8:9], ids[3:7] + ids[12:16], ids[3:7] + ids[16:18]], 4),
    ]
    try:
        found, expected = (
            one.scores(model, {k: v.to(model.device) for k, v in one.collate(groups).items()})
            for one in (layout, plain)
        )
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError):
        _logger.debug("the %s layout", layout.name, exc_info=True)
        return False
    found, expected = found.float(), expected.float()
    exact = model.dtype in (torch.float32, torch.float64)
    spread = max(float(expected.abs().max()), 1e-6)
    return bool(
        (found - expected).abs().max() <= (_TOLERANCE if exact else _ROUGH_TOLERANCE) * spread
    )

"""Whether a model and a tokenizer fit each other: vocabulary, special tokens, lengths."""

import logging
from collections.abc import Collection
from typing import Any

import torch
from transformers import PreTrainedModel

_logger = logging.getLogger(__name__)
_USED_SHARE = 0.9  # of the embeddings, below which the tokenizer may be another model's


def fit_embeddings(model: Any, tokenizer: Any) -> None:
    """Grows a model's embeddings to the tokenizer, and sets the model's pad id.

    Raises:
        ValueError: If the tokenizer's ordinary vocabulary is not the model's.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    size = len(tokenizer)
    if size > rows + len(tokenizer.get_added_vocab()):
        raise ValueError(
            f"the tokenizer has {size} tokens and the model {rows} embeddings; required: a "
            "tokenizer made for this model. Load both from the same folder"
        )
    if size > rows:
        model.resize_token_embeddings(size)
    text_config = model.config.get_text_config()
    text_config.pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens a model can attend to, or None where its configuration has no limit."""
    text_config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        length = getattr(text_config, name, None)
        if isinstance(length, int) and length > 0:
            return min(length, _learned_positions(model) or length)
    return None


def require_positions(model: PreTrainedModel, max_length: int | None) -> None:
    """Refuses a length beyond a model's learned position embeddings; rotary models have none.

    Raises:
        ValueError: Naming both lengths.
    """
    if max_length is None or _learned_positions(model) is None:
        return
    most = context_length(model)
    if most is not None and max_length > most:
        raise ValueError(
            f"max_length: found {max_length}, and {type(model).__name__} has learned places for "
            f"{most} tokens; required: at most {most}"
        )


def _learned_positions(model: PreTrainedModel) -> int | None:
    """The number of learned positions of a model, or None where it has none."""
    for name, module in model.named_modules():
        learned = name.rpartition(".")[2] in ("position_embeddings", "embed_positions", "wpe")
        if learned and isinstance(module, torch.nn.Embedding):
            # RoBERTa and similar models begin behind the position of padding.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return None


def check_vocabulary(
    model: Any, tokenizer: Any, *, source: str, unused: Collection[str] = ()
) -> None:
    """Refuses a tokenizer whose ids the model does not have; `unused` tokens are never given to it.

    Embeddings are often padded to a multiple of 64 or 128 and so are more than the tokens.

    Raises:
        ValueError: If an id lies beyond the embeddings.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    vocabulary = {t: i for t, i in tokenizer.get_vocab().items() if t not in unused}
    token = max(vocabulary, key=lambda name: vocabulary[name])
    if vocabulary[token] >= rows:
        beyond = sum(number >= rows for number in vocabulary.values())
        raise ValueError(
            f"{source}: the tokenizer gives {token!r} the id {vocabulary[token]} and the model has "
            f"{rows} embeddings ({beyond} tokens lie beyond them); required: a tokenizer made for "
            "this model. Load both from the same folder"
        )
    if len(vocabulary) < _USED_SHARE * rows:
        _logger.warning(
            "%s: the tokenizer has %d tokens and the model %d embeddings; is it this model's?",
            *(source, len(vocabulary), rows),
        )

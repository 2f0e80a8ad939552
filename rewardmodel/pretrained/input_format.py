"""In which form a reward model is given prompt and response: one text, or two segments.

What was trained here keeps in its config.json how (`input_format`, with a version). Of other
models, those with a chat template or a causal backbone are given one text; an encoder without a
template whose tokenizer puts separators between two segments was trained, as a rule, on
`tokenizer(question, answer)` and is given pairs. The user may say otherwise.

What decides where a score is read is `rewardmodel.pretrained.tokenization`.
"""

import logging
from typing import Any

import torch

from rewardmodel.choices import CHOSEN_FORMATS, ChosenFormat
from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.pretrained.own_settings import FORMAT_VERSION, InputFormat, require_own_settings
from rewardmodel.pretrained.tokenization import TrainedOn

_logger = logging.getLogger(__name__)


def input_format_of(
    source: str, model: Any, tokenizer: Any, chosen: ChosenFormat = "auto"
) -> InputFormat:
    """The form that a model was trained on.

    Args:
        source: Where it was loaded from, for messages.
        model: Sequence classifier, adapters included.
        tokenizer: Its tokenizer.
        chosen: "auto" takes what is written in the model's configuration, and else looks.

    Raises:
        ValueError: If there is no such form, or a later version wrote it.
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
        "Where it was trained on one text, say input_format: text",
        source,
    )
    return "pair"


def keep_input_format(config: Any, input_format: InputFormat, *, messages: bool) -> None:
    """Writes into a model's configuration how it was trained: the form, and on messages or text."""
    config.input_format = {"version": FORMAT_VERSION, "name": input_format, "messages": messages}


def trained_on(model: Any, tokenizer: Any) -> TrainedOn | None:
    """What a model was trained on, as far as is known.

    What was trained here says so in its configuration; another model that comes with a chat
    template was trained on conversations as a rule.
    """
    held = getattr(plain_model(model).config, "input_format", None)
    if isinstance(held, dict) and "messages" in held:
        return "messages" if held["messages"] else "text"
    return "template" if held is None and getattr(tokenizer, "chat_template", None) else None


def _written(source: str, config: Any) -> InputFormat | None:
    """What a configuration says, or None where it says nothing."""
    held = getattr(config, "input_format", None)
    require_own_settings(f"{source}, config.json", {"input_format": held})
    return None if held is None else held["name"]


def _reads_pairs(model: Any, tokenizer: Any) -> bool:
    """Whether a model looks like an encoder of pairs."""
    return (
        not getattr(tokenizer, "chat_template", None)
        and separates_segments(tokenizer)
        and _looks_ahead(model)
    )


def separates_segments(tokenizer: Any) -> bool:
    """Whether a tokenizer puts tokens of its own between two segments."""
    if not getattr(tokenizer, "is_fast", False):
        return False
    segments = tokenizer("a", "b").sequence_ids()
    if 0 not in segments or 1 not in segments:
        return False
    return None in segments[segments.index(0) : segments.index(1)]


@torch.inference_mode()
def _looks_ahead(model: Any) -> bool:
    """Whether a text's first token is seen to depend on its last, as in an encoder alone."""
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

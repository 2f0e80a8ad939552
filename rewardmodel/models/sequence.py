"""Bradley-Terry reward models: a sequence classifier with one label.

Any `AutoModelForSequenceClassification` with one label, from a hub id, a local folder or an adapter
folder of peft. A text is scored at its last token, found by its length: the heads of transformers
search for the last id that is not the pad id, and so miss an end token that is also the pad token.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.data.text_rows import pair_rows
from rewardmodel.interface import Finished, ScoringSession, require_finite
from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.prefix_cache.row_batches import row_batches
from rewardmodel.prefix_cache.sessions import (
    Pair,
    PrefixSession,
    SharedPrefixScorer,
    head_of,
    open_scorer,
    worth_sharing,
)
from rewardmodel.pretrained.checkpoints import load_classifier
from rewardmodel.pretrained.compatibility import (
    check_vocabulary,
    context_length,
    fit_embeddings,
    require_positions,
)
from rewardmodel.pretrained.config_fields import shift_of
from rewardmodel.pretrained.input_format import (
    ChosenFormat,
    input_format_of,
    require_usual_inputs,
    trained_on,
)
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer, token_types

_SET_LENGTH = 2**20  # tokenizers without a `model_max_length` have an astronomical one


def load_scorer(source: str, *, init_head: bool, heads: int = 1, **options: Any) -> Any:
    """Loads a sequence classifier whose labels are rewards.

    Args:
        source: Hub id or local folder; a causal language model gets a new head.
        init_head: Whether the model may lack a head, as before training; see `load_classifier`.
        heads: Labels of the head; `config.reward_heads` where there are several.
        options: Of `from_pretrained`, such as `quantization_config`.

    Raises:
        ValueError: If nothing can be loaded there, weights are missing, or it was trained with
            another number of labels.
    """
    labels = heads if init_head else None
    model = load_classifier(source, task="SEQ_CLS", labels=labels, init_head=init_head, **options)
    found = model.config.num_labels
    several = getattr(model.config, "reward_heads", None)
    if heads == 1 and found != 1 and several == found:
        raise ValueError(
            f"{source} is {found} reward models on one backbone; required: one. Load it with "
            "rewardmodel.models.loading.load_reward_model"
        )
    if found != heads and heads == several:
        raise ValueError(
            f"{source}: config.json says reward_heads {heads} and the head has {found} labels; "
            "required: as many heads as labels. Put the config.json there that training saved"
        )
    if found != heads:
        raise ValueError(
            f"{source} has {found} labels; required: {heads}, a reward. "
            "Train a reward model from the base that it was trained from, with "
            "`prefsearch reward train --model BASE`"
        )
    return model


def open_encoder(
    source: str,
    model: Any,
    max_length: int | None,
    *,
    input_format: ChosenFormat = "auto",
    warns: bool = False,
    trains: bool = False,
) -> TextEncoder:
    """Loads a model's tokenization, fits the model to it, and moves the model to the GPU if any.

    Args:
        source: Hub id or local folder.
        model: As loaded from there.
        max_length: Tokens of prompt and response; None takes what it was trained with, or else its
            context.
        input_format: Whether it reads one text or two segments; "auto" detects it
            (`rewardmodel.pretrained.input_format`).
        warns: Whether to warn of texts that are cut, and of prompts of an untrained kind.
        trains: Whether the model is going to be trained: it stays where it is, and the default
            length is its context.

    Raises:
        ValueError: If there is no tokenizer, it is another model's, the model has no positions for
            so many tokens, or its inputs are not supported.
    """
    tokenizer = load_tokenizer(source)
    fit_embeddings(model, tokenizer)
    check_vocabulary(model, tokenizer, source=source)
    require_positions(model, max_length)
    if not trains and torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        model.to("cuda")
    usual = context_length(model) or 2**20 if trains else _default_length(model, tokenizer)
    encoder = TextEncoder(
        tokenizer,
        max_length or usual,
        input_format_of(source, model, tokenizer, input_format),
        continues=False,
    )
    require_usual_inputs(source, model, encoder)
    if not warns:
        return encoder
    return replace(encoder, model=source, trained_on=trained_on(model, tokenizer))


def _default_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The length in the tokenizer's settings, or else the model's context."""
    trained_with = tokenizer.model_max_length
    if trained_with >= _SET_LENGTH:
        return context_length(model)
    try:
        require_positions(model, trained_with)
    except ValueError:  # more than its positions: another model's length
        return context_length(model)
    return trained_with


class SequenceRewardModel:
    """Scores responses with a sequence classifier; a `SessionRewardModel`."""

    def __init__(
        self,
        model: Any,
        encoder: TextEncoder,
        *,
        batch_size: int = 128,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Takes a loaded classifier.

        Args:
            model: One-label sequence classifier. `config.reward_shift`, if any, is subtracted from
                its outputs.
            encoder: Its tokenization, with the `max_length` it was trained with.
            batch_size: Rows per forward pass.
            reduce: From outputs float32 [M, H] of H labels to scores [M]; needed where there are
                several labels.
        """
        self.model = model.eval()
        self.encoder = encoder
        self.batch_size = batch_size
        self._reduce = reduce or self._shifted

    @classmethod
    def load(
        cls,
        source: str,
        *,
        max_length: int | None = None,
        batch_size: int = 128,
        input_format: ChosenFormat = "auto",
    ) -> Self:
        """Loads a trained reward model by hub id or local folder; arguments as `open_encoder`.

        Raises:
            ValueError: If the weights, the tokenizer or the single-label head are missing.
        """
        model = load_scorer(source, init_head=False)
        encoder = open_encoder(source, model, max_length, input_format=input_format, warns=True)
        return cls(model, encoder, batch_size=batch_size)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores responses, float32 [B]; see `RewardModel` and `ScoringSession`.

        Prefixes that several responses share are computed once.
        """
        return self._score(prompts, responses, finished=finished)[0]

    def outputs(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Outputs of the H labels, float32 [B, H] on the CPU; see `score`."""
        pairs = pair_rows(self.encoder, prompts, responses, finished=finished)
        return self._output_pairs(pairs)[0]

    def session(self) -> ScoringSession:
        """Starts a session that runs every prefix once, where the model allows it."""
        if self._scorer is None:
            return PlainSession(self._score)
        return PrefixSession(self._scorer, self.encoder, score_pairs=self._score_pairs)

    @functools.cached_property
    def _head(self) -> Callable[[Tensor], Tensor] | None:
        """The layer from last hidden states to outputs, if there is nothing else behind it."""
        return head_of(self.model)

    @functools.cached_property
    def _scorer(self) -> SharedPrefixScorer | None:
        """The scorer that shares prompts, or None; determined at first use."""
        if self.encoder.input_format == "pair":
            return None  # an encoder, whose states of a prompt depend on the response
        limit = self.encoder.max_length or context_length(self.model)
        return open_scorer(self.model, self._head, max_tokens=limit, reduce=self._reduce)

    def _shifted(self, outputs: Tensor) -> Tensor:
        """Scores [M] of the first label's outputs [M, H]."""
        return outputs[:, 0] - shift_of(self.model.config)

    def _score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[Tensor, int]:
        """Scores, and the tokens given to the model."""
        pairs = pair_rows(self.encoder, prompts, responses, finished=finished)
        scores, tokens = self._score_pairs(pairs)
        require_finite(scores, responses)
        return scores, tokens

    def _score_pairs(self, pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        """Scores of token ids, and the tokens given to the model."""
        outputs, tokens = self._output_pairs(pairs)
        return self._reduce(outputs), tokens

    def _output_pairs(self, pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        """Outputs [P, H] of token ids, and the tokens given to the model."""
        shared = worth_sharing(pairs)
        if not shared or self._scorer is None:
            return self._score_alone(pairs)
        alone = sorted(set(range(len(pairs))) - set(shared))
        together, tokens = self._scorer.one_shot([pairs[i] for i in shared], rows=self.batch_size)
        rest, more = self._score_alone([pairs[i] for i in alone])
        outputs = torch.cat([together, rest])[torch.tensor(shared + alone).argsort()]
        return outputs, tokens + more

    @torch.inference_mode()
    def _score_alone(self, pairs: Sequence[Pair]) -> tuple[Tensor, int]:
        """Outputs [P, H] of pairs without sharing, and the tokens given to the model."""
        outputs, tokens = torch.empty(len(pairs), self.model.config.num_labels), 0
        body, head = plain_model(self.model).base_model, self._head
        for batch in row_batches(
            [prompt + response for prompt, response in pairs],
            batch_size=self.batch_size,
            pad_id=self.encoder.tokenizer.pad_token_id,
            device=self.model.device,
        ):
            inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
            if self.encoder.has_token_types:
                begins = torch.tensor([len(pairs[i][0]) for i in batch.rows])
                inputs["token_type_ids"] = token_types(batch.mask, begins)
            if head is None:  # as the model itself reads texts, from its mask
                found = self.model(**inputs).logits
            else:
                states = body(**inputs).last_hidden_state
                found = head(batch.of_last(states))
            outputs[torch.tensor(batch.rows)] = found.float().cpu()
            tokens += batch.ids.numel()
        return outputs, tokens


class PlainSession:
    """Scores every text from its beginning; a `ScoringSession` of models that cannot share."""

    def __init__(self, score: Callable[..., tuple[Tensor, int]]) -> None:
        """Takes a function of `(prompts, responses, finished=...)` to scores and tokens."""
        self._score = score
        self.forward_tokens = 0

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores responses, float32 [B]; see `ScoringSession`."""
        scores, tokens = self._score(prompts, responses, finished=finished)
        self.forward_tokens += tokens
        return scores

    def keep(self, prompts: Collection[Prompt]) -> None:
        """Does nothing: nothing is cached."""


class PlainRewardModel(ABC):
    """Base of reward models that read every text from its beginning, also in sessions."""

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores responses, float32 [B]; see `RewardModel`."""
        return self._score(prompts, responses, finished=finished)[0]

    def session(self) -> ScoringSession:
        """Starts a session, which reads every text from its beginning."""
        return PlainSession(self._score)

    @abstractmethod
    def _score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[Tensor, int]:
        """Scores, and the tokens given to the model."""

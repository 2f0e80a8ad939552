"""What a policy proposes at a node: one more token, or a segment of text sampled up to a boundary.

The length of a segment is the only difference between search over tokens, sentences, steps and
whole responses. Tokens are *ranked*: the node's own logits give them and their priors for nothing.
Longer segments are *sampled*: exchangeable, so their prior is uniform. This file decides where
segments end and how a token is drawn; it runs no model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from prefsearch.config.bounds import (
    CountOrZero,
    ModelText,
    PositiveFraction,
    Temperature,
    Tokens,
    Within,
)
from prefsearch.config.checks import check_types, require

if TYPE_CHECKING:  # settings are checked without torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Unit = Literal["token", "sentence", "line", "step", "block", "response"]
_SENTENCE_MARKS = (".", "!", "?", "。", "！", "？")


@dataclass(frozen=True)
class Proposal:
    r"""Segment boundaries and sampling settings.

    Attributes:
        unit: Where a segment, what a search tries at a time, ends: after a "token", the likeliest
            first and not sampled; a "sentence" or a line; a "line"; a "step", by the delimiter; a
            "block" of segment_tokens tokens; or with the whole "response". Best-of-N and votes
            always take whole responses.
        segment_tokens: The most tokens of a segment.
        max_new_tokens: The most tokens of a response; one that is cut off there is not finished.
        min_new_tokens: The fewest tokens before a response may end by itself; stop strings are not
            held back.
        temperature: Of sampling, and of the priors of ranked tokens; 1 is the policy itself, less
            is likelier text and less variety.
        top_k: Sample among the k likeliest tokens; 0 takes all.
        top_p: Sample among the likeliest tokens that hold this much probability together; of
            equally likely ones those with the lower id; 1 takes all.
        delimiter: What ends a "step" and belongs to it, a blank line by default; in a shell write
            $'\n\n'.
        stop: Strings that end a response and do not belong to it, such as "Human:".
    """

    unit: Unit = "sentence"
    segment_tokens: Tokens = 64
    max_new_tokens: Tokens = 128
    min_new_tokens: Annotated[int, Within(ge=0, le=2**24)] = 0
    temperature: Temperature = 1.0
    top_k: CountOrZero = 0
    top_p: PositiveFraction = 1.0
    delimiter: ModelText = "\n\n"
    stop: tuple[ModelText, ...] = ()

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        fits = self.min_new_tokens <= self.max_new_tokens
        require(fits, "min_new_tokens", self.min_new_tokens, "0 to max_new_tokens")
        require(bool(self.delimiter), "delimiter", self.delimiter, "at least one character")
        require(all(self.stop), "stop", self.stop, "strings of at least one character")

    @property
    def ranked(self) -> bool:
        """Whether proposals are the node's likeliest tokens; if not, they are samples."""
        return self.unit == "token"

    @property
    def segment_limit(self) -> int:
        """The most tokens of one segment."""
        if self.unit == "response":
            return self.max_new_tokens
        return 1 if self.ranked else min(self.segment_tokens, self.max_new_tokens)

    def boundaries(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Tensor:
        """Marks the tokens that end a segment by themselves.

        Args:
            tokenizer: Of the policy.
            vocabulary: Rows of the model's output, at least the tokenizer's size.

        Returns:
            bool [vocabulary].
        """
        import torch

        ends = torch.zeros(vocabulary, dtype=torch.bool)
        if self.unit not in ("sentence", "line"):
            return ends
        marks = _SENTENCE_MARKS if self.unit == "sentence" else ()
        for token, text in enumerate(tokenizer.batch_decode([[i] for i in range(len(tokenizer))])):
            ends[token] = "\n" in text or text.rstrip().endswith(marks or ("\n",))
        return ends

    def weights(self, log_probabilities: Tensor) -> Tensor:
        """Sampling weights after temperature, top-k and top-p.

        Args:
            log_probabilities: Of the policy, [R, V]; -inf where a token is forbidden.

        Returns:
            Probabilities [R, V], not normalized.
        """
        if self.temperature == 1 and not self.top_k and self.top_p == 1:
            return log_probabilities.exp()
        scaled = log_probabilities / self.temperature
        if self.top_k:
            kth = scaled.topk(min(self.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < kth, -math.inf)
        probabilities = scaled.softmax(-1)
        from policies.generation.nucleus import nucleus

        return nucleus(probabilities, self.top_p) if self.top_p < 1 else probabilities

    def draw(self, log_probabilities: Tensor, levels: Tensor) -> Tensor:
        """Draws one token a row.

        Args:
            log_probabilities: Of the policy, [R, V]; -inf where a token is forbidden.
            levels: Uniform in [0, 1), [R]; the same level draws the same token.

        Returns:
            int64 [R].
        """
        import torch

        # By inverse CDF: on the CPU several times faster than torch.multinomial.
        summed = self.weights(log_probabilities).cumsum(-1)
        level = levels.to(summed)[:, None] * summed[:, -1:]
        drawn = torch.searchsorted(summed, level, right=True)
        return drawn[:, 0].clamp(max=summed.shape[-1] - 1)

    def rank(self, log_probabilities: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens.

        Args:
            log_probabilities: Of the policy, [R, V]; -inf where a token is forbidden.
            count: K.

        Returns:
            Tokens int64 [R, K], likeliest first, and their log weights [R, K], -inf beyond what
            is proposed.
        """
        weights, tokens = self.weights(log_probabilities).topk(count, dim=-1)
        return tokens, weights.log()

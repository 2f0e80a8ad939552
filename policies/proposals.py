"""What a policy proposes at a node: a segment of text, sampled up to a boundary.

The length of a segment is the only difference between search over sentences, over fixed blocks and
over whole responses. This file decides where segments end and how a token is drawn; it runs no
model.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from search.evaluation.settings import check_types, require

_SENTENCE_MARKS = (".", "!", "?", "。", "！", "？")


@dataclass(frozen=True)
class Proposal:
    """How segments are sampled.

    Attributes:
        unit: Where a segment ends: after a `"sentence"` or a line, after a `"line"`, after
            `segment_tokens` tokens (`"block"`), or with the whole `"response"`.
        segment_tokens: The most tokens of one segment (not of a whole response).
        max_new_tokens: The most tokens of a response; it counts as finished there.
        temperature: Of sampling; 1 samples the policy itself.
        top_k: Sample among the k likeliest tokens; 0 takes all.
        top_p: Sample within this much probability mass; 1 takes all.
    """

    unit: Literal["sentence", "line", "block", "response"] = "sentence"
    segment_tokens: int = 64
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(self.segment_tokens > 0, "segment_tokens", self.segment_tokens, "at least 1")
        require(self.max_new_tokens > 0, "max_new_tokens", self.max_new_tokens, "at least 1")
        require(self.temperature > 0, "temperature", self.temperature, "more than 0")
        require(self.top_k >= 0, "top_k", self.top_k, "0 or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")

    @property
    def segment_limit(self) -> int:
        """The most tokens of one segment."""
        return self.max_new_tokens if self.unit == "response" else self.segment_tokens

    def boundaries(self, tokenizer: Any, vocabulary: int) -> Tensor:
        """Marks the tokens that end a segment.

        Args:
            tokenizer: Of the policy.
            vocabulary: Rows of the model's output, at least the tokenizer's size.

        Returns:
            bool [vocabulary].
        """
        ends = torch.zeros(vocabulary, dtype=torch.bool)
        if self.unit in ("block", "response"):
            return ends
        marks = _SENTENCE_MARKS if self.unit == "sentence" else ()
        for token, text in enumerate(tokenizer.batch_decode([[i] for i in range(len(tokenizer))])):
            ends[token] = "\n" in text or text.rstrip().endswith(marks or ("\n",))
        return ends

    def draw(self, logits: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Draws one token a row.

        Args:
            logits: [R, V].
            generator: Source of randomness, on the device of `logits`.

        Returns:
            int64 [R].
        """
        scaled = logits.float() / self.temperature
        if self.top_k:
            kth = scaled.topk(min(self.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < kth, -torch.inf)
        probabilities = scaled.softmax(-1)
        if self.top_p < 1:
            ordered, order = probabilities.sort(-1, descending=True)
            outside = ordered.cumsum(-1) - ordered >= self.top_p  # the first is always kept
            ordered = ordered.masked_fill(outside, 0)
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        # By inverse CDF: on the CPU several times faster than torch.multinomial.
        summed = probabilities.cumsum(-1)
        level = torch.rand(len(summed), 1, generator=generator, device=summed.device)
        drawn = torch.searchsorted(summed, level * summed[:, -1:], right=True)
        return drawn[:, 0].clamp(max=summed.shape[-1] - 1)

"""What a policy proposes at a node: one more token, or a segment of text sampled up to a boundary.

The length of a segment is the only difference between search over tokens, sentences, steps and
whole responses. Tokens are *ranked*: the node's own logits give them and their priors for nothing.
Longer segments are *sampled*: exchangeable, so their prior is uniform. This file decides where
segments end and how a token is drawn; it runs no model.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from prefsearch.config.bounds import (
    CountOrZero,
    ModelText,
    PositiveFraction,
    Temperature,
    Tokens,
    Within,
)
from prefsearch.config.checks import check_types, require

Unit = Literal["token", "sentence", "line", "step", "block", "response"]
_SENTENCE_MARKS = (".", "!", "?", "。", "！", "？")


@dataclass(frozen=True)
class Proposal:
    """How segments are made.

    Attributes:
        unit: Where a segment ends: after one `"token"`, ranked and not sampled; after a
            `"sentence"` or a line, after a `"line"`, after a `"step"` (a `delimiter`), after
            `segment_tokens` tokens (`"block"`), or with the whole `"response"`.
        segment_tokens: The most tokens of one segment (not of a whole response).
        max_new_tokens: The most tokens of a response; one that is cut off there is not finished.
        min_new_tokens: The fewest tokens before an end token; stop strings are not held back.
        temperature: Of sampling, and of the priors of ranked tokens; 1 is the policy itself.
        top_k: Propose among the k likeliest tokens; 0 takes all.
        top_p: Propose the likeliest tokens that hold this much probability together; of equally
            likely ones those with the lower id; 1 takes all.
        delimiter: What ends a `"step"`; it belongs to the step.
        stop: Strings that end the response; they do not belong to it.
    """

    unit: Unit = "sentence"
    segment_tokens: Tokens = 64
    max_new_tokens: Tokens = 128
    min_new_tokens: Annotated[int, Within(least=0, most=2**24)] = 0
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

    def boundaries(self, tokenizer: Any, vocabulary: int) -> Tensor:
        """Marks the tokens that end a segment by themselves.

        Args:
            tokenizer: Of the policy.
            vocabulary: Rows of the model's output, at least the tokenizer's size.

        Returns:
            bool [vocabulary].
        """
        ends = torch.zeros(vocabulary, dtype=torch.bool)
        if self.unit not in ("sentence", "line"):
            return ends
        marks = _SENTENCE_MARKS if self.unit == "sentence" else ()
        for token, text in enumerate(tokenizer.batch_decode([[i] for i in range(len(tokenizer))])):
            ends[token] = "\n" in text or text.rstrip().endswith(marks or ("\n",))
        return ends

    def weights(self, log_probabilities: Tensor) -> Tensor:
        """What is proposed, by temperature and cuts.

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
            scaled = scaled.masked_fill(scaled < kth, -torch.inf)
        probabilities = scaled.softmax(-1)
        return nucleus(probabilities, self.top_p) if self.top_p < 1 else probabilities

    def draw(self, log_probabilities: Tensor, levels: Tensor) -> Tensor:
        """Draws one token a row.

        Args:
            log_probabilities: Of the policy, [R, V]; -inf where a token is forbidden.
            levels: Uniform in [0, 1), [R]; the same level draws the same token.

        Returns:
            int64 [R].
        """
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


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The likeliest tokens of each row whose predecessors hold less than `top_p` together.

    Only values are sorted, which numpy does many times faster than torch sorts values with their
    places; where the last value kept is met again behind it, the row is sorted with places.

    Args:
        probabilities: [R, V], each row summing to 1.
        top_p: In (0, 1).

    Returns:
        [R, V], 0 outside the nucleus. Of equally likely tokens the lower ids come first.
    """
    ordered = _descending(probabilities)
    inside = ordered.cumsum(-1).sub_(ordered) < top_p  # always the first
    # None is inside only in a row of NaN, which whoever draws refuses where it reaches the host.
    kept = inside.count_nonzero(-1)[:, None].clamp(min=1)  # [R, 1]
    least = ordered.gather(-1, kept - 1)
    following = ordered.gather(-1, kept.clamp(max=ordered.shape[-1] - 1))
    whole = kept == ordered.shape[-1]
    # By rounding a token may lie outside and its successor inside.
    plain = inside.gather(-1, kept - 1) & (whole | (following < least))
    found = _at_least(probabilities, least)
    for row in (~plain).nonzero()[:, 0].tolist():
        found[row] = _nucleus_by_places(probabilities[row], top_p)
    return found


def _descending(values: Tensor) -> Tensor:
    """Values [R, V] with the greatest first in each row."""
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)
    return values.sort(dim=-1, descending=True).values


def _at_least(values: Tensor, least: Tensor) -> Tensor:
    """Values [R, V] with 0 for what is less than its row's `least` [R, 1]."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.masked_fill(values < least, 0)
    below = np.nextafter(least[:, 0].numpy(), np.float32(-1)).tolist()
    # Several times faster than a mask.
    return torch.stack([torch.threshold(row, t, 0.0) for row, t in zip(values, below, strict=True)])


def _nucleus_by_places(probabilities: Tensor, top_p: float) -> Tensor:
    """`nucleus` of one row [V], as it is defined."""
    ordered, places = probabilities.sort(stable=True, dim=-1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)
    return torch.zeros_like(probabilities).scatter(-1, places, ordered)

"""Where a segment ends, and where the response does: tokens, strings and limits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal

if TYPE_CHECKING:
    from policies.generation.segment_tree import Segment

_TOKENS_A_CHARACTER = 4  # the most that byte-level vocabularies need


class SegmentEnds:
    """Says when to stop sampling.

    Attributes:
        limit: The most tokens of a segment.
        reach: Tokens before a segment that a stop string may begin in; 0 without stop strings.
    """

    def __init__(self, policy: Policy, proposal: Proposal, *, whole: bool = False) -> None:
        """Prepares a policy's and proposal's ends; `whole` knows those of responses alone."""
        self._proposal = proposal
        self._tokenizer = policy.encoder.tokenizer
        self._end_ids = policy.end_ids
        self._step = proposal.unit == "step" and not whole
        self._boundaries = None if whole else policy.boundaries(proposal)
        self.limit = proposal.max_new_tokens if whole else proposal.segment_limit
        self._stops = (*proposal.stop, *policy.turn_ends)
        longest = max((len(stop) for stop in self._stops), default=0)
        self.reach = _TOKENS_A_CHARACTER * longest

    def allowed(self, log_probabilities: Tensor, lengths: Sequence[int]) -> Tensor:
        """Forbids the end token to responses that are too short.

        Args:
            log_probabilities: [R, V], not changed.
            lengths: Tokens of each response so far.
        """
        short = [line for line, n in enumerate(lengths) if n < self._proposal.min_new_tokens]
        if not short:
            return log_probabilities
        allowed = log_probabilities.clone()
        ends = torch.tensor(sorted(self._end_ids), device=allowed.device)
        allowed[torch.tensor(short, device=allowed.device)[:, None], ends] = -torch.inf
        return allowed

    def finish(self, segment: "Segment", tail: list[int]) -> None:
        """Marks a segment with whose last token the response ends, by itself or cut off.

        Args:
            segment: At least one token long.
            tail: The tokens before it, `reach` of them where there are so many.
        """
        ended = self._ends(segment, tail)
        segment.cut = not ended and segment.length >= self._proposal.max_new_tokens
        segment.finished = ended or segment.cut

    def _ends(self, segment: "Segment", tail: list[int]) -> bool:
        """Whether an end token or a stop string ends the response."""
        if segment.ids[-1] in self._end_ids:
            return True
        if not self._stops:
            return False
        # What was looked at after earlier tokens held no stop string, but for its last characters.
        text = self._tokenizer.decode((tail + segment.ids)[-self.reach - 1 :])
        return any(stop in text for stop in self._stops)

    def close(self, segment: "Segment") -> bool:
        """Whether an unfinished segment ends with its last token."""
        if len(segment.ids) >= self.limit:
            return True
        if self._step:
            return self._proposal.delimiter in self._tokenizer.decode(segment.ids)
        return self._boundaries is not None and bool(self._boundaries[segment.ids[-1]])

    def before_stop(self, text: str) -> str:
        """A response's text up to the first stop string."""
        places = [text.find(stop) for stop in self._stops]
        return text[: min((place for place in places if place >= 0), default=len(text))]

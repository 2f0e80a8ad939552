"""Segments of a response, and where a segment or a response ends: tokens, strings and limits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal

_TOKENS_A_CHARACTER = 4  # the most that byte-level vocabularies need


@dataclass
class Segment:
    """One run of tokens in a `SegmentTree`, and what a search knows of the text that ends with it.

    Attributes:
        parent: Its handle, -1 at a prompt.
        root: Handle of the prompt that it answers.
        ids: Its own tokens.
        key: Of its random numbers.
        length: Tokens of the response up to and including this segment.
        finished: Whether the response ends here.
        cut: Whether it ends here only because it has `max_new_tokens`.
        log_probability: Of its tokens under the policy, summed, in nats.
        prefix: Handle of its state in the prefix cache; None where the model did not run its end.
        children: Handles by action, as far as they were sampled.
        reward: Of the segment itself, beside the score of a finished response; None until known.
        value: The leaf value of an unfinished response; None until known.
        score: The reward model's score of a finished response; None until known.
    """

    parent: int
    root: int
    ids: list[int]
    key: int
    length: int
    finished: bool = False
    cut: bool = False
    log_probability: float = 0.0
    prefix: int | None = None
    children: dict[int, int] = field(default_factory=dict)
    reward: float | None = None
    value: float | None = None
    score: float | None = None

    def take(self, token: int, log_probability: float) -> None:
        """Adds one token."""
        self.ids.append(token)
        self.length += 1
        self.log_probability += log_probability


class SegmentEnds:
    """When to stop sampling a segment, and when the response is finished.

    Attributes:
        limit: The most tokens of a segment.
        reach: Tokens before a segment that a stop string may begin in; 0 without stop strings.
    """

    def __init__(self, policy: Policy, proposal: Proposal, *, whole: bool = False) -> None:
        """Reads a policy's and a proposal's ends; `whole` stops at the response's end alone."""
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
        """Masks the end tokens of responses shorter than `min_new_tokens`.

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

    def finish(self, segment: Segment, tail: list[int]) -> None:
        """Marks a segment whose last token ends the response, by itself or at the limit.

        Args:
            segment: At least one token long.
            tail: The tokens before it, `reach` of them where there are so many.
        """
        ended = self._ends(segment, tail)
        segment.cut = not ended and segment.length >= self._proposal.max_new_tokens
        segment.finished = ended or segment.cut

    def _ends(self, segment: Segment, tail: list[int]) -> bool:
        """Whether an end token or a stop string ends the response."""
        if segment.ids[-1] in self._end_ids:
            return True
        if not self._stops:
            return False
        # Earlier tokens were searched before: only the last characters can complete a stop string.
        text = self._tokenizer.decode((tail + segment.ids)[-self.reach - 1 :])
        return any(stop in text for stop in self._stops)

    def closes(self, segment: Segment) -> bool:
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

"""What a search over text leaves behind: the answer, what it cost, and what else was seen."""

from dataclasses import dataclass
from typing import Any

from rewardmodel.data.conversation import Prompt


@dataclass(frozen=True)
class Candidate:
    """A response that a search saw to its end.

    Attributes:
        text: Without special tokens.
        score: The reward model's.
        tokens: Its length, the end token included.
        log_probability: Under the policy, in nats.
        finished: Whether it ended by itself, and was not cut off at `max_new_tokens`.
    """

    text: str
    score: float
    tokens: int
    log_probability: float
    finished: bool = True


@dataclass(frozen=True)
class SearchResult:
    """One searched response and what it cost.

    Attributes:
        prompt: The prompt.
        response: The answer, without special tokens.
        score: The reward model's score of it.
        tokens: Tokens sampled for this prompt, those of dropped branches included.
        forward_tokens: Tokens the policy was given for it, the prompt's own included.
        scored_tokens: Tokens that reward and value models were given, the batch's shared equally.
        seconds: Wall-clock, the batch's total shared equally.
        num_candidates: How many responses the search saw to their end, those cut off included.
        segments: Segments drawn.
        log_probability: Of the answer under the policy, in nats.
        kl_bound: Upper bound on the KL of the search from the policy's proposals, in nats: as if
            all slots had been drawn beforehand, the answer is one of so many samples. None for
            ranked tokens, which are no samples.
        response_finished: Whether the answer ended by itself, and was not cut off at
            `max_new_tokens`.
        candidates: All such responses, in the order in which they were found.
        tree: The first decision's search tree (nested dict with texts) if it was asked for.
    """

    prompt: Prompt
    response: str
    score: float
    tokens: int
    forward_tokens: int
    scored_tokens: float
    seconds: float
    num_candidates: int
    segments: int
    log_probability: float
    kl_bound: float | None
    response_finished: bool = True
    candidates: tuple[Candidate, ...] = ()
    tree: dict[str, Any] | None = None

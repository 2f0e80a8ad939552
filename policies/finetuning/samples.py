"""Sampled responses and searched demonstrations for training.

Responses are sampled through the same key/value tree as a search, so that "the policy" means one
thing everywhere.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from prefsearch.progress import track
from rewardmodel.data.conversation import Prompt, row_of
from rewardmodel.data.sources.tables import gather
from rewardmodel.data.text_rows import require_rows

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Responses of the policy, `[p][i]` the i-th to prompt p.

    Attributes:
        prompts: P prompts.
        texts: The responses.
        ids: Their tokens as they were drawn, the end token included where there is one.
        log_probabilities: Of each under the policy, in nats.
        finished: Whether each ended by itself, by an end token or a stop string, and was not cut
            off at `max_new_tokens`; all are where nothing is given.
    """

    prompts: list[Prompt]
    texts: list[list[str]]
    ids: list[list[list[int]]]
    log_probabilities: list[list[float]]
    finished: list[list[bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Marks all responses as finished where no marks are given."""
        if not self.finished:
            self.finished.extend([True] * len(row) for row in self.texts)

    @property
    def tokens(self) -> list[list[int]]:
        """How long each response is."""
        return [[len(ids) for ids in row] for row in self.ids]

    def flat(self) -> tuple[list[Prompt], list[str]]:
        """Prompts and responses, one entry a response."""
        pairs = [(p, t) for p, row in zip(self.prompts, self.texts, strict=True) for t in row]
        return [prompt for prompt, _ in pairs], [text for _, text in pairs]

    def flat_finished(self) -> list[bool]:
        """Whether each response is finished, in the order of `flat`."""
        return [ended for row in self.finished for ended in row]


def sample_responses(
    policy: Policy,
    prompts: Sequence[Prompt],
    per_prompt: int,
    *,
    proposal: Proposal,
    seed: int,
    first: int = 0,
    batch_size: int = 256,
    progress: str | None = None,
) -> Samples:
    """Samples whole responses of the policy; the i-th to a prompt is best-of-N's i-th.

    Args:
        policy: The policy.
        prompts: Prompts.
        per_prompt: Responses to each.
        proposal: Temperature and limits; its unit does not matter.
        seed: Of the sampling.
        first: Number of the first prompt; with the seed it keys the draws.
        batch_size: Responses decoded side by side.
        progress: Label of a progress bar, or None.

    Raises:
        ValueError: If a prompt is empty or too long for the policy's context.
    """
    require_rows(prompts)
    whole = replace(proposal, unit="response")
    at_once = max(1, batch_size // per_prompt)
    starts = range(0, len(prompts), at_once)
    samples = Samples(list(prompts), [], [], [], [])
    for start in track(starts, progress) if progress else starts:
        tree = SegmentTree(policy, whole, seed=seed, max_rows=batch_size)
        batch = prompts[start : start + at_once]
        numbers = range(first + start, first + start + len(batch))
        roots = tree.add_prompts(batch, numbers=numbers)
        made = tree.extend(
            [root for root in roots for _ in range(per_prompt)],
            [sample for _ in roots for sample in range(per_prompt)],
        )
        for row in range(len(roots)):
            mine = made[row * per_prompt : (row + 1) * per_prompt]
            samples.texts.append([tree.response_text(node) for node in mine])
            samples.ids.append([tree.response_ids(node) for node in mine])
            samples.log_probabilities.append([tree.log_probability(node) for node in mine])
            samples.finished.append([not tree.cut(node) for node in mine])
    warn_unfinished(samples.flat_finished(), proposal.max_new_tokens)
    return samples


def warn_unfinished(finished: Sequence[bool], max_new_tokens: int) -> None:
    """Warns where half of the responses or more were cut off."""
    cut = len(finished) - sum(finished)
    if cut and 2 * cut >= len(finished):
        _logger.warning(
            "%d of %d responses were cut off at max_new_tokens = %d and are not finished; raise "
            "it, or end responses with stop strings",
            *(cut, len(finished), max_new_tokens),
        )


def pairs_of(samples: Samples) -> tuple[list[Prompt], list[str], list[str]]:
    """Pairs up neighboring responses: prompts, first and second responses."""
    triples = [
        (prompt, row[i], row[i + 1])
        for prompt, row in zip(samples.prompts, samples.texts, strict=True)
        for i in range(0, len(row) - 1, 2)
    ]
    return tuple(list(column) for column in zip(*triples, strict=True))  # type: ignore[return-value]


def finished_pairs_of(samples: Samples) -> list[tuple[bool, bool]]:
    """Whether the first and the second response of each pair of `pairs_of` are finished."""
    return [(row[i], row[i + 1]) for row in samples.finished for i in range(0, len(row) - 1, 2)]


def searched_demonstrations(
    prompts: Sequence[Prompt], responses: Sequence[str], finished: Sequence[bool] | None = None
) -> Dataset:
    """What a search found, as demonstrations; empty answers are left out.

    Args:
        prompts: B prompts.
        responses: B answers.
        finished: Whether each ended by itself, and was not cut off; None leaves the column out.

    Returns:
        Columns `prompt`, `completion` and, where it is known, `finished`.
    """
    rows: list[dict[str, Any]] = []
    for i, (prompt, text) in enumerate(zip(prompts, responses, strict=True)):
        if text.strip():
            mark = {} if finished is None else {"finished": finished[i]}
            rows.append({**row_of(prompt, completion=text), **mark})
    if not rows:
        empty: dict[str, list[Any]] = {"prompt": [], "completion": []}
        return Dataset.from_dict(empty | ({} if finished is None else {"finished": []}))
    return gather(rows)

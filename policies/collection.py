"""What the policy writes by itself, and what a search found: the raw material of training.

Responses are sampled through the same key/value tree as a search, so that "the policy" means one
thing everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from datasets import Dataset
from rich.progress import track

from policies.kv_tree import KVTree
from policies.language_model import Policy
from policies.proposals import Proposal
from rewardmodel.data.conversation import Prompt, row_of
from rewardmodel.data.row_tables import gather


@dataclass(frozen=True)
class Samples:
    """Responses of the policy, `[p][i]` the i-th to prompt p.

    Attributes:
        prompts: P prompts.
        texts: The responses.
        ids: Their tokens as they were drawn, the end token included where there is one.
        log_probabilities: Of each under the policy, in nats.
    """

    prompts: list[Prompt]
    texts: list[list[str]]
    ids: list[list[list[int]]]
    log_probabilities: list[list[float]]

    @property
    def tokens(self) -> list[list[int]]:
        """How long each response is."""
        return [[len(ids) for ids in row] for row in self.ids]

    def flat(self) -> tuple[list[Prompt], list[str]]:
        """Prompts and responses, one entry a response."""
        pairs = [(p, t) for p, row in zip(self.prompts, self.texts, strict=True) for t in row]
        return [prompt for prompt, _ in pairs], [text for _, text in pairs]


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
    whole = replace(proposal, unit="response")
    at_once = max(1, batch_size // per_prompt)
    starts = range(0, len(prompts), at_once)
    samples = Samples(list(prompts), [], [], [])
    for start in track(starts, progress, transient=True) if progress else starts:
        tree = KVTree(policy, whole, seed=seed, max_rows=batch_size)
        batch = prompts[start : start + at_once]
        numbers = range(first + start, first + start + len(batch))
        roots = tree.ask(batch, numbers=numbers)
        made = tree.extend(
            [root for root in roots for _ in range(per_prompt)],
            [slot for _ in roots for slot in range(per_prompt)],
        )
        for row in range(len(roots)):
            mine = made[row * per_prompt : (row + 1) * per_prompt]
            samples.texts.append([tree.response_text(node) for node in mine])
            samples.ids.append([tree.response_ids(node) for node in mine])
            samples.log_probabilities.append([tree.log_probability(node) for node in mine])
    return samples


def pairs_of(samples: Samples) -> tuple[list[Prompt], list[str], list[str]]:
    """Pairs up neighbouring responses: prompts, first and second responses."""
    triples = [
        (prompt, row[i], row[i + 1])
        for prompt, row in zip(samples.prompts, samples.texts, strict=True)
        for i in range(0, len(row) - 1, 2)
    ]
    return tuple(list(column) for column in zip(*triples, strict=True))  # type: ignore[return-value]


def searched_demonstrations(prompts: Sequence[Prompt], responses: Sequence[str]) -> Dataset:
    """What a search found, as demonstrations: `prompt`, `completion`; empty answers left out."""
    found = [(p, r) for p, r in zip(prompts, responses, strict=True) if r.strip()]
    if not found:
        return Dataset.from_dict({"prompt": [], "completion": []})
    return gather(row_of(prompt, completion=text) for prompt, text in found)

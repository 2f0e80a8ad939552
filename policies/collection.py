"""What the policy writes by itself, and what a search found: the raw material of training.

Responses are sampled through the same key/value tree as a search, so that "the policy" means one
thing everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from rich.progress import track

from policies.kv_tree import KVTree
from policies.language_model import Policy
from policies.proposals import Proposal
from search.evaluation.run_directory import step_seed


@dataclass(frozen=True)
class Samples:
    """Responses of the policy: `texts[p][i]` is the i-th to prompt p, with its token count."""

    prompts: list[str]
    texts: list[list[str]]
    tokens: list[list[int]]

    def flat(self) -> tuple[list[str], list[str]]:
        """Prompts and responses, one entry a response."""
        pairs = [(p, t) for p, row in zip(self.prompts, self.texts, strict=True) for t in row]
        return [prompt for prompt, _ in pairs], [text for _, text in pairs]


def sample_responses(
    policy: Policy,
    prompts: Sequence[str],
    per_prompt: int,
    *,
    proposal: Proposal,
    seed: int,
    batch_size: int = 256,
    progress: str | None = None,
) -> Samples:
    """Samples whole responses of the policy.

    Args:
        policy: The policy.
        prompts: Prompts.
        per_prompt: Responses to each.
        proposal: Temperature and limits; its unit does not matter.
        seed: Of the sampling.
        batch_size: Responses decoded side by side.
        progress: Label of a progress bar, or None.

    Raises:
        ValueError: If a prompt is empty or too long for the policy's context.
    """
    whole = Proposal(
        unit="response",
        max_new_tokens=proposal.max_new_tokens,
        temperature=proposal.temperature,
        top_k=proposal.top_k,
        top_p=proposal.top_p,
    )
    at_once = max(1, batch_size // per_prompt)
    starts = range(0, len(prompts), at_once)
    texts: list[list[str]] = []
    tokens: list[list[int]] = []
    for start in track(starts, progress, transient=True) if progress else starts:
        generator = torch.Generator(policy.model.device)
        generator.manual_seed(step_seed(seed, f"batch-{start}"))
        tree = KVTree(policy, whole)
        roots = tree.add_prompts([policy.encoder.prompt_ids(p) for p in prompts[start:][:at_once]])
        wanted = [root for root in roots for _ in range(per_prompt)]
        made = []
        for chunk in (wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)):
            made += tree.extend(chunk, generator=generator)
        for row in range(len(roots)):
            mine = made[row * per_prompt : (row + 1) * per_prompt]
            texts.append([tree.response_text(node) for node in mine])
            tokens.append([len(tree.response_ids(node)) for node in mine])
    return Samples(list(prompts), texts, tokens)


def pairs_of(samples: Samples) -> tuple[list[str], list[str], list[str]]:
    """Pairs up neighbouring responses: prompts, first and second responses."""
    triples = [
        (prompt, row[i], row[i + 1])
        for prompt, row in zip(samples.prompts, samples.texts, strict=True)
        for i in range(0, len(row) - 1, 2)
    ]
    return tuple(list(column) for column in zip(*triples, strict=True))  # type: ignore[return-value]


def searched_demonstrations(prompts: Sequence[str], responses: Sequence[str]) -> Dataset:
    """What a search found, as demonstrations: `prompt`, `completion`; empty answers left out."""
    found = [(p, r) for p, r in zip(prompts, responses, strict=True) if r.strip()]
    return Dataset.from_dict(
        {"prompt": [prompt for prompt, _ in found], "completion": [text for _, text in found]}
    )

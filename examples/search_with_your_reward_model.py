"""Search text against a reward model of your own.

    python examples/search_with_your_reward_model.py [POLICY]

A reward model is any object with `score(prompts, responses) -> float tensor [B]`. POLICY is a
folder or hub id of a causal language model; without one a small untrained model stands in, which
writes gibberish, but the search finds the gibberish that scores best.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from policies import Policy, Proposal, TinyModel, build_searcher, build_tiny_model

PROMPTS = ["Write of the sea.\n", "Write of a lighthouse.\n"]


class Vowels:
    """Scores a response by its share of vowels: a stand-in for a model of the human."""

    def score(self, prompts: Sequence[object], responses: Sequence[object]) -> Tensor:
        """Scores, float32 [B]."""
        texts = [str(response).lower() for response in responses]
        shares = [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in texts]
        return torch.tensor(shares)


def compare(policy: Policy, *, budget: int, seed: int) -> dict[str, tuple[float, float]]:
    """Mean score, and tokens sampled a prompt, of one sample, best-of-N and tree search."""
    proposal = Proposal(unit="block", segment_tokens=4, max_new_tokens=16)
    means: dict[str, tuple[float, float]] = {}
    for name, method, tried in (
        ("one sample", "best_of_n", 1),
        ("best-of-N", "best_of_n", budget),
        ("tree search", "gumbel_muzero", budget),
    ):
        searcher = build_searcher(
            method, tried, policy=policy, reward_model=Vowels(), proposal=proposal
        )
        results = searcher.generate(PROMPTS, seed=seed)
        scores, tokens = [r.score for r in results], [r.tokens for r in results]
        means[name] = (sum(scores) / len(scores), sum(tokens) / len(tokens))
    return means


def main(source: str | None = None) -> None:
    """Prints what each method reaches with a policy, a small untrained one if none is named."""
    with tempfile.TemporaryDirectory() as folder:
        if source is None:
            source = folder
            texts = [f"{prompt}The bell rang, and {i} gulls rose." for i in range(50)
                     for prompt in PROMPTS]  # fmt: skip
            build_tiny_model(texts, Path(source), size=TinyModel(vocabulary=300), seed=0)
        found = compare(Policy.load(source), budget=8, seed=0)
        for name, (score, tokens) in found.items():
            print(f"{name:12s} score {score:.3f}, {tokens:.0f} tokens a prompt")


if __name__ == "__main__":
    main(*sys.argv[1:2])

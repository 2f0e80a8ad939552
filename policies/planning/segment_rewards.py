"""Rewards of segments before the response is finished: process scores and a KL penalty.

A search adds these to the rewards of its edges, beside the score of the finished response.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from policies.generation.language_model import Policy
from policies.generation.segment_tree import SegmentTree
from policies.planning.scoring import TreeScorer
from rewardmodel.interface import RewardModel


class SegmentReward(Protocol):
    """Rewards new segments."""

    def rewards(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """Rewards, float32 [R] on the CPU, of R new nodes, each rewarded once.

        Args:
            scorer: The tree of text, and the reward models.
            nodes: Handles.
        """
        ...


@dataclass(frozen=True)
class ProcessReward:
    """A process reward model's score of each step.

    Attributes:
        reward_model: Scores the text up to a step; None asks the search's own.
        weight: Of each score.
        differences: Whether a step earns what it adds to the score before it, so that a path's
            rewards sum to its last score (potential-based shaping, Ng et al. 1999, with the
            prompt's potential at 0); if not, it earns the score itself.
        finished: Whether the text is closed by an end token when it is scored.
    """

    reward_model: RewardModel | None = None
    weight: float = 1.0
    differences: bool = False
    finished: bool = True

    def rewards(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """See `SegmentReward`."""
        scores = scorer.score(nodes, reward_model=self.reward_model, finished=self.finished)
        if self.differences:
            known: dict[int, float] = scorer.memory.setdefault(id(self), {})
            known.update(zip(nodes, scores.tolist(), strict=True))
            parents = [scorer.tree.segment(node).parent for node in nodes]
            scores = scores - torch.tensor([known.get(node, 0.0) for node in parents])
        return self.weight * scores


@dataclass(frozen=True)
class KLPenalty:
    """A penalty for drifting from a reference policy: -beta * log(policy / reference).

    The score of a finished response with this on its way is the objective of RLHF,
    r(x, y) - beta * log(pi(y|x) / pi_ref(y|x)) (Stiennon et al. 2020, equation 2).

    Attributes:
        reference: The policy to stay near, with the searched policy's vocabulary.
        beta: Penalty a nat.
    """

    reference: Policy
    beta: float

    def rewards(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """See `SegmentReward`.

        Raises:
            ValueError: If the reference has another vocabulary.
        """
        tree = scorer.tree
        if id(self) not in scorer.memory:
            scorer.memory[id(self)] = _Reference(self.reference, tree)
        reference: _Reference = scorer.memory[id(self)]
        own = torch.tensor([tree.segment(node).log_probability for node in nodes])
        return -self.beta * (own - reference.log_probabilities(nodes))


@dataclass(frozen=True)
class SummedRewards:
    """The sum of several segment rewards.

    Attributes:
        parts: The rewards.
    """

    parts: tuple[SegmentReward, ...]

    def rewards(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """See `SegmentReward`."""
        return torch.stack([part.rewards(scorer, nodes) for part in self.parts]).sum(0)


class _Reference:
    """The reference's log-probabilities of one search's tree; every prefix is run once."""

    def __init__(self, reference: Policy, tree: SegmentTree) -> None:
        mine, theirs = reference.encoder, tree.policy.encoder
        if not mine.shares_vocabulary(theirs):
            raise ValueError(
                f"the reference has a vocabulary of {len(mine.tokenizer)} tokens that is not the "
                f"policy's ({len(theirs.tokenizer)}); required: the same, since the penalty is a "
                "ratio of token probabilities. Take the model that the policy was fine-tuned from"
            )
        self._tree = tree
        self._prefixes = reference.new_prefixes()
        self._known: dict[int, int] = {}  # the search's handles to the prefixes'

    @torch.inference_mode()
    def log_probabilities(self, nodes: Sequence[int]) -> Tensor:
        """Of the nodes' own tokens, float32 [R] on the CPU."""
        tree, prefixes = self._tree, self._prefixes
        roots = [r for r in dict.fromkeys(map(tree.root, nodes)) if r not in self._known]
        if roots:
            added = prefixes.add_prompts([tree.segment(root).ids for root in roots])
            self._known.update(zip(roots, added, strict=True))
        parents = [self._known[tree.segment(node).parent] for node in nodes]
        runs = [tree.segment(node).ids for node in nodes]
        first = prefixes.logits(parents)  # [R, V], before each run's first token
        fed, states = prefixes.feed(parents, runs)
        self._known.update(zip(nodes, fed, strict=True))
        after = prefixes.logits_of(states)  # [tokens of all runs, V]
        found, start = [], 0
        for line, run in enumerate(runs):
            before = torch.cat([first[line : line + 1], after[start : start + len(run) - 1]])
            taken = torch.tensor(run, device=before.device)[:, None]
            found.append(before.log_softmax(-1).gather(-1, taken).sum())
            start += len(run)
        return torch.stack(found).cpu()

"""Leaf values of a search over text: expected final scores of unfinished responses.

`PartialReward` takes a reward model's score of the text so far: the search's own, as if the text
were finished, which needs no training and is biased by its length, or a value model's. `Rollout`
samples the response to its end and scores that, which costs tokens; the sample may be the answer.
`policies.planning.value_head` reads the policy's hidden state and costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from policies.generation.segment_tree import ROLLOUT
from policies.planning.scoring import TreeScorer
from rewardmodel.interface import RewardModel


class LeafValue(Protocol):
    """Values unfinished nodes of a search over text.

    Attributes:
        samples: Whether a value costs sampled tokens, up to the response's end.
    """

    samples: ClassVar[bool]

    def values(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """Expected final scores, float32 [R] on the CPU, of R unfinished nodes.

        Args:
            scorer: The tree of text, and the reward models.
            nodes: Handles.
        """
        ...


@dataclass(frozen=True)
class PartialReward:
    """A reward model's score of the text so far.

    Attributes:
        reward_model: Whose; None asks the one that the search plans against.
        finished: Whether the text is closed by an end token. False suits a value model, which was
            trained to read unfinished text.
    """

    samples: ClassVar[bool] = False

    reward_model: RewardModel | None = None
    finished: bool = True

    def values(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """See `LeafValue`."""
        return scorer.score(nodes, reward_model=self.reward_model, finished=self.finished)


@dataclass(frozen=True)
class NoValue:
    """Value 0, for methods that score finished responses only."""

    samples: ClassVar[bool] = False

    def values(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """See `LeafValue`."""
        return torch.zeros(len(nodes))


@dataclass(frozen=True)
class Rollout:
    """The score of the text as the policy finishes it, one sample a node.

    The finished text is a response like any other: it is scored once and may be the answer.
    """

    samples: ClassVar[bool] = True

    def values(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """See `LeafValue`."""
        finished = scorer.tree.extend(nodes, [ROLLOUT] * len(nodes))
        return scorer.score_finished(finished)

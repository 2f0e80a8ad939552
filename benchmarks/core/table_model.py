"""A planning model whose transitions are tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from search import RootOutput, StepOutput


@dataclass(frozen=True)
class TableModel:
    """An MDP of S states; the observation `[B]` is the first state.

    Attributes are `[S, A]`, but for `value`, which is `[S]`.
    """

    next_state: Tensor
    reward: Tensor
    discount: Tensor
    prior_logits: Tensor
    valid_actions: Tensor
    value: Tensor

    @property
    def num_actions(self) -> int:
        """A."""
        return self.reward.shape[1]

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """The first states."""
        return RootOutput(
            self.prior_logits[observation],
            self.value[observation],
            self.valid_actions[observation],
            {"state": observation},
        )

    def step(
        self,
        embedding: Mapping[str, Tensor],
        action: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        """One transition a row."""
        edge = (embedding["state"], action)
        child = self.root(self.next_state[edge])
        return StepOutput(
            child.prior_logits,
            child.value,
            child.valid_actions,
            child.embedding,
            self.reward[edge],
            self.discount[edge],
        )

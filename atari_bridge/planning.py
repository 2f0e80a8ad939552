"""A network as a model to plan with: the contract of `search.model` over its three functions."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from atari_bridge.networks import Latent, MuZeroNetwork
from search import Embedding, RootOutput, StepOutput


class NetworkModel:
    """A `search.PlanningModel` whose steps are imagined.

    All actions are allowed everywhere, and no imagined state is an end: a network that has learned
    that nothing follows says so by its value and rewards.

    Args:
        network: Evaluated in its evaluation mode, wherever its weights are.
        discount: Of a step, constant.
        amp_dtype: Of matrix products on a GPU, such as `torch.bfloat16`; None: float32.
    """

    def __init__(
        self, network: MuZeroNetwork, *, discount: float, amp_dtype: torch.dtype | None = None
    ) -> None:
        self.network, self.discount, self._amp_dtype = network, discount, amp_dtype

    @property
    def num_actions(self) -> int:
        """A."""
        return self.network.num_actions

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Encodes and evaluates observations.

        Args:
            observation: `[B, S*C, H, W]` uint8 or in [0, 1], or `[B, D]`; moved to the network.
            generator: Unused: the network draws nothing.

        Raises:
            ValueError: If the shape is not that of the network.
        """
        network = self._evaluated()
        seen = observation.to(network.support.centres.device)
        if seen.dtype == torch.uint8:
            seen = seen.float().div_(255)
        with torch.inference_mode(), self._precision(seen):
            latent = _plain(network.represent(seen))
            prediction = network.predict(latent)
            logits, value = prediction.policy_logits.float(), prediction.value_logits
            return RootOutput(
                prior_logits=logits,
                value=network.support.decode(value),
                valid_actions=torch.ones_like(logits, dtype=torch.bool),
                embedding=latent,
            )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Imagines `action` `[M]` int64 from the states `embedding`."""
        network, parent = self._evaluated(), dict(embedding)
        with torch.inference_mode(), self._precision(action):
            dynamics = network.imagine(parent, action)
            latent = _plain(dynamics.latent)
            prediction = network.predict(latent)
            logits = prediction.policy_logits.float()
            return StepOutput(
                prior_logits=logits,
                value=network.support.decode(prediction.value_logits),
                valid_actions=torch.ones_like(logits, dtype=torch.bool),
                embedding=latent,
                reward=self._reward(dynamics.reward_logits, parent, latent),
                discount=torch.full_like(logits[:, 0], self.discount),
            )

    def _reward(self, logits: Tensor, parent: Latent, child: Latent) -> Tensor:
        """Of the step alone: with a value prefix, what it adds to its parent's."""
        prefix = self.network.value_prefix
        if prefix is None:
            return self.network.support.decode(logits)
        _, going = prefix.running(parent["age"])
        return child["prefix"] - torch.where(going, parent["prefix"], 0.0)

    def _evaluated(self) -> MuZeroNetwork:
        if self.network.training:
            self.network.eval()
        return self.network

    def _precision(self, like: Tensor) -> AbstractContextManager[Any]:
        if self._amp_dtype is None:
            return nullcontext()
        return torch.autocast(like.device.type, dtype=self._amp_dtype)


def _plain(latent: Latent) -> Latent:
    """States in float32 whatever the precision of the layers, so that all nodes are alike."""
    return {
        name: leaf.float() if leaf.is_floating_point() else leaf for name, leaf in latent.items()
    }

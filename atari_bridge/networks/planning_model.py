"""A MuZero network as a planning model."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from atari_bridge.networks.interface import Latent, MuZeroNetwork
from search import Embedding, RootOutput, StepOutput


class NetworkModel:
    """A `search.PlanningModel` whose steps are the network's dynamics.

    All actions are valid at every node, and no node is terminal: after a termination the network is
    trained to predict rewards and values of 0.

    Args:
        network: Used in evaluation mode, on its own device.
        discount: Per decision.
        amp_dtype: Of matrix products, such as `torch.bfloat16`; None: float32.
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
            generator: Unused: the network is deterministic.

        Raises:
            ValueError: If the shape is not that of the network.
        """
        network = self._evaluated()
        seen = observation.to(network.support.centers.device)
        if seen.dtype == torch.uint8:
            seen = seen.float().div_(255)
        with torch.inference_mode(), self._precision(seen):
            latent = network.representation(seen)
            prediction = network.prediction(latent)
            logits, value = prediction.policy_logits.float(), prediction.value_logits
            embedding = _plain(latent)
            if network.value_prefix is not None:
                embedding["prefix"] = torch.zeros_like(logits[:, 0])
            return RootOutput(
                prior_logits=logits,
                value=network.support.decode(value),
                valid_actions=torch.ones_like(logits, dtype=torch.bool),
                embedding=embedding,
            )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Takes `action` `[M]` int64 in the states `embedding`."""
        network = self._evaluated()
        with torch.inference_mode(), self._precision(action):
            dynamics = network.dynamics(dict(embedding), action)
            prediction = network.prediction(dynamics.latent)
            logits = prediction.policy_logits.float()
            # Decoded together, which is faster on small batches.
            scalars = torch.stack([prediction.value_logits, dynamics.reward_logits])
            value, reward = network.support.decode(scalars)  # [M] each
            child = _plain(dynamics.latent)
            if network.value_prefix is not None:
                # The reward is the difference of two prefixes. A prefix that was reset begins at 0.
                child["prefix"] = torch.where(child["age"] > 0, reward, 0.0)
                reward = reward - embedding["prefix"]
            return StepOutput(
                prior_logits=logits,
                value=value,
                valid_actions=torch.ones_like(logits, dtype=torch.bool),
                embedding=child,
                reward=reward,
                discount=torch.full_like(value, self.discount),
            )

    def _evaluated(self) -> MuZeroNetwork:
        if self.network.training:
            self.network.eval()
        return self.network

    def _precision(self, like: Tensor) -> AbstractContextManager[object]:
        if self._amp_dtype is None:
            return nullcontext()
        return torch.autocast(like.device.type, dtype=self._amp_dtype)


def _plain(latent: Latent) -> Latent:
    """States in float32, whatever the precision of the layers."""
    return {
        name: leaf.float() if leaf.is_floating_point() else leaf for name, leaf in latent.items()
    }

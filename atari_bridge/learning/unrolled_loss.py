"""The loss of the network unrolled over K actions.

It is a module, so that data-parallel wrappers see an ordinary forward pass. All agents of the
MuZero family are this loss with other weights.
"""

import torch
from torch import Tensor, nn

from atari_bridge.learning.augmentation import as_floats, augment
from atari_bridge.learning.batches import Batch
from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.losses import (
    Losses,
    MaskedLoss,
    combine,
    entropy,
    scale_gradient,
    soft_cross_entropy,
)
from atari_bridge.networks.interface import Latent, MuZeroNetwork


class UnrolledLoss(nn.Module):
    """The loss of a batch.

    Args:
        network: To be trained.
        target_network: For self-supervision whose targets it projects.
        config: Weights, and augmentation.
    """

    def __init__(
        self, network: MuZeroNetwork, target_network: MuZeroNetwork, config: LearningConfig
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        # In a list, so that it is no submodule: its weights are not trained. In evaluation mode, so
        # that it updates no batch statistics.
        self._target_network = [target_network.eval()]

    def forward(
        self, batch: Batch, row_weights: Tensor, generator: torch.Generator
    ) -> tuple[Losses, Tensor]:
        """Computes the losses of a batch.

        Args:
            batch: B rows.
            row_weights: `[B]`.
            generator: Source of the augmentation's randomness.

        Returns:
            The losses; and the decoded root values `[B]`, without gradient.
        """
        network, support = self.network, self.network.support
        latent = network.representation(self._augmented(batch.observation, generator))
        root = network.prediction(latent)
        values, policies = [root.value_logits], [root.policy_logits]
        rewards, unrolled = [], []
        for k in range(batch.action.shape[1]):
            dynamics = network.dynamics(latent, batch.action[:, k])
            rewards.append(dynamics.reward_logits)
            unrolled.append(dynamics.latent["hidden"])
            prediction = network.prediction(dynamics.latent)
            values.append(prediction.value_logits)
            policies.append(prediction.policy_logits)
            latent = halve_gradient(dynamics.latent)
        value_logits = torch.stack(values, dim=1)  # [B, K+1, bins]
        policy_logits = torch.stack(policies, dim=1)  # [B, K+1, A]
        reward_logits = torch.stack(rewards, dim=1)  # [B, K, bins]
        reward = soft_cross_entropy(reward_logits, support.encode(batch.reward))
        value = soft_cross_entropy(value_logits, support.encode(batch.value))
        policy = soft_cross_entropy(policy_logits, batch.policy)
        auxiliary = self._self_supervised(unrolled, batch, generator)
        auxiliary = torch.zeros_like(reward) if auxiliary is None else auxiliary
        config, policy_mask = self.config, batch.policy_mask
        parts = {
            "reward": MaskedLoss(reward, batch.reward_mask, config.reward_weight),
            "value": MaskedLoss(value, batch.value_mask, config.value_weight),
            "policy": MaskedLoss(policy, policy_mask, config.policy_weight),
            "entropy": MaskedLoss(entropy(policy_logits), policy_mask, -config.entropy_weight),
            "self_supervised": MaskedLoss(
                auxiliary, batch.observed[:, 1:], config.self_supervised_weight
            ),
        }
        losses = combine(
            parts,
            unroll_steps=batch.action.shape[1],
            row_weights=row_weights,
            unroll_scaling=config.unroll_scaling,
        )
        with torch.no_grad():
            decoded = support.decode(root.value_logits.float())
        return losses, decoded

    def _self_supervised(
        self, unrolled: list[Tensor], batch: Batch, generator: torch.Generator
    ) -> Tensor | None:
        """Losses `[B, K]` of unrolled states against later observations, or None."""
        auxiliary = self.network.auxiliary
        if auxiliary is None or batch.future is None:
            return None
        rows, steps = batch.future.shape[:2]
        seen = batch.future.flatten(0, 1)  # [B*K, ...]
        hidden = torch.stack(unrolled, dim=1).flatten(0, 1)  # [B*K, ...]
        if auxiliary.target_source == "pixels":
            target = as_floats(seen)
        else:
            own = auxiliary.target_source == "network"
            encoder = self.network if own else self._target_network[0]
            assert encoder.auxiliary is not None
            with torch.no_grad():
                known = encoder.representation(self._augmented(seen, generator))["hidden"]
                target = encoder.auxiliary.project(known)
        return auxiliary.loss(hidden, target).unflatten(0, (rows, steps))

    def _augmented(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """Pixels in [0, 1], augmented; vectors as they are."""
        if observation.ndim < 4:
            return observation
        return augment(observation, self.config.augmentation, generator=generator)


def halve_gradient(latent: Latent) -> Latent:
    """The state as input of the next step, with half its gradient.

    Predictions of the state itself and its reward keep the full gradient, as in MuZero's
    pseudocode; EfficientZero's code halves these too.
    """
    return {**latent, "hidden": scale_gradient(latent["hidden"], 0.5)}

"""Updates of the network: loss, gradient, optimizer step, target network."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from atari_bridge.learning.batches import Batch
from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.losses import Losses
from atari_bridge.learning.unrolled_loss import UnrolledLoss
from atari_bridge.networks.interface import MuZeroNetwork


@dataclass(frozen=True)
class Update:
    """The result of an update.

    Attributes:
        losses: Means over the batch, by name.
        priorities: `[B]` float32 on the CPU, absolute errors of the root values.
    """

    losses: dict[str, float]
    priorities: np.ndarray


class Learner:
    """Trains a network, and refreshes its target network.

    Args:
        network: To be trained.
        target_network: Of the same shape; copied every `target_update_interval` updates.
        config: Optimizer and weights of the losses.
        accelerator: Devices and processes.
        generator: Source of the augmentation's randomness.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        target_network: MuZeroNetwork,
        config: LearningConfig,
        *,
        accelerator: Accelerator,
        generator: torch.Generator,
    ) -> None:
        self.network, self.target_network = network, target_network
        self.config, self.accelerator = config, accelerator
        self.updates = 0
        self._generator = generator
        for parameter in target_network.parameters():
            parameter.requires_grad_(False)
        self.optimizer = build_optimizer(network, config)
        loss = UnrolledLoss(network, target_network, config)
        self._loss: nn.Module = accelerator.prepare_model(loss)

    def update(self, batch: Batch) -> Update:
        """Makes one update.

        Raises:
            FloatingPointError: If the loss or its gradient is not finite; no weight is changed.
        """
        self.network.train()
        row_weights = batch.weight / self._greatest(batch.weight)
        losses, values = self._loss(batch, row_weights, self._generator)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(losses.total)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        named = self._checked(losses, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.updates)
        self.optimizer.step()
        self.updates += 1
        wrong = (values - batch.value[:, 0]).abs() * batch.value_mask[:, 0]
        return Update(named, wrong.float().cpu().numpy())

    def refresh_target(self) -> bool:
        """Copies the weights to the target network if that is due; returns whether it was.

        To be called before each batch, never while one is being made.
        """
        due = self.updates > 0 and self.updates % self.config.target_update_interval == 0
        if due:
            self.target_network.load_state_dict(self.network.state_dict())
        return due

    def _checked(self, losses: Losses, norm: Tensor) -> dict[str, float]:
        """The losses as numbers, after checking that they are finite.

        Raises:
            FloatingPointError: If a loss or the gradient is not finite.
        """
        tensors = {f.name: getattr(losses, f.name).detach() for f in fields(losses)}
        tensors["gradient_norm"] = norm
        # A host synchronization; the priorities are the other one of an update.
        numbers = torch.stack([tensor.float() for tensor in tensors.values()]).tolist()
        named = dict(zip(tensors, numbers, strict=True))
        odd = {name: value for name, value in named.items() if not math.isfinite(value)}
        if odd:
            raise FloatingPointError(
                f"update {self.updates + 1}: found {odd}; required finite losses and gradient. "
                "No weight was changed and the last checkpoint is intact: lower learning_rate or "
                "max_grad_norm, or take another seed, in a new run"
            )
        return named

    def _greatest(self, weight: Tensor) -> Tensor:
        """The largest importance weight of all processes."""
        greatest = weight.max().reshape(1)
        if self.accelerator.num_processes == 1:
            return greatest
        gathered = self.accelerator.gather(greatest)
        assert isinstance(gathered, Tensor)
        return gathered.max()


def build_optimizer(network: nn.Module, config: LearningConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW without decay of biases and normalization."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate(config: LearningConfig, update: int) -> float:
    """The rate of an update, counted from 0: linear warm-up, then step decay."""
    warm = min(1.0, (update + 1) / max(1, config.warmup_updates))
    return config.learning_rate * warm * config.decay_factor ** (update // config.decay_updates)

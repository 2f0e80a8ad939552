"""A network of EfficientZero's size as a planning model, with random weights.

64 channels of 6 x 6, one residual block each for dynamics and prediction, 601 bins for reward and
value; without the recurrent value prefix and the representation network.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from search import RootOutput, StepOutput

CHANNELS, SIDE, BINS = 64, 6, 601
DISCOUNT = 0.997


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(CHANNELS)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + x)


class _Head(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(CHANNELS, 16, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.hidden = nn.Linear(16 * SIDE * SIDE, 32)
        self.out = nn.Linear(32, outputs)

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.relu(self.norm(self.squeeze(x))).flatten(1)
        return self.out(torch.relu(self.hidden(flat))).float()


class Network(nn.Module):
    """A planning model of EfficientZero's size; the observation is a latent `[B, C, 6, 6]`."""

    support: Tensor

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.mix = nn.Conv2d(CHANNELS + 1, CHANNELS, 3, padding=1, bias=False)
        self.mix_norm = nn.BatchNorm2d(CHANNELS)
        self.dynamics, self.prediction = _Residual(), _Residual()
        self.reward, self.value, self.policy = _Head(BINS), _Head(BINS), _Head(num_actions)
        half = BINS // 2
        self.register_buffer("support", torch.arange(-half, half + 1).float(), persistent=False)

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Prediction alone."""
        return RootOutput(*self._predict(observation), {"hidden": observation})

    def step(
        self,
        embedding: Mapping[str, Tensor],
        action: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        """Dynamics and prediction."""
        hidden = embedding["hidden"]
        plane = (action.to(hidden.dtype) / self.num_actions).view(-1, 1, 1, 1)
        plane = plane.expand(-1, 1, SIDE, SIDE)
        child = self.mix_norm(self.mix(torch.cat([hidden, plane], dim=1)))
        child = self.dynamics(torch.relu(child + hidden))
        reward = self._expect(self.reward(child))
        logits, value, valid = self._predict(child)
        discount = torch.full_like(reward, DISCOUNT)
        return StepOutput(logits, value, valid, {"hidden": child}, reward, discount)

    def _predict(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.prediction(hidden)
        logits = self.policy(x)
        return logits, self._expect(self.value(x)), torch.ones_like(logits, dtype=torch.bool)

    def _expect(self, logits: Tensor) -> Tensor:
        """The mean bin, through the inverse of MuZero's value transform: `[B, bins]` to `[B]`."""
        scaled = torch.softmax(logits, dim=-1) @ self.support.to(logits.dtype)
        root = torch.sqrt(1 + 4 * 0.001 * (scaled.abs() + 1 + 0.001)) - 1
        return torch.sign(scaled) * ((root / (2 * 0.001)) ** 2 - 1)

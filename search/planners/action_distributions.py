"""Policies over actions too many to list: distributions that can be sampled and scored.

A planning model over sampled actions (`search.planners.sampled`) returns one of these as the policy
of its nodes; a user's own class needs only the three functions of `ActionDistribution`.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

import torch
from torch import Tensor

from search.tree import mask_logits


class ActionDistribution(Protocol):
    """The policies of M states, one a row, and the proposals that samples are drawn from.

    The policy π is the network's; the proposal β is what is sampled. They are the same unless a
    temperature, or the class itself, makes them differ. Actions have any dtype and any
    trailing shape, the same at every node.
    """

    def sample(
        self, num_samples: int, *, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draws K independent actions a row from β at this temperature: `[M, K, ...]`."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log π of actions `[M, K, ...]`: `[M, K]`; `-inf` marks those that cannot be taken."""
        ...

    def proposal_log_prob(self, actions: Tensor, *, temperature: float) -> Tensor:
        """Log β of actions `[M, K, ...]` at this temperature: `[M, K]`."""
        ...


@dataclass(frozen=True)
class CategoricalActions:
    """Policies over A numbered actions, A up to 2^24 (a bound of torch's sampler).

    The proposal is `β = π^(1/temperature)`, normalized over the valid actions: above 1 it is
    flatter than the policy. A row without valid actions (a finished state) can be sampled, and
    all its samples have log-probability `-inf`.

    Attributes:
        logits: `[M, A]` float, unnormalized log-probabilities; `-inf` also marks invalid actions.
        valid_actions: `[M, A]` bool, True where allowed; None: all.

    Actions are ids: `[M, K]` int64.
    """

    logits: Tensor
    valid_actions: Tensor | None = None

    def sample(
        self, num_samples: int, *, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draws K ids a row, with replacement: `[M, K]` int64."""
        device = self.logits.device if generator is None else generator.device
        probs = self._log_probs(temperature).to(device, torch.float64).exp()
        # Logits of NaN: the sampler would die without saying where; `log_prob` is NaN, which
        # the core reports with its row.
        probs = torch.where(probs.isnan(), torch.ones_like(probs), probs)
        ids = torch.multinomial(probs, num_samples, replacement=True, generator=generator)
        return ids.to(self.logits.device)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log π of ids `[M, K]`: `[M, K]`, `-inf` where invalid."""
        return self._score(actions, temperature=1.0)

    def proposal_log_prob(self, actions: Tensor, *, temperature: float) -> Tensor:
        """Log β of ids `[M, K]`: `[M, K]`, `-inf` where invalid."""
        return self._score(actions, temperature=temperature)

    def _score(self, actions: Tensor, *, temperature: float) -> Tensor:
        log_probs = self._log_probs(temperature).masked_fill(~self._valid(), -torch.inf)
        return log_probs.gather(-1, actions)

    def _valid(self) -> Tensor:
        possible = self.logits != -torch.inf
        return possible if self.valid_actions is None else possible & self.valid_actions

    def _log_probs(self, temperature: float) -> Tensor:
        """Log β `[M, A]`; very low where invalid, and uniform in rows where nothing is valid."""
        return mask_logits(self.logits / temperature, self._valid()).log_softmax(dim=-1)


@dataclass(frozen=True)
class GaussianActions:
    """Diagonal Gaussian policies over real-valued actions, squashed into a box if one is given.

    Without bounds an action is `x ~ N(mean, scale)`; with bounds it is
    `center + half_width * tanh(x)`. Squashed, not clipped: clipping piles probability up on the
    bounds, where samples would coincide and have no density, and its log-probability is flat
    beyond them, so that training gets no gradient from there. Log-probabilities are densities of
    the action itself, the change of variables included.

    The proposal at a temperature is the same with `scale * sqrt(temperature)`: that is
    `β = π^(1/temperature)`, normalized, of the Gaussian before it is squashed. (A power of a
    density depends on the coordinates; any β with a known density may be sampled from.)

    Numerics: within a rounding step of a bound (|x| above 8 in float32, 18 in float64) actions
    are moved inside by one step, so that log-probabilities are finite everywhere in the box.

    Attributes:
        mean: `[M, ...]` float, before squashing; the trailing shape is the action's.
        scale: Standard deviation before squashing, above 0; broadcast against `mean`.
        low: Lower bound, a number or a tensor broadcast against one action; None: no box.
        high: Upper bound, likewise.

    Raises:
        ValueError: If one bound is given without the other, or numbers in the wrong order.
    """

    mean: Tensor
    scale: Tensor
    _: KW_ONLY
    low: Tensor | float | None = None
    high: Tensor | float | None = None

    def __post_init__(self) -> None:
        """Validates the bounds, as far as that needs no look at a device's memory."""
        low, high = self.low, self.high
        wrong_order = isinstance(low, int | float) and isinstance(high, int | float) and low >= high
        if (low is None) != (high is None) or wrong_order:
            raise ValueError(
                f"GaussianActions: found low={low!r} and high={high!r}; required both, low below "
                "high, or neither. Leave both out for actions without bounds."
            )

    def sample(
        self, num_samples: int, *, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draws K actions a row, without gradients: `[M, K, ...]` in the mean's dtype."""
        mean = self.mean.detach().unsqueeze(1)  # [M, 1, ...]
        shape = (mean.shape[0], num_samples, *mean.shape[2:])
        device = mean.device if generator is None else generator.device
        noise = torch.randn(shape, dtype=torch.float64, device=device, generator=generator)
        x = mean + self._scale(temperature).detach() * noise.to(mean)
        box = self._box()
        if box is None:
            return x
        low, high = box
        unit = _inside(torch.tanh(x))
        return torch.clamp((high + low) / 2 + (high - low) / 2 * unit, low, high)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density of actions `[M, K, ...]` under π: `[M, K]`, `-inf` outside the box."""
        return self._score(actions, temperature=1.0)

    def proposal_log_prob(self, actions: Tensor, *, temperature: float) -> Tensor:
        """Log-density of actions `[M, K, ...]` under β: `[M, K]`, `-inf` outside the box."""
        return self._score(actions, temperature=temperature)

    def _score(self, actions: Tensor, *, temperature: float) -> Tensor:
        box = self._box()
        if box is None:
            x, log_slope = actions, torch.zeros_like(actions)
        else:
            low, high = box
            half = (high - low) / 2
            unit = _inside((actions - (high + low) / 2) / half)
            x = torch.atanh(unit)
            log_slope = half.log() + torch.log1p(-unit.square())  # of center + half * tanh(x)
        scale = self._scale(temperature)
        z = (x - self.mean.unsqueeze(1)) / scale
        log_density = -z.square() / 2 - scale.log() - math.log(2 * math.pi) / 2 - log_slope
        if box is not None:
            outside = (actions < box[0]) | (actions > box[1])
            log_density = log_density.masked_fill(outside, -torch.inf)
        # The dimensions of an action are independent: [M, K, ...] -> [M, K]
        return log_density.reshape(*actions.shape[:2], -1).sum(dim=-1)

    def _scale(self, temperature: float) -> Tensor:
        """`[M, 1, ...]`, standard deviation of the proposal before squashing."""
        return self.scale.expand_as(self.mean).unsqueeze(1) * math.sqrt(temperature)

    def _box(self) -> tuple[Tensor, Tensor] | None:
        """Both bounds as tensors of the mean's dtype and device."""
        if self.low is None or self.high is None:
            return None
        return self._bound(self.low), self._bound(self.high)

    def _bound(self, bound: Tensor | float) -> Tensor:
        # Filled on the device: a number copied there from the host would stop a graph capture.
        return bound.to(self.mean) if isinstance(bound, Tensor) else self.mean.new_full((), bound)


def _inside(unit: Tensor) -> Tensor:
    """Moves numbers on or beyond -1 and 1 one rounding step inside."""
    most = 1 - torch.finfo(unit.dtype).eps
    return unit.clamp(-most, most)

"""Categorical values and rewards on a transformed scale.

Source: Schrittwieser et al. 2020 (MuZero), Appendix F; the transform is of Pohlen et al. 2018.
"""

import torch
from torch import Tensor, nn

_SLOPE = 0.001


def transform(value: Tensor) -> Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x: shrinks large numbers, and is invertible."""
    # sign(x) (r - 1) is x / (r + 1), which loses no digits of a small x.
    return value / ((value.abs() + 1).sqrt() + 1) + _SLOPE * value


def inverse_transform(value: Tensor) -> Tensor:
    """The inverse of `transform`."""
    # The published form cancels twice; in float32 it returns 0.9999 for 1. With u its quotient,
    # which is at least 1, x = u^2 - 1 = (u - 1) (|u - 1| + 2).
    size = value.abs()
    start = 1 + 2 * _SLOPE  # the root at 0
    root = (4 * _SLOPE * size + start * start).sqrt()
    over = 2 / (root + start)  # u - 1 = size * over
    return value * over * (size * over + 2)


class ScalarSupport(nn.Module):
    """Evenly spaced bins from `low` to `high` on the transformed scale.

    Args:
        low: Of the first bin.
        high: Of the last bin, above `low`.
        bins: At least 2.
    """

    centers: Tensor

    def __init__(self, low: float, high: float, bins: int) -> None:
        super().__init__()
        self.low, self.high, self.bins = low, high, bins
        # A buffer, to move with the module; not saved, since it follows from the settings.
        self.register_buffer("centers", torch.linspace(low, high, bins), persistent=False)

    def encode(self, value: Tensor) -> Tensor:
        """Two-hot distributions: `[...]` values to `[..., bins]` float32.

        The mean of the distribution is the value, clipped to the support.
        """
        spacing = (self.high - self.low) / (self.bins - 1)
        place = ((transform(value.float()) - self.low) / spacing).clamp(0, self.bins - 1)  # [...]
        lower = place.floor().clamp_max(self.bins - 2)
        upper_share = place - lower
        shares = torch.stack([1 - upper_share, upper_share], dim=-1)  # [..., 2]
        at = torch.stack([lower, lower + 1], dim=-1).long()
        encoded = torch.zeros(*value.shape, self.bins, device=value.device)
        return encoded.scatter_(-1, at, shares)

    def decode(self, logits: Tensor) -> Tensor:
        """Means of distributions, on the scale of rewards: `[..., bins]` to `[...]`."""
        mean = (logits.float().softmax(dim=-1) * self.centers).sum(dim=-1)
        return inverse_transform(mean)

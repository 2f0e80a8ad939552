"""Networks whose hidden state is a small image (MuZero, EfficientZero).

Source: Ye et al. 2021 (EfficientZero), Appendix A.1.
"""

import math

import torch
from torch import Tensor, nn

from atari_bridge.networks.config import Normalization
from atari_bridge.networks.layers import ResidualBlock, convolution, normalize_image


def halvings(height: int, width: int) -> int:
    """How often to halve an image so that its shorter side comes nearest to 6, at most 4 times."""
    return min(4, max(0, round(math.log2(min(height, width) / 6))))


def image_representation(
    shape: tuple[int, int, int], *, channels: int, blocks: int, kind: Normalization
) -> nn.Sequential:
    """`[B, S*C, H, W]` to `[B, channels, H', W']`, 6×6 of 96×96.

    The first halving is a strided convolution to half the channels, the second a strided residual
    block, the others average pools after a block; smaller images are halved less often.
    """
    depth, height, width = shape
    times = halvings(height, width)
    half = channels // 2
    layers: list[nn.Module] = [
        convolution(depth, half, stride=2 if times >= 1 else 1),
        normalize_image(half, kind),
        nn.ReLU(inplace=True),
        ResidualBlock(half, kind=kind),
        ResidualBlock(half, channels, stride=2 if times >= 2 else 1, kind=kind),
    ]
    for _ in range(max(0, times - 2)):
        layers += [ResidualBlock(channels, kind=kind), nn.AvgPool2d(3, stride=2, padding=1)]
    layers += [ResidualBlock(channels, kind=kind) for _ in range(blocks)]
    return nn.Sequential(*layers)


def state_shape(encoder: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels, height and width of the states that an encoder makes of `shape`."""
    with torch.no_grad():
        _, channels, height, width = encoder.eval()(torch.zeros(1, *shape)).shape
    encoder.train()
    return channels, height, width


class ImageDynamics(nn.Module):
    """Dynamics of a state image.

    Deviation from EfficientZero: the action enters as planes of a one-hot code, not as one plane of
    its number.

    Args:
        channels: Of the state.
        num_actions: A.
        blocks: Residual blocks after the action.
        kind: Of normalization.
    """

    def __init__(
        self, channels: int, num_actions: int, *, blocks: int, kind: Normalization
    ) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.enter = convolution(channels + num_actions, channels)
        self.norm = normalize_image(channels, kind)
        self.blocks = nn.Sequential(*[ResidualBlock(channels, kind=kind) for _ in range(blocks)])

    def forward(self, hidden: Tensor, action: Tensor) -> Tensor:
        """`[B, C, H, W]` and `[B]` int64 to `[B, C, H, W]`."""
        rows, _, height, width = hidden.shape
        code = nn.functional.one_hot(action, self.num_actions).to(hidden.dtype)  # [B, A]
        planes = code[:, :, None, None].expand(rows, -1, height, width)
        inner = self.norm(self.enter(torch.cat([hidden, planes], dim=1)))
        return self.blocks((inner + hidden).relu())


def image_backbone(channels: int, *, blocks: int, kind: Normalization) -> nn.Sequential:
    """The blocks that policy and value share."""
    return nn.Sequential(*[ResidualBlock(channels, kind=kind) for _ in range(blocks)])

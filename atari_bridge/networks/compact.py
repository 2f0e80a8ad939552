"""Encoders to a vector, and steps and backbones of vectors: cheap enough for a CPU.

A convolutional state costs most of an update to step; a vector of a few hundred numbers costs next
to nothing, so nearly all work is seeing. What is seen in a stack of frames is encoded as in DQN.
"""

import torch
from torch import Tensor, nn

from atari_bridge.networks.config import Normalization
from atari_bridge.networks.layers import normalize_image, normalize_vector


def image_encoder(
    shape: tuple[int, int, int], *, channels: int, hidden_size: int, kind: Normalization
) -> nn.Sequential:
    """Strided convolutions and one layer: `[B, S*C, H, W]` to `[B, hidden_size]`.

    The strides are those of DQN (Mnih et al. 2015), with as many channels as asked for, from 36
    pixels on; smaller images are convolved at full size once and then halved, and padded, so that
    ten by ten planes do not end in one point.
    """
    depth, height, width = shape
    is_large = min(height, width) >= 36
    if is_large:
        sizes = [(depth, channels, 8, 4), (channels, 2 * channels, 4, 2)]
    else:
        sizes = [(depth, channels, 3, 1), (channels, 2 * channels, 3, 2)]
    sizes.append((2 * channels, 2 * channels, 3, 1))
    layers: list[nn.Module] = []
    padding = 0 if is_large else 1
    for inputs, outputs, size, stride in sizes:
        layers += [
            nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, bias=False),
            normalize_image(outputs, kind),
            nn.ReLU(inplace=True),
        ]
    convolved = nn.Sequential(*layers)
    with torch.no_grad():  # the shape alone, whatever the sizes
        features = convolved.eval()(torch.zeros(1, *shape)).numel()
    convolved.train()
    return nn.Sequential(
        convolved,
        nn.Flatten(),
        nn.Linear(features, hidden_size, bias=False),
        normalize_vector(hidden_size, kind),
        nn.ReLU(inplace=True),
    )


def vector_encoder(features: int, *, hidden_size: int, kind: Normalization) -> nn.Sequential:
    """Two layers: `[B, D]` to `[B, hidden_size]`."""
    return nn.Sequential(
        nn.Linear(features, hidden_size, bias=False),
        normalize_vector(hidden_size, kind),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_size, hidden_size),
    )


class VectorStep(nn.Module):
    """One imagined step: what an action adds to a vector.

    Args:
        hidden_size: Of the state.
        num_actions: A.
        kind: Of normalization.
    """

    def __init__(self, hidden_size: int, num_actions: int, *, kind: Normalization) -> None:
        super().__init__()
        # A one-hot action times a matrix is a row of it.
        self.action = nn.Embedding(num_actions, hidden_size)
        self.enter = nn.Linear(hidden_size, hidden_size, bias=False)
        self.norm = normalize_vector(hidden_size, kind)
        self.leave = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, action: Tensor) -> Tensor:
        """`[B, hidden_size]` and `[B]` int64 to `[B, hidden_size]`."""
        inner = self.norm(self.enter(hidden) + self.action(action)).relu()
        return hidden + self.leave(inner)


def vector_backbone(hidden_size: int, *, kind: Normalization) -> nn.Sequential:
    """What policy and value share."""
    return nn.Sequential(
        nn.Linear(hidden_size, hidden_size, bias=False),
        normalize_vector(hidden_size, kind),
        nn.ReLU(inplace=True),
    )

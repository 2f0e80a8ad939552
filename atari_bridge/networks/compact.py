"""Networks whose hidden state is a vector, for CPUs: dynamics and prediction cost little."""

import torch
from torch import Tensor, nn

from atari_bridge.networks.config import Normalization
from atari_bridge.networks.layers import normalize_image, normalize_vector


def image_encoder(
    shape: tuple[int, int, int], *, channels: int, hidden_size: int, kind: Normalization
) -> nn.Sequential:
    """Strided convolutions and one layer: `[B, S*C, H, W]` to `[B, hidden_size]`.

    From 36 pixels on the strides are those of DQN (Mnih et al. 2015); smaller images are padded,
    convolved at full size once and then halved.
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
    with torch.no_grad():
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


class VectorDynamics(nn.Module):
    """Dynamics of a vector: the action's effect is added to it.

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
    """The layer that policy and value share."""
    return nn.Sequential(
        nn.Linear(hidden_size, hidden_size, bias=False),
        normalize_vector(hidden_size, kind),
        nn.ReLU(inplace=True),
    )

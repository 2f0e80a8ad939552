"""Building blocks of networks: normalization, residual blocks, heads."""

from torch import Tensor, nn

from atari_bridge.networks.config import Normalization


def normalize_image(channels: int, kind: Normalization) -> nn.Module:
    """Normalization of `[B, C, H, W]`; "layer" normalizes each row by itself."""
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(1, channels)


def normalize_vector(features: int, kind: Normalization) -> nn.Module:
    """Normalization of `[B, F]`."""
    return nn.BatchNorm1d(features) if kind == "batch" else nn.LayerNorm(features)


def convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """3×3, padded, without a bias: a normalization follows."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """Two convolutions with a skip connection; stride 2 halves height and width.

    Args:
        inputs: Channels.
        outputs: Channels; `inputs` by default.
        stride: 1 or 2.
        kind: Of normalization.
    """

    def __init__(
        self, inputs: int, outputs: int | None = None, *, stride: int = 1, kind: Normalization
    ) -> None:
        super().__init__()
        outputs = inputs if outputs is None else outputs
        self.body = nn.Sequential(
            convolution(inputs, outputs, stride=stride),
            normalize_image(outputs, kind),
            nn.ReLU(inplace=True),
            convolution(outputs, outputs),
            normalize_image(outputs, kind),
        )
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else convolution(inputs, outputs, stride=stride)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        return (self.skip(hidden) + self.body(hidden)).relu()


def image_to_features(channels: int, area: int, *, kind: Normalization) -> tuple[nn.Module, int]:
    """A 1×1 convolution from a state image to a vector; the module and the vector's size."""
    reduced = 16
    module = nn.Sequential(
        nn.Conv2d(channels, reduced, 1, bias=False),
        normalize_image(reduced, kind),
        nn.ReLU(inplace=True),
        nn.Flatten(),
    )
    return module, reduced * area


def vector_head(features: int, outputs: int, *, width: int, kind: Normalization) -> nn.Sequential:
    """One hidden layer, and an output layer of zeros: uniform over bins or actions at first."""
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(features, width, bias=False),
        normalize_vector(width, kind),
        nn.ReLU(inplace=True),
        last,
    )

"""Self-supervised losses: unrolled states against the observations at the same step."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss, normalize

from atari_bridge.networks.config import SelfSupervision

TargetSource = Literal["network", "target_network", "pixels"]


class SelfSupervisedLoss(nn.Module):
    """Interface of self-supervised losses.

    Attributes:
        target_source: The network whose projections of observations are the targets; "pixels": the
            observations are.
    """

    target_source: TargetSource = "network"

    def project(self, hidden: Tensor) -> Tensor:
        """Encoded observations `[M, ...]` to targets `[M, P]`; called without gradient."""
        raise NotImplementedError

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Losses `[M]` of unrolled states `[M, ...]` against targets `[M, ...]`."""
        raise NotImplementedError


class ConsistencyLoss(SelfSupervisedLoss):
    """Negative cosine between predictions from unrolled states and projected observations.

    With the network as its own target this is EfficientZero's consistency (SimSiam), with the
    target network SPR.

    Args:
        features: Of a flattened state.
        projection: P.
        prediction: Width of the predictor's hidden layer.
        target_source: "network" or "target_network".

    Source: Ye et al. 2021, section 4.1; Schwarzer et al. 2021 (SPR); Chen and He 2021 (SimSiam).
    """

    def __init__(
        self, features: int, *, projection: int, prediction: int, target_source: TargetSource
    ) -> None:
        super().__init__()
        self.target_source = target_source
        self.projector = nn.Sequential(
            nn.Linear(features, projection, bias=False),
            nn.BatchNorm1d(projection),
            nn.ReLU(inplace=True),
            nn.Linear(projection, projection, bias=False),
            nn.BatchNorm1d(projection),
            nn.ReLU(inplace=True),
            nn.Linear(projection, projection, bias=False),
            nn.BatchNorm1d(projection),
        )
        self.predictor = nn.Sequential(
            nn.Linear(projection, prediction, bias=False),
            nn.BatchNorm1d(prediction),
            nn.ReLU(inplace=True),
            nn.Linear(prediction, projection),
        )

    def project(self, hidden: Tensor) -> Tensor:
        """`[M, ...]` to `[M, P]`."""
        return self.projector(hidden.flatten(1))

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Negative cosine, `[M]`."""
        predicted = self.predictor(self.project(hidden))
        return -cosine_similarity(predicted.float(), target.float().detach(), dim=-1)


class InfoNCELoss(SelfSupervisedLoss):
    """InfoNCE: unrolled states identify their observations among those of the batch.

    Args:
        features: Of a flattened state.
        projection: P.
        temperature: Of the similarities.

    Source: Oord et al. 2018 (InfoNCE), as Anand et al. 2022 add it to MuZero.
    """

    def __init__(self, features: int, *, projection: int, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature
        self.projector = nn.Sequential(
            nn.Linear(features, projection),
            nn.ReLU(inplace=True),
            nn.Linear(projection, projection),
        )
        self.predictor = nn.Linear(projection, projection)

    def project(self, hidden: Tensor) -> Tensor:
        """`[M, ...]` to `[M, P]`."""
        return self.projector(hidden.flatten(1))

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of identifying the right row, `[M]`."""
        predicted = normalize(self.predictor(self.project(hidden)).float(), dim=-1)
        keys = normalize(target.float().detach(), dim=-1)
        with torch.autocast(hidden.device.type, enabled=False):  # bf16 is too coarse here
            similarity = predicted @ keys.T / self.temperature  # [M, M]
        right = torch.arange(len(hidden), device=hidden.device)
        return cross_entropy(similarity, right, reduction="none")


class Reconstruction(SelfSupervisedLoss):
    """Unrolled states are decoded to the newest frame of the observations.

    Args:
        features: Of a flattened state.
        frame: Shape of one frame, `(C, H, W)` or `(D,)`.
        width: Of the decoder's hidden layer.

    Source: Anand et al. 2022, MuZero with reconstruction; the decoder is ours.
    """

    target_source = "pixels"

    def __init__(self, features: int, *, frame: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.frame = frame
        self.decoder = _decoder(features, frame=frame, width=width)

    def project(self, hidden: Tensor) -> Tensor:
        """Unused: pixels are the targets."""
        return hidden

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over the pixels of the last frame, `[M]`."""
        newest = target[:, -self.frame[0] :] if len(self.frame) == 3 else target
        decoded = self.decoder(hidden.flatten(1)).float()
        if len(self.frame) == 3:  # upsampled by powers of two, then cut to size
            decoded = decoded[..., : self.frame[1], : self.frame[2]]
        return mse_loss(decoded, newest.float().detach(), reduction="none").flatten(1).mean(dim=1)


def _decoder(features: int, *, frame: tuple[int, ...], width: int) -> nn.Sequential:
    if len(frame) == 1:
        return nn.Sequential(
            nn.Linear(features, width), nn.ReLU(inplace=True), nn.Linear(width, frame[0])
        )
    channels, height, across = frame
    rows, columns = -(-height // 8), -(-across // 8)
    layers: list[nn.Module] = [
        nn.Linear(features, 32 * rows * columns),
        nn.ReLU(inplace=True),
        nn.Unflatten(1, (32, rows, columns)),
    ]
    for inputs, outputs in ((32, 32), (32, 16)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, channels, 4, stride=2, padding=1))


def build_auxiliary(
    kind: SelfSupervision,
    *,
    features: int,
    frame: tuple[int, ...],
    projection: int,
    prediction: int,
) -> SelfSupervisedLoss | None:
    """Builds the self-supervised loss of a name, or None.

    Args:
        kind: The name.
        features: Of a flattened state.
        frame: Shape of one frame.
        projection: Size of projections.
        prediction: Width of a predictor's or decoder's hidden layer.
    """
    match kind:
        case "none":
            return None
        case "consistency" | "spr":
            target_source: TargetSource = "network" if kind == "consistency" else "target_network"
            return ConsistencyLoss(
                features, projection=projection, prediction=prediction, target_source=target_source
            )
        case "contrastive":
            return InfoNCELoss(features, projection=projection)
        case "reconstruction":
            return Reconstruction(features, frame=frame, width=prediction)

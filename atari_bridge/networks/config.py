"""Configuration of the networks."""

from dataclasses import dataclass
from typing import Annotated, Literal

from prefsearch.config.bounds import Size, Within
from prefsearch.config.checks import check_types, require

NetworkName = Literal["residual", "compact", "dense"]
Normalization = Literal["batch", "layer"]
SelfSupervision = Literal["none", "consistency", "spr", "contrastive", "reconstruction"]


@dataclass(frozen=True)
class NetworkConfig:
    """Kind and sizes of a network; the defaults are EfficientZero's, but for `scale_hidden`.

    Attributes:
        network: "residual": convolutions, the hidden state is a small image (MuZero,
            EfficientZero); "compact": strided convolutions to a vector, for CPUs; "dense": linear
            layers, for observations that are vectors.
        channels: Of the hidden state (residual) or the first convolution (compact).
        blocks: Residual blocks of the representation's end, of the dynamics and of the prediction.
        hidden_size: Of the hidden state and of layers (compact, dense).
        support: Largest transformed value or reward that can be represented.
        support_bins: Bins from -support to support; an odd number.
        value_prefix: Predict the sum of rewards along an unroll by an LSTM (EfficientZero) instead
            of each reward (MuZero).
        prefix_horizon: Steps after which that sum and the LSTM are reset.
        lstm_size: Units of the LSTM.
        normalization: "batch", as published, or "layer", which suits small batches.
        scale_hidden: Scale each hidden state to [0, 1] (MuZero; off in EfficientZero's code).
        self_supervised: Auxiliary loss of unrolled states: "none"; "consistency" with encodings of
            later observations (EfficientZero's SimSiam); "spr", with encodings of the target
            network; "contrastive" (InfoNCE); or "reconstruction" of the observations.
        projection_size: Of the self-supervised projections.
        prediction_size: Of the hidden layer of their predictor.
    """

    network: NetworkName = "residual"
    channels: Annotated[int, Within(ge=1, le=2**16)] = 64
    blocks: Annotated[int, Within(ge=1, le=1024)] = 1
    hidden_size: Annotated[int, Within(ge=1, le=2**16)] = 256
    support: Size = 300
    support_bins: Annotated[int, Within(ge=3, le=2**20)] = 601
    value_prefix: bool = True
    prefix_horizon: Size = 5
    lstm_size: Annotated[int, Within(ge=1, le=2**16)] = 512
    normalization: Normalization = "batch"
    scale_hidden: bool = True
    self_supervised: SelfSupervision = "consistency"
    projection_size: Annotated[int, Within(ge=1, le=2**16)] = 1024
    prediction_size: Annotated[int, Within(ge=1, le=2**16)] = 512

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)
        bins = self.support_bins
        require(bins % 2 == 1, "support_bins", bins, "an odd number of at least 3")
        even = self.channels % 2 == 0 or self.network != "residual"
        require(
            even, "channels", self.channels, "an even number: its first half starts the network"
        )

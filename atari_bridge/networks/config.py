"""What a network is made of, as plain values. This file builds nothing."""

from dataclasses import dataclass
from typing import Annotated, Literal

from prefsearch.config.bounds import Size, Within
from prefsearch.config.checks import check_types, require

NetworkName = Literal["residual", "compact", "dense"]
Normalization = Literal["batch", "layer"]
SelfSupervision = Literal["none", "consistency", "spr", "contrastive", "reconstruction"]


@dataclass(frozen=True)
class NetworkConfig:
    """A network's sizes. The defaults are EfficientZero's on Atari, but for `scale_hidden`.

    Attributes:
        network: "residual": convolutions throughout, the state is a small image (MuZero,
            EfficientZero); "compact": strided convolutions to a vector, then layers of it, for
            CPUs; "dense": layers throughout, for observations that are vectors.
        channels: residual: of the state; compact: of the first convolution.
        blocks: Residual blocks of the representation's end, of a step and of the prediction.
        hidden_size: compact, dense: of the state and of layers.
        support: Greatest transformed value or reward that a head can say.
        support_bins: Bins from -support to support; an odd number.
        value_prefix: Predict the sum of rewards along a line by an LSTM (EfficientZero), or each
            reward by itself (MuZero).
        prefix_horizon: Steps after which that sum and the LSTM begin anew.
        lstm_size: Units of the LSTM.
        normalization: "batch", as published; "layer" depends on no other row, and suits small
            batches.
        scale_hidden: Bring each state to [0, 1] (MuZero; EfficientZero's code can, and does not).
        self_supervised: What imagined states are also held to: nothing; the encoding of what was
            then seen ("consistency", EfficientZero's SimSiam); the same by the target network
            ("spr"); to tell it from others ("contrastive"); or its pixels ("reconstruction").
        projection_size: Of the self-supervised projections.
        prediction_size: Of the layer inside their predictor.
    """

    network: NetworkName = "residual"
    channels: Annotated[int, Within(least=1, most=2**16)] = 64
    blocks: Annotated[int, Within(least=1, most=1024)] = 1
    hidden_size: Annotated[int, Within(least=1, most=2**16)] = 256
    support: Size = 300
    support_bins: Annotated[int, Within(least=3, most=2**20)] = 601
    value_prefix: bool = True
    prefix_horizon: Size = 5
    lstm_size: Annotated[int, Within(least=1, most=2**16)] = 512
    normalization: Normalization = "batch"
    scale_hidden: bool = True
    self_supervised: SelfSupervision = "consistency"
    projection_size: Annotated[int, Within(least=1, most=2**16)] = 1024
    prediction_size: Annotated[int, Within(least=1, most=2**16)] = 512

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

"""How much play is remembered, and how it is drawn, as plain values."""

from dataclasses import dataclass
from typing import Annotated

from prefsearch.config.bounds import Count, Positive, Within
from prefsearch.config.checks import check_types


@dataclass(frozen=True)
class ReplayConfig:
    """What a replay keeps.

    Attributes:
        replay_capacity: Rows over all lanes; each lane keeps the same share, rounded down.
        priority_exponent: Power to which priorities are raised (EZ: .6; EZ-V2: 1; 0: all rows
            alike).
        priority_offset: Added to a priority before it is raised, so that no row is lost for good.
        compress_frames: Keep images compressed, without loss. Vectors never are.

    Source: Schaul et al. 2016 (alpha and epsilon); EZ: EfficientZero (Ye et al. 2021); EZ-V2:
        EfficientZero V2 (Wang et al. 2024).
    """

    replay_capacity: Count = 100_000
    priority_exponent: Annotated[float, Within(least=0, most=100)] = 0.6
    priority_offset: Positive = 1e-6
    compress_frames: bool = True

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)

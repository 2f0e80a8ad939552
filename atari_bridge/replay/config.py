"""Configuration of the replay."""

from dataclasses import dataclass
from typing import Annotated

from prefsearch.config.bounds import Count, Positive, Within
from prefsearch.config.checks import check_types


@dataclass(frozen=True)
class ReplayConfig:
    """Capacity and priorities of the replay.

    Attributes:
        replay_capacity: Rows of all environments; each keeps the same share, rounded down.
        priority_exponent: Alpha of prioritized replay (EZ: .6; EZ-V2: 1; 0: uniform).
        priority_eps: Added to each priority, so that every row can be sampled.
        compress_frames: Keep images compressed in memory, without loss.

    Source: Schaul et al. 2016 (alpha and epsilon); EZ: EfficientZero (Ye et al. 2021); EZ-V2:
        EfficientZero V2 (Wang et al. 2024).
    """

    replay_capacity: Count = 100_000
    priority_exponent: Annotated[float, Within(ge=0, le=100)] = 0.6
    priority_eps: Positive = 1e-6
    compress_frames: bool = True

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)

"""How much play is remembered, and how it is drawn, as plain values."""

import math
from dataclasses import dataclass

from search.evaluation.settings import check_types, require


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

    replay_capacity: int = 100_000
    priority_exponent: float = 0.6
    priority_offset: float = 1e-6
    compress_frames: bool = True

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)
        require(self.replay_capacity >= 1, "replay_capacity", self.replay_capacity, "at least 1")
        for name in ("priority_exponent", "priority_offset"):
            require(math.isfinite(getattr(self, name)), name, getattr(self, name), "finite")
        exponent, offset = self.priority_exponent, self.priority_offset
        require(exponent >= 0, "priority_exponent", exponent, "at least 0")
        require(offset > 0, "priority_offset", offset, "more than 0")

"""The last S frames of N environments: what an agent sees. This file knows no environment."""

from collections.abc import Mapping

import numpy as np


class FrameStack:
    """The last S frames of N environments.

    Before an episode's start its first frame is repeated.

    Args:
        num_environments: N.
        frames: S, at least 1; 1 where observations are vectors.
        observation_shape: Of one frame: `(C, H, W)`, or `(D,)` of a vector.
        observation_dtype: Of one frame.

    Raises:
        ValueError: If S is less than 1, or more where observations are vectors.
    """

    def __init__(
        self,
        num_environments: int,
        frames: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
    ) -> None:
        if frames < 1:
            raise ValueError(f"frame_stack: found {frames}; required: at least 1")
        if len(observation_shape) == 1 and frames != 1:
            raise ValueError(
                f"frame_stack: found {frames} with observations of shape {observation_shape}; "
                "required: 1, for vectors are not stacked. Set frame_stack to 1"
            )
        self._frames = np.zeros((num_environments, frames, *observation_shape), observation_dtype)

    @property
    def newest(self) -> np.ndarray:
        """`[N, *observation_shape]`, the last frames: a view that the next push writes to."""
        return self._frames[:, -1]

    @property
    def stacks(self) -> np.ndarray:
        """`[N, S*C, H, W]`, oldest first, or `[N, D]`: a copy."""
        count, frames, channels, *rest = self._frames.shape
        # [N, S, C, H, W] -> [N, S*C, H, W], or [N, 1, D] -> [N, D]
        return self._frames.reshape(count, frames * channels, *rest).copy()

    def reset(self, rows: np.ndarray, observation: np.ndarray) -> None:
        """Begins the stacks of `rows` `[M]` with what all environments `[N, ...]` show."""
        self._frames[rows] = observation[rows, None]

    def push(self, observation: np.ndarray) -> None:
        """Adds the frames `[N, *observation_shape]` that all environments show now."""
        self._frames[:, :-1] = self._frames[:, 1:]
        self._frames[:, -1] = observation

    def state(self) -> dict[str, np.ndarray]:
        """Arrays for a checkpoint, to be handed to `load_state`."""
        return {"frames": self._frames.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to what `state` returned.

        Raises:
            ValueError: If the arrays are those of other environments or another S.
        """
        frames = state["frames"]
        if frames.shape != self._frames.shape or frames.dtype != self._frames.dtype:
            raise ValueError(
                f"frame stack: found frames {frames.shape} {frames.dtype}; required: "
                f"{self._frames.shape} {self._frames.dtype}. Go on with the settings that the "
                "checkpoint was made with"
            )
        self._frames = frames.copy()

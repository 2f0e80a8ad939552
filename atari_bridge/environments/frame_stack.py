"""Frame stacking: the last S frames of N environments."""

import numpy as np


class FrameStack:
    """The last S frames of N environments.

    Stacks that begin before the episode repeat its first frame.

    Args:
        num_envs: N.
        frames: S, at least 1; 1 where observations are vectors.
        observation_shape: Of one frame: `(C, H, W)`, or `(D,)` of a vector.
        observation_dtype: Of one frame.

    Raises:
        ValueError: If S is less than 1, or more where observations are vectors.
    """

    def __init__(
        self,
        num_envs: int,
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
        self._frames = np.zeros((num_envs, frames, *observation_shape), observation_dtype)

    @property
    def newest(self) -> np.ndarray:
        """`[N, *observation_shape]`, the last frames: a view that the next push overwrites."""
        return self._frames[:, -1]

    @property
    def stacks(self) -> np.ndarray:
        """`[N, S*C, H, W]`, oldest first, or `[N, D]`: a copy."""
        count, frames, channels, *rest = self._frames.shape
        # [N, S, C, H, W] -> [N, S*C, H, W], or [N, 1, D] -> [N, D]
        return self._frames.reshape(count, frames * channels, *rest).copy()

    def reset(self, env_index: np.ndarray, observation: np.ndarray) -> None:
        """Fills the stacks of environments `[M]` with their frames of `observation` `[N, ...]`."""
        self._frames[env_index] = observation[env_index, None]

    def push(self, observation: np.ndarray) -> None:
        """Appends the newest frames `[N, *observation_shape]`."""
        self._frames[:, :-1] = self._frames[:, 1:]
        self._frames[:, -1] = observation

    def state(self) -> np.ndarray:
        """`[N, S, *observation_shape]`, for a checkpoint."""
        return self._frames.copy()

    def load_state(self, frames: np.ndarray) -> None:
        """Restores `state`.

        Raises:
            ValueError: If the frames are those of other environments or another S.
        """
        if frames.shape != self._frames.shape or frames.dtype != self._frames.dtype:
            raise ValueError(
                f"frame stack: found frames {frames.shape} {frames.dtype}; required: "
                f"{self._frames.shape} {self._frames.dtype}. Go on with the settings that the "
                "checkpoint was made with"
            )
        self._frames = frames.copy()

"""What the rooms of this package ask of environments: N of them, stepped together.

This file knows no game. Environments never begin anew by themselves, and everything that happens
in an episode is decided by its seed and its actions: that is what lets a killed run go on exactly
(`restoring.py`).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class VectorStep:
    """What one decision in each of N environments brought.

    Attributes:
        observation: `[N, *observation_shape]` after the step; of an ended episode its last one.
        reward: `[N]` float32, raw (unclipped).
        terminated: `[N]` bool, the game ended.
        truncated: `[N]` bool, only the clock ran out (never together with `terminated`).
        life_lost: `[N]` bool, a life was lost in this step (the game may go on).
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    life_lost: np.ndarray


class VectorEnvironment(Protocol):
    """N environments of one kind, with numbered actions and array observations.

    Attributes:
        num_environments: N.
        num_actions: A.
        frame_skip: Emulator frames a decision; 1 where there is no emulator.
        observation_shape: Of one frame: `(C, H, W)` of an image, `(D,)` of a vector.
        observation_dtype: uint8 of images, float32 of vectors.
        action_meanings: A names.
    """

    num_environments: int
    num_actions: int
    frame_skip: int
    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    action_meanings: tuple[str, ...]

    def reset(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Begins episodes; the other environments stay as they are.

        The first call begins all N.

        Args:
            rows: `[M]` int64, the environments to begin anew.
            seeds: `[M]` int64 of their episodes, each 0 to 2**31 - 1.

        Returns:
            `[N, *observation_shape]`, what all environments show now. Arrays handed out are never
            written to again.

        Raises:
            ValueError: If rows or seeds are none such.
        """
        ...

    def step(self, actions: np.ndarray) -> VectorStep:
        """Takes one decision in each environment.

        Args:
            actions: `[N]` int64.

        Raises:
            ValueError: If an episode is over and was not begun anew, or there is no such action.
        """
        ...

    def close(self) -> None:
        """Lets go of threads and memory; the environments cannot be used any more."""
        ...

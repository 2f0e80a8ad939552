"""The interface of vector environments: N environments of one kind, stepped together.

Environments are never reset automatically, and an episode is determined by its seed and its
actions, so that a run that is resumed can replay it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

_SEEDS = 2**31  # the emulator's seeds are 31 bits


@dataclass(frozen=True)
class VectorStep:
    """The result of one step of N environments.

    Attributes:
        observation: `[N, *observation_shape]` after the step; the last one of an ended episode.
        reward: `[N]` float32, raw (unclipped).
        terminated: `[N]` bool, the game ended.
        truncated: `[N]` bool, a time limit ended the episode; never together with `terminated`.
        life_lost: `[N]` bool, a life was lost in this step; the game may go on.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    life_lost: np.ndarray


class VectorEnvironment(Protocol):
    """N environments of one kind, with discrete actions and array observations.

    Attributes:
        num_envs: N.
        num_actions: A.
        frame_skip: Emulator frames a decision; 1 where there is no emulator.
        observation_shape: Of one frame: `(C, H, W)` of an image, `(D,)` of a vector.
        observation_dtype: uint8 of images, float32 of vectors.
        action_meanings: Names of the actions.
    """

    num_envs: int
    num_actions: int
    frame_skip: int
    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    action_meanings: tuple[str, ...]

    def reset(self, env_index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Begins episodes in some environments; the first call must name all.

        Args:
            env_index: `[M]` int64, the environments.
            seeds: `[M]` int64 of their episodes, each 0 to 2**31 - 1.

        Returns:
            `[N, *observation_shape]` of all environments. Arrays returned are never written to
            again.

        Raises:
            ValueError: If indices or seeds are out of range.
        """
        ...

    def step(self, actions: np.ndarray) -> VectorStep:
        """Takes one action in each environment.

        Args:
            actions: `[N]` int64.

        Raises:
            ValueError: If an episode is over, or there is no such action.
        """
        ...

    def close(self) -> None:
        """Frees threads and memory."""
        ...


def check_reset(env_index: np.ndarray, seeds: np.ndarray, *, begun: np.ndarray) -> None:
    """Checks the arguments of `VectorEnvironment.reset`.

    Args:
        env_index: `[M]` int64, environments to reset.
        seeds: `[M]` int64.
        begun: `[N]` bool, those that have been reset before.

    Raises:
        ValueError: If indices are not distinct and below N, seeds are not 31-bit numbers, one for
            each, or an environment would still not be begun.
    """
    count = len(begun)
    if (
        env_index.ndim != 1
        or not np.issubdtype(env_index.dtype, np.integer)
        or len(np.unique(env_index)) != len(env_index)
        or ((env_index < 0) | (env_index >= count)).any()
    ):
        raise ValueError(
            f"reset: found env_index {env_index!r}; required: distinct integers from 0 to "
            f"{count - 1}. Name each environment to reset once"
        )
    if (
        seeds.shape != env_index.shape
        or not np.issubdtype(seeds.dtype, np.integer)
        or ((seeds < 0) | (seeds >= _SEEDS)).any()
    ):
        raise ValueError(
            f"reset: found seeds {seeds!r} for {len(env_index)} environments; required: an integer "
            f"from 0 to {_SEEDS - 1} for each. Draw seeds of 31 bits"
        )
    never = np.setdiff1d(np.flatnonzero(~begun), env_index)
    if len(never):
        raise ValueError(
            f"reset: found environments {never.tolist()} that were never begun; required: the "
            "first reset begins all. Name all environments first"
        )


def check_step(actions: np.ndarray, num_actions: int, *, under_way: np.ndarray) -> None:
    """Checks the arguments of `VectorEnvironment.step`.

    Without this, ale-py's threads would die of an action out of range and the call never return,
    and gymnasium would step past the end of an episode.

    Args:
        actions: `[N]` int64.
        num_actions: A.
        under_way: `[N]` bool, False where the episode is over or none was begun.

    Raises:
        ValueError: If actions are not N integers below A, or an environment is not under way.
    """
    if (
        actions.shape != under_way.shape
        or not np.issubdtype(actions.dtype, np.integer)
        or ((actions < 0) | (actions >= num_actions)).any()
    ):
        raise ValueError(
            f"step: found actions {actions!r}; required: {len(under_way)} integers from 0 to "
            f"{num_actions - 1}. Pass one action for each environment"
        )
    if not under_way.all():
        raise ValueError(
            f"step: found environments {np.flatnonzero(~under_way).tolist()} that are not under "
            "way; required: episodes that are begun and not over. Reset those environments first"
        )

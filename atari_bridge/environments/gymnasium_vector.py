"""N Gymnasium environments of one id, stepped one after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np

from atari_bridge.environments.gymnasium_make import make_environment, running_environment
from atari_bridge.environments.interface import VectorStep, check_reset, check_step

_MOST_ACTIONS = 2**16
_LARGEST_VECTOR = 4096  # numbers; more are probably an image of another dtype


class GymnasiumEnvironments:
    """N Gymnasium environments as a `VectorEnvironment`; `frame_skip` is 1.

    Observations of uint8 or bool with shape `[H, W]` or `[H, W, C]` (any C, MinAtar's planes for
    one) become images `[C, H, W]` uint8, where a plane's True is 255. All other boxes of up to
    4096 numbers become vectors `[D]` float32.

    Each episode has an environment of its own, so that it depends on its seed and actions alone.
    `life_lost` is always False.

    Args:
        gymnasium_id: As registered, with its version ("CartPole-v1"). "module:id" imports the
            module that registers it.
        num_envs: N.

    Raises:
        ImportError: Without gymnasium, or what the environment needs.
        ValueError: If no such environment is registered, it is an Atari game, its actions or
            observations cannot be used, or its own code fails.
    """

    def __init__(self, gymnasium_id: str, num_envs: int) -> None:
        self._id = gymnasium_id
        self._environments = [make_environment(gymnasium_id) for _ in range(num_envs)]
        one = self._environments[0]
        self.num_actions, self._first_action = _actions(gymnasium_id, one.action_space)
        self._convert, self.observation_shape, self.observation_dtype = _observations(
            gymnasium_id, one.observation_space
        )
        self.num_envs = num_envs
        self.frame_skip = 1
        with running_environment(gymnasium_id, "queried for its action meanings"):
            self.action_meanings = _meanings(one, self._first_action, self.num_actions)
        self._under_way = np.zeros(num_envs, bool)
        self._begun = np.zeros(num_envs, bool)
        self._observation = np.zeros((num_envs, *self.observation_shape), self.observation_dtype)

    def reset(self, env_index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Begins episodes; see `VectorEnvironment`."""
        env_index, seeds = np.asarray(env_index), np.asarray(seeds)
        check_reset(env_index, seeds, begun=self._begun)
        for env, seed in zip(env_index.tolist(), seeds.tolist(), strict=True):
            if self._begun[env]:
                # Seeding does not reset everything: MinAtar's sticky actions keep the last action
                # of the episode before.
                with running_environment(self._id, "closed"):
                    self._environments[env].close()
                self._environments[env] = make_environment(self._id)
            with running_environment(self._id, "reset"):
                observation, _ = self._environments[env].reset(seed=seed)
            self._show(env, observation)
        self._begun[env_index] = True
        self._under_way[env_index] = True
        return self._observation.copy()

    def step(self, actions: np.ndarray) -> VectorStep:
        """Takes one decision in each environment; see `VectorEnvironment`."""
        actions = np.asarray(actions)
        check_step(actions, self.num_actions, under_way=self._under_way)
        reward = np.zeros(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        for env, action in enumerate(actions.tolist()):
            # A reward beyond float32 becomes infinite, which is refused below.
            with running_environment(self._id, "stepped"), np.errstate(over="ignore"):
                observation, reward[env], *ended, _ = self._environments[env].step(
                    self._first_action + action
                )
                terminated[env], truncated[env] = map(_flag, ended)
            self._show(env, observation)
        if not np.isfinite(reward).all():
            raise ValueError(
                f"game {self._id!r}: found rewards {reward.tolist()}; required: finite numbers, "
                "for one that is not ruins every weight. Mend the environment, or register one "
                "that wraps this one's rewards"
            )
        self._under_way = ~(terminated | truncated)
        return VectorStep(
            observation=self._observation.copy(),
            reward=reward,
            terminated=terminated,
            truncated=truncated & ~terminated,
            life_lost=np.zeros(self.num_envs, bool),
        )

    def _show(self, env: int, observation: Any) -> None:
        """Stores an observation, if it fits the observation space."""
        with running_environment(self._id, "read"), np.errstate(over="ignore"):
            shown = self._convert(observation)
        finite = shown.dtype == np.uint8 or bool(np.isfinite(shown).all())
        if shown.shape != self.observation_shape or not finite:
            promised = self._environments[env].observation_space
            raise ValueError(
                f"game {self._id!r}: found an observation of shape {np.shape(observation)}"
                f"{'' if finite else ' with numbers that are not finite'}; required: what its "
                f"observation_space promises, {promised}. Mend the environment"
            )
        self._observation[env] = shown

    def close(self) -> None:
        """Closes the environments."""
        self._begun[:] = False
        self._under_way[:] = False
        for environment in self._environments:
            with running_environment(self._id, "closed"):
                environment.close()


def _flag(ended: Any) -> bool:
    """A flag that `step` returned; anything but a truth value is refused."""
    if isinstance(ended, bool | np.bool | int):
        return bool(ended)
    raise TypeError(f"terminated and truncated are bool, found {type(ended).__name__}")


def _actions(gymnasium_id: str, space: Any) -> tuple[int, int]:
    """The number of actions, and Gymnasium's number of the first."""
    from gymnasium.spaces import Discrete

    if not isinstance(space, Discrete):
        raise ValueError(
            f"game {gymnasium_id!r}: found actions {space}; required: Discrete, for the search "
            "numbers its actions. Choose another environment, or register one that wraps this "
            "one's actions"
        )
    if space.n > _MOST_ACTIONS:
        raise ValueError(
            f"game {gymnasium_id!r}: found {space.n} actions; required: at most {_MOST_ACTIONS}, "
            "for each has a row in every tree. Register an environment that wraps this one's "
            "actions"
        )
    return int(space.n), int(space.start)


def _observations(
    gymnasium_id: str, space: Any
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...], np.dtype]:
    """The conversion of an observation, and its resulting shape and dtype."""
    from gymnasium.spaces import Box

    if not isinstance(space, Box):
        raise ValueError(
            f"game {gymnasium_id!r}: found observations {space}; required: a Box. Choose another "
            "environment, or register one that wraps this one's observations (for instance by "
            "gymnasium's FlattenObservation)"
        )
    if len(space.shape) in (2, 3) and space.dtype in (np.dtype(np.uint8), np.dtype(bool)):
        height, width, channels = (*space.shape, 1)[:3]
        if len(space.shape) == 3 and height <= 4 < channels:
            raise ValueError(
                f"game {gymnasium_id!r}: found images of shape {space.shape}, which look like "
                "[C, H, W]; required: [H, W, C]. Register an environment that wraps this one and "
                "moves the first axis to the end"
            )
        convert = _planes_to_image if space.dtype == np.dtype(bool) else _to_image
        return convert, (channels, height, width), np.dtype(np.uint8)
    size = int(np.prod(space.shape))
    if size > _LARGEST_VECTOR:
        raise ValueError(
            f"game {gymnasium_id!r}: found observations {space} of {size} numbers; required: "
            f"images of uint8 or bool, or at most {_LARGEST_VECTOR} numbers. Register an "
            "environment that wraps this one's observations"
        )
    return _to_vector, (size,), np.dtype(np.float32)


def _to_image(observation: np.ndarray) -> np.ndarray:
    image = np.asarray(observation)
    # [H, W] -> [1, H, W]; [H, W, C] -> [C, H, W]
    return image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)


def _planes_to_image(observation: np.ndarray) -> np.ndarray:
    return _to_image(np.asarray(observation, bool)) * np.uint8(255)


def _to_vector(observation: np.ndarray) -> np.ndarray:
    return np.asarray(observation, np.float32).reshape(-1)


def _meanings(environment: Any, first: int, count: int) -> tuple[str, ...]:
    """Names of the actions where the environment has them; else their numbers."""
    meanings = getattr(environment.unwrapped, "get_action_meanings", None)
    if meanings is not None and len(names := meanings()) == count:
        return tuple(str(name) for name in names)
    return tuple(str(first + action) for action in range(count))

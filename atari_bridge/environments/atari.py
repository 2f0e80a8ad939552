"""N Atari games on ale-py's vector of emulators, which runs them in threads.

Its own resets, frame stacks and time limits are not used.
"""

import os

import numpy as np

from atari_bridge.environments.games import rom_name
from atari_bridge.environments.interface import VectorStep, check_reset, check_step

_NEVER = 2**30  # frames; more would overflow the emulators' own counter


class AtariEnvironments:
    """N Atari games as a `VectorEnvironment` with images `[C, image_size, image_size]` uint8.

    A decision repeats one action for `frame_skip` frames; its observation is the pixelwise maximum
    of the last two, downscaled by area. Rewards are raw, and a lost life does not end an episode.
    The last observation of a terminated game is the one before its last decision (emulators render
    none after it); no value is bootstrapped there. A reset costs about 0.13 s (150 decisions),
    since a seed takes effect only when the game is loaded. As in EfficientZero, no FIRE is pressed
    at the start.

    Args:
        game: Its name ("MsPacman").
        num_envs: N.
        frame_skip: Emulator frames a decision, at least 1.
        image_size: Pixels.
        grayscale: One channel (luminance) instead of red, green and blue.
        noop_max: Most no-op frames at the start of an episode; its seed draws their number.
        repeat_action_probability: Probability with which a frame repeats the action of the one
            before, drawn
            by the episode's seed.
        full_action_space: All 18 actions.
        max_episode_frames: An episode is truncated at the end of the decision that reaches so many
            frames, no-ops at the start included.

    Raises:
        ImportError: Without ale-py or gymnasium.
        ValueError: If there is no such game.

    Source: Mnih et al. 2015 (frame skip, maximum of two frames, no-ops); Machado et al. 2018
        (sticky actions).
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        frame_skip: int = 4,
        image_size: int = 96,
        grayscale: bool = False,
        noop_max: int = 30,
        repeat_action_probability: float = 0.0,
        full_action_space: bool = False,
        max_episode_frames: int = 108_000,
    ) -> None:
        rom = rom_name(game)
        try:
            from ale_py.vector_env import AtariVectorEnv
        except ImportError as error:
            raise ImportError(
                f"game {game!r}: found no gymnasium, which ale-py's vector of emulators builds on; "
                "required for Atari games. Install it by pip install 'prefsearch[atari]'"
            ) from error
        self._emulators = AtariVectorEnv(
            rom,
            num_envs,
            num_threads=min(num_envs, _processors()),
            # A game that is over is reset by the next step, which `step` refuses to make.
            autoreset_mode="NextStep",
            # The vector's own truncation returns a mixture of two frames, of which a value would
            # be predicted; `step` truncates instead.
            max_num_frames_per_episode=_NEVER,
            img_height=image_size,
            img_width=image_size,
            grayscale=grayscale,
            stack_num=1,
            frameskip=frame_skip,
            maxpool=True,
            noop_max=noop_max + 1,  # exclusive there
            use_fire_reset=False,
            episodic_life=False,
            reward_clipping=False,
            repeat_action_probability=repeat_action_probability,
            full_action_space=full_action_space,
        )
        self.num_envs = num_envs
        self.frame_skip = frame_skip
        self.observation_shape: tuple[int, ...] = (1 if grayscale else 3, image_size, image_size)
        self.observation_dtype = np.dtype(np.uint8)
        self.action_meanings = tuple(action.name for action in self._emulators.ale.get_action_set())
        self.num_actions = len(self.action_meanings)
        self._max_episode_frames = max_episode_frames
        self._begun = np.zeros(num_envs, bool)
        self._under_way = np.zeros(num_envs, bool)
        self._lives = np.zeros(num_envs, np.int32)
        self._frames = np.zeros(num_envs, np.int64)

    def reset(self, env_index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Begins episodes; see `VectorEnvironment`."""
        env_index, seeds = np.asarray(env_index), np.asarray(seeds)
        check_reset(env_index, seeds, begun=self._begun)
        mask = np.zeros(self.num_envs, bool)
        mask[env_index] = True
        in_order = seeds[np.argsort(env_index)].astype(np.int64)
        observation, info = self._emulators.reset(
            seed=in_order, options=None if mask.all() else {"reset_mask": mask}
        )
        self._begun |= mask
        self._under_way |= mask
        self._note(info)
        return self._frame(observation)

    def step(self, actions: np.ndarray) -> VectorStep:
        """Takes one decision in each game; see `VectorEnvironment`."""
        actions = np.asarray(actions)
        check_step(actions, self.num_actions, under_way=self._under_way)
        observation, reward, terminated, _, info = self._emulators.step(actions.astype(np.int64))
        lives_before = self._lives
        self._note(info)
        terminated = np.array(terminated, bool)
        truncated = (self._frames >= self._max_episode_frames) & ~terminated
        self._under_way = ~(terminated | truncated)
        return VectorStep(
            observation=self._frame(observation),
            reward=np.array(reward, np.float32),
            terminated=terminated,
            truncated=truncated,
            life_lost=self._lives < lives_before,
        )

    def close(self) -> None:
        """Ends the emulators' threads."""
        self._under_way[:] = False
        self._begun[:] = False
        del self._emulators

    def _note(self, info: dict[str, np.ndarray]) -> None:
        self._lives = info["lives"].copy()
        self._frames = info["episode_frame_number"].astype(np.int64)

    def _frame(self, observation: np.ndarray) -> np.ndarray:
        """The vector's one-frame stacks `[N, 1, H, W]` or `[N, 1, H, W, 3]`, as `[N, C, H, W]`."""
        if observation.ndim == 4:
            return observation
        return np.ascontiguousarray(np.moveaxis(observation[:, 0], -1, 1))


def _processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

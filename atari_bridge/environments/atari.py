"""N games of one Atari title on ale-py's vector of emulators, which runs them in threads.

This file knows nothing of what is learned: rewards are raw, and a lost life ends nothing. The
vector's own way of beginning anew, of stacking frames and of ending episodes is not used.
"""

import os

import numpy as np

from atari_bridge.environments.checking import check_reset, check_step
from atari_bridge.environments.games import rom_name
from atari_bridge.environments.interface import VectorStep

_NEVER = 2**30  # frames; more would overflow the emulators' own counter


class AtariEnvironments:
    """N games, a `VectorEnvironment` with images `[C, image_size, image_size]` uint8.

    A decision presses one action for `frame_skip` frames; the frame seen is the pixelwise maximum
    of the last two, scaled by areas. Observations of games that are over show what was seen before
    the last decision, since the emulators take no picture of the end; nothing is predicted there.

    Each game begun costs about 0.13 s (150 decisions), for only a game loaded anew takes a seed.

    No FIRE is pressed for the agent at the start, and none is in EfficientZero.

    Args:
        game: Its name ("MsPacman").
        num_environments: N.
        frame_skip: Emulator frames a decision, at least 1.
        image_size: Pixels.
        grayscale: One channel (luminance) instead of red, green and blue.
        noop_max: An episode opens with 0 to so many frames of no-op, drawn by its seed.
        sticky_actions: Probability with which a frame repeats the action of the one before; drawn
            by the episode's seed, too.
        full_action_space: All 18 actions.
        max_episode_frames: An episode is truncated once it has so many frames, opening included.
            The decision under way is finished, so that it may have up to `frame_skip` - 1 more.
        num_threads: Of the emulators. None: one for each game or processor, whichever are fewer.

    Raises:
        ImportError: Without ale-py or gymnasium.
        ValueError: If there is no such game.

    Source: Mnih et al. 2015 (frame skip, maximum of two frames, no-ops); Machado et al. 2018
        (sticky actions).
    """

    def __init__(
        self,
        game: str,
        num_environments: int,
        *,
        frame_skip: int = 4,
        image_size: int = 96,
        grayscale: bool = False,
        noop_max: int = 30,
        sticky_actions: float = 0.0,
        full_action_space: bool = False,
        max_episode_frames: int = 108_000,
        num_threads: int | None = None,
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
            num_environments,
            num_threads=num_threads or min(num_environments, _processors()),
            # In this mode a game that is over waits for the call after; in the other it begins
            # anew within the step that ended it. `step` refuses to make that call.
            autoreset_mode="NextStep",
            # Games that the vector truncates show a mixture of two frames last; a value must be
            # predicted from that picture, so `step` truncates them instead.
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
            repeat_action_probability=sticky_actions,
            full_action_space=full_action_space,
        )
        self.num_environments = num_environments
        self.frame_skip = frame_skip
        self.observation_shape: tuple[int, ...] = (1 if grayscale else 3, image_size, image_size)
        self.observation_dtype = np.dtype(np.uint8)
        self.action_meanings = tuple(action.name for action in self._emulators.ale.get_action_set())
        self.num_actions = len(self.action_meanings)
        self._max_episode_frames = max_episode_frames
        self._begun = np.zeros(num_environments, bool)
        self._under_way = np.zeros(num_environments, bool)
        self._lives = np.zeros(num_environments, np.int32)
        self._frames = np.zeros(num_environments, np.int64)

    @property
    def episode_frames(self) -> np.ndarray:
        """`[N]` int64, emulator frames since the episodes began, opening no-ops included."""
        return self._frames.copy()

    def reset(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Begins episodes; see `VectorEnvironment`."""
        rows, seeds = np.asarray(rows), np.asarray(seeds)
        check_reset(rows, seeds, begun=self._begun)
        mask = np.zeros(self.num_environments, bool)
        mask[rows] = True
        in_order = seeds[np.argsort(rows)].astype(np.int64)
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

"""Self-play: N environments stepped together, with one batched search for every decision.

An episode is determined by its seed and its actions, so these are all that a checkpoint keeps of
the episodes under way.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from atari_bridge.acting.episode_resume import reproduce_episodes
from atari_bridge.environments.frame_stack import FrameStack
from atari_bridge.environments.interface import VectorEnvironment, VectorStep
from atari_bridge.replay.rows import Rows
from search import Planner, PlanningModel


@dataclass(frozen=True)
class Episode:
    """A finished episode.

    Attributes:
        game_return: Sum of raw rewards over the whole game, all lives included.
        decisions: Its length.
    """

    game_return: float
    decisions: int


@dataclass(frozen=True)
class SelfPlayOutput:
    """The result of one or more decisions in each of N environments.

    Attributes:
        rows: In the order in which a replay takes them: N decisions, then the last observations of
            the episodes that ended.
        episodes: Episodes that ended.
    """

    rows: list[Rows]
    episodes: list[Episode]


def episode_seed(seed: int, env_index: int, episode: int) -> int:
    """The seed of an environment's n-th episode: 31 bits of a hash."""
    digest = hashlib.sha256(f"{seed}/{env_index}/{episode}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass
class SelfPlay:
    """`Actors` in this process, which make one decision in every environment at a time.

    Attributes:
        environment: N environments.
        model: Plans from stacks `[N, S*C, H, W]` uint8 or vectors `[N, D]`.
        planner: The planner at a fraction of the run, 0 to 1.
        generator: Source of the searches' randomness.
        frame_stack: S, frames of an observation.
        seed: Of all episodes.
        first_env_index: Index of the first environment, where several workers share a run.
        terminal_on_life_loss: Whether the learner sees a lost life as the end of an episode.
    """

    environment: VectorEnvironment
    model: PlanningModel
    planner: Callable[[float], Planner]
    generator: torch.Generator
    frame_stack: int
    seed: int
    first_env_index: int = 0
    terminal_on_life_loss: bool = True
    _stack: FrameStack = field(init=False, repr=False)
    _games: np.ndarray = field(init=False, repr=False)  # [N] number of each environment's episode
    _actions: list[list[int]] = field(init=False, repr=False)  # of the episodes under way
    _returns: np.ndarray = field(init=False, repr=False)  # [N] float64
    _first: np.ndarray = field(init=False, repr=False)  # [N] bool

    def __post_init__(self) -> None:
        """Begins N episodes."""
        count = self.environment.num_envs
        self._stack = FrameStack(
            count,
            self.frame_stack,
            self.environment.observation_shape,
            self.environment.observation_dtype,
        )
        self._games = np.full(count, -1, np.int64)
        self._actions = [[] for _ in range(count)]
        self._returns = np.zeros(count)
        self._first = np.ones(count, bool)
        self._begin(np.arange(count))

    @property
    def env_index(self) -> np.ndarray:
        """`[N]` int64, the environments' indices."""
        return self.first_env_index + np.arange(self.environment.num_envs)

    def play(self, *, decisions_made: int, progress: float) -> SelfPlayOutput:
        """Takes one decision in every environment; see `Actors`."""
        planner, stacks = self.planner(progress), torch.from_numpy(self._stack.stacks)
        output = planner.plan(self.model, stacks, generator=self.generator)
        actions = output.action.cpu().numpy()  # host synchronization: environments run there
        frame, first = self._stack.newest.copy(), self._first.copy()
        step = self.environment.step(actions)
        ended = step.terminated | step.truncated
        lost = step.life_lost & ~ended if self.terminal_on_life_loss else np.zeros_like(ended)
        rows = [
            Rows(
                env_index=self.env_index,
                frame=frame,
                action=actions,
                reward=step.reward,
                terminated=step.terminated | lost,
                truncated=step.truncated,
                first=first,
                void=np.zeros_like(ended),
                made_at=np.full(len(actions), decisions_made, np.int64),
                policy=output.action_weights.float().cpu().numpy(),
                value=output.value.float().cpu().numpy(),
            )
        ]
        self._returns += step.reward
        for env, action in enumerate(actions.tolist()):
            self._actions[env].append(action)
        self._stack.push(step.observation)
        # The last frame of a lost life is also the first of the next.
        self._stack.reset(np.flatnonzero(lost), step.observation)
        self._first = lost
        episodes = []
        if ended.any():
            over = np.flatnonzero(ended)
            rows.append(self._last_observations(over, step, decisions_made))
            episodes = [Episode(float(self._returns[n]), len(self._actions[n])) for n in over]
            self._begin(over)
        return SelfPlayOutput(rows, episodes)

    def _last_observations(self, over: np.ndarray, step: VectorStep, decisions_made: int) -> Rows:
        """Void rows of the episodes `over` `[M]`; their values bootstrap truncated ones."""
        with torch.inference_mode():
            stacks = torch.from_numpy(self._stack.stacks[over])
            root = self.model.root(stacks, generator=self.generator)
        ones = np.ones(len(over), bool)
        return Rows(
            env_index=self.env_index[over],
            frame=step.observation[over],
            action=np.zeros(len(over), np.int64),
            reward=np.zeros(len(over), np.float32),
            terminated=~ones,
            truncated=~ones,
            first=~ones,
            void=ones,
            made_at=np.full(len(over), decisions_made, np.int64),
            policy=np.zeros((len(over), self.environment.num_actions), np.float32),
            value=root.value.float().cpu().numpy(),
        )

    def _seeds(self, envs: np.ndarray) -> np.ndarray:
        """`[M]` seeds of the episodes under way in the environments `[M]`."""
        numbers = [(int(self.env_index[n]), int(self._games[n])) for n in envs]
        return np.array([episode_seed(self.seed, *pair) for pair in numbers], np.int64)

    def _begin(self, over: np.ndarray) -> None:
        """Begins the next episode in each of the environments `over` `[M]`."""
        self._games[over] += 1
        self._stack.reset(over, self.environment.reset(over, self._seeds(over)))
        for env in over:
            self._actions[env] = []
        self._returns[over] = 0
        self._first[over] = True

    def interrupted_envs(self) -> list[int]:
        """None."""
        return []

    def close(self) -> None:
        """Nothing to end; the environment is the caller's."""

    def state(self) -> dict[str, np.ndarray]:
        """Arrays for a checkpoint, see `restore`."""
        return {
            "games": self._games.copy(),
            "lengths": np.array([len(actions) for actions in self._actions], np.int64),
            "actions": np.array([a for actions in self._actions for a in actions], np.int64),
            "returns": self._returns.copy(),
            "first": self._first.copy(),
            "stack_frames": self._stack.state(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores `state` by replaying the episodes under way.

        Raises:
            ValueError: If the environments do not return the same observations.
        """
        self._games = state["games"].copy()
        self._returns = state["returns"].copy()
        self._first = state["first"].copy()
        cuts = np.cumsum(state["lengths"])[:-1]
        self._actions = [part.tolist() for part in np.split(state["actions"], cuts)]
        observation = reproduce_episodes(
            self.environment,
            self._seeds(np.arange(self.environment.num_envs)),
            [np.array(actions, np.int64) for actions in self._actions],
        )
        self._stack.load_state(state["stack_frames"])
        wrong = (observation != self._stack.newest).reshape(len(observation), -1).any(axis=1)
        if wrong.any():
            raise ValueError(
                f"self-play: found other observations in environments {np.flatnonzero(wrong)} "
                "after replaying their episodes; required: environments determined by seed and "
                "actions. Check that the environment and its version are those of the checkpoint"
            )

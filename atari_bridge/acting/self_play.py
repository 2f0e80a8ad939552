"""Self-play: N environments side by side, every decision planned for all of them in one batch.

What was seen and found comes out as `Rows`; this file does not know where rows are kept, nor what
is learned from them. An episode is decided by its seed and its actions alone, so that is all that
has to be remembered of it to go on after a kill.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from atari_bridge.environments.frame_stack import FrameStack
from atari_bridge.environments.interface import VectorEnvironment, VectorStep
from atari_bridge.environments.restoring import replay_episodes
from atari_bridge.replay.rows import Rows
from search import Planner, PlanningModel


@dataclass(frozen=True)
class Episode:
    """A finished game.

    Attributes:
        game_return: Sum of raw rewards over the whole game, lost lives included.
        decisions: How many were taken.
        lane: The environment.
    """

    game_return: float
    decisions: int
    lane: int


@dataclass(frozen=True)
class Played:
    """What one decision in each of N environments left behind.

    Attributes:
        rows: To be appended to a replay in this order: N decisions first; then, where games ended,
            what was last seen of them.
        episodes: Games that ended.
    """

    rows: list[Rows]
    episodes: list[Episode]


def episode_seed(seed: int, lane: int, episode: int) -> int:
    """The seed of a lane's n-th game: 31 bits of a hash, so that neighbors have nothing to do."""
    digest = hashlib.sha256(f"{seed}/{lane}/{episode}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass
class SelfPlay:
    """N games under way.

    Attributes:
        environment: Theirs.
        frame_stack: S, frames of an observation.
        seed: Of all games to come.
        first_lane: Number of the first lane; several processes count theirs on.
        life_loss_ends: Whether a lost life is an end to the learner.
    """

    environment: VectorEnvironment
    frame_stack: int
    seed: int
    first_lane: int = 0
    life_loss_ends: bool = True
    _stack: FrameStack = field(init=False, repr=False)
    _games: np.ndarray = field(init=False, repr=False)  # [N] number of each lane's game
    _actions: list[list[int]] = field(init=False, repr=False)  # of the games under way
    _returns: np.ndarray = field(init=False, repr=False)  # [N] float64
    _first: np.ndarray = field(init=False, repr=False)  # [N] bool

    def __post_init__(self) -> None:
        """Begins N games."""
        lanes = self.environment.num_environments
        self._stack = FrameStack(
            lanes,
            self.frame_stack,
            self.environment.observation_shape,
            self.environment.observation_dtype,
        )
        self._games = np.full(lanes, -1, np.int64)
        self._actions = [[] for _ in range(lanes)]
        self._returns = np.zeros(lanes)
        self._first = np.ones(lanes, bool)
        self._begin(np.arange(lanes))

    @property
    def lanes(self) -> np.ndarray:
        """`[N]` int64, the lanes' numbers."""
        return self.first_lane + np.arange(self.environment.num_environments)

    def play(
        self,
        model: PlanningModel,
        planner: Planner,
        *,
        decisions_made: int,
        generator: torch.Generator,
    ) -> Played:
        """Plans and takes one decision in every environment.

        Args:
            model: Plans from stacks `[N, S*C, H, W]` uint8 or vectors `[N, D]`.
            planner: Finds the actions.
            decisions_made: Of the whole run so far; noted in the rows.
            generator: Source of the planner's randomness.
        """
        output = planner.plan(model, torch.from_numpy(self._stack.stacks), generator=generator)
        actions = output.action.cpu().numpy()  # host synchronization: the games are played there
        frame, first = self._stack.newest.copy(), self._first.copy()
        step = self.environment.step(actions)
        ended = step.terminated | step.truncated
        lost = step.life_lost & ~ended if self.life_loss_ends else np.zeros_like(ended)
        rows = [
            Rows(
                lanes=self.lanes,
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
        for lane, action in enumerate(actions.tolist()):
            self._actions[lane].append(action)
        self._stack.push(step.observation)
        # What a life's loss showed last is also what the next life shows first.
        self._stack.reset(np.flatnonzero(lost), step.observation)
        self._first = lost
        episodes = []
        if ended.any():
            over = np.flatnonzero(ended)
            rows.append(self._last_seen(over, step, model, decisions_made, generator))
            episodes = [
                Episode(float(self._returns[lane]), len(self._actions[lane]), int(self.lanes[lane]))
                for lane in over
            ]
            self._begin(over)
        return Played(rows, episodes)

    def _last_seen(
        self,
        over: np.ndarray,
        step: VectorStep,
        model: PlanningModel,
        decisions_made: int,
        generator: torch.Generator,
    ) -> Rows:
        """What was last seen of the games `over` `[M]`; a truncated one has a value there."""
        with torch.inference_mode():
            root = model.root(torch.from_numpy(self._stack.stacks[over]), generator=generator)
        ones = np.ones(len(over), bool)
        return Rows(
            lanes=self.lanes[over],
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

    def _begin(self, over: np.ndarray) -> None:
        """Begins the next game in each of the environments `over` `[M]`."""
        self._games[over] += 1
        seeds = [episode_seed(self.seed, int(self.lanes[n]), int(self._games[n])) for n in over]
        observation = self.environment.reset(over, np.array(seeds, np.int64))
        self._stack.reset(over, observation)
        for lane in over:
            self._actions[lane] = []
        self._returns[over] = 0
        self._first[over] = True

    def state(self) -> dict[str, Any]:
        """All that is needed to go on: arrays, to be handed to `restore`."""
        lengths = np.array([len(actions) for actions in self._actions], np.int64)
        played = np.array([a for actions in self._actions for a in actions], np.int64)
        return {
            "games": self._games.copy(),
            "lengths": lengths,
            "actions": played,
            "returns": self._returns.copy(),
            "first": self._first.copy(),
            **{f"stack_{name}": array for name, array in self._stack.state().items()},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to a state by playing its games again up to where they were.

        Raises:
            ValueError: If the environment does not show again what it showed.
        """
        self._games = state["games"].copy()
        self._returns = state["returns"].copy()
        self._first = state["first"].copy()
        cuts = np.cumsum(state["lengths"])[:-1]
        self._actions = [part.tolist() for part in np.split(state["actions"], cuts)]
        seeds = [
            episode_seed(self.seed, int(lane), int(game))
            for lane, game in zip(self.lanes, self._games, strict=True)
        ]
        observation = replay_episodes(
            self.environment,
            np.array(seeds, np.int64),
            [np.array(actions, np.int64) for actions in self._actions],
        )
        stack = {n.removeprefix("stack_"): a for n, a in state.items() if n.startswith("stack_")}
        self._stack.load_state(stack)
        if not np.array_equal(observation, self._stack.newest):
            lanes = np.flatnonzero(
                (observation != self._stack.newest).reshape(len(observation), -1).any(axis=1)
            )
            raise ValueError(
                f"self-play: found other observations in environments {lanes.tolist()} after "
                "playing their episodes again; required: environments decided by seed and actions. "
                "Check that the environment and its version are those of the checkpoint"
            )

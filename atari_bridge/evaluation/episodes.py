"""Evaluation: whole games with raw rewards.

One game is played in each of N environments, so that short games are not overrepresented.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from atari_bridge.acting.self_play import episode_seed
from atari_bridge.environments.frame_stack import FrameStack
from atari_bridge.environments.interface import VectorEnvironment
from prefsearch.statistics.seed_intervals import SeedInterval, interval_over_seeds
from search import Planner, PlanningModel, SearchOutput
from search.planners.muzero import sample_by_visits


@dataclass(frozen=True)
class PolicyOnly:
    """A planner without search: the network's policy, its best action or a sample.

    Attributes:
        sample: Whether to sample the action instead of taking the best.
    """

    sample: bool = False

    @property
    def num_simulations(self) -> int:
        """0."""
        return 0

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Acts by the priors of the roots."""
        with torch.inference_mode():
            root = model.root(observation, generator=generator)
        logits = root.prior_logits.masked_fill(~root.valid_actions, -torch.inf)
        policy = torch.softmax(logits.float(), dim=-1).clone()
        temperature = 1.0 if self.sample else 0.0
        action = sample_by_visits(policy, temperature=temperature, generator=generator)
        return SearchOutput(action, policy, root.value.clone(), None)


@dataclass(frozen=True)
class SampledActions:
    """A planner that samples actions from the search's action weights.

    In deterministic games the best actions can form a loop.

    Attributes:
        planner: Searches.
    """

    planner: Planner

    @property
    def num_simulations(self) -> int:
        """The planner's."""
        return self.planner.num_simulations

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Searches, and samples from the action weights."""
        output = self.planner.plan(model, observation, generator=generator)
        action = sample_by_visits(output.action_weights, temperature=1.0, generator=generator)
        return replace(output, action=action)


@dataclass(frozen=True)
class RandomPolicy:
    """A uniformly random policy, as a planner."""

    num_actions: int

    @property
    def num_simulations(self) -> int:
        """0."""
        return 0

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Samples actions."""
        rows = observation.shape[0]
        policy = torch.full((rows, self.num_actions), 1 / self.num_actions)
        action = torch.randint(self.num_actions, (rows,), generator=generator)
        return SearchOutput(action, policy, torch.zeros(rows), None)


@dataclass(frozen=True)
class Evaluation:
    """Whole games of one agent.

    Attributes:
        returns: Sum of raw rewards of each game.
        decisions: Of each game.
        frames: Emulator frames of all games.
        seconds: Wall clock.
        simulations: Per decision.
        seed: Of the games and the agent.
    """

    returns: list[float]
    decisions: list[int]
    frames: int
    seconds: float
    simulations: int
    seed: int

    @property
    def interval(self) -> SeedInterval:
        """The mean return, with its interval over the games of this one agent."""
        return interval_over_seeds([self.returns], item="games")


def evaluate_agent(
    environment: VectorEnvironment,
    model: PlanningModel,
    planner: Planner,
    *,
    frame_stack: int,
    seed: int,
    max_decisions: int | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> Evaluation:
    """Plays one game in each of N environments.

    Games that are over are not planned for.

    Args:
        environment: N environments; they are reset.
        model: The planning model.
        planner: Chooses the actions.
        frame_stack: S.
        seed: Of the games and the agent; not that of training.
        max_decisions: Games are cut off after so many decisions. None: never.
        on_progress: Called with decisions so far, games over and N, after each decision.

    Returns:
        The games, in the order of the environments.
    """
    started = time.perf_counter()
    games = environment.num_envs
    stack = FrameStack(
        games, frame_stack, environment.observation_shape, environment.observation_dtype
    )
    generator = torch.Generator().manual_seed(seed)
    seeds = np.array([episode_seed(seed, env, 0) for env in range(games)], np.int64)
    stack.reset(np.arange(games), environment.reset(np.arange(games), seeds))
    returns, decisions = np.zeros(games), np.zeros(games, np.int64)
    going = np.ones(games, bool)
    while going.any() and (max_decisions is None or decisions.max() < max_decisions):
        rows = np.flatnonzero(going)
        observation = torch.from_numpy(stack.stacks[rows])
        actions = np.zeros(games, np.int64)
        actions[rows] = planner.plan(model, observation, generator=generator).action.cpu().numpy()
        step = environment.step(actions)
        returns[rows] += step.reward[rows]
        decisions[rows] += 1
        ended = step.terminated | step.truncated
        stack.push(step.observation)
        over = np.flatnonzero(ended)
        if len(over):
            # Environments are only stepped together, so those that are over begin uncounted games.
            fresh = np.array([episode_seed(seed, int(n), 1) for n in over], np.int64)
            stack.reset(over, environment.reset(over, fresh))
        going &= ~ended
        if on_progress is not None:
            on_progress(int(decisions.max()), int((~going).sum()), games)
    return Evaluation(
        returns=[float(value) for value in returns],
        decisions=[int(value) for value in decisions],
        frames=int(decisions.sum()) * environment.frame_skip,
        seconds=time.perf_counter() - started,
        simulations=planner.num_simulations,
        seed=seed,
    )

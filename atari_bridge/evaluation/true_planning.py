"""Plays an Atari game by planning with the emulator itself: no learning, an upper bound.

Each decision is a search of the planning core over `search.ExactModel`, whose steps are true ones;
the tree below the action that is taken is carried over to the next decision. This file does not
know networks, and how a tree is grown is the planner's matter.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from atari_bridge.environments.simulator import AtariSimulator, AtariState
from search.model import PlanningModel
from search.planners.base import SearchOutput, require_float, require_int
from search.reuse import keep_subtree
from search.simulators.exact import ExactModel, LeafEvaluator
from search.tree import Tree


@dataclass(frozen=True)
class HeldRollouts:
    """A `search.LeafEvaluator`: uniform prior, value by random play whose actions are held.

    A rollout draws an action, holds it for 1 to `max_hold` decisions (uniformly), and draws the
    next. Drawn anew at every decision, random actions cancel out: the paddle trembles in place.
    The value is the mean over rollouts of their discounted rewards; after `max_steps` the rest
    counts as 0.

    Attributes:
        simulator: Steps the rollouts.
        num_rollouts: Per state, at least 1.
        max_steps: Decisions of a rollout, at least 1.
        max_hold: Most decisions one action is held, at least 1; 1 is uniform play.
        best: Share of the best rollout in the value, beside the mean; 0 to 1. The emulator is
            certain, so what was found once can be done again; a mean fears what need not be done.
        discount: A decision; the planning model's.

    Raises:
        ValueError: If a number is out of its range.
    """

    simulator: AtariSimulator
    _: KW_ONLY
    num_rollouts: int = 1
    max_steps: int = 20
    max_hold: int = 4
    best: float = 0.0
    discount: float = 0.99

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        for name in ("num_rollouts", "max_steps", "max_hold"):
            require_int(owner, name, getattr(self, name), minimum=1)
        require_float(owner, "best", self.best, maximum=1.0)
        require_float(owner, "discount", self.discount, maximum=1.0)

    def __call__(
        self, states: Sequence[AtariState], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Zeros `[M, A]` and values `[M]`, float32."""
        device = "cpu" if generator is None else generator.device
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
        chance = np.random.default_rng(seed)
        values = [self._value(state, chance) for state in states]
        return torch.zeros(len(states), self.simulator.num_actions), torch.tensor(values)

    def _value(self, state: AtariState, chance: np.random.Generator) -> float:
        if state.ended:
            return 0.0
        returns: list[float] = []
        for _ in range(self.num_rollouts):
            rewards, _ = self.simulator.play_line(state, self._line(chance))
            found = 0.0
            for reward in reversed(rewards):
                found = reward + self.discount * found
            returns.append(found)
        mean = sum(returns) / len(returns)
        return self.best * max(returns) + (1 - self.best) * mean

    def _line(self, chance: np.random.Generator) -> list[int]:
        """`max_steps` actions, held."""
        actions = chance.integers(self.simulator.num_actions, size=self.max_steps).tolist()
        if self.max_hold == 1:
            return actions
        holds = chance.integers(1, self.max_hold + 1, size=self.max_steps)
        return np.repeat(actions, holds)[: self.max_steps].tolist()


class KeepingPlanner(Protocol):
    """A planner that can go on from a kept tree, as `MuZeroPlanner` and `GumbelMuZeroPlanner`."""

    def plan(
        self,
        model: PlanningModel,
        observation: Sequence[AtariState],
        *,
        generator: torch.Generator | None = None,
        kept: Tree | None = None,
    ) -> SearchOutput:
        """Searches from each state; see `search.planners.base.Planner.plan`."""
        ...


@dataclass(frozen=True)
class TrueDecision:
    """What progress is told after each decision.

    Attributes:
        decision: Counted from 1.
        action: Taken.
        score: Raw points so far.
        lives: Left.
        frame: Emulator frames of the episode so far.
        value: The search's, of the state before; None where no search was made.
        state: Where the action led.
    """

    decision: int
    action: int
    score: float
    lives: int
    frame: int
    value: float | None
    state: AtariState


@dataclass(frozen=True)
class TrueEpisode:
    """An episode that was played by planning.

    Attributes:
        score: Raw points.
        decisions: Taken.
        frames: Emulator frames of the episode itself.
        planning_frames: Emulator frames run in all, those of searches included.
        seconds: Wall clock.
        cpu_seconds: Of this process.
        ended: Whether the game was over; False where `max_decisions` or the clock stopped it.
        seed: Of the opening and of the search.
        actions: All that were taken, `[T]`: with the seed they replay the episode.
    """

    score: float
    decisions: int
    frames: int
    planning_frames: int
    seconds: float
    cpu_seconds: float
    ended: bool
    seed: int
    actions: tuple[int, ...]


def play_by_planning(
    simulator: AtariSimulator,
    planner: KeepingPlanner,
    *,
    evaluator: LeafEvaluator,
    discount: float,
    seed: int,
    max_decisions: int | None = None,
    carry_tree: bool = True,
    progress: Callable[[TrueDecision], None] | None = None,
) -> TrueEpisode:
    """Plays one episode, searching at each decision from the true state.

    Args:
        simulator: The game; what it pays and where it terminates is what the search sees. The
            score is raw whatever it pays, and the episode goes on through lost lives.
        planner: Searches.
        evaluator: Values leaves.
        discount: A decision, as the search weighs the future.
        seed: Decides the episode: its opening and all random numbers of the searches.
        max_decisions: Stops the episode; None: only the game or `simulator.max_frames` does.
        carry_tree: Whether the subtree of the action taken is searched on.
        progress: Called after each decision.

    Raises:
        ValueError: If a number is out of its range.
    """
    model = ExactModel(simulator, evaluator, discount=discount, keep_states=carry_tree)
    generator = torch.Generator().manual_seed(seed)
    kept: list[Tree | None] = [None]

    def decide(state: AtariState) -> tuple[int, float]:
        model.release(keep=kept[0])
        output = planner.plan(model, [state], generator=generator, kept=kept[0])
        if carry_tree and output.tree is not None:
            kept[0] = keep_subtree(output.tree, output.action)
        return int(output.action), float(output.value)

    return _play(simulator, decide, seed=seed, max_decisions=max_decisions, progress=progress)


def play_at_random(
    simulator: AtariSimulator, *, seed: int, max_decisions: int | None = None
) -> TrueEpisode:
    """Plays one episode of uniformly random actions: the floor of all comparisons."""
    chance = np.random.default_rng(seed)

    def decide(state: AtariState) -> tuple[int, None]:
        return int(chance.integers(simulator.num_actions)), None

    return _play(simulator, decide, seed=seed, max_decisions=max_decisions, progress=None)


def play_greedily(
    simulator: AtariSimulator, *, seed: int, max_decisions: int | None = None
) -> TrueEpisode:
    """Plays one episode by the best next reward, ties at random: a search one step deep."""
    chance = np.random.default_rng(seed)

    def decide(state: AtariState) -> tuple[int, float]:
        rewards = np.array([simulator.step(state, a).reward for a in range(simulator.num_actions)])
        return int(chance.choice(np.flatnonzero(rewards == rewards.max()))), float(rewards.max())

    return _play(simulator, decide, seed=seed, max_decisions=max_decisions, progress=None)


def _play(
    simulator: AtariSimulator,
    decide: Callable[[AtariState], tuple[int, float | None]],
    *,
    seed: int,
    max_decisions: int | None,
    progress: Callable[[TrueDecision], None] | None,
) -> TrueEpisode:
    """The episode that `decide` plays."""
    require_int("play", "max_decisions", max_decisions, minimum=1, optional=True)
    wall, cpu, emulated = time.perf_counter(), time.process_time(), simulator.frames_emulated
    state = simulator.reset(seed=seed)
    actions: list[int] = []
    truncated = False
    while not (state.ended or truncated or len(actions) == max_decisions):
        action, value = decide(state)
        transition = simulator.step(state, action)
        state, truncated = transition.state, transition.truncated
        actions.append(action)
        if progress is not None:
            progress(
                TrueDecision(
                    decision=len(actions),
                    action=action,
                    score=state.score,
                    lives=state.lives,
                    frame=state.frame,
                    value=value,
                    state=state,
                )
            )
    return TrueEpisode(
        score=state.score,
        decisions=len(actions),
        frames=state.frame,
        planning_frames=simulator.frames_emulated - emulated,
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        ended=state.ended,
        seed=seed,
        actions=tuple(actions),
    )

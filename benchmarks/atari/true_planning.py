"""Plays Atari games by planning with the emulator itself: an upper bound, without learning.

Each decision is a search over `search.ExactModel`; the subtree of the action taken is reused by the
next search.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.atari.emulator import AtariSimulator, AtariState
from search import GumbelMuZeroPlanner, MuZeroPlanner
from search.planners.base import require_float, require_int
from search.reuse import keep_subtree
from search.simulators.exact import ExactModel, LeafEvaluator
from search.tree import Tree


@dataclass(frozen=True)
class HeldRollouts:
    """A `search.LeafEvaluator`: uniform priors, and values by random play with held actions.

    A rollout draws an action, holds it for 1 to `max_hold` decisions (uniformly), and draws the
    next: random actions drawn at every decision would cancel out. Its value is the sum of its
    discounted rewards over `max_steps` decisions.

    Attributes:
        simulator: Steps the rollouts.
        max_steps: Decisions of a rollout, at least 1.
        max_hold: Most decisions that an action is held, at least 1; 1 is uniform play.
        discount: Per decision; the planning model's.

    Raises:
        ValueError: If a number is out of its range.
    """

    simulator: AtariSimulator
    _: KW_ONLY
    max_steps: int = 20
    max_hold: int = 4
    discount: float = 0.99

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        for name in ("max_steps", "max_hold"):
            require_int(owner, name, getattr(self, name), minimum=1)
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
        value = 0.0
        for reward in reversed(self.simulator.play_line(state, self.actions(chance))):
            value = reward + self.discount * value
        return value

    def actions(self, chance: np.random.Generator) -> list[int]:
        """The actions of a rollout, `max_steps` of them."""
        actions = chance.integers(self.simulator.num_actions, size=self.max_steps).tolist()
        if self.max_hold == 1:
            return actions
        holds = chance.integers(1, self.max_hold + 1, size=self.max_steps)
        return np.repeat(actions, holds)[: self.max_steps].tolist()


@dataclass(frozen=True)
class TrueEpisode:
    """An episode that was played by planning.

    Attributes:
        score: Raw points.
        decisions: Its length.
        frames: Emulator frames of the episode itself.
        planning_frames: Emulator frames in all, those of searches included.
        seconds: Wall clock.
        cpu_seconds: Of this process.
        ended: Whether the game was over; False where `max_decisions` or a time limit stopped it.
        seed: Of the episode and of the search.
        actions: `[T]`; with the seed they replay the episode.
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
    planner: GumbelMuZeroPlanner | MuZeroPlanner,
    *,
    evaluator: LeafEvaluator,
    discount: float,
    seed: int,
    max_decisions: int | None = None,
) -> TrueEpisode:
    """Plays one episode, with a search from the true state at each decision.

    Args:
        simulator: The game.
        planner: Searches.
        evaluator: Evaluates leaves.
        discount: Per decision.
        seed: Of the episode and of all random numbers of the searches.
        max_decisions: Stops the episode; None: only the game or its time limit does.
    """
    model = ExactModel(simulator, evaluator, discount=discount, keep_states=True)
    generator = torch.Generator().manual_seed(seed)
    kept: Tree | None = None

    def decide(state: AtariState) -> int:
        nonlocal kept
        model.release(keep=kept)
        output = planner.plan(model, [state], generator=generator, kept=kept)
        if output.tree is not None:
            kept = keep_subtree(output.tree, output.action)
        return int(output.action)

    return _play(simulator, decide, seed=seed, max_decisions=max_decisions)


def play_at_random(
    simulator: AtariSimulator, *, seed: int, max_decisions: int | None = None
) -> TrueEpisode:
    """Plays one episode of uniformly random actions."""
    chance = np.random.default_rng(seed)

    def decide(state: AtariState) -> int:
        return int(chance.integers(simulator.num_actions))

    return _play(simulator, decide, seed=seed, max_decisions=max_decisions)


def play_greedily(
    simulator: AtariSimulator, *, seed: int, max_decisions: int | None = None
) -> TrueEpisode:
    """Plays one episode by the best next reward, ties at random."""
    chance = np.random.default_rng(seed)

    def decide(state: AtariState) -> int:
        rewards = np.array([simulator.step(state, a).reward for a in range(simulator.num_actions)])
        return int(chance.choice(np.flatnonzero(rewards == rewards.max())))

    return _play(simulator, decide, seed=seed, max_decisions=max_decisions)


def _play(
    simulator: AtariSimulator,
    decide: Callable[[AtariState], int],
    *,
    seed: int,
    max_decisions: int | None,
) -> TrueEpisode:
    """Plays the episode of a policy."""
    require_int("play", "max_decisions", max_decisions, minimum=1, optional=True)
    wall, cpu, emulated = time.perf_counter(), time.process_time(), simulator.frames_emulated
    state = simulator.reset(seed=seed)
    actions: list[int] = []
    truncated = False
    while not (state.ended or truncated or len(actions) == max_decisions):
        actions.append(decide(state))
        transition = simulator.step(state, actions[-1])
        state, truncated = transition.state, transition.truncated
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

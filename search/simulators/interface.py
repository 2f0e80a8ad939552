"""The interface of a simulator that can be stepped from any state, and cloned environments.

`search.simulators.exact` plans with it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

State = Any
"""A state of a simulator: an opaque Python value, never changed once it is returned."""


@dataclass(frozen=True)
class Transition:
    """The result of one action.

    Attributes:
        state: The state afterwards.
        reward: Of this transition, for the player who acted.
        terminated: Whether the episode ended here; `state` has no value.
        truncated: Whether a time limit was reached: the episode stops here, but `state` has a
            value, which a search bootstraps from; it does not search below.
        discount: Multiplies the value of `state`; None: the planning model's own. A game in which
            a player may move twice gives 1 and -1 here. Termination needs no 0 here.
    """

    state: State
    reward: float
    terminated: bool = False
    truncated: bool = False
    discount: float | None = None


class Simulator(Protocol):
    """The rules of an environment, separate from its state.

    A stochastic environment is searched as if the outcome that `step` draws were certain.
    """

    @property
    def num_actions(self) -> int:
        """A, the number of actions, valid or not; they are 0 to A - 1."""
        ...

    def step(self, state: State, action: int) -> Transition:
        """Takes a valid action, and leaves `state` as it was: it will be stepped from again.

        Random rollouts continue through a truncation; from a truncated state `step` must act as if
        there were no time limit (it may report truncation again).
        """
        ...

    def valid_actions(self, state: State) -> Sequence[bool] | None:
        """One bool per action, True where allowed; None: all are. None True: nothing follows."""
        ...


class Environment(Protocol):
    """The functions of gymnasium that `CloneableEnvironment` calls."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, Any]:
        """Starts an episode: observation and info."""
        ...

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        """Observation, reward, terminated, truncated and info."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """A state of a `CloneableEnvironment`.

    Attributes:
        memory: What `save` returned, or a copy of the environment.
        observation: The environment's observation, for evaluators that use it.
        valid_actions: One bool per action; None: all are allowed.
    """

    memory: Any
    observation: Any
    valid_actions: Sequence[bool] | None


@dataclass(frozen=True)
class CloneableEnvironment:
    """A `Simulator` made of an environment with gymnasium's `reset` and `step`.

    Every step restores the state it starts from, steps, and saves the result. By default
    states are deep copies of the environment, and `environment` itself is never stepped. Where
    that is slow or impossible, give `save` and `restore`; then the one instance changes its state,
    so `restore` it before playing in it. It is easier not to play in it at all:

        state = simulator.reset(seed=0)
        transition = simulator.step(state, action)  # a move of the episode: continue from its state

    `save` must capture all that decides the next transition, counters of wrappers included. For
    an Atari game `lambda env: env.unwrapped.clone_state()` and
    `lambda env, memory: env.unwrapped.restore_state(memory)` do so for the emulator; wrappers
    with a state of their own (gymnasium's `TimeLimit`, frame stacks) need their attributes saved
    beside it.

    Attributes:
        environment: The instance.
        num_actions: A.
        save: Returns a memory of an environment's state that later steps do not change.
        restore: Puts an environment into a saved state, any number of times.
        valid_actions_of: Returns one bool per action from an environment; None: all are allowed.

    Raises:
        ValueError: If only one of `save` and `restore` is given.
    """

    environment: Environment
    _: KW_ONLY
    num_actions: int
    save: Callable[[Any], Any] | None = None
    restore: Callable[[Any, Any], object] | None = None
    valid_actions_of: Callable[[Any], Sequence[bool]] | None = None

    def __post_init__(self) -> None:
        """Validates that saving and restoring come together."""
        if (self.save is None) != (self.restore is None):
            missing = "save" if self.save is None else "restore"
            raise ValueError(
                f"CloneableEnvironment.{missing}: found None beside its counterpart; required both "
                "save and restore, or neither (deep copies). Give the one that is missing."
            )

    def reset(self, *, seed: int | None = None) -> Snapshot:
        """Starts an episode of the environment and returns its first state."""
        observation, _ = self.environment.reset(seed=seed)
        return self.capture(observation)

    def capture(self, observation: Any = None) -> Snapshot:
        """The current state of the environment, with its last observation."""
        if self.save is None:
            return self._snapshot(copy.deepcopy(self.environment), observation)
        return self._snapshot(self.environment, observation)

    def step(self, state: Snapshot, action: int) -> Transition:
        """Takes an action from a state; see `Simulator.step`."""
        if self.restore is None:
            environment = copy.deepcopy(state.memory)  # becomes the new state's memory
        else:
            environment = self.environment
            self.restore(environment, state.memory)
        observation, reward, terminated, truncated, _ = environment.step(action)
        return Transition(
            state=self._snapshot(environment, observation),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
        )

    def valid_actions(self, state: Snapshot) -> Sequence[bool] | None:
        """The validity noted when the state was saved."""
        return state.valid_actions

    def _snapshot(self, environment: Any, observation: Any) -> Snapshot:
        valid = None if self.valid_actions_of is None else self.valid_actions_of(environment)
        memory = environment
        if self.save is not None:
            memory = self.save(environment)
            # The instance may return the same array again, with other contents.
            observation = copy.deepcopy(observation)
        return Snapshot(memory=memory, observation=observation, valid_actions=valid)

"""Planning with a true simulator: an exact planning model whose leaves are valued by an evaluator.

States are Python values (`search.simulators.interface`), kept in a store of `ExactModel`; trees
hold their numbers.
"""

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from search.model import Embedding, RootOutput, StepOutput, to_list
from search.planners.base import require_float, require_int
from search.simulators.interface import Simulator, State, Transition
from search.tree import Tree

STATE = "state"
"""Leaf `[M]` int64 of a node's embedding: the number of its state."""


class LeafEvaluator(Protocol):
    """Gives states a prior over actions and a value, in place of a learned model.

    Called with M at least 1 states that have not terminated; truncated ones are among them.
    """

    def __call__(
        self, states: Sequence[State], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns prior logits `[M, A]` and values `[M]`, both float, for the player to move."""
        ...


@dataclass(frozen=True)
class ZeroValues:
    """Uniform prior and value 0: all information must come from rewards within the search.

    Attributes:
        num_actions: A.
    """

    num_actions: int

    def __call__(
        self, states: Sequence[State], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Zeros `[M, A]` and `[M]`, float32."""
        return torch.zeros(len(states), self.num_actions), torch.zeros(len(states))


@dataclass(frozen=True)
class UniformRollouts:
    """Uniform prior, and the mean discounted return of random play as the value.

    A rollout chooses uniformly among valid actions until the episode ends or nothing is valid, and
    continues through truncations. Rewards after `max_steps` count as 0. With two players (discount
    -1) returns alternate like values.

    Attributes:
        simulator: Steps the rollouts; they are stored nowhere.
        num_rollouts: Per state, at least 1.
        max_steps: Most steps of a rollout, at least 1.
        discount: Of transitions without one of their own; the planning model's.

    Raises:
        ValueError: If a number is out of its range.
    """

    simulator: Simulator
    _: KW_ONLY
    num_rollouts: int = 1
    max_steps: int = 100
    discount: float = 1.0

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_int(owner, "num_rollouts", self.num_rollouts, minimum=1)
        require_int(owner, "max_steps", self.max_steps, minimum=1)
        require_float(owner, "discount", self.discount, minimum=-1.0, maximum=1.0)

    def __call__(
        self, states: Sequence[State], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Zeros `[M, A]` and mean returns `[M]`, float32."""
        device = "cpu" if generator is None else generator.device
        # One draw of torch seeds Python's generator, which is a hundred times faster for single
        # numbers.
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
        chance = random.Random(seed)
        values = [
            sum(self._play_out(state, chance) for _ in range(self.num_rollouts)) / self.num_rollouts
            for state in states
        ]
        return torch.zeros(len(states), self.simulator.num_actions), torch.tensor(values)

    def _play_out(self, state: State, chance: random.Random) -> float:
        """The discounted return of one rollout, for the player to move at `state`."""
        total, weight = 0.0, 1.0
        for _ in range(self.max_steps):
            allowed = [a for a, valid in enumerate(valid_mask(self.simulator, state)) if valid]
            if not allowed:
                break
            transition = self.simulator.step(state, chance.choice(allowed))
            total += weight * transition.reward
            weight *= self.discount if transition.discount is None else transition.discount
            state = transition.state
            if transition.terminated or weight == 0:
                break
        return total


@dataclass
class ExactModel:
    """A `PlanningModel` that steps a simulator; observations are sequences of B states.

    Terminated children have discount 0 and value 0, and are not evaluated. Truncated ones keep
    their discount and their evaluator's value, so that they bootstrap, but have no valid action:
    nothing is searched below them.

    The model keeps the states in a store that every step adds to. Numbers are counted up and never
    used twice, so that a released state is an error and never another state. `root` first releases
    the states of earlier searches: over an episode the store holds one search. To continue from
    kept trees, set `keep_states` and release, before each search, what they dropped:

        model = ExactModel(simulator, evaluator, keep_states=True)
        kept = keep_subtree(output.tree, output.action)
        model.release(keep=kept)
        output = planner.plan(model, states, kept=kept)

    Attributes:
        simulator: The rules.
        evaluator: Prior and value of states that have not terminated.
        discount: Of transitions without one of their own, from -1 (two players) to 1.
        keep_states: Whether `root` leaves the store as it is; then only `release` frees states.

    Raises:
        ValueError: If the discount is out of its range; from `root` and `step` if the simulator
            or the evaluator break their contracts, or a state was released.
    """

    append_only: ClassVar[bool] = True
    """Each stepped row adds a state, so rows whose result is thrown away must not be stepped."""

    simulator: Simulator
    evaluator: LeafEvaluator
    _: KW_ONLY
    discount: float = 1.0
    keep_states: bool = False
    _states: dict[int, State] = field(default_factory=dict[int, State], init=False, repr=False)
    _next_number: int = field(default=0, init=False, repr=False)
    _dtype: torch.dtype = field(default=torch.float32, init=False, repr=False)

    def __post_init__(self) -> None:
        """Validates the discount."""
        owner = type(self).__name__
        require_float(owner, "discount", self.discount, minimum=-1.0, maximum=1.0)

    @property
    def num_actions(self) -> int:
        """A, the simulator's."""
        return self.simulator.num_actions

    @property
    def num_states(self) -> int:
        """How many states the store holds."""
        return len(self._states)

    def root(
        self, observation: Sequence[State], *, generator: torch.Generator | None = None
    ) -> RootOutput:
        """Evaluates B states."""
        if not self.keep_states:
            self.release()
        states = list(observation)
        logits, value = self._evaluate(states, generator)
        self._dtype = value.dtype
        return RootOutput(
            prior_logits=logits,
            value=value,
            valid_actions=self._valid(states).to(value.device),
            embedding={STATE: self._store(states).to(value.device)},
        )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Steps the simulator once a row, and evaluates the children that have not terminated."""
        device = action.device
        # Host synchronization: the simulator and its states live in Python.
        numbers, actions = to_list(embedding[STATE]), to_list(action)
        transitions = [
            self._step(number, chosen) for number, chosen in zip(numbers, actions, strict=True)
        ]
        states = [transition.state for transition in transitions]
        stops = [t.terminated or t.truncated for t in transitions]
        alive = [row for row, t in enumerate(transitions) if not t.terminated]
        logits = torch.zeros(len(states), self.num_actions, dtype=self._dtype, device=device)
        value = torch.zeros(len(states), dtype=self._dtype, device=device)
        if alive:
            rows = torch.tensor(alive, device=device)
            found_logits, found_value = self._evaluate([states[row] for row in alive], generator)
            logits[rows] = found_logits.to(logits)
            value[rows] = found_value.to(value)
        valid = self._valid(states, stops=stops)
        reward = [t.reward for t in transitions]
        discount = [self._discount_of(t) for t in transitions]
        return StepOutput(
            prior_logits=logits,
            value=value,
            valid_actions=valid.to(device),
            embedding={STATE: self._store(states).to(device)},
            reward=torch.tensor(reward, dtype=self._dtype, device=device),
            discount=torch.tensor(discount, dtype=self._dtype, device=device),
        )

    def states(self, numbers: Tensor) -> list[State]:
        """The states of nodes, `[M]` int64 as in `tree.embeddings["state"]`.

        Raises:
            ValueError: If one was released.
        """
        return [self._find(number) for number in to_list(numbers)]

    def release(self, *, keep: Tree | None = None) -> None:
        """Forgets all states, but those of the nodes of `keep`.

        Raises:
            ValueError: If the tree has a state that was released before.
        """
        kept: list[int] = []
        if keep is not None:
            used = keep.node_visits > 0  # in other columns the leaf is undefined
            kept = to_list(keep.embeddings[STATE][used])
        self._states = {number: self._find(number) for number in kept}

    def _store(self, states: list[State]) -> Tensor:
        """Adds states; returns their numbers `[M]` int64, on the CPU."""
        first = self._next_number
        self._next_number += len(states)
        self._states.update(enumerate(states, start=first))
        return torch.arange(first, self._next_number)

    def _find(self, number: int) -> State:
        if number not in self._states:
            raise ValueError(
                f"ExactModel: found a node of state {number}, which was released; required one of "
                f"the {self.num_states} states in store. A new search releases earlier ones: set "
                "keep_states=True and release with keep=tree to search on from a kept tree."
            )
        return self._states[number]

    def _step(self, number: int, action: int) -> Transition:
        """Steps one state, and checks the form of the transition."""
        transition: Any = self.simulator.step(self._find(number), action)
        if not isinstance(transition, Transition):
            raise ValueError(
                f"Simulator.step: found {type(transition).__name__}; required a Transition. "
                "Return search.Transition(state, reward, terminated, truncated)."
            )
        return transition

    def _discount_of(self, transition: Transition) -> float:
        if transition.terminated:
            return 0.0
        return self.discount if transition.discount is None else transition.discount

    def _evaluate(
        self, states: list[State], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Calls the evaluator and checks the shapes; the core checks the numbers, by row."""
        logits, value = self.evaluator(states, generator=generator)
        required = ([len(states), self.num_actions], [len(states)])
        found = (list(logits.shape), list(value.shape))
        if found != required:
            raise ValueError(
                f"LeafEvaluator: found prior logits of shape {found[0]} and values of shape "
                f"{found[1]}; required {required[0]} and {required[1]}, one row a state and one "
                "logit for each of the simulator's actions. Return both for the states given."
            )
        return logits, value

    def _valid(self, states: list[State], *, stops: list[bool] | None = None) -> Tensor:
        """`[M, A]` bool, no action where the episode stops."""
        stops = [False] * len(states) if stops is None else stops
        none = [False] * self.num_actions
        masks = [
            none if stop else valid_mask(self.simulator, state)
            for state, stop in zip(states, stops, strict=True)
        ]
        return torch.tensor(masks, dtype=torch.bool).reshape(len(states), self.num_actions)


def valid_mask(simulator: Simulator, state: State) -> list[bool]:
    """One bool for each action of a state that has not ended.

    Raises:
        ValueError: If the simulator gives another number of them.
    """
    valid = simulator.valid_actions(state)
    if valid is None:
        return [True] * simulator.num_actions
    if len(valid) != simulator.num_actions:
        raise ValueError(
            f"Simulator.valid_actions: found {len(valid)} entries; required "
            f"{simulator.num_actions}, one for each action. Return a mask over all actions, not a "
            "list of the valid ones."
        )
    return [bool(allowed) for allowed in valid]

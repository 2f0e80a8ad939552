"""Environments that can be cloned, as simulators to search in."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from search import CloneableEnvironment, ExactModel, MuZeroPlanner, UniformRollouts, ZeroValues


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Walk:
    position: list[int] = field(default_factory=lambda: [2])

    def reset(self, *, seed=None):
        self.position[0] = 2
        return self.position, {}

    def step(self, action):
        self.position[0] += 1 if action == 1 else -1
        at = self.position[0]
        return self.position, float(at == 4), at == 4, False, {}

    def allowed(self):
        return [self.position[0] > 0, True]


def restore_walk(environment: Walk, memory: int) -> None:
    environment.position[0] = memory


CLONING: dict[str, dict[str, Any]] = {
    "deep_copies": {},
    "save_and_restore": {"save": lambda walk: walk.position[0], "restore": restore_walk},
}


@pytest.mark.parametrize("cloning", CLONING)
def test_environment_is_stepped_from_any_state_and_states_stay(cloning):
    walk = Walk()
    simulator = CloneableEnvironment(
        walk, num_actions=2, valid_actions_of=Walk.allowed, **CLONING[cloning]
    )
    start = simulator.reset(seed=0)
    left, right = simulator.step(start, 0), simulator.step(start, 1)
    far_left, back = simulator.step(left.state, 0), simulator.step(left.state, 1)
    end = simulator.step(right.state, 1)
    seen = [t.state.observation for t in (left, right, far_left, back, end)]
    assert seen == [[1], [3], [0], [2], [4]]
    assert start.observation == [2]
    assert (end.reward, end.terminated, right.terminated) == (1.0, True, False)
    assert simulator.valid_actions(far_left.state) == [False, True]
    assert simulator.valid_actions(start) == [True, True]


@pytest.mark.parametrize("cloning", CLONING)
def test_search_in_a_cloned_environment_walks_to_the_goal(cloning):
    simulator = CloneableEnvironment(
        Walk(), num_actions=2, valid_actions_of=Walk.allowed, **CLONING[cloning]
    )
    rollouts = UniformRollouts(simulator, max_steps=20, discount=0.9)
    model = ExactModel(simulator, rollouts, discount=0.9)
    planner = MuZeroPlanner(40, dirichlet_fraction=0, temperature=0)
    state, path = simulator.reset(), []
    for _ in range(2):
        output = planner.plan(model, [state], generator=generator())
        transition = simulator.step(state, int(output.action))
        state = transition.state
        path.append(state.observation[0])
    assert path == [3, 4]
    assert transition.terminated


def test_deep_copies_and_the_environment_leave_each_other_alone():
    walk = Walk()
    simulator = CloneableEnvironment(walk, num_actions=2)
    walk.reset()
    state = simulator.capture(copy.copy(walk.position))
    MuZeroPlanner(40).plan(ExactModel(simulator, ZeroValues(2)), [state])
    assert walk.position == [2]
    walk.step(0)
    assert simulator.step(state, 1).state.observation == [3]


@pytest.mark.parametrize(("given", "missing"), [("save", "restore"), ("restore", "save")])
def test_save_and_restore_come_together(given, missing):
    with pytest.raises(ValueError, match=rf"CloneableEnvironment.{missing}: found None"):
        CloneableEnvironment(Walk(), num_actions=2, **{given: lambda *_: 0})

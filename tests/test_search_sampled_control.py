"""Continuous control over sampled actions, where the optimum is known."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch

from search import (
    GaussianActions,
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    SampledPlanner,
    SampledRootOutput,
    SampledStepOutput,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Reach:
    """Reach `goal` from the origin in `horizon` moves within the box; an uninformed policy.

    The reward is minus the squared distance after the last move; all other rewards, and the
    model's values, are 0.
    """

    goal: torch.Tensor  # [D]
    horizon: int

    def policy(self, rows):
        shape = (rows, *self.goal.shape)
        return GaussianActions(torch.zeros(shape), torch.ones(shape), low=-1.0, high=1.0)

    def root(self, observation, *, generator=None):
        position = torch.zeros(observation, *self.goal.shape)
        embedding = {"position": position, "time": torch.zeros(observation)}
        return SampledRootOutput(self.policy(observation), torch.zeros(observation), embedding)

    def step(self, embedding, action, *, generator=None):
        rows = action.shape[0]
        time, position = embedding["time"] + 1, embedding["position"] + action
        missed = (position - self.goal).square().sum(dim=-1)
        last = time == self.horizon
        return SampledStepOutput(
            policy=self.policy(rows),
            value=torch.zeros(rows),
            embedding={"position": position, "time": time},
            reward=torch.where(last, -missed, 0.0),
            discount=torch.where(last, 0.0, 1.0),
        )

    def regret(self, action):
        reach = float(self.horizon - 1)
        return ((action - self.goal).abs() - reach).clamp_min(0).square().sum(dim=-1)


def halving(num_simulations: int, num_samples: int) -> GumbelMuZeroPlanner:
    return GumbelMuZeroPlanner(
        num_simulations, max_num_considered_actions=num_samples, gumbel_scale=0
    )


def puct(num_simulations: int, num_samples: int) -> MuZeroPlanner:
    return MuZeroPlanner(num_simulations, dirichlet_fraction=0, temperature=0)


def regrets(model: Reach, planner: Callable[..., Any], budgets: list[tuple[int, int]]):
    """Mean regret of the policy's own samples, then of 64 searches at each (simulations, K)."""
    sample = model.policy(64).sample(100, temperature=1.0, generator=generator(1))
    found = [float(model.regret(sample.flatten(0, 1)).mean())]
    for budget in budgets:
        sampled = SampledPlanner(planner(*budget), num_samples=budget[1])
        output = sampled.plan(model, 64, generator=generator())
        found.append(float(model.regret(output.action).mean()))
    return found


def test_bandit_regret_falls_with_samples_and_simulations():
    """One move in one dimension: each budget at least quarters the regret (0.86 without search)."""
    model = Reach(torch.tensor([0.7]), horizon=1)
    found = regrets(model, halving, [(8, 4), (48, 16), (160, 48)])
    assert all(after < before / 4 for before, after in pairwise(found)), found
    assert found[-1] < 0.001


@pytest.mark.parametrize("planner", [halving, puct])
def test_control_over_two_steps_finds_a_first_move_that_leaves_the_goal_in_reach(planner):
    model = Reach(torch.tensor([1.5, -1.2]), horizon=2)
    found = regrets(model, planner, [(24, 4), (96, 12), (640, 32)])
    assert all(after < before / 2 for before, after in pairwise(found)), found
    assert found[-1] < 0.03

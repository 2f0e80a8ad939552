"""Evaluation over whole games."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from atari_bridge.evaluation.episodes import (
    PolicyOnly,
    RandomPolicy,
    SampledActions,
    evaluate_agent,
)
from search import GumbelMuZeroPlanner, PlanningModel, SearchOutput
from tests.fake_games import Countdown, SeenModel


class Scripted:
    """Always the same action; notes the number of rows of each call."""

    num_simulations = 0

    def __init__(self, action: int) -> None:
        self._action = action
        self.rows: list[int] = []

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        rows = len(observation)
        self.rows.append(rows)
        weights = torch.full((rows, 3), 1 / 3)
        return SearchOutput(torch.full((rows,), self._action), weights, torch.zeros(rows), None)


def test_returns_are_sums_of_raw_rewards_over_whole_games_whatever_lives_are_lost() -> None:
    game = Countdown(4, length=5, deaths=(2, 4))
    found = evaluate_agent(game, SeenModel(), Scripted(2), frame_stack=2, seed=0)
    assert found.returns == pytest.approx([15 + 5 * 0.2] * 4, rel=1e-6)
    assert found.decisions == [5, 5, 5, 5]
    assert found.frames == 4 * 5 * game.frame_skip
    assert found.interval.estimate == pytest.approx(16.0, rel=1e-6)
    assert found.interval.unit == "games"
    assert "of one seed; nothing is known of other seeds" in found.interval.scope


class Uneven(Countdown):
    """The game of environment n ends after n + 1 decisions."""

    def step(self, actions: np.ndarray):
        step = super().step(actions)
        over = self._made == np.arange(self.num_envs) + 1
        self._ended = over
        return type(step)(
            observation=step.observation,
            reward=step.reward,
            terminated=over,
            truncated=np.zeros_like(over),
            life_lost=step.life_lost,
        )


def test_a_game_that_is_over_is_not_planned_for_and_its_successor_does_not_count() -> None:
    planner = Scripted(0)
    found = evaluate_agent(Uneven(3, length=99), SeenModel(), planner, frame_stack=1, seed=0)
    assert planner.rows == [3, 2, 1]
    assert found.decisions == [1, 2, 3]
    assert found.returns == pytest.approx([1.0, 3.0, 6.0])


def test_games_can_be_broken_off() -> None:
    found = evaluate_agent(
        Countdown(2, length=50), SeenModel(), Scripted(0), frame_stack=1, seed=0, max_decisions=4
    )
    assert found.decisions == [4, 4]
    assert found.returns == pytest.approx([10.0, 10.0])


@pytest.mark.parametrize(
    "planner",
    [
        GumbelMuZeroPlanner(3),
        PolicyOnly(sample=True),
        RandomPolicy(3),
        SampledActions(GumbelMuZeroPlanner(3, gumbel_scale=0.0)),
    ],
)
def test_the_same_seed_gives_the_same_games(planner: GumbelMuZeroPlanner) -> None:
    def returns(seed: int) -> Sequence[float]:
        game = Countdown(4, length=6)
        return evaluate_agent(game, SeenModel(), planner, frame_stack=1, seed=seed).returns

    assert returns(3) == returns(3)
    assert returns(3) != returns(4)


def test_the_raw_policy_takes_the_best_valid_action() -> None:
    class Opinionated(SeenModel):
        def root(self, observation, *, generator=None):
            root = super().root(observation)
            valid = root.valid_actions.clone()
            valid[:, 2] = False
            logits = torch.tensor([[0.0, 1.0, 9.0]]).expand(len(observation), 3)
            return type(root)(logits, root.value, valid, root.embedding)

    output = PolicyOnly().plan(Opinionated(), torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    assert output.action.tolist() == [1, 1]
    assert output.action_weights[:, 2].tolist() == [0.0, 0.0]
    assert output.action_weights.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_sampled_actions_follow_what_the_search_found() -> None:
    class Certain(Scripted):
        def plan(self, model, observation, *, generator=None):
            output = super().plan(model, observation, generator=generator)
            weights = torch.tensor([[0.25, 0.0, 0.75]]).expand(len(observation), 3)
            return SearchOutput(output.action, weights, output.value, None)

    draw = torch.Generator().manual_seed(0)
    picture = torch.zeros(4000, 1, 2, 2, dtype=torch.uint8)
    output = SampledActions(Certain(1)).plan(SeenModel(), picture, generator=draw)
    shares = output.action.bincount(minlength=3) / 4000
    assert shares[1] == 0.0
    assert shares[2].item() == pytest.approx(0.75, abs=0.03)

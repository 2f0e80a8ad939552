"""What a batch is made of: played numbers, a target network's, or fresh searches'."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atari_bridge.acting.self_play import SelfPlay
from atari_bridge.learning.batches import Batch, BatchMaker
from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.reanalyze import Reanalyzer
from atari_bridge.replay.config import ReplayConfig
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import Sample
from search import SearchOutput
from tests.fake_games import Countdown, SeenModel

DISCOUNT, UNROLL, STEPS = 0.5, 2, 3
PLAYED, FRESH = [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
PLAYED_VALUE = -8.0
CONFIG = LearningConfig(
    unroll_steps=UNROLL,
    td_steps=STEPS,
    discount=DISCOUNT,
    off_policy_correction=False,
    reanalyze_policy=0.0,
    bootstrap="network",
    augmentation="none",
)


@dataclass
class FixedPlanner:
    """A planner that finds the same policy everywhere, and a value made of what it sees."""

    policy: list[float]
    value: Callable[[Tensor], Tensor]
    num_simulations: int = 1

    def plan(
        self, model: Any, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        rows = len(observation)
        weights = torch.tensor(self.policy).repeat(rows, 1)
        newest = observation[:, -1].float().flatten(1)[:, 0]
        return SearchOutput(weights.argmax(dim=1), weights, self.value(newest), None)


@pytest.fixture
def replay() -> Replay:
    """Two games of 20 decisions, under way; the picture of row t is t, its reward t + 1.1."""
    environment = Countdown(2, length=40)
    planner = FixedPlanner(PLAYED, lambda newest: torch.full_like(newest, PLAYED_VALUE))
    games = SelfPlay(
        environment,
        SeenModel(),
        lambda _: planner,
        torch.Generator(),
        frame_stack=1,
        seed=0,
        terminal_on_life_loss=False,
    )
    replay = Replay(
        ReplayConfig(replay_capacity=200, compress_frames=False),
        num_envs=2,
        observation_shape=environment.observation_shape,
        observation_dtype=environment.observation_dtype,
        num_actions=3,
        lookahead=CONFIG.lookahead,
    )
    for made in range(20):
        for rows in games.play(decisions_made=2 * made, progress=0.0).rows:
            replay.append(rows)
    return replay


def make(
    replay: Replay,
    config: LearningConfig,
    *,
    clip: bool = False,
    decisions: int = 40,
    updates: int = 0,
    rows: int = 8,
) -> tuple[np.ndarray, Batch]:
    """When the sampled rows were played (t), and the batch."""
    maker = BatchMaker(
        config,
        Reanalyzer(
            config,
            model=SeenModel(),  # pyright: ignore[reportArgumentType]
            planner=FixedPlanner(FRESH, lambda newest: 100 + newest),
        ),
        clip_rewards=clip,
        prefix_horizon=None,
        with_future=True,
        device=torch.device("cpu"),
    )
    # Rows 0 to 7 of the first env.
    sample = Sample(np.arange(rows), np.ones(rows, np.float32))
    batch = maker.make(
        replay,
        sample,
        decisions_made=decisions,
        updates_made=updates,
        generator=np.random.default_rng(0),
        search_generator=torch.Generator(),
    )
    return np.arange(rows), batch


def summed(t: np.ndarray, steps: int, last: np.ndarray | float) -> np.ndarray:
    """`steps` discounted rewards from row t on, and the discounted value after them."""
    rewards = sum(DISCOUNT**i * (t + i + 1.1) for i in range(steps))
    return rewards + DISCOUNT**steps * last


@pytest.mark.parametrize(
    ("bootstrap", "value"),
    [
        ("network", lambda at: at),
        ("search", lambda at: 100 + at),
        ("played", lambda at: PLAYED_VALUE),
    ],
)
def test_values_end_in_what_the_configuration_names(
    replay: Replay, bootstrap: Any, value: Callable[[np.ndarray], Any]
) -> None:
    t, batch = make(replay, replace(CONFIG, bootstrap=bootstrap))
    for k in range(UNROLL + 1):
        expected = summed(t + k, STEPS, value(t + k + STEPS))
        np.testing.assert_allclose(batch.value[:, k].numpy(), expected, rtol=1e-6)
    assert batch.value_mask.all()
    np.testing.assert_allclose(
        batch.reward.numpy(), t[:, None] + np.arange(UNROLL) + 1.1, rtol=1e-6
    )
    np.testing.assert_array_equal(batch.observation[:, 0, 0, 0].numpy(), t)
    assert batch.future is not None
    seen = batch.future[:, :, 0, 0, 0].numpy()
    np.testing.assert_array_equal(seen, t[:, None] + 1 + np.arange(UNROLL))


def test_rewards_count_by_their_sign_where_that_is_asked(replay: Replay) -> None:
    t, batch = make(replay, CONFIG, clip=True)
    np.testing.assert_array_equal(batch.reward.numpy(), np.ones((8, UNROLL)))
    signs = sum(DISCOUNT**i for i in range(STEPS))
    np.testing.assert_allclose(batch.value[:, 0].numpy(), signs + DISCOUNT**STEPS * (t + STEPS))


@pytest.mark.parametrize(("share", "searched"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_share_of_policies_that_is_searched_anew_is_the_one_asked(
    replay: Replay, share: float, searched: int
) -> None:
    _, batch = make(replay, replace(CONFIG, reanalyze_policy=share))
    fresh = (batch.policy == torch.tensor(FRESH)).all(dim=-1)  # [B, K + 1]
    assert (fresh.all(dim=1) == fresh.any(dim=1)).all(), "whole rows, root and imagined"
    assert int(fresh.all(dim=1).sum()) == searched
    assert (batch.policy[~fresh] == torch.tensor(PLAYED)).all()


def test_old_rows_sum_fewer_rewards_where_that_is_asked(replay: Replay) -> None:
    config = replace(CONFIG, off_policy_correction=True, correction_interval=10)
    # Row t was made when there were 2 t decisions, so at 20 rows 0 to 7 are 20 to 6 old.
    t, batch = make(replay, config, decisions=20)
    steps = STEPS - (20 - 2 * t) // 10
    assert set(steps.tolist()) == {1, 2, 3}
    expected = [summed(row, n, row + n) for row, n in zip(t, steps.tolist(), strict=True)]
    np.testing.assert_allclose(batch.value[:, 0].numpy(), expected, rtol=1e-6)


def test_the_roots_value_replaces_sums_of_old_rows_that_were_searched_late_in_a_run(
    replay: Replay,
) -> None:
    config = replace(CONFIG, reanalyze_policy=1.0, search_value_after=50, search_value_age=33)
    t, early = make(replay, config, updates=49)
    np.testing.assert_allclose(early.value[:, 0].numpy(), summed(t, STEPS, t + STEPS), rtol=1e-6)
    _, late = make(replay, config, updates=50)
    old = 40 - 2 * t > 33
    assert old.any()
    assert not old.all()
    expected = np.where(old, 100 + t, summed(t, STEPS, t + STEPS))
    np.testing.assert_allclose(late.value[:, 0].numpy(), expected, rtol=1e-6)
    _, unsearched = make(replay, replace(config, reanalyze_policy=0.0), updates=50)
    np.testing.assert_allclose(unsearched.value.numpy(), early.value.numpy())

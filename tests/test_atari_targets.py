"""Targets of a window: hand-computed episodes, and a slow reference that goes row by row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atari_bridge.learning.targets import (
    Targets,
    make_targets,
    off_policy_horizon,
    reward_targets,
    value_horizon,
    with_search_values,
)

NAN = float("nan")
ACTIONS = 4


@dataclass
class Episode:
    """One window of W rows, as the rows after the sampled one went."""

    reward: list[float]
    values: list[float]
    ended: int | None = None  # position of the last action
    how: str = ""  # terminated, truncated
    void: bool = True  # whether the replay kept a void row after the end

    def arrays(self) -> dict[str, np.ndarray]:
        width = len(self.reward)
        last = width if self.ended is None else self.ended
        alive = np.arange(width) <= last
        terminated = (np.arange(width) == last) & (self.how == "terminated")
        bootstrap = alive.copy()
        if self.how == "truncated" and self.void and last + 1 < width:
            bootstrap[last + 1] = True
        return {
            "action": np.arange(width) % ACTIONS,
            "reward": np.array(self.reward, np.float32),
            "terminated": terminated,
            "alive": alive,
            "bootstrap": bootstrap,
            "policy": np.eye(ACTIONS, dtype=np.float32)[np.arange(width) % ACTIONS],
            "values": np.array(self.values, np.float32),
        }


def targets_of(
    *episodes: Episode,
    unroll: int,
    td: list[int],
    prefix: int | None = None,
    clip: bool = False,
    discount: float = 0.5,
    seed: int = 0,
) -> Targets:
    rows = [episode.arrays() for episode in episodes]
    stacked: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    horizon = value_horizon(
        alive=stacked["alive"],
        bootstrap=stacked["bootstrap"],
        terminated=stacked["terminated"],
        td=np.array(td),
        unroll_steps=unroll,
    )
    return make_targets(
        **stacked,
        horizon=horizon,
        discount=discount,
        prefix_horizon=prefix,
        clip_rewards=clip,
        generator=np.random.default_rng(seed),
    )


def test_targets_in_the_middle_of_an_episode_sum_n_rewards_and_bootstrap() -> None:
    # K = 2, n = 2, discount 1/2; the values at positions 0 and 1 are never read.
    episode = Episode(reward=[1, 2, 4, 8, 16], values=[NAN, NAN, 40, 80, 160])
    found = targets_of(episode, unroll=2, td=[2])
    # 1 + 2/2 + 40/4 = 12; 2 + 4/2 + 80/4 = 24; 4 + 8/2 + 160/4 = 48
    np.testing.assert_allclose(found.value, [[12, 24, 48]])
    np.testing.assert_allclose(found.reward, [[1, 2]])
    np.testing.assert_array_equal(found.action, [[0, 1]])
    np.testing.assert_array_equal(found.policy, np.eye(ACTIONS)[None, :3])
    for mask in (found.reward_mask, found.value_mask, found.policy_mask, found.observed):
        assert mask.all()


def test_targets_near_a_termination_have_no_bootstrap_and_are_zero_past_it() -> None:
    # The game ends with the action at position 1; rewards past it belong to another episode.
    episode = Episode([1, 2, 64, 64, 64, 64], [NAN] * 6, ended=1, how="terminated")
    found = targets_of(episode, unroll=3, td=[2])
    # 1 + 2/2 = 2; 2; then the absorbing state: 0, 0
    np.testing.assert_allclose(found.value, [[2, 2, 0, 0]])
    np.testing.assert_array_equal(found.value_mask, [[True, True, True, True]])
    np.testing.assert_allclose(found.reward, [[1, 2, 0]])
    np.testing.assert_array_equal(found.reward_mask, [[True, True, True]])
    np.testing.assert_array_equal(found.policy_mask, [[True, True, False, False]])
    np.testing.assert_array_equal(found.observed, [[True, True, False, False]])
    np.testing.assert_allclose(found.policy[0, 2:], 1 / ACTIONS)


@pytest.mark.parametrize(
    ("episode", "clip", "value"),
    [
        # n = 2 rewards end with the termination; 100 would be the next episode's first value.
        (Episode([1, 2, 3, 3], [100] * 4, 1, "terminated"), False, [2, 2]),
        # A lost life ends the sum, too: 0 - 1/2; -1.
        (Episode([0, -1, 5, 5], [7] * 4, 1, "terminated"), False, [-0.5, -1]),
        # Clipped rewards: 1 - 1/2 + 0/4; -1 + 0 + 8/4
        (Episode([7, -200, 0, 0.5], [0, 0, 0, 8]), True, [0.5, 1]),
    ],
    ids=["horizon", "lost life", "clipped"],
)
def test_values_of_two_rewards(episode: Episode, clip: bool, value: list[float]) -> None:
    found = targets_of(episode, unroll=1, td=[2], clip=clip)
    np.testing.assert_allclose(found.value, [value])
    if clip:
        np.testing.assert_allclose(found.reward, [[1]])


def test_targets_near_a_truncation_bootstrap_from_the_void_row_and_stop_there() -> None:
    # The clock runs out after the action at position 1; position 2 is the void row.
    episode = Episode([1, 2, 64, 64, 64, 64], [NAN, NAN, 40, NAN, NAN, NAN], 1, "truncated")
    found = targets_of(episode, unroll=3, td=[2])
    # 1 + 2/2 + 40/4 = 12; 2 + 40/2 = 22 (one reward only); nothing is known further on
    np.testing.assert_allclose(found.value, [[12, 22, 0, 0]])
    np.testing.assert_array_equal(found.value_mask, [[True, True, False, False]])
    np.testing.assert_array_equal(found.reward_mask, [[True, True, False]])
    np.testing.assert_array_equal(found.policy_mask, [[True, True, False, False]])
    np.testing.assert_array_equal(found.observed, [[True, True, True, False]])  # the void row too


def test_rows_of_one_batch_sum_as_many_rewards_as_their_own_age_allows() -> None:
    episode = Episode(reward=[1, 2, 4, 8, 16], values=[NAN, 20, 40, 80, 160])
    found = targets_of(episode, episode, unroll=2, td=[1, 2])
    # one reward: 1 + 20/2 = 11; 2 + 40/2 = 22; 4 + 80/2 = 44
    np.testing.assert_allclose(found.value, [[11, 22, 44], [12, 24, 48]])


def test_off_policy_horizon_loses_a_reward_each_interval_but_keeps_one() -> None:
    age = np.array([0, 29_999, 30_000, 60_000, 120_000, 900_000])
    found = off_policy_horizon(age, 5, 30_000)
    assert found.tolist() == [5, 5, 4, 3, 1, 1]


def test_value_prefix_is_undiscounted_and_begins_anew_inside_the_unroll() -> None:
    reward = np.array([[1.0, 2.0, 4.0, 8.0, 16.0]])
    found = reward_targets(reward=reward, prefix_horizon=3)
    # 1; 1+2; 1+2+4; reset: 8; 8+16
    np.testing.assert_array_equal(found, [[1, 3, 7, 8, 24]])


def test_value_prefix_keeps_its_sum_past_a_termination_until_the_reset() -> None:
    episode = Episode([1, 2, 64, 64, 64, 64], [0] * 6, ended=1, how="terminated")
    found = targets_of(episode, unroll=4, td=[1], prefix=3)
    np.testing.assert_array_equal(found.reward, [[1, 3, 3, 0]])
    assert found.reward_mask.all()


def test_actions_past_the_end_are_drawn_and_those_before_it_kept() -> None:
    ended = Episode([0] * 7, [0] * 7, ended=0, how="terminated")
    drawn = [targets_of(ended, unroll=5, td=[1], seed=seed).action[0] for seed in range(40)]
    assert all(action[0] == 0 for action in drawn)
    for step in range(1, 5):
        assert {int(action[step]) for action in drawn} == set(range(ACTIONS))
    again = targets_of(ended, unroll=5, td=[1], seed=3).action[0]
    np.testing.assert_array_equal(again, drawn[3])


def test_search_values_replace_only_known_states_of_the_rows_named() -> None:
    episode = Episode([1, 2, 64, 64, 64, 64], [NAN] * 6, ended=1, how="terminated")
    found = targets_of(episode, episode, unroll=3, td=[2, 2])
    searched = np.full((2, 4), 30.0)
    mixed = with_search_values(found, searched=searched, rows=np.array([True, False]))
    np.testing.assert_allclose(mixed.value, [[30, 30, 0, 0], [2, 2, 0, 0]])
    np.testing.assert_allclose(found.value[0], [2, 2, 0, 0])


def test_a_search_value_makes_a_target_known_that_had_no_bootstrap_row() -> None:
    episode = Episode([1, 2, 0, 0, 0, 0], [9] * 6, 1, "truncated", void=False)
    found = targets_of(episode, unroll=3, td=[2])
    assert not found.value_mask.any()
    assert found.reward_mask[0, :2].all()
    mixed = with_search_values(found, searched=np.full((1, 4), 5.0), rows=np.array([True]))
    np.testing.assert_array_equal(mixed.value_mask, [[True, True, False, False]])


def test_a_window_too_short_for_its_sums_is_refused() -> None:
    with pytest.raises(ValueError, match=r"window of 4 rows is too short.*required: 5 rows"):
        targets_of(Episode([0] * 4, [0] * 4), unroll=2, td=[2])


def test_only_the_positions_where_sums_end_are_read() -> None:
    episode = Episode([0] * 8, [0] * 8, ended=3, how="truncated").arrays()
    horizon = value_horizon(
        alive=episode["alive"][None],
        bootstrap=episode["bootstrap"][None],
        terminated=episode["terminated"][None],
        td=np.array([3]),
        unroll_steps=2,
    )
    # 0 -> 3; 1 -> 4, the void row; 2 -> 4
    assert np.flatnonzero(horizon.reads(8)[0]).tolist() == [3, 4]


def slow_value(arrays: dict[str, np.ndarray], k: int, td: int, discount: float) -> float | None:
    """The value target at position k of one window by the definition; None: does not count."""
    ends = np.flatnonzero(arrays["terminated"] & arrays["alive"])
    if len(ends) and k > ends[0]:
        return 0.0
    if not arrays["alive"][k]:
        return None
    total = 0.0
    for j in range(td):
        if not arrays["alive"][k + j]:
            known = arrays["bootstrap"][k + j]
            return total + discount**j * float(arrays["values"][k + j]) if known else None
        total += discount**j * float(arrays["reward"][k + j])
        if arrays["terminated"][k + j]:
            return total
    known = arrays["bootstrap"][k + td]
    return total + discount**td * float(arrays["values"][k + td]) if known else None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5))
def test_targets_equal_the_slow_reference(seed: int, unroll: int, longest: int) -> None:
    generator = np.random.default_rng(seed)
    width, batch = unroll + longest + 1, 7
    episodes = [
        Episode(
            reward=list(generator.normal(size=width)),
            values=list(generator.normal(size=width)),
            ended=int(generator.integers(width)) if how else None,
            how=how,
            void=bool(generator.integers(2)),
        )
        for how in generator.choice(["", "terminated", "truncated"], size=batch).tolist()
    ]
    td = generator.integers(1, longest + 1, size=batch)
    found = targets_of(*episodes, unroll=unroll, td=td.tolist(), discount=0.9)
    for b, episode in enumerate(episodes):
        for k in range(unroll + 1):
            slow = slow_value(episode.arrays(), k, int(td[b]), 0.9)
            assert found.value_mask[b, k] == (slow is not None), (b, k)
            assert found.value[b, k] == pytest.approx(slow or 0.0, abs=1e-5), (b, k)

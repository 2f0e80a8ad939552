"""Self-play on a game whose every number is known: what ends up in the rows."""

import numpy as np
import pytest
import torch

from atari_bridge.acting.self_play import Episode, SelfPlay, episode_seed
from atari_bridge.replay.rows import Rows
from search import GumbelMuZeroPlanner
from tests.fake_games import Countdown, SeenModel

PLANNER = GumbelMuZeroPlanner(2)


def begin(
    game: Countdown, *, seed: int = 0, frame_stack: int = 2, terminal_on_life_loss: bool = True
) -> SelfPlay:
    return SelfPlay(
        game,
        SeenModel(),
        lambda _: PLANNER,
        torch.Generator(),
        frame_stack=frame_stack,
        seed=seed,
        terminal_on_life_loss=terminal_on_life_loss,
    )


def play(self_play: SelfPlay, decisions: int, *, seed: int = 0) -> tuple[list[Rows], list[Episode]]:
    self_play.generator.manual_seed(seed)
    rows: list[Rows] = []
    episodes: list[Episode] = []
    for number in range(decisions):
        played = self_play.play(decisions_made=number, progress=0.0)
        rows += played.rows
        episodes += played.episodes
    return rows, episodes


def seed_whose_first_game_is(*, odd: bool) -> int:
    return next(s for s in range(100) if (episode_seed(s, 0, 0) % 2 == 1) == odd)


def test_a_terminated_game_leaves_a_void_row_and_begins_anew() -> None:
    seed = seed_whose_first_game_is(odd=False)
    rows, episodes = play(begin(Countdown(1, length=3), seed=seed), 4)
    assert [bool(r.void[0]) for r in rows] == [False, False, False, True, False]
    assert [int(r.frame[0, 0, 0, 0]) for r in rows] == [0, 1, 2, 3, 0]
    assert [bool(r.terminated[0]) for r in rows] == [False, False, True, False, False]
    assert [bool(r.first[0]) for r in rows] == [True, False, False, False, True]
    assert not any(r.truncated[0] for r in rows)
    actions = [int(r.action[0]) for r in rows[:3]]
    assert episodes[0].decisions == 3
    assert episodes[0].game_return == pytest.approx(1 + 2 + 3 + sum(actions) / 10)


def test_the_void_row_of_a_truncated_game_has_the_value_of_what_was_seen_last() -> None:
    seed = seed_whose_first_game_is(odd=True)
    rows, _ = play(begin(Countdown(1, length=3), seed=seed), 3)
    assert rows[2].truncated[0]
    assert not rows[2].terminated[0]
    assert rows[3].void[0]
    assert rows[3].value[0] == 3.0  # the newest pixel, not the new game's 0


def test_a_lost_life_ends_an_episode_of_the_learner_and_not_the_game() -> None:
    game = Countdown(1, length=5, deaths=(2,))
    rows, episodes = play(begin(game), 5)
    assert [bool(r.terminated[0]) for r in rows[:3]] == [False, True, False]
    assert [bool(r.first[0]) for r in rows[:4]] == [True, False, True, False]
    assert not any(r.void[0] for r in rows[:5])
    assert len(episodes) == 1
    assert episodes[0].decisions == 5


def test_a_new_life_sees_nothing_of_the_last_one() -> None:
    self_play = begin(Countdown(1, length=9, deaths=(2,)), frame_stack=3)
    play(self_play, 4)
    assert isinstance(self_play.model, SeenModel)
    shown = [root[0, :, 0, 0].tolist() for root in self_play.model.roots]
    assert shown == [[0, 0, 0], [0, 0, 1], [2, 2, 2], [2, 2, 3]]


def test_lost_lives_can_be_left_alone() -> None:
    rows, _ = play(begin(Countdown(1, length=5, deaths=(2,)), terminal_on_life_loss=False), 4)
    assert not any(r.terminated[0] for r in rows[:4])
    assert [bool(r.first[0]) for r in rows] == [True, False, False, False]


def test_a_life_lost_as_the_game_ends_is_one_end() -> None:
    seed = seed_whose_first_game_is(odd=False)
    rows, _ = play(begin(Countdown(1, length=2, deaths=(2,)), seed=seed), 3)
    assert [bool(r.void[0]) for r in rows] == [False, False, True, False]
    assert [bool(r.first[0]) for r in rows] == [True, False, False, True]


def test_every_game_of_every_lane_has_a_seed_of_its_own() -> None:
    game = Countdown(3, length=2)
    play(begin(game), 7)
    assert len(game.resets) == len(set(game.resets)) == len({seed for _, seed in game.resets})
    other = Countdown(3, length=2)
    play(begin(other, seed=1), 7)
    assert not {s for _, s in game.resets} & {s for _, s in other.resets}


def test_a_restored_lane_goes_on_as_if_nothing_had_happened() -> None:
    uninterrupted = begin(Countdown(2, length=5, deaths=(3,)), seed=4)
    play(uninterrupted, 7, seed=1)
    kept = uninterrupted.state()
    expected, _ = play(uninterrupted, 6, seed=2)
    restored = begin(Countdown(2, length=5, deaths=(3,)), seed=4)
    restored.restore(kept)
    found, _ = play(restored, 6, seed=2)
    for ours, theirs in zip(expected, found, strict=True):
        for name in ("frame", "action", "reward", "terminated", "truncated", "first", "void"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_an_environment_that_shows_something_else_is_refused() -> None:
    first = begin(Countdown(1, length=5), seed=4)
    play(first, 3)
    kept = first.state()
    kept["stack_frames"][0, -1] += 1
    with pytest.raises(ValueError, match=r"environments \[0\].*determined by seed"):
        begin(Countdown(1, length=5), seed=4).restore(kept)

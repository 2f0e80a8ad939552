"""Atari games as a vector of environments, and how they are restored."""

import numpy as np
import pytest

from atari_bridge.acting.episode_resume import reproduce_episodes
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.factory import open_environment
from atari_bridge.environments.games import ATARI_100K, game_name, rom_name
from atari_bridge.environments.interface import VectorEnvironment

pytest.importorskip("ale_py")
pytest.importorskip("gymnasium")

from atari_bridge.environments.atari import AtariEnvironments

ALL = np.arange(2)
SEEDS = np.array([11, 12])


def breakout(count: int, **settings) -> AtariEnvironments:
    settings = {"image_size": 24, "grayscale": True, **settings}
    return AtariEnvironments("Breakout", count, **settings)


# Loading a game takes the emulator a tenth of a second, so tests share two vectors of two games.
@pytest.fixture(scope="module")
def plain() -> AtariEnvironments:
    return breakout(2)


@pytest.fixture(scope="module")
def sticky() -> AtariEnvironments:
    return breakout(2, repeat_action_probability=0.5, noop_max=0)


@pytest.fixture(params=["plain", "sticky"])
def games(request) -> AtariEnvironments:
    return request.getfixturevalue(request.param)


def random_actions(environment: VectorEnvironment, length: int) -> np.ndarray:
    """`[T, N]`."""
    shape = (length, environment.num_envs)
    return np.random.default_rng(0).integers(0, environment.num_actions, shape)


def test_steps_have_the_shapes_and_dtypes_of_the_interface(plain):
    first = plain.reset(ALL, SEEDS)
    step = plain.step(np.zeros(2, np.int64))
    assert plain.observation_shape == (1, 24, 24)
    for observation in (first, step.observation):
        assert observation.shape == (2, 1, 24, 24)
        assert observation.dtype == plain.observation_dtype == np.uint8
    dtypes = {"reward": "float32", "terminated": "bool", "truncated": "bool", "life_lost": "bool"}
    for name, dtype in dtypes.items():
        assert (getattr(step, name).shape, getattr(step, name).dtype) == ((2,), dtype)


def test_a_configuration_opens_the_game_it_describes_in_color():
    config = EnvironmentConfig(game="Pong", frame_skip=2, full_action_space=True)
    environment = open_environment(config, num_envs=1)
    environment.reset(np.arange(1), np.array([1]))
    for _ in range(40):
        frame = environment.step(np.zeros(1, np.int64)).observation
    assert environment.num_envs == 1
    assert environment.observation_shape == (3, 96, 96)
    assert frame.shape == (1, 3, 96, 96)
    assert frame.flags.c_contiguous
    # Pong's ground is brown, its right paddle green: channels come first, and in their order.
    red, green, blue = np.median(frame[0].reshape(3, -1), axis=1)
    assert red > green > blue
    paddle = frame[0][:, :, 84:90].astype(int)
    assert (paddle[1] - paddle[0]).max() > 60
    assert (environment.num_actions, environment.frame_skip) == (18, 2)
    assert environment.action_meanings[:2] == ("NOOP", "FIRE")


def test_an_episode_is_its_seed_and_actions_whatever_was_played_before(games):
    actions = random_actions(games, 40)
    first = [games.reset(ALL, SEEDS), *(games.step(a).observation for a in actions)]
    # In the other place, and begun in another order.
    second = [games.reset(np.array([1, 0]), SEEDS)]
    second += [games.step(a[::-1]).observation for a in actions]
    np.testing.assert_array_equal(np.stack(first), np.stack(second)[:, ::-1])
    # Had the emulators written on into arrays handed out, all would be equal.
    assert len(np.unique(np.stack(first), axis=0)) > 20


def test_sticky_actions_draw_another_course_from_another_seed(sticky):
    sticky.reset(ALL, SEEDS)
    assert sticky._frames.tolist() == [0, 0]  # no opening, which could differ
    actions = np.repeat(random_actions(sticky, 30)[:, :1], 2, axis=1)
    last = [sticky.step(a).observation for a in actions][-1]
    assert (last[0] != last[1]).any()


def test_a_reset_leaves_the_other_games_as_they_are(plain):
    actions = random_actions(plain, 40)
    begun = plain.reset(ALL, SEEDS)
    straight = [plain.step(a).observation for a in actions]
    plain.reset(ALL, np.array([3, SEEDS[1]]))
    before = [plain.step(a).observation for a in actions[:20]][-1]
    shown = plain.reset(np.array([0]), SEEDS[:1])
    np.testing.assert_array_equal(shown, np.stack([begun[0], before[1]]))
    after = [plain.step(a).observation for a in actions[20:]]
    np.testing.assert_array_equal(np.stack(after)[:, 1], np.stack(straight[20:])[:, 1])


@pytest.mark.parametrize("frame_skip", [3, 4])
def test_a_decision_takes_exactly_its_frames(frame_skip):
    environment = breakout(1, frame_skip=frame_skip)
    environment.reset(np.arange(1), np.array([1]))
    opening = environment._frames.copy()
    for decision in range(1, 11):
        environment.step(np.ones(1, np.int64))
        assert environment._frames == opening + decision * frame_skip


def test_an_episode_opens_with_as_many_no_ops_as_allowed():
    environment = breakout(3, noop_max=1)
    environment.reset(np.arange(3), np.arange(3))
    assert sorted(set(environment._frames)) == [0, 1]


def test_lives_are_lost_one_by_one_and_the_last_ends_the_game(plain):
    plain.reset(ALL, SEEDS)
    lost = np.zeros(2, int)
    for actions in random_actions(plain, 1000):
        step = plain.step(actions)
        lost += step.life_lost
        if step.terminated.any():
            break
    over = step.terminated
    assert step.life_lost[over].all()
    assert not step.truncated.any()
    assert (lost[over] == 5).all()
    assert (lost[~over] < 5).all()
    with pytest.raises(ValueError, match="not under way"):
        plain.step(np.zeros(2, np.int64))
    plain.reset(np.flatnonzero(over), SEEDS[over])
    assert not plain.step(np.zeros(2, np.int64)).life_lost.any()


def test_rewards_are_raw():
    """A pill of Ms. Pac-Man is worth 10 points."""
    environment = AtariEnvironments("MsPacman", 1, image_size=24)
    environment.reset(np.arange(1), np.array([1]))
    rewards = [environment.step(np.array([3])).reward.item() for _ in range(100)]
    assert 10 in rewards


def test_the_clock_truncates_and_the_last_frame_is_that_of_a_game_that_goes_on(sticky):
    short = breakout(1, repeat_action_probability=0.5, noop_max=0, max_episode_frames=50)
    short.reset(np.arange(1), SEEDS[:1])
    sticky.reset(ALL, SEEDS)
    for actions in random_actions(sticky, 20):
        step, other = short.step(actions[:1]), sticky.step(actions)
        np.testing.assert_array_equal(step.observation[0], other.observation[0])
        assert step.truncated.item() == (short._frames.item() >= 50)
        assert not step.terminated.any()
        if step.truncated.any():
            break
    assert short._frames.item() == 52
    with pytest.raises(ValueError, match="not under way"):
        short.step(np.zeros(1, np.int64))


def test_an_action_that_does_not_exist_never_reaches_the_emulators(plain):
    """Their threads would die of it, and the call wait for them forever."""
    plain.reset(ALL, SEEDS)
    with pytest.raises(ValueError, match="from 0 to 3"):
        plain.step(np.array([0, 4]))
    plain.step(np.array([0, 3]))


def test_restored_games_go_on_as_if_nothing_had_happened(games):
    actions = random_actions(games, 60)
    games.reset(ALL, SEEDS)
    for taken in actions[:25]:
        games.step(taken)
    games.reset(np.array([1]), SEEDS[1:])
    shown = [games.step(taken) for taken in actions[25:40]][-1].observation
    course = [games.step(taken) for taken in actions[40:]]

    back = reproduce_episodes(games, SEEDS, [actions[:40, 0], actions[25:40, 1]])
    np.testing.assert_array_equal(back, shown)
    for expected, taken in zip(course, actions[40:], strict=True):
        found = games.step(taken)
        for name in ("observation", "reward", "terminated", "truncated", "life_lost"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_all_26_games_have_their_roms():
    assert len(ATARI_100K) == 26
    assert [game_name(rom_name(game)) for game in ATARI_100K] == list(ATARI_100K)
    assert rom_name("UpNDown") == "up_n_down"


@pytest.mark.parametrize("game", ATARI_100K)
def test_each_of_the_26_games_opens_by_name_and_plays(game: str) -> None:
    environment = open_environment(EnvironmentConfig(game=game, num_envs=2))
    try:
        first = environment.reset(np.arange(2), np.array([3, 4]))
        assert first.shape == (2, *environment.observation_shape)
        assert first.std() > 0
        assert 3 <= environment.num_actions <= 18
        for number in range(4):
            step = environment.step(np.full(2, number % environment.num_actions))
        assert step.observation.shape == first.shape
        assert (environment._frames >= 16).all()
    finally:
        environment.close()


@pytest.mark.parametrize(
    ("game", "message"),
    [
        # For two players: the emulator would end the process.
        *((game, f"found '{game}'") for game in ("Combat", "Joust", "MazeCraze", "Warlords")),
        *((game, "'UpNDown'.*'CartPole-v1'") for game in ("up_n_down", "UpAndDown", "UPNDOWN")),
    ],
)
def test_a_game_that_cannot_be_played_is_named_with_the_nearest(game, message):
    with pytest.raises(ValueError, match=message):
        open_environment(EnvironmentConfig(game=game))

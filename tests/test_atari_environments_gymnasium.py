"""Any gymnasium environment as a vector; stacks of frames; settings; what callers must respect."""

import contextlib
import importlib.util
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atari_bridge.acting.episode_resume import reproduce_episodes
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.factory import open_environment
from atari_bridge.environments.frame_stack import FrameStack
from atari_bridge.environments.games import _playable, rom_name
from atari_bridge.environments.gymnasium_make import make_environment
from atari_bridge.environments.gymnasium_vector import GymnasiumEnvironments
from atari_bridge.environments.interface import check_reset, check_step
from prefsearch.config.user_code import UserCodeError

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces

ALL = np.arange(2)
SEEDS = np.array([11, 12])


class Shown(gymnasium.Env):
    """Shows whatever its space holds; actions come back as rewards; the 3rd ends it."""

    def __init__(self, observations, actions=None):
        self.observation_space = observations
        self.action_space = actions or spaces.Discrete(3, start=5)
        self._memory = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._time = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self._time += 1
        # A memory that no reset clears, as MinAtar's sticky actions have.
        reward, self._memory = float(action + 100 * self._memory), 1
        return self.observation_space.sample(), reward, self._time == 3, self._time == 3, {}


@pytest.fixture
def register():
    """Registers `Shown` with spaces, and forgets it after the test."""
    registered = []

    def add(observations, actions=None, name="Shown-v0"):
        gymnasium.register(name, Shown, kwargs={"observations": observations, "actions": actions})
        registered.append(name)
        return name

    yield add
    for name in registered:
        del gymnasium.registry[name]


def box(shape, dtype, high=1.0):
    return spaces.Box(0, high, shape, dtype)


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (box((5, 6, 3), np.uint8, 255), (3, 5, 6), np.uint8),
        (box((5, 6, 7), np.uint8, 255), (7, 5, 6), np.uint8),
        (box((5, 6), np.uint8, 255), (1, 5, 6), np.uint8),
        (box((5, 6, 4), bool), (4, 5, 6), np.uint8),
        (box((4,), np.float32), (4,), np.float32),
        (box((2, 3), np.float64), (6,), np.float32),
        (box((3,), np.uint8, 255), (3,), np.float32),
        (box((), np.float32), (1,), np.float32),
    ],
)
def test_a_box_becomes_an_image_or_a_vector_of_the_same_numbers(register, space, shape, dtype):
    environment = GymnasiumEnvironments(register(space), 2)
    shown = environment.reset(ALL, SEEDS)
    assert environment.observation_shape == shape
    assert environment.observation_dtype == shown.dtype == dtype
    assert shown.shape == (2, *shape)
    space.seed(11)
    raw = np.asarray(space.sample()).astype(np.float32)
    if len(shape) == 3:
        raw = np.moveaxis(raw.reshape(5, 6, shape[0]), 2, 0) * (255 if space.dtype == bool else 1)
    np.testing.assert_array_equal(shown[0], raw.reshape(shape))
    assert environment.step(np.zeros(2, np.int64)).observation.shape == (2, *shape)


def test_actions_start_where_the_space_starts_and_an_end_is_no_truncation_too(register):
    environment = GymnasiumEnvironments(register(box((2,), np.float32)), 2)
    assert environment.action_meanings == ("5", "6", "7")
    environment.reset(ALL, SEEDS)
    np.testing.assert_array_equal(environment.step(np.array([0, 2])).reward, [5, 7])
    environment.step(ALL)
    step = environment.step(ALL)
    assert step.terminated.all()
    assert not step.truncated.any()
    assert not step.life_lost.any()
    with pytest.raises(ValueError, match=r"\[0, 1\] that are not under way"):
        environment.step(ALL)


def test_an_episode_knows_nothing_of_the_one_before(register):
    environment = GymnasiumEnvironments(register(box((2,), np.float32)), 2)
    environment.reset(ALL, SEEDS)
    first = environment.step(ALL)
    environment.reset(ALL, SEEDS)
    again = environment.step(ALL)
    np.testing.assert_array_equal(again.reward, first.reward)
    np.testing.assert_array_equal(again.observation, first.observation)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (box((2,), np.float32), box((1,), np.float32), r"Box\(0.0.*required: Discrete"),
        (box((2,), np.float32), spaces.MultiDiscrete([2, 3]), "MultiDiscrete.*required: Discrete"),
        (spaces.Dict({"a": box((2,), np.float32)}), None, "Dict.*required: a Box"),
        (spaces.Discrete(4), None, "Discrete.*required: a Box"),
        (box((3, 64, 64), np.uint8, 255), None, r"look like \[C, H, W\]"),
        (box((64, 64, 3), np.float32), None, "12288 numbers"),
    ],
)
def test_spaces_that_cannot_be_used_are_named(register, observations, actions, message):
    with pytest.raises(ValueError, match=message):
        GymnasiumEnvironments(register(observations, actions), 1)


@pytest.mark.parametrize(
    ("shown", "reward", "message"),
    [
        (np.zeros(3, np.float32), 0.0, r"observation of shape \(3,\); required.*Box.*\(2,\)"),
        (np.zeros(1, np.float32), 0.0, r"observation of shape \(1,\)"),  # would be spread over two
        (np.array([0, np.nan], np.float32), 0.0, "numbers that are not finite"),
        (np.zeros(2, np.float32), np.nan, r"found rewards \[5.0, nan\]; required: finite"),
    ],
)
def test_an_environment_that_breaks_its_word_is_named(register, shown, reward, message):
    environment = GymnasiumEnvironments(register(box((2,), np.float32)), 2)
    environment.reset(ALL, SEEDS)
    environment._environments[1].unwrapped.step = lambda action: (shown, reward, False, False, {})
    with pytest.raises(ValueError, match=f"game 'Shown-v0': .*{message}"):
        environment.step(np.array([0, 0]))


def test_the_time_limit_of_an_environment_truncates():
    environment = GymnasiumEnvironments("MountainCar-v0", 1)
    environment.reset(np.arange(1), np.array([1]))
    ends = [environment.step(np.array([1])) for _ in range(200)]
    assert [bool(step.truncated[0]) for step in ends] == [False] * 199 + [True]
    assert not ends[-1].terminated[0]


def test_handed_out_observations_are_not_written_to_again():
    environment = GymnasiumEnvironments("CartPole-v1", 2)
    first = environment.reset(ALL, SEEDS)
    kept = first.copy()
    second = environment.step(ALL).observation
    environment.step(ALL)
    np.testing.assert_array_equal(first, kept)
    assert (second != first).any()


def test_ids_are_named_before_the_emulator_registers_its_own(monkeypatch):
    for name in [name for name in gymnasium.registry if name.startswith("ALE/")]:
        monkeypatch.delitem(gymnasium.registry, name)
    _playable.cache_clear()
    with pytest.raises(ValueError, match=r"no such version; required: .*'CartPole-v1'"):
        make_environment("CartPole-v99")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole", "such as 'CartPole-v1'"),
        ("CartPole-v01", "no such version; required: .* such as 'CartPole-v1', 'CartPole-v0'"),
        ("LunarLander-v2", "no such version; required: .* such as 'LunarLander-v3'"),
        ("Foo/Bar-v0", "nothing has registered a namespace 'Foo'"),
        ("NoSuchThing-v0", "no such environment; required: an id that gymnasium knows"),
        *((name, "'CartPole-v1'") for name in ("CartPol-v1", "CartPole-v99", "Cartpole-v1")),
        ("ALE/Pog-v5", "an Atari game's name such as 'Pong'"),
        *((name, f"Write '{game}'") for name, game in (
            ("ALE/MsPacman-v5", "MsPacman"), ("ale_py:ALE/Pong-v5", "Pong"),
            ("ALE/Tetris", "Tetris"), ("PongNoFrameskip-v4", "Pong"),
            ("Pong-ramDeterministic-v4", "Pong"), ("Breakout-v4", "Breakout"),
        )),
        *((name, "required: an id of the form 'Name-v1'") for name in (
            ":CartPole-v1", "a:", "a:b:CartPole-v1", "/", "../CartPole-v1", "a b/c-v1", "1x:Foo-v1",
        )),
        ("no_such_module:Foo-v1", "'no_such_module' could not be imported: ModuleNotFoundError"),
    ],
)  # fmt: skip
def test_a_wrong_id_is_one_error(name, message):
    with pytest.raises(ValueError, match=f"game.*{message}"):
        open_environment(EnvironmentConfig(game=name))


def test_a_setting_that_only_atari_has_is_not_ignored():
    for setting in ({"repeat_action_probability": 0.25}, {"full_action_space": True}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))}.*no Atari game"):
            open_environment(EnvironmentConfig(game="CartPole-v1", **setting))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12) | st.from_regex(r"[A-Za-z]{0,4}[:/]?[A-Za-z]{0,8}-v[0-9]{0,2}"))
def test_no_id_ends_in_another_error(name):
    with contextlib.suppress(ValueError, ImportError):
        open_environment(EnvironmentConfig(game=name, num_envs=1)).close()


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("LunarLander-v3", "Box2D", r"gymnasium\[box2d\]"),
        ("CarRacing-v3", "Box2D", r"gymnasium\[box2d\]"),
        ("Ant-v5", "mujoco", r"gymnasium\[mujoco\]"),
        ("phys2d/CartPole-v1", "jax", r"gymnasium\[jax\]"),
    ],
)
def test_a_missing_extra_is_named_with_its_install_line(name, package, extra):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(ImportError, match=f"game '{name}': .*pip install \"{extra}\""):
        open_environment(EnvironmentConfig(game=name))


class Broken(gymnasium.Env):
    observation_space, action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(2)

    def __init__(self, at, error):
        self.at, self.error = at, error
        self.fail("made")

    def fail(self, doing):
        if self.at == doing:
            raise self.error

    def reset(self, *, seed=None, options=None):
        self.fail("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.fail("stepped")


def play_broken(at, error):
    gymnasium.register("Broken-v0", Broken, kwargs={"at": at, "error": error})
    try:
        environment = GymnasiumEnvironments("Broken-v0", 1)
        environment.reset(np.arange(1), SEEDS[:1])
        environment.step(np.array([0]))
    finally:
        del gymnasium.registry["Broken-v0"]


@pytest.mark.parametrize("error", [RuntimeError("lost"), KeyError("lost"), SystemExit("lost")])
@pytest.mark.parametrize("at", ["made", "reset", "stepped"])
def test_whatever_an_environment_raises_is_named(at, error):
    message = rf"game 'Broken-v0' could not be {at}: {__file__}:\d+: {type(error).__name__}.*lost"
    with pytest.raises(UserCodeError, match=message) as caught:
        play_broken(at, error)
    assert type(caught.value.__cause__) is type(error)
    with pytest.raises(KeyboardInterrupt):
        play_broken(at, KeyboardInterrupt())


def test_a_module_that_an_id_names_registers_it_or_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "brings_games.py").write_text(
        "import gymnasium\ngymnasium.register('Mine-v0', "
        "'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    assert GymnasiumEnvironments("brings_games:Mine-v0", 1).num_actions == 2
    (tmp_path / "brings_none.py").write_text("raise SystemExit(0)")
    with pytest.raises(UserCodeError, match=r"brings_none\.py:1: SystemExit: 0; required"):
        GymnasiumEnvironments("brings_none:Mine-v0", 1)


def test_an_id_that_only_sounds_like_an_atari_game_is_none(register):
    name = register(box((4, 4, 2), bool), name="MinAtar/Breakout-v0")
    assert open_environment(EnvironmentConfig(game=name)).observation_shape == (2, 4, 4)


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    _playable.cache_clear()  # what is installed is looked up once
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"prefsearch\[atari\]"):
        rom_name("Pong")
    with pytest.raises(ImportError, match=r"prefsearch\[atari\]"):
        GymnasiumEnvironments("CartPole-v1", 1)


@pytest.mark.parametrize(
    ("check", "arguments", "state", "message"),
    [
        (check_step, ([0, 4],), "under_way", "from 0 to 3"),
        (check_step, ([-1, 0],), "under_way", "from 0 to 3"),
        (check_step, ([0],), "under_way", "2 integers"),
        (check_step, ([0.0, 1.0],), "under_way", "integers"),
        (check_reset, ([0], [1]), "begun", r"\[1\] that were never begun"),
        (check_reset, ([0, 2], [1, 2]), "begun", "0 to 1"),
        (check_reset, ([0, 0], [1, 2]), "begun", "distinct"),
        (check_reset, ([0, 1], [1]), "begun", "2 environments"),
        (check_reset, ([0, 1], [1, -1]), "begun", "31 bits"),
        (check_reset, ([0, 1], [1, 2**31]), "begun", "31 bits"),
    ],
)
def test_calls_that_make_no_sense_are_refused(check, arguments, state, message):
    arrays = [np.array(one) for one in arguments]
    arrays += [4] if check is check_step else []
    with pytest.raises(ValueError, match=message):
        check(*arrays, **{state: np.full(2, check is check_step)})


def test_restored_environments_of_unequal_ages_go_on_where_they_were():
    """Ages 0, 9 and 30; the first two wait so long that their unwatched episodes end."""
    rows, seeds = np.arange(3), np.array([16, 18, 19])
    actions = np.tile([0, 1], 40)
    played = GymnasiumEnvironments("CartPole-v1", 3)
    alone = GymnasiumEnvironments("CartPole-v1", 1)
    ages = [0, 9, 30]
    expected = []
    for seed, age in zip(seeds, ages, strict=True):
        alone.reset(np.arange(1), np.array([seed]))
        course = [alone.step(actions[t : t + 1]) for t in range(age + 5)]
        expected.append(np.stack([step.observation[0] for step in course]))
    shown = reproduce_episodes(played, seeds, [actions[:age] for age in ages])
    for row in (1, 2):
        np.testing.assert_array_equal(shown[row], expected[row][ages[row] - 1])
    np.testing.assert_array_equal(shown[0], played.reset(rows[:1], seeds[:1])[0])
    for time in range(5):
        step = played.step(np.array([actions[age + time] for age in ages]))
        for row, age in enumerate(ages):
            np.testing.assert_array_equal(step.observation[row], expected[row][age + time])


def test_an_episode_that_ends_early_cannot_be_restored():
    environment = GymnasiumEnvironments("CartPole-v1", 2)
    with pytest.raises(ValueError, match=r"environments \[1\] end \d+ actions early"):
        reproduce_episodes(environment, SEEDS, [np.tile([0, 1], 15), np.zeros(30, np.int64)])
    with pytest.raises(ValueError, match="2 seeds and 1 lists"):
        reproduce_episodes(environment, SEEDS, [np.zeros(3, np.int64)])
    shown = reproduce_episodes(environment, SEEDS, [np.array([], np.int64)] * 2)  # only begun
    np.testing.assert_array_equal(shown, environment.reset(ALL, SEEDS))


def test_a_stack_holds_the_newest_frames_oldest_first_and_repeats_the_first():
    stack = FrameStack(2, 3, (2, 1, 1), np.dtype(np.uint8))

    def frame(first: int, second: int) -> np.ndarray:
        return np.array([[first, first + 1], [second, second + 1]], np.uint8)[..., None, None]

    def channels() -> list[list[int]]:
        return stack.stacks[..., 0, 0].tolist()

    stack.reset(ALL, frame(10, 50))
    assert channels() == [[10, 11, 10, 11, 10, 11], [50, 51, 50, 51, 50, 51]]
    stack.push(frame(20, 60))
    stack.push(frame(30, 70))
    assert channels()[0] == [10, 11, 20, 21, 30, 31]
    kept = stack.stacks
    stack.reset(np.array([1]), frame(99, 80))
    assert channels() == [[10, 11, 20, 21, 30, 31], [80, 81, 80, 81, 80, 81]]
    assert stack.newest[..., 0, 0].tolist() == [[30, 31], [80, 81]]
    assert kept[1, :, 0, 0].tolist() == [50, 51, 60, 61, 70, 71]
    assert kept.shape == (2, 6, 1, 1)


def test_a_stack_goes_back_to_its_state():
    stack = FrameStack(1, 2, (1, 1, 1), np.dtype(np.uint8))
    stack.push(np.full((1, 1, 1, 1), 7, np.uint8))
    state = stack.state()
    stack.push(np.full((1, 1, 1, 1), 9, np.uint8))
    other = FrameStack(1, 2, (1, 1, 1), np.dtype(np.uint8))
    other.load_state(state)
    other.push(np.full((1, 1, 1, 1), 9, np.uint8))
    np.testing.assert_array_equal(other.stacks, stack.stacks)
    assert state.ravel().tolist() == [0, 7]
    with pytest.raises(ValueError, match="required"):
        FrameStack(1, 4, (1, 1, 1), np.dtype(np.uint8)).load_state(state)


def test_vectors_are_not_stacked():
    stack = FrameStack(2, 1, (3,), np.dtype(np.float32))
    observation = np.arange(6, dtype=np.float32).reshape(2, 3)
    stack.push(observation)
    np.testing.assert_array_equal(stack.stacks, observation)
    assert stack.stacks.dtype == np.float32
    with pytest.raises(ValueError, match="Set frame_stack to 1"):
        FrameStack(2, 4, (3,), np.dtype(np.float32))

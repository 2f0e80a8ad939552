"""A replay against plain lists of rows: windows, stacks, draws and priorities."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from atari_bridge.replay.config import ReplayConfig
from atari_bridge.replay.frame_codec import FrameCodec
from atari_bridge.replay.frame_store import PackedFrames, PlainFrames
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import Rows

ACTIONS, STACK, LOOKAHEAD, WIDTH = 3, 3, 4, 5
IMAGE = (1, 4, 5)  # 20 bytes: no whole number of words


@dataclass
class Remembered:
    """One row of the oracle."""

    frame: np.ndarray
    action: int
    reward: float
    made_at: int
    policy: np.ndarray
    value: float
    terminated: bool = False
    truncated: bool = False
    first: bool = False
    void: bool = False
    cut: bool = False  # the stream was broken off after it


@dataclass
class Stream:
    """An environment's whole stream, and what may come next."""

    generator: np.random.Generator
    rows: list[Remembered] = field(default_factory=list)

    def grow(self, made_at: int) -> Remembered:
        g, last = self.generator, self.rows[-1] if self.rows else None
        begins = last is None or last.cut or last.void
        void = False
        if last is not None and not begins:
            void = last.truncated or (last.terminated and g.random() < 0.5)
            begins = last.terminated and not void
        end = g.random()
        row = Remembered(
            frame=g.integers(0, 256, IMAGE).astype(np.uint8),
            action=int(g.integers(ACTIONS)),
            reward=float(np.float32(g.normal())),
            made_at=made_at,
            policy=g.random(ACTIONS).astype(np.float32),
            value=float(np.float32(g.normal())),
            terminated=not void and end < 0.08,
            truncated=not void and 0.08 <= end < 0.13,
            first=begins,
            void=void,
        )
        self.rows.append(row)
        return row

    def episode(self, t: int) -> tuple[int, int]:
        """First and last row of the episode of row t, void row included."""
        start = t
        while not self.rows[start].first:
            start -= 1
        stop = t
        while stop + 1 < len(self.rows) and not self.rows[stop + 1].first:
            stop += 1
        return start, stop

    def is_ready(self, t: int) -> bool:
        row = self.rows[t]
        _, stop = self.episode(t)
        last = self.rows[stop]
        return not row.void and (
            last.terminated
            or last.void
            or stop - t >= LOOKAHEAD
            or (stop + 1 < len(self.rows) and not last.cut)
        )


def rows_of(envs: list[int], new: list[Remembered]) -> Rows:
    names = {
        "action": np.int64, "reward": np.float32, "terminated": bool, "truncated": bool,
        "first": bool, "void": bool, "made_at": np.int64, "value": np.float32,
    }  # fmt: skip
    return Rows(
        env_index=np.array(envs),
        frame=np.stack([row.frame for row in new]),
        policy=np.stack([row.policy for row in new]),
        **{n: np.array([getattr(row, n) for row in new], dtype) for n, dtype in names.items()},
    )


def make_replay(capacity: int = 3 * 21, *, envs: int = 3, packed: bool = True, **rest) -> Replay:
    return Replay(
        ReplayConfig(replay_capacity=capacity, compress_frames=packed),
        num_envs=envs,
        observation_shape=IMAGE,
        observation_dtype=np.dtype(np.uint8),
        num_actions=ACTIONS,
        **{"frame_stack": STACK, "lookahead": LOOKAHEAD, **rest},
    )


def play(replay: Replay, envs: list[Stream], steps: int, *, cuts: float = 0.02) -> None:
    """Rows for a part of the envs at a time, with a cut now and then."""
    chance = envs[0].generator
    for _ in range(steps):
        here = [n for n in chance.permutation(len(envs)).tolist() if chance.random() < 0.7]
        made_at = sum(len(env.rows) for env in envs)
        if here:
            replay.append(rows_of(here, [envs[n].grow(made_at) for n in here]))
        for n, env in enumerate(envs):
            if env.rows and chance.random() < cuts:
                env.rows[-1].cut = True
                replay.cut(n)


def streams_of(seed: int, count: int = 3) -> list[Stream]:
    return [Stream(np.random.default_rng(seed * 10 + n)) for n in range(count)]


def ready_rows(replay: Replay, envs: list[Stream]) -> dict[int, tuple[Stream, int]]:
    """Global index to env and row, by the oracle."""
    size = replay.capacity_per_env
    return {
        n * size + t % size: (env, t)
        for n, env in enumerate(envs)
        for t in range(max(0, len(env.rows) - size), len(env.rows))
        if env.is_ready(t)
    }


def check_window(replay: Replay, expected: dict[int, tuple[Stream, int]]) -> None:
    index = np.array(list(expected))
    window = replay.window(index, WIDTH)
    for b, (env, t) in enumerate(expected.values()):
        _, stop = env.episode(t)
        for j in range(WIDTH):
            row = env.rows[t + j] if t + j < len(env.rows) else None
            alive = row is not None and t + j <= stop and not row.void
            last_seen = row is not None and t + j == stop and row.void
            bootstrap = alive or (last_seen and env.rows[stop - 1].truncated)
            assert window.alive[b, j] == alive
            assert window.bootstrap[b, j] == bootstrap
            if row is None:
                assert window.action[b, j] == 0
                assert not window.policy[b, j].any()
                continue
            for name in ("action", "reward", "terminated", "truncated", "void", "made_at", "value"):
                assert getattr(window, name)[b, j] == getattr(row, name), name
            assert np.array_equal(window.policy[b, j], row.policy)


def check_frames(replay: Replay, expected: dict[int, tuple[Stream, int]]) -> None:
    found = replay.frames(np.array(list(expected)), WIDTH)
    assert found.frames.shape == (len(expected), STACK - 1 + WIDTH, *IMAGE)
    for b, (env, t) in enumerate(expected.values()):
        oldest = max(0, len(env.rows) - replay.capacity_per_env)
        for i in range(STACK - 1 + WIDTH):
            known = min(max(t + i - (STACK - 1), oldest), len(env.rows) - 1)
            assert np.array_equal(found.frames[b, i], env.rows[known].frame)
        for j in range(min(WIDTH, len(env.rows) - t)):
            start, _ = env.episode(t + j)
            for s in range(STACK):
                wanted = max(t + j - (STACK - 1) + s, start, oldest)
                assert found.stack_index[b, j, s] == wanted - (t - (STACK - 1))
                frame = found.frames[b, found.stack_index[b, j, s]]
                assert np.array_equal(frame, env.rows[wanted].frame)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_windows_and_stacks_equal_those_of_plain_lists(seed: int, packed: bool) -> None:
    replay, envs = make_replay(packed=packed), streams_of(seed)
    seen = 0
    for _ in range(8):  # from empty to three times around
        play(replay, envs, 12)
        expected = ready_rows(replay, envs)
        assert len(replay) == len(expected)
        if expected:
            drawn = replay.sample(200, beta=1.0, generator=np.random.default_rng(seed))
            assert set(drawn.index.tolist()) == set(expected)
            check_window(replay, expected)
            check_frames(replay, expected)
            seen += len(expected)
    assert seen > 100
    assert min(len(env.rows) for env in envs) > 2 * replay.capacity_per_env


def simple(first: bool = False, **marks: bool) -> Remembered:
    return Remembered(
        np.zeros(IMAGE, np.uint8), 0, 0.0, 0, np.zeros(ACTIONS, np.float32), 0.0, first=first,
        **marks,
    )  # fmt: skip


def append(replay: Replay, *new: Remembered, env: int = 0) -> None:
    for row in new:
        replay.append(rows_of([env], [row]))


def test_a_row_waits_for_its_lookahead_or_its_episodes_end() -> None:
    replay = make_replay()
    append(replay, simple(first=True), *[simple()] * (LOOKAHEAD - 1))
    assert len(replay) == 0
    append(replay, simple())
    assert len(replay) == 1
    append(replay, simple(truncated=True))
    assert len(replay) == 2  # the value of the last observation is still to come
    append(replay, simple(void=True))
    assert len(replay) == LOOKAHEAD + 2
    append(replay, simple(first=True, terminated=True))
    assert len(replay) == LOOKAHEAD + 3


def test_rows_before_a_cut_that_waited_are_never_drawn() -> None:
    replay = make_replay()
    append(replay, simple(first=True), *[simple()] * LOOKAHEAD)
    replay.cut(0)
    assert len(replay) == 1
    with pytest.raises(ValueError, match=r"environment 0: .* as nothing after nothing or a"):
        append(replay, simple())
    append(replay, simple(first=True), *[simple()] * LOOKAHEAD)
    assert len(replay) == 2
    window = replay.window(np.array([0]), WIDTH + 2)
    assert window.alive[0].tolist() == [True] * 5 + [False] * 2


def test_draws_follow_priorities_and_weights_make_up_for_them() -> None:
    replay = make_replay()
    append(replay, simple(first=True), simple(), simple(), simple(terminated=True))
    index = np.arange(4)
    replay.update_priorities(index, np.array([1.0, 2.0, 4.0, 0.0]))
    generator = np.random.default_rng(0)
    drawn = replay.sample(4000, beta=0.5, generator=generator)
    raised = (np.array([1.0, 2.0, 4.0, 0.0]) + 1e-6) ** 0.6
    share = raised / raised.sum()
    counts = np.bincount(drawn.index, minlength=4)
    assert np.allclose(counts / 4000, share, atol=2 / 4000)  # one draw from each equal share
    weight = (4 * share[drawn.index]) ** -0.5
    assert np.allclose(drawn.weight, weight, rtol=1e-6)
    assert drawn.weight.dtype == np.float32


def test_a_new_row_has_the_greatest_priority_so_far() -> None:
    replay = make_replay()
    append(replay, simple(first=True), simple(terminated=True))
    replay.update_priorities(np.array([0, 1]), np.array([9.0, 1.0]))
    append(replay, simple(first=True, terminated=True))
    drawn = replay.sample(5000, beta=1.0, generator=np.random.default_rng(0)).index
    counts = np.bincount(drawn, minlength=3)
    assert abs(int(counts[2]) - int(counts[0])) <= 2


def test_priorities_of_rows_that_cannot_be_drawn_change_nothing() -> None:
    replay = make_replay()
    append(replay, simple(first=True, truncated=True), simple(void=True), simple(first=True))
    replay.update_priorities(np.array([0, 1, 2]), np.array([1.0, 50.0, 50.0]))
    assert len(replay) == 1
    drawn = replay.sample(50, beta=1.0, generator=np.random.default_rng(0))
    assert set(drawn.index.tolist()) == {0}
    append(replay, simple(terminated=True))  # row 2 is ready now, with the greatest real priority
    assert replay._tree.values[:3].tolist() == [replay._tree.values[2], 0, 1.000001**0.6]


def test_the_same_generator_draws_the_same_rows() -> None:
    replay, envs = make_replay(), streams_of(5)
    play(replay, envs, 30)
    first, second = (
        replay.sample(16, beta=0.4, generator=np.random.default_rng(3)) for _ in range(2)
    )
    assert np.array_equal(first.index, second.index)
    assert np.array_equal(first.weight, second.weight)


def test_newest_names_the_last_row_of_each_environment() -> None:
    replay = make_replay(capacity=18)
    assert replay.newest().tolist() == [-1, -1, -1]
    append(replay, simple(first=True), *[simple()] * 7, env=1)  # 8 rows in a buffer of 6
    assert replay.newest().tolist() == [-1, 7, -1]
    assert replay.newest(np.array([1])).tolist() == [7]


@pytest.mark.parametrize("marks", [{"first": True}, {"void": True}, {"terminated": True}])
def test_a_row_that_cannot_follow_is_named(marks: dict[str, bool]) -> None:
    replay = make_replay()
    append(replay, simple(first=True))
    if "terminated" in marks:
        marks = {"terminated": True, "truncated": True}
    with pytest.raises(ValueError, match=rf"environment 0: found one marked {next(iter(marks))}"):
        append(replay, simple(**marks))
    assert replay.newest(np.array([0])).tolist() == [0]


@pytest.mark.parametrize(
    ("field", "found", "message"),
    [
        ("env_index", np.array([1, 1]), r"found int64 \[1, 1\].*no two alike"),
        ("env_index", np.array([0, 3]), ".* 0 to 2"),
        ("frame", np.zeros((2, 1, 4, 4), np.uint8), r"found .*\(2, 1, 4, 5\) uint8"),
        ("action", np.zeros(2), r"found \(2,\) float64"),
    ],
)
def test_rows_that_do_not_fit_are_named(field: str, found: np.ndarray, message: str) -> None:
    good = rows_of([0, 1], [simple(first=True)] * 2)
    with pytest.raises(ValueError, match=f"rows.{field}: {message}"):
        make_replay().append(replace(good, **{field: found}))


def test_settings_and_questions_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match=r"4 rows for each of 3 environments.*capacity to 15"):
        make_replay(capacity=12)
    replay = make_replay()
    with pytest.raises(ValueError, match="found no row that can be sampled among 0"):
        replay.sample(4, beta=1.0, generator=np.random.default_rng(0))
    append(replay, simple(first=True))
    with pytest.raises(ValueError, match=r"found \[5\], where there is no row"):
        replay.window(np.array([0, 5]), 2)
    with pytest.raises(ValueError, match="finite numbers"):
        replay.update_priorities(np.array([0]), np.array([np.nan]))


def test_vectors_are_kept_as_they_are() -> None:
    replay = Replay(
        ReplayConfig(replay_capacity=20),
        num_envs=1,
        observation_shape=(4,),
        observation_dtype=np.dtype(np.float32),
        num_actions=ACTIONS,
        lookahead=1,
    )
    seen = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    for t in range(30):
        row = rows_of([0], [simple(first=t == 0)])
        replay.append(replace(row, frame=seen[t : t + 1]))
    found = replay.frames(np.array([12]), 3)  # position 12 holds row 12, the ring's head is at 10
    assert np.array_equal(found.frames[0], seen[12:15])
    assert found.stack_index[0].tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 12, 16), (1, 1, 1), (1, 9, 84)])
def test_packed_blocks_come_back_as_they_were(shape: tuple[int, ...]) -> None:
    codec, generator = FrameCodec(shape, 8), np.random.default_rng(0)
    size = int(np.prod(shape))
    frames = np.zeros((8, codec.words * 8), np.uint8)
    frames[:, :size] = generator.integers(0, 256, size)  # a still picture
    frames[3:, size // 2] ^= 255
    frames[6, :size] = generator.integers(0, 256, size)
    data = codec.pack(frames)
    for count in (1, 4, 8):
        found = np.full_like(frames[:count], 7)
        codec.unpack(data, found, length=8)
        assert np.array_equal(found, frames[:count])


@pytest.mark.parametrize("threads", [1, 3])
def test_packed_frames_are_read_like_plain_ones_and_take_less_room(threads: int) -> None:
    envs, capacity, shape = 2, 301, (1, 16, 16)
    packed = PackedFrames(envs, capacity, shape, threads=threads)
    plain = PlainFrames(envs, capacity, shape, np.dtype(np.uint8))
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (envs, *shape)).astype(np.uint8)
    for t in range(700):
        picture = picture.copy()
        picture[:, 0, t % 16, (t // 16) % 16] ^= 1 + t % 255
        where = np.arange(envs), np.full(envs, t % capacity)
        packed.write(*where, picture)
        plain.write(*where, picture)
    places = generator.integers(0, envs, 1500), generator.integers(0, capacity, 1500)
    assert np.array_equal(packed.read(*places), plain.read(*places))
    assert sum(map(len, filter(None, packed._packed))) < envs * capacity * 256 / 3

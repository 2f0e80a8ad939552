"""A replay as files: the same to the last bit, or a message that names the file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atari_bridge.replay.config import ReplayConfig
from atari_bridge.replay.files import MANIFEST, load_replay, save_replay
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import Rows

ACTIONS, IMAGE = 4, (1, 16, 16)


def make_replay(*, packed: bool = True, capacity: int = 60, lookahead: int = 3) -> Replay:
    return Replay(
        ReplayConfig(replay_capacity=capacity, compress_frames=packed),
        num_envs=2,
        observation_shape=IMAGE,
        observation_dtype=np.dtype(np.uint8),
        num_actions=ACTIONS,
        frame_stack=2,
        lookahead=lookahead,
    )


def play(replay: Replay, start: int, stop: int) -> None:
    """Steps of two envs, decided by their number alone; every 17th step ends an episode."""
    for t in range(start, stop):
        generator = np.random.default_rng(t)
        step = t % 17
        mark = np.full(2, True)
        replay.append(
            Rows(
                env_index=np.arange(2),
                frame=generator.integers(0, 256, (2, *IMAGE)).astype(np.uint8),
                action=generator.integers(0, ACTIONS, 2),
                reward=generator.normal(size=2).astype(np.float32),
                terminated=mark & False,
                truncated=mark & (step == 15),
                first=mark & (step == 0),
                void=mark & (step == 16),
                made_at=np.full(2, t),
                policy=generator.random((2, ACTIONS)).astype(np.float32),
                value=generator.normal(size=2).astype(np.float32),
            )
        )
        if len(replay):
            drawn = replay.sample(4, beta=1.0, generator=generator)
            replay.update_priorities(drawn.index, generator.random(4) * 3)


def assert_same(left: Replay, right: Replay) -> None:
    assert len(left) == len(right)
    assert np.array_equal(left._tree._nodes, right._tree._nodes)
    ours, theirs = left.state(), right.state()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    draws = [r.sample(32, beta=0.5, generator=np.random.default_rng(0)) for r in (left, right)]
    assert np.array_equal(draws[0].index, draws[1].index)
    assert np.array_equal(draws[0].weight, draws[1].weight)
    frames = [r.frames(draws[0].index, 5) for r in (left, right)]
    assert np.array_equal(frames[0].frames, frames[1].frames)
    assert np.array_equal(frames[0].stack_index, frames[1].stack_index)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("steps", [11, 30, 47, 100])  # capacity of an environment: 30
def test_a_loaded_replay_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, steps: int, packed: bool
) -> None:
    whole, loaded = make_replay(packed=packed), make_replay(packed=packed)
    play(whole, 0, steps)
    save_replay(whole, tmp_path / "r", max_part_bytes=20_000)
    play(loaded, 0, 5)  # what was there before is dropped
    load_replay(loaded, tmp_path / "r")
    assert_same(whole, loaded)
    for replay in (whole, loaded):
        play(replay, steps, steps + 40)
    assert_same(whole, loaded)


def test_a_cut_outlives_a_file(tmp_path: Path) -> None:
    replay, loaded = make_replay(), make_replay()
    play(replay, 0, 8)
    replay.cut(1)
    save_replay(replay, tmp_path / "r")
    load_replay(loaded, tmp_path / "r")
    assert len(loaded) == len(replay)
    with pytest.raises(ValueError, match=r"environment 1: .*after nothing or a cut"):
        play(loaded, 8, 9)


def test_an_empty_replay_can_be_kept_and_comes_back_empty(tmp_path: Path) -> None:
    loaded = make_replay()
    play(loaded, 0, 20)
    save_replay(make_replay(), tmp_path / "r")
    load_replay(loaded, tmp_path / "r")
    assert len(loaded) == 0
    assert loaded.newest().tolist() == [-1, -1]


def test_parts_are_no_larger_than_asked(tmp_path: Path) -> None:
    replay = make_replay(packed=False, capacity=400)
    play(replay, 0, 150)
    save_replay(replay, tmp_path / "small", max_part_bytes=20_000)
    sizes = [path.stat().st_size for path in (tmp_path / "small").glob("*.safetensors")]
    assert max(sizes) <= 20_000
    assert sum(sizes) > 300 * 256
    save_replay(replay, tmp_path / "one", max_part_bytes=None)
    assert len(list((tmp_path / "one").glob("*.safetensors"))) == 2
    with pytest.raises(ValueError, match="max_part_bytes: found 100; required: at least"):
        save_replay(replay, tmp_path / "none", max_part_bytes=100)
    with pytest.raises(ValueError, match="found a replay there; required: a new folder"):
        save_replay(replay, tmp_path / "one")


def _shorten(folder: Path) -> None:
    path = folder / "rows-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _flip(folder: Path) -> None:
    path = folder / "frames-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_shorten, r"rows-00000\.safetensors: found \d+ bytes; required: \d+ bytes"),
        (_flip, r"frames-00000\.safetensors: .*found the SHA-256 \w+; required: \w+"),
        (lambda folder: (folder / MANIFEST).unlink(), "holds frames-.*required: a saved replay"),
    ],
)
def test_a_damaged_replay_is_named_and_changes_nothing(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    replay, other = make_replay(), make_replay()
    play(replay, 0, 25)
    save_replay(replay, tmp_path / "r")
    damage(tmp_path / "r")
    play(other, 0, 40)
    before = other.state()
    with pytest.raises(ValueError, match=message):
        load_replay(other, tmp_path / "r")
    assert all(np.array_equal(before[n], array) for n, array in other.state().items())


def test_a_replay_of_other_settings_is_named(tmp_path: Path) -> None:
    replay = make_replay()
    play(replay, 0, 25)
    save_replay(replay, tmp_path / "r")
    with pytest.raises(ValueError, match="found capacity_per_env 30; required: 40"):
        load_replay(make_replay(capacity=80), tmp_path / "r")
    with pytest.raises(ValueError, match="found packed True; required: False"):
        load_replay(make_replay(packed=False), tmp_path / "r")
    with pytest.raises(ValueError, match="found lookahead 3; required: 5"):
        load_replay(make_replay(lookahead=5), tmp_path / "r")
    with pytest.raises(ValueError, match="found no such folder"):
        load_replay(replay, tmp_path / "nowhere")

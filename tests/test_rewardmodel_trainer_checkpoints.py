"""Checkpoints of training: damaged ones are passed over or named, and kept by their numbers."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trl import RewardTrainer

from prefsearch.run.directory import DamagedRunError
from rewardmodel.training.checkpoints import MANIFEST
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model
from tests.killed_runs import left_by
from tests.test_rewardmodel_training import pairs

OPTIONS = OptimConfig(learning_rate=5e-3, batch_size=4, save_steps=2, epochs=2)


@pytest.fixture(scope="module")
def stopped(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training that was stopped before its seventh update, and beside it an uninterrupted one."""
    folder = tmp_path_factory.mktemp("stopped")
    outcome = train_reward_model(
        str(policy_folder), pairs(), folder / "whole", optimization=OPTIONS
    )
    (folder / "outcome.txt").write_text(f"{outcome['loss_first']} {outcome['loss_last']}")
    original, steps = RewardTrainer.training_step, iter(range(100))

    def stops(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(steps) == 6:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    RewardTrainer.training_step = stops  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            train_reward_model(
                str(policy_folder), pairs(), folder / "m", optimization=OPTIONS,
                checkpoints=folder / "trainer",
            )  # fmt: skip
    finally:
        RewardTrainer.training_step = original  # type: ignore[method-assign]
    return folder


@pytest.fixture
def halted(stopped: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(stopped / "trainer", tmp_path / "trainer")
    return tmp_path / "trainer"


def go_on(policy: Path, checkpoints: Path) -> dict[str, Any]:
    out = checkpoints.parent / "m"
    return train_reward_model(
        str(policy), pairs(), out, optimization=OPTIONS, checkpoints=checkpoints
    )


def names(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in checkpoints.glob("checkpoint-*"))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> Any:
    return left_by(folder)["model.safetensors"]


def test_two_checkpoints_are_kept_and_noted_as_whole(halted: Path) -> None:
    assert names(halted) == ["checkpoint-4", "checkpoint-6"]
    assert all((halted / name / MANIFEST).is_file() for name in names(halted))


def test_training_that_goes_on_ends_with_the_same_weights_and_losses(
    stopped: Path, halted: Path, policy_folder: Path
) -> None:
    outcome = go_on(policy_folder, halted)
    assert (
        f"{outcome['loss_first']} {outcome['loss_last']}" == (stopped / "outcome.txt").read_text()
    )
    assert weights(halted.parent / "m") == weights(stopped / "whole")
    assert not halted.exists()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "trainer_state.json",
         "config.json", MANIFEST)  # fmt: skip


@pytest.mark.parametrize("damage", [Path.unlink, empty, cut, flip])
@pytest.mark.parametrize("part", PARTS)
def test_any_damaged_part_of_the_only_checkpoint_is_named(
    halted: Path, policy_folder: Path, part: str, damage: Callable[[Path], None]
) -> None:
    shutil.rmtree(halted / "checkpoint-4")
    damage(halted / "checkpoint-6" / part)
    if part == MANIFEST and damage is Path.unlink:
        pytest.skip("a checkpoint without a manifest was never whole")
    before = contents(halted)
    # A flipped byte of the list of files is one of a digest in it.
    named = part if part != MANIFEST or damage is not flip else ".*"
    with pytest.raises(DamagedRunError, match=rf"checkpoint-6/{named}: .*no other whole checkpoi"):
        go_on(policy_folder, halted)
    assert contents(halted) == before


@pytest.mark.parametrize("part", ["optimizer.pt", "trainer_state.json"])
def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_named(
    stopped: Path, halted: Path, policy_folder: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut(halted / "checkpoint-6" / part)
    go_on(policy_folder, halted)
    said = " ".join(caplog.text.split())
    assert f"checkpoint-6/{part}: found" in said
    assert "checkpoint-4" in said
    assert weights(halted.parent / "m") == weights(stopped / "whole")


def test_a_clock_set_back_removes_no_new_checkpoint(halted: Path, policy_folder: Path) -> None:
    for path in (halted / "checkpoint-4").iterdir():
        os.utime(path, (4e9, 4e9))
    os.utime(halted / "checkpoint-4", (4e9, 4e9))
    seen: list[list[str]] = []
    original = RewardTrainer.training_step

    def looks(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(names(halted))
        return original(self, *args, **kwargs)

    RewardTrainer.training_step = looks  # type: ignore[method-assign]
    try:
        go_on(policy_folder, halted)
    finally:
        RewardTrainer.training_step = original  # type: ignore[method-assign]
    assert seen[0] == ["checkpoint-4", "checkpoint-6"]
    assert seen[-1] == ["checkpoint-12", "checkpoint-14"]

"""A run from its first decision to its last, tiny: what is kept, and what a kill costs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prefsearch.config.settings import build, change

pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")

from accelerate import Accelerator

from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.cli.train import train
from atari_bridge.environments.factory import open_environment
from atari_bridge.training.agent import load_agent
from atari_bridge.training.checkpoints import (
    checkpoints_of,
    load_optimizer,
    load_tensors,
    save_optimizer,
    save_tensors,
)
from atari_bridge.training.config import WorkerSettings
from atari_bridge.training.loop import Training
from atari_bridge.training.run_state import load_training, save_training
from prefsearch.run.directory import RunDirectory, RunExistsError

TINY = build(
    AtariTrainArgs,
    out="unused",
    game="CartPole-v1",
    num_envs=4,
    frame_skip=1,
    frame_stack=1,
    terminal_on_life_loss=False,
    clip_rewards=False,
    network="dense",
    hidden_size=16,
    support=10,
    support_bins=21,
    value_prefix=False,
    self_supervised="consistency",
    projection_size=16,
    prediction_size=8,
    search="gumbel_muzero",
    num_simulations=4,
    replay_capacity=400,
    unroll_steps=3,
    td_steps=3,
    discount=0.99,
    reanalyze_policy=0.5,
    batch_size=8,
    optimizer="adamw",
    learning_rate=1e-3,
    warmup_updates=4,
    target_update_interval=5,
    augmentation="none",
    total_decisions=240,
    learning_starts=80,
    updates_per_decision=0.1,
    final_updates=4,
    save_every=80,
    evaluation_games=2,
    evaluation_max_decisions=20,
    threads=1,
)


def begin(job: AtariTrainArgs, workers: WorkerSettings | None = None) -> Training:
    settings = job.agent
    environment = open_environment(settings.environment)
    return Training(settings, environment, Accelerator(cpu=True), workers or WorkerSettings())


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.open(tmp_path / "run", {}, resume=False)


def save_part(run: RunDirectory, training: Training) -> Path:
    """Trains one part and saves a checkpoint."""
    training.run_part()
    return save_training(run, training, max_part_bytes=None)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in training.network.state_dict().items()}


def test_training_changes_weights_and_makes_the_stated_number_of_updates() -> None:
    training = begin(TINY)
    before = weights(training)
    while not training.is_done:
        training.run_part()
    assert training.counters.decisions == 240
    assert training.counters.updates == 16 + 4  # (240 - 80) * 0.1, and the last ones
    after = weights(training)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    run: RunDirectory, overlap: bool
) -> None:
    job = change(TINY, overlap=overlap)
    whole = begin(job)
    while not whole.is_done:
        whole.run_part()
    for _ in range(4):  # each part in a process of its own, as it were
        part = begin(job)
        load_training(run, part)
        save_part(run, part)
    resumed = begin(job)
    assert load_training(run, resumed)
    assert resumed.is_done
    expected, found = weights(whole), weights(resumed)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    ours = whole.learner.optimizer.state_dict()["state"]
    theirs = resumed.learner.optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for number, moments in ours.items():
        assert all(torch.equal(moments[key], theirs[number][key]) for key in moments), number
    sample = whole.replay.sample(8, beta=0.5, generator=np.random.default_rng(0))
    again = resumed.replay.sample(8, beta=0.5, generator=np.random.default_rng(0))
    assert np.array_equal(sample.index, again.index)
    assert np.array_equal(sample.weight, again.weight)


def test_the_command_trains_evaluates_reports_and_resumes(tmp_path: Path) -> None:
    job = change(TINY, out=str(tmp_path / "run"), evaluate_every=160)
    train(job)
    run = tmp_path / "run"
    steps = {path.stem for path in (run / "steps").glob("*.json")}
    assert steps == {
        "part-000000080-000000000",
        "part-000000160-000000008",
        "evaluation-000000160-000000008",
        "part-000000240-000000016",
        "part-000000240-000000020",
        "evaluation-000000240-000000020",
    }
    assert (run / "report.html").is_file()
    assert (
        checkpoints_of(run / "checkpoints")[-1]
        == run / "checkpoints" / "decisions-000000240-updates-000000020"
    )
    with pytest.raises(RunExistsError, match="--resume"):
        train(job)
    train(replace(job, resume=True))  # nothing is left to do
    agent = load_agent(run)
    assert agent.facts["updates"] == 20


def test_parts_of_updates_alone_are_evaluated_once_at_their_end(tmp_path: Path) -> None:
    train(change(TINY, out=str(tmp_path / "run"), evaluate_every=80, final_updates=30))
    steps = sorted(path.stem for path in (tmp_path / "run" / "steps").glob("*.json"))
    assert sum(step.startswith("part-000000240") for step in steps) > 3
    assert [step for step in steps if step.startswith("evaluation")] == [
        "evaluation-000000080-000000000",
        "evaluation-000000160-000000008",
        "evaluation-000000240-000000046",
    ]


def test_a_run_out_of_time_begins_no_evaluation(tmp_path: Path) -> None:
    job = change(TINY, out=str(tmp_path / "run"), evaluate_every=80, minutes=1e-9)
    train(job)
    assert not (tmp_path / "run" / "metrics.jsonl").exists(), "not even a part"


def test_the_files_of_a_checkpoint_stay_below_the_bound(tmp_path: Path) -> None:
    tensors = {f"layer {n}": torch.full((64, 256), float(n)) for n in range(9)}  # 64 KiB each
    path = tmp_path / "network.safetensors"
    save_tensors(path, tensors, max_part_bytes=3 * 2**16 + 1)  # room for two and a header
    parts = sorted(tmp_path.iterdir())
    assert len(parts) == 5
    assert max(part.stat().st_size for part in parts) <= 3 * 2**16 + 1
    found = load_tensors(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    parts[-1].write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=rf"{parts[-1].name}: cannot be read as safetensors"):
        load_tensors(path)


def test_searches_of_play_and_reanalysis_are_timed() -> None:
    training = begin(TINY)
    training.run_part()
    parts = [training.run_part(), training.run_part()]
    for part in parts:
        assert 0 < part["search_seconds"] < part["play_seconds"] + part["batch_seconds"]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("train_every", [4, 40])
def test_the_target_network_is_refreshed_every_so_many_updates(
    overlap: bool, train_every: int
) -> None:
    training = begin(
        change(TINY, overlap=overlap, train_every=train_every, target_update_interval=2)
    )
    copied: list[int] = []
    training.on_new_target = lambda _: copied.append(training.counters.updates)
    while not training.is_done:
        training.run_part()
    # What is due at the very last update nobody would use any more.
    assert {2, 4, 6, 8, 10, 12, 14, 16, 18} <= set(copied) <= set(range(2, 21, 2))


def test_learning_cannot_begin_before_a_row_is_ready() -> None:
    with pytest.raises(ValueError, match=r"learning_starts: found 10; required: at least 28"):
        begin(change(TINY, learning_starts=10))


def test_moments_lie_in_memory_as_their_weights_do(tmp_path: Path) -> None:
    def built() -> tuple[torch.nn.Conv2d, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)

    def step(layer: torch.nn.Conv2d, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        pictures = torch.arange(75.0).reshape(1, 3, 5, 5).sin()
        layer(pictures).square().sum().backward()
        optimizer.step()

    layer, optimizer = built()
    step(layer, optimizer)
    save_optimizer(tmp_path / "moments.safetensors", optimizer)
    other, resumed = built()
    other.load_state_dict(layer.state_dict())
    load_optimizer(tmp_path / "moments.safetensors", resumed)
    step(layer, optimizer)
    step(other, resumed)
    assert torch.equal(layer.weight, other.weight)


def test_a_full_disk_leaves_the_checkpoint_before(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(TINY)
    good = save_part(run, training)
    training.run_part()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("atari_bridge.training.run_state.save_optimizer", full)
    with pytest.raises(OSError, match="No space left"):
        save_training(run, training, max_part_bytes=None)
    assert checkpoints_of(run.checkpoints)[-1] == good
    assert not list(run.checkpoints.glob("*.partial-*"))
    fresh = begin(TINY)
    assert load_training(run, fresh)
    assert fresh.counters.decisions == 80


def test_a_damaged_checkpoint_or_one_of_another_network_is_named(run: RunDirectory) -> None:
    folder = save_part(run, begin(TINY))
    path = next((folder / "process-0" / "replay").glob("*.safetensors"))
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name}: found no file"):
        load_training(run, begin(TINY))
    path.write_bytes(kept)
    with pytest.raises(ValueError, match="required"):  # of another network
        load_training(run, begin(change(TINY, hidden_size=24)))
    manifest = folder / "checkpoint.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 1}))
    with pytest.raises(ValueError, match="found version 1; required: 2"):
        load_training(run, begin(TINY))


@pytest.mark.parametrize("name", ["network.safetensors", "counters.json", "checkpoint.json"])
def test_the_newest_whole_checkpoint_is_taken_and_a_flipped_byte_named(
    run: RunDirectory, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    job = change(TINY, keep_checkpoints=2)
    training = begin(job)
    save_part(run, training)
    first = training.counters.decisions
    newest = save_part(run, training)
    assert len(list(run.checkpoints.iterdir())) == 2
    path = newest / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    again = begin(job)
    assert load_training(run, again)
    assert again.counters.decisions == first
    assert name in caplog.text
    assert "Going on from" in " ".join(caplog.text.split())


def test_a_loss_that_is_not_finite_stops_the_run_with_its_name() -> None:
    training = begin(TINY)
    training.run_part()
    before = weights(training)
    with torch.no_grad():
        next(training.network.parameters()).fill_(float("nan"))
    poisoned = weights(training)
    with pytest.raises((FloatingPointError, ValueError), match="finite"):
        training.run_part()
    after = weights(training)
    for name in before:
        assert torch.equal(after[name].nan_to_num(7.0), poisoned[name].nan_to_num(7.0)), name

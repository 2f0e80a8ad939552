"""Two data-parallel processes make the update that one makes of the batch, and survive a kill."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atari_bridge.training.checkpoints import checkpoints_of
from tests.parallel_learner import network

ROOT = Path(__file__).resolve().parent.parent

CARTPOLE = {
    "game": "CartPole-v1",
    "num_envs": 4,
    "frame_stack": 1,
    "clip_rewards": "false",
    "network": "dense",
    "hidden_size": 16,
    "support": 10,
    "support_bins": 21,
    "value_prefix": "false",
    "normalization": "layer",
    "self_supervised": "none",
    "num_simulations": 4,
    "unroll_steps": 2,
    "td_steps": 2,
    "batch_size": 8,
    "replay_capacity": 1000,
    "total_decisions": 600,
    "learning_starts": 60,
    "updates_per_decision": 0.2,
    "final_updates": 0,
    "save_every": 40,
    "evaluation_games": 2,
    "evaluation_max_decisions": 20,
    "threads": 1,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(module: str, *words: str, processes: int) -> list[subprocess.Popen[str]]:
    """The same command in each process, as `torchrun` starts it."""
    port = str(free_port())
    running = []
    for rank in range(processes):
        own = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        variables = {**os.environ, **(own if processes > 1 else {})}
        command = [sys.executable, "-m", module, *words]
        running.append(
            subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
        )
    return running


def finish(running: list[subprocess.Popen[str]]) -> None:
    """Waits until all have ended well."""
    try:
        errors = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()  # nothing to one that has ended
    assert [process.returncode for process in running] == [0] * len(running), errors


def learn(out: Path, processes: int) -> dict[str, torch.Tensor]:
    finish(start("tests.parallel_learner", str(out), processes=processes))
    return load_file(out)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one = learn(tmp_path / "one.safetensors", 1)
    two = learn(tmp_path / "two.safetensors", 2)
    before = network().state_dict()
    moved = [not torch.allclose(one[name], before[name], atol=1e-4) for name in one]
    assert any(moved)
    for name, tensor in one.items():
        # Sums of two halves are rounded otherwise than one sum.
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def train(out: Path, *words: str, processes: int = 2) -> list[subprocess.Popen[str]]:
    flags = [word for name, value in CARTPOLE.items() for word in (f"--{name}", str(value))]
    command = ["atari", "train", *flags, "--out", str(out), *words]
    return start("prefsearch", *command, processes=processes)


def updates_kept(run: Path) -> int:
    """Updates of the newest checkpoint; 0 if there is none."""
    found = checkpoints_of(run / "checkpoints")
    return int(found[-1].name.rpartition("-")[2]) if found else 0


@pytest.mark.slow
def test_a_run_of_two_processes_that_is_killed_goes_on_as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(train(whole))
    running = train(killed)
    until = time.monotonic() + 120
    while updates_kept(killed) < 20 and time.monotonic() < until:
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    for process in running:
        process.kill()
    for process in running:
        process.communicate()
    assert 20 <= updates_kept(killed) < 108
    assert "evaluation" not in (killed / "metrics.jsonl").read_text()

    (alone,) = train(killed, "--resume", "true", processes=1)
    assert "required: 1, as now started" in alone.communicate(timeout=300)[1]
    assert alone.returncode == 2

    finish(train(killed, "--resume", "true"))
    found, expected = (checkpoints_of(run / "checkpoints")[-1] for run in (killed, whole))
    assert found.name == expected.name
    files = sorted(path.relative_to(expected) for path in expected.rglob("*.safetensors"))
    assert len(files) > 5
    for file in files:
        assert (found / file).read_bytes() == (expected / file).read_bytes(), file

"""Two data-parallel processes make the update that one makes of the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.parallel_learner import network

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def learn(out: Path, processes: int) -> dict[str, torch.Tensor]:
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
        }
        variables = {**os.environ, **(own if processes > 1 else {})}
        command = [sys.executable, "-m", "tests.parallel_learner", str(out)]
        running.append(subprocess.Popen(command, cwd=ROOT, env=variables))
    assert [process.wait(timeout=300) for process in running] == [0] * processes
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

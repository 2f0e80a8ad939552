"""One of several data-parallel learners; started by test_atari_parallel.py, not collected.

    python -m tests.parallel_learner OUT.safetensors

Reads RANK and WORLD_SIZE as any process of `torchrun` does, makes three updates of its share of the
same batches, and (in the main process) writes the network.
"""

import sys

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from atari_bridge.learning.batches import Batch
from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.learner import Learner
from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import MuZeroNetwork

_ROWS, _STEPS, _ACTIONS = 8, 2, 3


def random_batch(seed: int) -> Batch:
    """A whole batch; masks are mixed so that means over rows and over entries differ."""
    draw = torch.Generator().manual_seed(seed)

    def mask(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=draw) < 0.7

    return Batch(
        observation=torch.randn(_ROWS, 4, generator=draw),
        future=torch.randn(_ROWS, _STEPS, 4, generator=draw),
        weight=torch.rand(_ROWS, generator=draw) + 0.1,
        action=torch.randint(_ACTIONS, (_ROWS, _STEPS), generator=draw),
        reward=torch.randn(_ROWS, _STEPS, generator=draw),
        value=torch.randn(_ROWS, _STEPS + 1, generator=draw),
        policy=torch.rand(_ROWS, _STEPS + 1, _ACTIONS, generator=draw).softmax(dim=-1),
        reward_mask=mask(_ROWS, _STEPS),
        value_mask=mask(_ROWS, _STEPS + 1),
        policy_mask=mask(_ROWS, _STEPS + 1),
        observed=mask(_ROWS, _STEPS + 1),
    )


def share(batch: Batch, rank: int, processes: int) -> Batch:
    """A process's rows."""
    rows = slice(rank * _ROWS // processes, (rank + 1) * _ROWS // processes)
    return Batch(**{name: tensor[rows] for name, tensor in vars(batch).items()})


def network() -> MuZeroNetwork:
    """The same network in every process; rows know nothing of each other."""
    torch.manual_seed(0)
    config = NetworkConfig(
        network="dense",
        hidden_size=16,
        support=5,
        support_bins=11,
        value_prefix=True,
        lstm_size=8,
        normalization="layer",
        self_supervised="reconstruction",
        prediction_size=8,
    )
    return build_network(config, frame_shape=(4,), num_actions=_ACTIONS)


def main(out: str) -> None:
    """Updates and writes."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    config = LearningConfig(
        unroll_steps=_STEPS, learning_rate=0.1, warmup_updates=0, max_grad_norm=0.5
    )
    learner = Learner(
        network(),
        network(),
        config,
        accelerator=accelerator,
        generator=torch.Generator().manual_seed(0),
    )
    for number in range(3):
        whole = random_batch(number)
        learner.update(share(whole, accelerator.process_index, accelerator.num_processes))
    if accelerator.is_main_process:
        save_file(learner.network.state_dict(), out)


if __name__ == "__main__":
    main(sys.argv[1])

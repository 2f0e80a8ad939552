"""A network's functions by `torch.compile`: fewer, larger kernels, the same up to rounding.

Whether it pays depends on network and device: `benchmarks/atari/compile.py` measures it.
"""

import torch
from torch import nn

from atari_bridge.networks.interface import MuZeroNetwork


def compile_functions(network: MuZeroNetwork) -> MuZeroNetwork:
    """Compiles a network's functions in place, each when it is first called; returns the network.

    Its weights keep their names, so checkpoints are those of any network; a deep copy would go on
    asking this one's weights. Compiling is not safe in two threads at once: compile no network that
    one thread asks while another asks a compiled one. Needs a C++ compiler on the CPU, Triton on a
    GPU.
    """
    _compile(network, "represent", "predict", "imagine")
    if network.auxiliary is not None:
        _compile(network.auxiliary, "loss", "project")
    return network


def _compile(module: nn.Module, *names: str) -> None:
    for name in names:
        setattr(module, name, torch.compile(getattr(module, name)))

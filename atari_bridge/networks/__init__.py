"""Networks of the MuZero family: what they are made of, and how they are built."""

from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import Dynamics, Latent, MuZeroNetwork, Prediction
from atari_bridge.networks.scalars import ScalarSupport, inverse_transform, transform

__all__ = [
    "Dynamics",
    "Latent",
    "MuZeroNetwork",
    "NetworkConfig",
    "Prediction",
    "ScalarSupport",
    "build_network",
    "inverse_transform",
    "transform",
]

from .environments.config import EnvironmentConfig
from .environments.interface import VectorEnvironment, VectorStep
from .environments.opening import open_environment
from .networks.building import build_network
from .networks.config import NetworkConfig
from .networks.interface import MuZeroNetwork
from .replay.config import ReplayConfig
from .replay.replay import Replay

__all__ = [
    "EnvironmentConfig",
    "MuZeroNetwork",
    "NetworkConfig",
    "Replay",
    "ReplayConfig",
    "VectorEnvironment",
    "VectorStep",
    "build_network",
    "open_environment",
]

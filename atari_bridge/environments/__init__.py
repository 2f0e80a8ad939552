"""Environments: N games stepped together, and what an agent sees of them."""

from atari_bridge.environments.atari import AtariEnvironments
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.frame_stack import FrameStack
from atari_bridge.environments.games import ATARI_100K
from atari_bridge.environments.gymnasium_vector import GymnasiumEnvironments
from atari_bridge.environments.interface import VectorEnvironment, VectorStep
from atari_bridge.environments.opening import open_environment
from atari_bridge.environments.restoring import replay_episodes

__all__ = [
    "ATARI_100K",
    "AtariEnvironments",
    "EnvironmentConfig",
    "FrameStack",
    "GymnasiumEnvironments",
    "VectorEnvironment",
    "VectorStep",
    "open_environment",
    "replay_episodes",
]

from .acting.planners import SearchSettings
from .environments.config import EnvironmentConfig
from .environments.factory import open_environment
from .environments.interface import VectorEnvironment, VectorStep
from .evaluation.episodes import Evaluation, PolicyOnly, SampledActions, evaluate_agent
from .learning.config import LearningConfig
from .networks.building import build_network
from .networks.config import NetworkConfig
from .networks.interface import MuZeroNetwork
from .networks.planning_model import NetworkModel
from .reference.scores import human_normalized
from .replay.config import ReplayConfig
from .replay.replay import Replay
from .training.agent import Agent, load_agent
from .training.config import AgentSettings, TrainSchedule, WorkerSettings
from .training.loop import Training
from .training.run_state import load_training, save_training

__all__ = [
    "Agent",
    "AgentSettings",
    "EnvironmentConfig",
    "Evaluation",
    "LearningConfig",
    "MuZeroNetwork",
    "NetworkConfig",
    "NetworkModel",
    "PolicyOnly",
    "Replay",
    "ReplayConfig",
    "SampledActions",
    "SearchSettings",
    "TrainSchedule",
    "Training",
    "VectorEnvironment",
    "VectorStep",
    "WorkerSettings",
    "build_network",
    "evaluate_agent",
    "human_normalized",
    "load_agent",
    "load_training",
    "open_environment",
    "save_training",
]

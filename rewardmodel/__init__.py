"""Reward models: learned models of the human, trained on preferences."""

from rewardmodel.evaluation import RewardEvaluation, evaluate_reward_model
from rewardmodel.interface import RewardModel
from rewardmodel.preferences import (
    load_demonstrations,
    load_preferences,
    load_prompts,
    split_by_prompt,
)
from rewardmodel.rows import PreferenceDataError
from rewardmodel.sequence import SequenceRewardModel
from rewardmodel.simulated import SimulatedHuman
from rewardmodel.training import Optimisation, train_reward_model

__all__ = [
    "Optimisation",
    "PreferenceDataError",
    "RewardEvaluation",
    "RewardModel",
    "SequenceRewardModel",
    "SimulatedHuman",
    "evaluate_reward_model",
    "load_demonstrations",
    "load_preferences",
    "load_prompts",
    "split_by_prompt",
    "train_reward_model",
]

"""How reward models, and with the same tools policies, are trained."""

from rewardmodel.training.objective import Objective
from rewardmodel.training.optimisation import Optimisation
from rewardmodel.training.process import train_process_model
from rewardmodel.training.reward_model import train_reward_model
from rewardmodel.training.trainer_run import run_trainer, save_model

__all__ = [
    "Objective",
    "Optimisation",
    "run_trainer",
    "save_model",
    "train_process_model",
    "train_reward_model",
]

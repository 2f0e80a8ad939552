"""How reward models are judged: accuracy, calibration and biases, exact over pairs."""

from rewardmodel.evaluation.accuracy import RewardEvaluation, evaluate_reward_model
from rewardmodel.evaluation.baselines import (
    BagOfWordsBaseline,
    bag_of_words_accuracy,
    longer_reply_accuracy,
)
from rewardmodel.evaluation.margins import preference_margins

__all__ = [
    "BagOfWordsBaseline",
    "RewardEvaluation",
    "bag_of_words_accuracy",
    "evaluate_reward_model",
    "longer_reply_accuracy",
    "preference_margins",
]

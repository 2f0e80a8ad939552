"""Reward models: learned models of the human, trained on preferences."""

from rewardmodel.answers import (
    extract_answer,
    normalise_answer,
    same_answer,
)
from rewardmodel.data.data_report import DataReport, examine_preferences
from rewardmodel.data.reward_bench_rows import load_reward_bench, load_reward_bench_2
from rewardmodel.data.rows import PreferenceDataError
from rewardmodel.ensemble import EnsembleRewardModel
from rewardmodel.evaluation import (
    RewardEvaluation,
    edit_accuracy,
    evaluate_agreement,
    evaluate_reward_bench,
    evaluate_reward_bench2,
    evaluate_reward_model,
    load_edits,
    require_batch_invariance,
)
from rewardmodel.functions import FunctionRewardModel
from rewardmodel.implicit import ImplicitRewardModel
from rewardmodel.interface import (
    RewardModel,
    ScoringSession,
    SessionRewardModel,
    StepRewardModel,
    UncertainRewardModel,
)
from rewardmodel.loading import load_reward_model
from rewardmodel.multi_head import MultiHeadRewardModel
from rewardmodel.preferences import (
    load_demonstrations,
    load_preferences,
    load_prompts,
    split_by_prompt,
)
from rewardmodel.process import ProcessRewardModel
from rewardmodel.process_evaluation import evaluate_process_model
from rewardmodel.rankings import load_rankings, pairs_from_rankings
from rewardmodel.sequence import SequenceRewardModel
from rewardmodel.simulated import SimulatedHuman
from rewardmodel.steps import load_steps
from rewardmodel.training import Objective, Optimisation, train_process_model, train_reward_model
from rewardmodel.value_head import TokenValueModel
from rewardmodel.verifiers import AnswerMatch, ExactMatch, load_references
from rewardmodel.weight_average import average_weights

__all__ = [
    "AnswerMatch",
    "DataReport",
    "EnsembleRewardModel",
    "ExactMatch",
    "FunctionRewardModel",
    "ImplicitRewardModel",
    "MultiHeadRewardModel",
    "Objective",
    "Optimisation",
    "PreferenceDataError",
    "ProcessRewardModel",
    "RewardEvaluation",
    "RewardModel",
    "ScoringSession",
    "SequenceRewardModel",
    "SessionRewardModel",
    "SimulatedHuman",
    "StepRewardModel",
    "TokenValueModel",
    "UncertainRewardModel",
    "average_weights",
    "edit_accuracy",
    "evaluate_agreement",
    "evaluate_process_model",
    "evaluate_reward_bench",
    "evaluate_reward_bench2",
    "evaluate_reward_model",
    "examine_preferences",
    "extract_answer",
    "load_demonstrations",
    "load_edits",
    "load_preferences",
    "load_prompts",
    "load_rankings",
    "load_references",
    "load_reward_bench",
    "load_reward_bench_2",
    "load_reward_model",
    "load_steps",
    "normalise_answer",
    "pairs_from_rankings",
    "require_batch_invariance",
    "same_answer",
    "split_by_prompt",
    "train_process_model",
    "train_reward_model",
]

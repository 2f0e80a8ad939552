from .data.preferences import load_demonstrations, load_preferences, load_prompts, split_by_prompt
from .data.rankings import load_rankings, pairs_from_rankings
from .data.report import DataReport, examine_preferences
from .data.rewardbench import load_reward_bench, load_reward_bench_2
from .data.rows import PreferenceDataError
from .data.steps import load_steps
from .evaluation.accuracy import RewardEvaluation, evaluate_reward_model
from .evaluation.agreement import evaluate_agreement
from .evaluation.batch_invariance import measure_batch_invariance
from .evaluation.benchmarks.reward_bench2 import evaluate_reward_bench2
from .evaluation.benchmarks.rewardbench import evaluate_reward_bench
from .evaluation.length.edits import edit_accuracy, load_edits
from .evaluation.process import evaluate_process_model
from .interface import (
    RewardModel,
    ScoringSession,
    SessionRewardModel,
    StepRewardModel,
    UncertainRewardModel,
)
from .models.answers import extract_answer, normalize_answer, same_answer
from .models.averaging import average_weights
from .models.ensemble import EnsembleRewardModel
from .models.functions import FunctionRewardModel
from .models.implicit import ImplicitRewardModel
from .models.loading import load_reward_model
from .models.multi_head import MultiHeadRewardModel
from .models.process import ProcessRewardModel
from .models.sequence import SequenceRewardModel
from .models.token_value import TokenValueModel
from .models.verifiers import AnswerMatch, ExactMatch, load_references
from .synthetic.human import SimulatedHuman
from .training.loss_config import LossConfig
from .training.optim_config import OptimConfig
from .training.process import train_process_model
from .training.reward_model import train_reward_model

__all__ = [
    "AnswerMatch",
    "DataReport",
    "EnsembleRewardModel",
    "ExactMatch",
    "FunctionRewardModel",
    "ImplicitRewardModel",
    "LossConfig",
    "MultiHeadRewardModel",
    "OptimConfig",
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
    "measure_batch_invariance",
    "normalize_answer",
    "pairs_from_rankings",
    "same_answer",
    "split_by_prompt",
    "train_process_model",
    "train_reward_model",
]

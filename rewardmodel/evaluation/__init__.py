"""How reward models are judged: accuracy, calibration and biases, exact over pairs."""

from rewardmodel.evaluation.accuracy import RewardEvaluation, evaluate_reward_model
from rewardmodel.evaluation.agreement import EnsembleAgreement, evaluate_agreement
from rewardmodel.evaluation.baselines import (
    BagOfWordsBaseline,
    bag_of_words_accuracy,
    longer_reply_accuracy,
)
from rewardmodel.evaluation.batch_invariance import (
    BatchInvariance,
    measure_batch_invariance,
    require_batch_invariance,
)
from rewardmodel.evaluation.calibration import Calibration, calibrate, fit_temperature
from rewardmodel.evaluation.edits import EditAccuracy, edit_accuracy, load_edits
from rewardmodel.evaluation.length_bias import LengthBias, measure_length_bias
from rewardmodel.evaluation.length_control import LengthControl, control_for_length
from rewardmodel.evaluation.length_probes import LengthProbe, truncation_probe
from rewardmodel.evaluation.margins import pair_scores, preference_margins
from rewardmodel.evaluation.report import EvaluationRecord, write_evaluation
from rewardmodel.evaluation.reward_bench import RewardBenchScore, evaluate_reward_bench
from rewardmodel.evaluation.reward_bench2 import RewardBench2Score, evaluate_reward_bench2
from rewardmodel.evaluation.ties import TieEvaluation, evaluate_ties

__all__ = [
    "BagOfWordsBaseline",
    "BatchInvariance",
    "Calibration",
    "EditAccuracy",
    "EnsembleAgreement",
    "EvaluationRecord",
    "LengthBias",
    "LengthControl",
    "LengthProbe",
    "RewardBench2Score",
    "RewardBenchScore",
    "RewardEvaluation",
    "TieEvaluation",
    "bag_of_words_accuracy",
    "calibrate",
    "control_for_length",
    "edit_accuracy",
    "evaluate_agreement",
    "evaluate_reward_bench",
    "evaluate_reward_bench2",
    "evaluate_reward_model",
    "evaluate_ties",
    "fit_temperature",
    "load_edits",
    "longer_reply_accuracy",
    "measure_batch_invariance",
    "measure_length_bias",
    "pair_scores",
    "preference_margins",
    "require_batch_invariance",
    "truncation_probe",
    "write_evaluation",
]

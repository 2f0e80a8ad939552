"""Accuracy, calibration and biases of a reward model on preference pairs.

Figures are taken over all pairs at once, so none depends on the batch size.

Letters: P pairs, G distinct prompts. A margin is the chosen reply's score minus the rejected one's;
`sigmoid(margin)` is the predicted probability of the human's choice (Bradley and Terry 1952). An
oriented margin is the better reply's score minus the other's.
"""

import time
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import expit

from prefsearch.statistics.intervals import Interval
from rewardmodel.data.labels import (
    chosen_probabilities,
    label_entropy,
    log_losses,
    preference_signs,
    require_decided,
)
from rewardmodel.evaluation.calibration import (
    Calibration,
    ReliabilityBin,
    adaptive_ece,
    both_orders_ece,
    calibrate,
    reliability_bins,
)
from rewardmodel.evaluation.clustered import (
    Floats,
    Integers,
    accuracy_where,
    clustered_accuracy,
    clustered_mean,
    length_margins,
    log_length_ratios,
    number_prompts,
    require_prompts,
)
from rewardmodel.evaluation.length.bias import LengthBias, measure_length_bias
from rewardmodel.evaluation.length.control import LengthControl, control_for_length
from rewardmodel.evaluation.scoring import pair_scores
from rewardmodel.evaluation.strata import (
    RiskCoverage,
    Stratum,
    by_name,
    by_quantile,
    by_value,
    risk_coverage,
)
from rewardmodel.evaluation.ties import TieEvaluation, evaluate_ties
from rewardmodel.interface import RewardModel


@dataclass(frozen=True)
class RewardEvaluation:
    """A reward model's figures on preference pairs.

    Intervals are 95 % over prompts: pairs of one prompt are not independent. Log loss is in nats,
    margins in the reward model's own unit. Accuracies are over the pairs with a better reply and
    None over no pairs; equal scores count half.

    Attributes:
        pairs: All, ties included.
        prompts: Distinct ones.
        tied_labels: Pairs that annotators call equal; in log loss, Brier score and calibration, not
            in accuracies.
        tied_scores: Pairs with a better reply whose scores are equal.
        accuracy: How often the better reply has the higher score.
        log_loss: Cross entropy of the label under the predicted probability.
        excess_log_loss: Log loss above the labels' own entropy.
        brier: Mean squared difference of label and predicted probability.
        ece: Expected calibration error, ten bins of equal width, each pair in both orders.
        adaptive_ece: The same with bins of equal counts.
        mean_margin: Over all pairs but ties, oriented.
        longer_reply_accuracy: Accuracy of preferring the reply with more characters.
        accuracy_where_longer_chosen: Where the better reply is the longer one.
        accuracy_where_shorter_chosen: Where it is the shorter one.
        by_subset: By the column `subset`; empty where there is none.
        by_confidence: By the column `confidence`, else by the label's distance from one half;
            empty where that is the same for all.
        by_margin: By the size of the margin, in bins of equal counts.
        selective: Accuracy on the pairs with the largest margins.
        reliability: Reliability diagram.
        ties: Treatment of tied pairs; None where there are none.
        length_control: Accuracy at equal length.
        length_bias: Correlations of scores with length.
        calibration: Effect of temperature scaling; None unless `calibrated`.
        seconds: Time spent scoring.
        seed: Of the bootstraps and folds.
    """

    pairs: int
    prompts: int
    tied_labels: int
    tied_scores: int
    accuracy: Interval
    log_loss: Interval
    excess_log_loss: Interval
    brier: Interval
    ece: float
    adaptive_ece: float
    mean_margin: Interval
    longer_reply_accuracy: Interval
    accuracy_where_longer_chosen: Interval | None
    accuracy_where_shorter_chosen: Interval | None
    by_subset: tuple[Stratum, ...]
    by_confidence: tuple[Stratum, ...]
    by_margin: tuple[Stratum, ...]
    selective: RiskCoverage
    reliability: tuple[ReliabilityBin, ...]
    ties: TieEvaluation | None
    length_control: LengthControl
    length_bias: LengthBias
    calibration: Calibration | None
    seconds: float
    seed: int


def evaluate_reward_model(
    reward_model: RewardModel,
    dataset: Dataset,
    *,
    seed: int,
    batch_pairs: int = 16,
    calibrated: bool = False,
) -> RewardEvaluation:
    """Evaluates a reward model on preference pairs.

    Args:
        reward_model: Scores responses.
        dataset: Columns `prompt`, `chosen` and `rejected`, of prompts not trained on; optional
            `chosen_probability`, `confidence` and `subset`.
        seed: Of the bootstrap.
        batch_pairs: Pairs per call of `score`; changes speed and memory, not the result.
        calibrated: Also fit a temperature.

    Raises:
        ValueError: A score is not finite or missing, a label is outside [0, 1], all pairs are ties,
            those with a better reply are of fewer than two prompts, or `calibrated` and every
            margin is 0.
    """
    labels = chosen_probabilities(dataset)
    signs = preference_signs(labels)
    decided = signs != 0
    if len(labels):
        require_decided(labels)
        require_prompts(number_prompts(dataset)[decided])
    start = time.perf_counter()
    scores = pair_scores(reward_model, dataset, batch_pairs=batch_pairs)
    seconds = time.perf_counter() - start
    margins = scores[:, 0] - scores[:, 1]
    groups = number_prompts(dataset)
    oriented, within = (signs * margins)[decided], groups[decided]
    longer = (signs * length_margins(dataset))[decided]
    losses = log_losses(margins, labels)
    return RewardEvaluation(
        pairs=len(margins),
        prompts=int(groups.max()) + 1,
        tied_labels=int((~decided).sum()),
        tied_scores=int((oriented == 0).sum()),
        accuracy=clustered_accuracy(oriented, within),
        log_loss=clustered_mean(losses, groups, seed),
        excess_log_loss=clustered_mean(losses - label_entropy(labels), groups, seed),
        brier=clustered_mean((labels - expit(margins)) ** 2, groups, seed),
        ece=both_orders_ece(margins, labels),
        adaptive_ece=adaptive_ece(margins, labels),
        mean_margin=clustered_mean(oriented, within, seed),
        longer_reply_accuracy=clustered_accuracy(longer, within),
        accuracy_where_longer_chosen=accuracy_where(oriented, within, longer > 0),
        accuracy_where_shorter_chosen=accuracy_where(oriented, within, longer < 0),
        by_subset=_by_subset(dataset, oriented, within, decided),
        by_confidence=_by_confidence(dataset, labels, oriented, within, decided),
        by_margin=by_quantile(np.abs(oriented), oriented, within),
        selective=risk_coverage(oriented, np.abs(oriented), within),
        reliability=reliability_bins(margins, labels, groups),
        ties=evaluate_ties(margins, signs, groups, seed=seed),
        length_control=control_for_length(
            margins,
            labels,
            log_length_ratios(dataset),
            length_margins(dataset),
            groups,
            seed=seed,
        ),
        length_bias=measure_length_bias(dataset, scores, seed=seed),
        calibration=calibrate(margins, labels, groups, seed=seed) if calibrated else None,
        seconds=seconds,
        seed=seed,
    )


def _by_subset(
    dataset: Dataset,
    oriented: Floats,
    groups: Integers,
    decided: NDArray[np.bool_],
) -> tuple[Stratum, ...]:
    if "subset" not in dataset.column_names:
        return ()
    names = [
        "(no subset)" if name is None else str(name)
        for name, keep in zip(dataset["subset"][:], decided, strict=True)
        if keep
    ]
    return by_name(names, oriented, groups)


def _by_confidence(
    dataset: Dataset,
    labels: Floats,
    oriented: Floats,
    groups: Integers,
    decided: NDArray[np.bool_],
) -> tuple[Stratum, ...]:
    """Accuracy by the annotators' confidence; pairs without one are left out."""
    if "confidence" in dataset.column_names:
        values = np.array(
            [np.nan if value is None else value for value in dataset["confidence"][:]],
            dtype=np.float64,
        )[decided]
    else:
        values = np.abs(labels - 0.5)[decided] + 0.5
    known = np.isfinite(values)
    if len(np.unique(values[known])) < 2:
        return ()
    return by_value(values[known], oriented[known], groups[known])

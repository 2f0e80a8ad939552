"""Accuracy of a reward model at equal length.

Letters: P pairs, F features. Lengths are in characters, so that models with different tokenizers
compare.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from prefsearch.statistics.intervals import Interval
from rewardmodel.data.labels import log_losses
from rewardmodel.evaluation.clustered import (
    Floats,
    Integers,
    accuracy_where,
    clustered_accuracy,
    clustered_mean,
    percentile_interval,
    prompt_folds,
    resample_prompts,
)
from rewardmodel.evaluation.strata import Stratum, by_quantile

_MATCHED = 0.1
_FOLDS = 5
_L2 = 1e-4
_RESAMPLES = 1000


@dataclass(frozen=True)
class LengthControl:
    """Accuracy with length held fixed, in four ways.

    Attributes:
        balanced_accuracy: Mean of the accuracy on pairs where the better reply is longer and on
            those where it is shorter, each kind weighing one half: 0.5 for a model that prefers the
            longer reply. None where one of the kinds is absent.
        matched_pairs: Pairs whose lengths differ by less than a tenth (|log ratio| < 0.1).
        matched_accuracy: Accuracy on them; None where there are none.
        length_log_loss: Held-out log loss, in nats, of a logistic regression of the label on the
            difference of the lengths and of their logarithms.
        margin_gain: Decrease of that log loss with the margin as one more feature, held out.
        margin_weight: Weight of the margin in that regression, per standard deviation.
        length_weights: Weights of the log length ratio and the length difference, likewise.
        by_length_ratio: Accuracy by the log length ratio of the better reply over the other.
    """

    balanced_accuracy: Interval | None
    matched_pairs: int
    matched_accuracy: Interval | None
    length_log_loss: Interval
    margin_gain: Interval
    margin_weight: float
    length_weights: tuple[float, float]
    by_length_ratio: tuple[Stratum, ...]


def control_for_length(
    margins: Floats,
    labels: Floats,
    log_ratios: Floats,
    differences: Floats,
    groups: Integers,
    *,
    seed: int,
) -> LengthControl:
    """Measures a reward model's accuracy with length held fixed.

    The regressions have no intercept, so they are odd in the order of a pair; they are fitted on
    four fifths of the prompts and evaluated on the fifth, in turn. Ties enter with their label.

    Args:
        margins: [P] chosen minus rejected.
        labels: [P] not all one half.
        log_ratios: [P] log of the length of chosen over rejected.
        differences: [P] length of chosen minus rejected.
        groups: [P] indices of the prompts.
        seed: Of the folds and the bootstrap.
    """
    signs = np.sign(labels - 0.5)
    decided = signs != 0
    oriented, ratios = (signs * margins)[decided], (signs * log_ratios)[decided]
    within = groups[decided]
    matched = np.abs(ratios) < _MATCHED
    features = _scaled(np.stack([margins, log_ratios, differences], axis=1))  # [P, F]
    without = _held_out_losses(features[:, 1:], labels, groups, seed)
    losses = _held_out_losses(features, labels, groups, seed)
    weights = _fit(features, labels)
    return LengthControl(
        balanced_accuracy=_balanced_accuracy(oriented, ratios, within, seed),
        matched_pairs=int(matched.sum()),
        matched_accuracy=accuracy_where(oriented, within, matched),
        length_log_loss=clustered_mean(without, groups, seed),
        margin_gain=clustered_mean(without - losses, groups, seed),
        margin_weight=float(weights[0]),
        length_weights=(float(weights[1]), float(weights[2])),
        by_length_ratio=by_quantile(ratios, oriented, within, bins=7),
    )


def _balanced_accuracy(
    oriented: Floats, ratios: Floats, groups: Integers, seed: int
) -> Interval | None:
    """Mean of the accuracies on pairs won by the longer and by the shorter reply."""
    longer, shorter = ratios > 0, ratios < 0
    if not (longer.any() and shorter.any()):
        return None
    halves = [clustered_accuracy(oriented[where], groups[where]) for where in (longer, shorter)]
    estimate = (halves[0].estimate + halves[1].estimate) / 2
    right = (oriented > 0) + 0.5 * (oriented == 0)
    size = int(groups.max()) + 1
    if len(np.unique(groups)) < 2:
        return None
    sums = np.stack(
        [
            np.bincount(groups, weights=weights, minlength=size)
            for where in (longer, shorter)
            for weights in (right * where, 1.0 * where)
        ],
        axis=1,
    )  # [G, 4]
    blocks = resample_prompts(groups, seed=seed, resamples=_RESAMPLES)
    drawn = np.concatenate([counts @ sums for counts in blocks])
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    return percentile_interval(
        estimate, (drawn[:, 0] / drawn[:, 1] + drawn[:, 2] / drawn[:, 3]) / 2
    )


def _scaled(features: Floats) -> Floats:
    """Divide each feature by its root mean square; a feature that is zero stays."""
    scale = np.sqrt((features**2).mean(axis=0))
    return features / np.where(scale > 0, scale, 1.0)


def _held_out_losses(features: Floats, labels: Floats, groups: Integers, seed: int) -> Floats:
    """Log loss of each pair [P] by a regression that did not see its prompt."""
    folds = prompt_folds(groups, _FOLDS, seed=seed)
    losses = np.empty(len(labels))
    for fold in np.unique(folds):
        here = folds == fold
        weights = _fit(features[~here], labels[~here])
        losses[here] = log_losses(features[here] @ weights, labels[here])
    return losses


def _fit(features: Floats, labels: Floats) -> Floats:
    """Weights [F] of least mean log loss, with a penalty that keeps separable data finite."""

    def objective(weights: Floats) -> tuple[float, Floats]:
        logits = features @ weights
        loss = log_losses(logits, labels).mean() + 0.5 * _L2 * (weights @ weights)
        gradient = features.T @ (expit(logits) - labels) / len(labels) + _L2 * weights
        return float(loss), gradient

    start = np.zeros(features.shape[1])
    if not len(labels):
        return start
    return np.asarray(minimize(objective, start, jac=True, method="L-BFGS-B").x)

"""Calibration of predicted probabilities: reliability, calibration error, temperature scaling.

A margin predicts that the chosen reply is better with probability `sigmoid(margin / temperature)`.
Each pair is read in both orders: were the chosen reply always first, calibration below one half
would go untested. Letters: P pairs, G prompts, R resamples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from prefsearch.statistics.intervals import Interval, finite
from rewardmodel.data.labels import log_losses
from rewardmodel.evaluation.clustered import (
    Floats,
    Integers,
    clustered_mean,
    clustered_share,
    percentile_interval,
    prompt_folds,
    resample_prompts,
)

_RESAMPLES = 200
_FOLDS = 5
_BINS = 10
_WIDEST = 500.0  # bounds of the temperature, as a multiple and a fraction of the margins' size
_HALVINGS = 28


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10
) -> float:
    """Expected calibration error over equal-width bins.

    Present every pair in a random order: if the preferred response always comes first, each
    outcome is 1 and calibration below one half is never tested.

    Args:
        probabilities: [P] in [0, 1], that the outcome is 1.
        outcomes: [P] in [0, 1]; one half for a tie.
        bins: equal-width bins of [0, 1]; the last includes 1.

    Raises:
        ValueError: the shapes differ or are empty, a number is outside [0, 1], or bins is below 1.

    Source: Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    stated, seen = finite(probabilities, "probabilities"), finite(outcomes, "outcomes")
    if stated.ndim != 1 or stated.shape != seen.shape or not stated.size:
        raise ValueError(
            f"probabilities has shape {list(stated.shape)} and outcomes {list(seen.shape)}, "
            "required the same [P] with P >= 1"
        )
    for name, array in (("probabilities", stated), ("outcomes", seen)):
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"{name} spans [{array.min():g}, {array.max():g}], required inside [0, 1]; apply "
                "a sigmoid to score margins first"
            )
    if bins < 1:
        raise ValueError(f"bins is {bins}, required at least 1")
    index = np.minimum((stated * bins).astype(np.int64), bins - 1)
    # Each bin's gap times its share of the pairs: |sum of (seen - stated)| / P.
    gaps = np.bincount(index, weights=seen - stated, minlength=bins)
    return float(np.abs(gaps).sum() / stated.size)


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs whose predicted probability lies between two bounds.

    Attributes:
        low: Lower bound.
        high: Upper bound; only the last bin includes it.
        pairs: How many, each pair in both orders.
        stated: Mean predicted probability.
        observed: How often it came true, with a Wilson interval.
    """

    low: float
    high: float
    pairs: int
    stated: float
    observed: Interval


@dataclass(frozen=True)
class Calibration:
    """Calibration before and after temperature scaling.

    The figures named `after` are out of fold: each pair's margin is divided by a temperature fitted
    on other prompts. Log losses are in nats.

    Attributes:
        temperature: Of least log loss over all pairs, with its bootstrap interval over prompts;
            above 1 the reward model is overconfident.
        identified: Whether it lies inside its bounds: not where margins and labels are unrelated
            (upper bound), nor where the margins decide all labels (lower bound).
        fold_temperatures: Those of the folds.
        log_loss_before: Of the margins as they are.
        log_loss_after: Of the scaled ones.
        log_loss_change: After minus before, paired.
        ece_before: Expected calibration error, equal-width bins.
        ece_after: The same of the scaled margins.
        adaptive_ece_before: The same with bins of equal counts.
        adaptive_ece_after: The same of the scaled margins.
        reliability_after: Reliability diagram of the scaled margins.
        seed: Of the folds and the bootstrap.

    Source: temperature scaling, Guo et al. 2017 (https://arxiv.org/abs/1706.04599).
    """

    temperature: Interval
    identified: bool
    fold_temperatures: tuple[float, ...]
    log_loss_before: Interval
    log_loss_after: Interval
    log_loss_change: Interval
    ece_before: float
    ece_after: float
    adaptive_ece_before: float
    adaptive_ece_after: float
    reliability_after: tuple[ReliabilityBin, ...]
    seed: int


def calibrate(margins: Floats, labels: Floats, groups: Integers, *, seed: int) -> Calibration:
    """Fits a temperature to margins [P] and measures its effect out of fold.

    Raises:
        ValueError: There are fewer than two prompts, or every margin is 0.
    """
    temperature = fit_temperature(margins, labels)
    low, high = _temperature_bounds(margins)
    blocks = resample_prompts(groups, seed=seed, resamples=_RESAMPLES)
    resampled = np.concatenate(
        [_fit_weighted(margins, labels, counts[:, groups]) for counts in blocks]
    )
    folds = prompt_folds(groups, _FOLDS, seed=seed)
    tempered, fitted = np.empty(len(margins)), []
    for fold in np.unique(folds):
        here = folds == fold
        fitted.append(fit_temperature(margins[~here], labels[~here], scale_of=margins))
        tempered[here] = margins[here] / fitted[-1]
    before, after = log_losses(margins, labels), log_losses(tempered, labels)
    return Calibration(
        temperature=percentile_interval(temperature, resampled),
        identified=bool(low * 1.01 < temperature < high / 1.01),
        fold_temperatures=tuple(fitted),
        log_loss_before=clustered_mean(before, groups, seed),
        log_loss_after=clustered_mean(after, groups, seed),
        log_loss_change=clustered_mean(after - before, groups, seed),
        ece_before=both_orders_ece(margins, labels),
        ece_after=both_orders_ece(tempered, labels),
        adaptive_ece_before=adaptive_ece(margins, labels),
        adaptive_ece_after=adaptive_ece(tempered, labels),
        reliability_after=reliability_bins(tempered, labels, groups),
        seed=seed,
    )


def fit_temperature(margins: Floats, labels: Floats, *, scale_of: Floats | None = None) -> float:
    """The temperature of least log loss for margins [P] and labels [P].

    `scale_of` are the margins whose size sets the bounds, by default the same.

    Raises:
        ValueError: A number is not finite, or every margin is 0.
    """
    margins, labels = finite(margins, "margins"), finite(labels, "labels")
    weights = np.ones((1, len(margins)))
    scale_of = margins if scale_of is None else scale_of
    return float(_fit_weighted(margins, labels, weights, scale_of)[0])


def both_orders(margins: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Predicted probabilities and outcomes [2P]: each pair in both orders."""
    stated = expit(margins)
    return np.concatenate([stated, 1 - stated]), np.concatenate([labels, 1 - labels])


def both_orders_ece(margins: Floats, labels: Floats) -> float:
    """Expected calibration error over both orders, ten bins of equal width."""
    return expected_calibration_error(*both_orders(margins, labels))


def adaptive_ece(margins: Floats, labels: Floats) -> float:
    """Expected calibration error over both orders, ten bins of equal counts.

    Source: Nixon et al. 2019 (https://arxiv.org/abs/1904.01685), without their thresholds.
    """
    stated, seen = both_orders(margins, labels)
    # Equal probabilities may fall into two bins: each brings their mean outcome, in any order.
    _, place = np.unique(stated, return_inverse=True)
    seen = (np.bincount(place, weights=seen) / np.bincount(place))[place]
    gaps = (seen - stated)[np.argsort(stated, kind="stable")]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, _BINS)) / len(gaps))


def reliability_bins(
    margins: Floats, labels: Floats, groups: Integers
) -> tuple[ReliabilityBin, ...]:
    """Reliability diagram over both orders of pairs [P], ten bins of equal width.

    Source: DeGroot and Fienberg 1983.
    """
    stated, seen = both_orders(margins, labels)
    twice = np.concatenate([groups, groups])
    index = np.minimum((stated * _BINS).astype(np.int64), _BINS - 1)
    found: list[ReliabilityBin] = []
    for at in np.unique(index):
        where = index == at
        found.append(
            ReliabilityBin(
                low=float(at / _BINS),
                high=float((at + 1) / _BINS),
                pairs=int(where.sum()),
                stated=float(stated[where].mean()),
                observed=clustered_share(seen[where], twice[where]),
            )
        )
    return tuple(found)


def _temperature_bounds(margins: Floats) -> tuple[float, float]:
    """The lowest and highest temperature considered."""
    size = float(np.sqrt((margins**2).mean()))
    if size == 0:
        raise ValueError(
            f"all {len(margins)} margins are 0, so no temperature changes them; required are "
            "replies with different scores. Look at how the reward model reads them."
        )
    return size / _WIDEST, size * _WIDEST


def _fit_weighted(
    margins: Floats, labels: Floats, weights: Floats, scale_of: Floats | None = None
) -> Floats:
    """Temperatures [R] of least log loss under weights [R, P] of the pairs.

    The loss is convex in the inverse temperature, so its slope is followed by bisection on a log
    scale.
    """
    low, high = np.log(_temperature_bounds(margins if scale_of is None else scale_of))
    lower, upper = np.full(len(weights), -high), np.full(len(weights), -low)
    moments = weights * margins  # [R, P]
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        tempered = np.exp(middle)[:, None] * margins
        # As two small terms: 1 - sigmoid(x) would round to 0 where x is large.
        excess = (1 - labels) * expit(tempered) - labels * expit(-tempered)
        slope = (moments * excess).sum(axis=1)
        lower, upper = np.where(slope < 0, middle, lower), np.where(slope < 0, upper, middle)
    return np.exp(-(lower + upper) / 2)

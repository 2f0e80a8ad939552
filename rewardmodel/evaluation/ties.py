"""Tied pairs: whether a reward model scores replies alike that annotators call equal.

Letters: P pairs.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from prefsearch.statistics.intervals import Interval
from rewardmodel.evaluation.clustered import Floats, Integers, clustered_share, prompt_folds


@dataclass(frozen=True)
class TieEvaluation:
    """A reward model's figures on tied pairs beside decided ones.

    Attributes:
        tied: Pairs with a label of one half.
        decided: The other pairs.
        separation: Chance that a decided pair's margin is larger in size than a tied one's, equal
            sizes counting half (area under the ROC curve); 0.5 is chance.
        median_size_tied: Median size of the margin of tied pairs, in the reward model's unit.
        median_size_decided: The same of decided pairs.
        accuracy: Three-way accuracy over all pairs, where a margin within `thresholds` predicts a
            tie. Each half of the prompts takes the threshold that is best on the other half.
        thresholds: Those of the two halves, in the reward model's unit.
        accuracy_without: The same with a threshold of 0, where only equal scores predict a tie.

    Source: Deutsch, Foster and Freitag 2023, "Ties Matter" (https://arxiv.org/abs/2305.14324),
    pairwise accuracy with tie calibration; the split into halves, which keeps the threshold from
    being chosen on the pairs it is evaluated on, is ours.
    """

    tied: int
    decided: int
    separation: float
    median_size_tied: float
    median_size_decided: float
    accuracy: Interval
    thresholds: tuple[float, float]
    accuracy_without: Interval


def evaluate_ties(
    margins: Floats, signs: Floats, groups: Integers, *, seed: int
) -> TieEvaluation | None:
    """Evaluates tied pairs beside decided ones; None where there are none of either.

    Margins [P] are chosen minus rejected, signs [P] those of `preference_signs`, groups [P] indices
    of the prompts; `seed` is that of the division into halves.
    """
    tied = signs == 0
    if tied.all() or not tied.any():
        return None
    sizes = np.abs(margins)
    half = prompt_folds(groups, 2, seed=seed)
    right = np.empty(len(margins))
    thresholds: list[float] = []
    for index in range(2):
        here = half == index
        # With one prompt there is one half, and its threshold is chosen on itself.
        elsewhere = ~here if (~here).any() else here
        thresholds.append(best_tie_threshold(margins[elsewhere], signs[elsewhere]))
        right[here] = _is_correct(margins[here], signs[here], thresholds[-1])
    ranks = rankdata(sizes)
    decided = int((~tied).sum())
    above = ranks[~tied].sum() - decided * (decided + 1) / 2
    return TieEvaluation(
        tied=int(tied.sum()),
        decided=decided,
        separation=float(above / (decided * tied.sum())),
        median_size_tied=float(np.median(sizes[tied])),
        median_size_decided=float(np.median(sizes[~tied])),
        accuracy=clustered_share(right, groups),
        thresholds=(thresholds[0], thresholds[1]),
        accuracy_without=clustered_share(_is_correct(margins, signs, 0.0), groups),
    )


def best_tie_threshold(margins: Floats, signs: Floats) -> float:
    """The smallest threshold on the size of margins [P] that is right most often."""
    sizes = np.abs(margins)
    order = np.argsort(sizes, kind="stable")
    ties = np.cumsum(signs[order] == 0)  # tied pairs up to each
    good = np.cumsum((np.sign(margins) == signs)[order] & (signs[order] != 0))
    right = ties + good[-1] - good  # pairs called rightly with the threshold at each size
    last = np.append(np.diff(sizes[order]) > 0, True)  # of equal sizes, the last counts
    thresholds = np.append(0.0, sizes[order][last])
    counts = np.append(_is_correct(margins, signs, 0.0).sum(), right[last])
    return float(thresholds[int(np.argmax(counts))])


def _is_correct(margins: Floats, signs: Floats, threshold: float) -> Floats:
    """1 for each pair [P] predicted rightly, where margins within the threshold are ties."""
    called = np.where(np.abs(margins) <= threshold, 0.0, np.sign(margins))
    return (called == signs).astype(np.float64)

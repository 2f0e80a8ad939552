"""Correlation of a reward model's scores with the length of replies.

Lengths are in characters. Letters: P pairs, T distinct texts.
"""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy.stats import rankdata

from prefsearch.statistics.intervals import Interval
from rewardmodel.data.conversation import Reply, replies_of
from rewardmodel.data.labels import chosen_probabilities
from rewardmodel.evaluation.clustered import (
    Floats,
    Integers,
    clustered_correlation,
    length_margins,
    number_prompts,
)


@dataclass(frozen=True)
class LengthBias:
    """Correlations of scores with length, each None where one of the two does not vary.

    Compare with `human`: where humans prefer longer replies, a reward model should too.

    Attributes:
        within_prompts: Pearson, of a reply's score and length, each minus its mean over the
            distinct replies to the prompt.
        rank_within_prompts: The same of ranks among the prompt's replies (Spearman).
        margin: Pearson, of the margin and the length difference, each pair in both orders.
        rank_margin: The same of ranks (Spearman).
        human: Pearson, of the label (from -1 to 1) and the length difference, in both orders.
    """

    within_prompts: Interval | None
    rank_within_prompts: Interval | None
    margin: Interval | None
    rank_margin: Interval | None
    human: Interval | None


def measure_length_bias(dataset: Dataset, scores: Floats, *, seed: int) -> LengthBias:
    """Correlates scores [P, 2] of chosen and rejected with their lengths.

    Raises:
        ValueError: There are fewer than two prompts.
    """
    groups = number_prompts(dataset)
    differences = length_margins(dataset)
    margins = scores[:, 0] - scores[:, 1]
    labels = 2 * chosen_probabilities(dataset) - 1
    lengths, values, owners = _distinct_replies(dataset, scores, groups)
    return LengthBias(
        within_prompts=clustered_correlation(
            _centered(values, owners), _centered(lengths, owners), owners, seed=seed
        ),
        rank_within_prompts=clustered_correlation(
            _centered(_ranks_within(values, owners), owners),
            _centered(_ranks_within(lengths, owners), owners),
            owners,
            seed=seed,
        ),
        margin=clustered_correlation(margins, differences, groups, seed=seed),
        rank_margin=clustered_correlation(
            _odd_ranks(margins), _odd_ranks(differences), groups, seed=seed
        ),
        human=clustered_correlation(labels, differences, groups, seed=seed),
    )


def _distinct_replies(
    dataset: Dataset, scores: Floats, groups: Integers
) -> tuple[Floats, Floats, Integers]:
    """Lengths, scores and prompt numbers of the distinct replies, each [T]."""
    texts: dict[tuple[int, Reply], float] = {}
    for column, name in enumerate(("chosen", "rejected")):
        replies = replies_of(dataset, name)
        for group, reply, score in zip(groups, replies, scores[:, column], strict=True):
            texts[int(group), reply] = float(score)
    lengths = np.array([len(str(reply)) for _, reply in texts], dtype=np.float64)
    owners = np.array([group for group, _ in texts], dtype=np.int64)
    return lengths, np.array(list(texts.values())), owners


def _centered(values: Floats, owners: Integers) -> Floats:
    """Subtracts the mean over each owner's values [T]."""
    counts = np.maximum(np.bincount(owners), 1)
    centered = values - (np.bincount(owners, weights=values) / counts)[owners]
    # Rounding leaves dust where all of a prompt's values are equal.
    return np.where(np.abs(centered) < 1e-12 * (1 + np.abs(values)), 0.0, centered)


def _ranks_within(values: Floats, owners: Integers) -> Floats:
    """Rank values [T] among those of the same owner, but for a constant of each owner.

    Equal values share their mean rank.
    """
    order = np.lexsort((values, owners))
    fresh = (np.diff(owners[order], prepend=-1) != 0) | (
        np.diff(values[order], prepend=np.nan) != 0
    )
    key = np.empty(len(values))
    key[order] = np.cumsum(fresh)  # of owners in order, within them of values
    return rankdata(key)


def _odd_ranks(values: Floats) -> Floats:
    """Rank values [P] among themselves and their negatives, about zero."""
    ranks = rankdata(np.concatenate([values, -values]))
    return ranks[: len(values)] - (2 * len(values) + 1) / 2

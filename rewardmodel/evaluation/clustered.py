"""Means, accuracies and correlations over pairs, with intervals over their prompts.

Pairs of one prompt are not independent, so prompts are the unit of sampling. Letters: P pairs, G
distinct prompts, R resamples. `groups` [P] are indices of prompts.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from prefsearch.statistics.intervals import Interval, bootstrap_interval, wilson_interval
from rewardmodel.data.conversation import prompts_of, replies_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_TAILS = (0.025, 0.975)
_BLOCK_VALUES = 1_000_000


def percentile_interval(estimate: float, resampled: Floats) -> Interval:
    """The 95 % percentile interval of resampled estimates [R], widened to the estimate."""
    low, high = np.quantile(resampled, _TAILS)
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def number_prompts(dataset: Dataset) -> Integers:
    """The index of each row's prompt, [P] in 0..G-1."""
    return number_texts(prompts_of(dataset))


def number_texts(texts: Sequence[Hashable]) -> Integers:
    """The index of each text among the distinct ones, [P] in 0..G-1."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int64)


def require_prompts(groups: Integers) -> None:
    """Refuses pairs [P] of fewer than two prompts, before they are scored.

    Raises:
        ValueError: There are fewer.
    """
    prompts = len(np.unique(groups))
    if prompts < 2:
        raise ValueError(
            f"found {len(groups)} pair(s) with a better reply, of {prompts} prompt; an interval "
            "over prompts needs at least 2. Evaluate on more."
        )


def length_margins(dataset: Dataset) -> Floats:
    """Characters of chosen minus rejected, [P]."""
    return np.array([a - b for a, b in _lengths(dataset)], dtype=np.float64)


def log_length_ratios(dataset: Dataset) -> Floats:
    """Log of characters of chosen over rejected, [P]; one is added, for empty replies."""
    return np.array([np.log1p(a) - np.log1p(b) for a, b in _lengths(dataset)], dtype=np.float64)


def _lengths(dataset: Dataset) -> Iterator[tuple[int, int]]:
    """Characters of chosen and rejected, of each pair."""
    columns = (replies_of(dataset, name) for name in ("chosen", "rejected"))
    return ((len(str(a)), len(str(b))) for a, b in zip(*columns, strict=True))


def clustered_mean(values: Floats, groups: Integers, seed: int) -> Interval:
    """Mean over pairs [P], its bootstrap interval over prompts.

    A prompt enters with its linearized contribution, so that the mean over prompts is the mean over
    pairs however unevenly pairs are spread.

    Source: ratio estimator, Cochran 1977, chapter 6.
    """
    _, dense = np.unique(groups, return_inverse=True)
    deviations = np.bincount(dense, weights=values - values.mean())  # [G]
    return bootstrap_interval(values.mean() + deviations * len(deviations) / len(values), seed=seed)


def clustered_accuracy(margins: Floats, groups: Integers) -> Interval:
    """Accuracy over pairs [P] with a Wilson interval, a margin of 0 counting half."""
    if not len(margins):
        raise ValueError("found no margins; required: at least one pair")
    return clustered_share((margins > 0) + 0.5 * (margins == 0), groups)


def clustered_share(right: Floats, groups: Integers) -> Interval:
    """Mean of values in [0, 1] over pairs [P] with a Wilson interval, wider where prompts repeat.

    Where prompts repeat, the interval is for as many independent pairs as have the variance that
    the prompts show (never more than P).

    Source: design effect, Kish 1965.
    """
    prompts = len(np.unique(groups))
    if prompts == len(right):
        return wilson_interval(float(right.sum()), len(right))
    share = float(right.mean())
    independent = float(prompts)  # all right or all wrong: there is no variance to measure
    if prompts > 1 and 0 < share < 1:
        spread = np.bincount(groups, weights=right - share)
        variance = (spread**2).sum() / len(right) ** 2 * prompts / (prompts - 1)
        independent = share * (1 - share) / max(variance, 1e-12)
    total = int(np.clip(independent, 1, len(right)))
    return wilson_interval(share * total, total)


def accuracy_where(margins: Floats, groups: Integers, where: NDArray[np.bool_]) -> Interval | None:
    """Accuracy over the pairs where a mask [P] is True, or None where there are none."""
    return clustered_accuracy(margins[where], groups[where]) if where.any() else None


def resample_prompts(groups: Integers, *, seed: int, resamples: int) -> Iterator[Floats]:
    """Draws prompts with replacement; yields the count of each, [R, G] in blocks of resamples.

    Raises:
        ValueError: There are fewer than two prompts.
    """
    prompts = int(groups.max(initial=-1)) + 1
    if prompts < 2:
        raise ValueError(
            f"found {prompts} prompt; an interval over prompts needs at least 2. Evaluate on more."
        )
    generator = np.random.default_rng(seed)
    chances = np.full(prompts, 1 / prompts)
    block = max(1, _BLOCK_VALUES // prompts)
    for done in range(0, resamples, block):
        size = min(block, resamples - done)
        yield generator.multinomial(prompts, chances, size=size).astype(np.float64)


def clustered_correlation(x: Floats, y: Floats, groups: Integers, *, seed: int) -> Interval | None:
    """Correlation of x and y [P] about zero, with its bootstrap interval over prompts.

    About zero, not about their means, so pass deviations, or differences that are odd in the order
    of a pair. None where one of them does not vary.
    """
    sums = np.stack(
        [np.bincount(groups, weights=values) for values in (x * y, x * x, y * y)], axis=1
    )  # [G, 3]
    if (sums[:, 1:].sum(axis=0) <= 0).any():
        return None
    blocks = resample_prompts(groups, seed=seed, resamples=1000)
    drawn = np.concatenate([counts @ sums for counts in blocks])  # [R, 3]
    drawn = drawn[(drawn[:, 1:] > 0).all(axis=1)]
    total = sums.sum(axis=0)
    return percentile_interval(
        float(total[0] / np.sqrt(total[1] * total[2])),
        drawn[:, 0] / np.sqrt(drawn[:, 1] * drawn[:, 2]),
    )


def prompt_folds(groups: Integers, folds: int, *, seed: int) -> Integers:
    """The fold of each pair's prompt, [P]; fewer folds where prompts are fewer."""
    prompts = int(groups.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(prompts)
    return (order % min(folds, max(prompts, 1)))[groups]

"""Means and accuracies over pairs whose prompts repeat, with intervals over prompts.

Pairs of one prompt are not independent, so prompts are the unit of sampling. Letters: P pairs, G
distinct prompts.
"""

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from search.evaluation.metrics import (
    Interval,
    accuracy_from_margins,
    bootstrap_interval,
    wilson_interval,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def number_prompts(dataset: Dataset) -> Integers:
    """Return for each row the number of its prompt, [P] in 0..G-1."""
    number: dict[str, int] = {}
    return np.array(
        [number.setdefault(prompt, len(number)) for prompt in dataset["prompt"]], dtype=np.int64
    )


def length_margins(dataset: Dataset) -> Floats:
    """Return characters of chosen minus rejected, [P]."""
    pairs = zip(dataset["chosen"], dataset["rejected"], strict=True)
    return np.array([len(chosen) - len(rejected) for chosen, rejected in pairs], dtype=np.float64)


def clustered_mean(values: Floats, groups: Integers, seed: int) -> Interval:
    """Mean over pairs [P], its bootstrap interval over prompts.

    A prompt enters with its linearised contribution, so that the mean over prompts is the mean
    over pairs however unevenly pairs are spread.

    Source: ratio estimator, Cochran 1977, chapter 6.
    """
    deviations = np.bincount(groups, weights=values - values.mean())  # [G]
    return bootstrap_interval(values.mean() + deviations * len(deviations) / len(values), seed=seed)


def clustered_accuracy(margins: Floats, groups: Integers) -> Interval:
    """Accuracy over pairs [P] with a Wilson interval; repeated prompts widen it.

    Where prompts repeat, the interval is for as many independent pairs as have the variance that
    the prompts show (never more than P).

    Source: design effect, Kish 1965.
    """
    prompts = len(np.unique(groups))
    if prompts == len(margins) or not len(margins):
        return accuracy_from_margins(margins)
    right = (margins > 0) + 0.5 * (margins == 0)  # [P]
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

"""How well a reward model orders pairs that humans have ordered, beside two cheap baselines.

Every number is taken over all pairs at once, so none depends on the batch size: batch means of
accuracy are not its mean, and padded evaluation loops lose rows. A reward model is worth its cost
only where it beats "the longer reply" and a bag of words, so both are here.

Letters: P pairs, G distinct prompts, V tokens in the vocabulary. A margin is the chosen reply's
score minus the rejected one's; `sigmoid(margin)` is the stated probability of the human's choice
(Bradley and Terry 1952).
"""

import re
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit
from tqdm.auto import tqdm

from rewardmodel.interface import RewardModel
from search.evaluation.metrics import (
    Interval,
    accuracy_from_margins,
    bootstrap_interval,
    expected_calibration_error,
    wilson_interval,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_TOKEN = re.compile(r"\w+|[^\w\s]")
_FOLDS = 5
_L2_GRID = tuple(10.0 ** (power / 2) for power in range(-8, 3))


@dataclass(frozen=True)
class RewardEvaluation:
    """What a reward model is worth on a set of preference pairs.

    Intervals are 95 % over prompts: pairs of one prompt are not independent. Log loss is in nats,
    margins in the reward model's own unit. An accuracy over no pairs is None.
    """

    pairs: int
    prompts: int
    accuracy: Interval
    log_loss: Interval
    brier: Interval
    ece: float
    mean_margin: Interval
    longer_reply_accuracy: Interval
    accuracy_where_longer_chosen: Interval | None
    accuracy_where_shorter_chosen: Interval | None
    seconds: float
    seed: int


@dataclass(frozen=True)
class BagOfWordsBaseline:
    """Logistic regression on token counts: what word choice alone tells about the preference.

    `margins` [P] are of the test pairs in their order, so that they can be paired with another
    model's.
    """

    accuracy: Interval
    margins: Floats
    l2: float
    vocabulary: int


def evaluate_reward_model(
    reward_model: RewardModel,
    dataset: Dataset,
    *,
    seed: int,
    progress: bool = True,
    batch_pairs: int = 16,
) -> RewardEvaluation:
    """Evaluate a reward model on preference pairs.

    Args:
        reward_model: Scores responses.
        dataset: Text columns `prompt`, `chosen` and `rejected`, of prompts not trained on.
        seed: Of the bootstrap.
        progress: Show a progress bar.
        batch_pairs: Pairs a call of `score`; changes speed and memory, not the result.

    Raises:
        ValueError: A score is not finite or missing, or there are fewer than two prompts.
    """
    start = time.perf_counter()
    margins = preference_margins(reward_model, dataset, progress=progress, batch_pairs=batch_pairs)
    seconds = time.perf_counter() - start
    groups = _number_prompts(dataset)
    longer = _length_margins(dataset)
    probability = expit(margins)
    # Each pair in both orders: were the chosen reply always first, every outcome would be 1 and
    # calibration below one half untested. A random order would say the same with noise.
    ece = expected_calibration_error(
        np.concatenate([probability, 1 - probability]), np.repeat([1.0, 0.0], len(margins))
    )
    return RewardEvaluation(
        pairs=len(margins),
        prompts=int(groups.max()) + 1,
        accuracy=_accuracy(margins, groups),
        log_loss=_mean(np.logaddexp(0.0, -margins), groups, seed),
        brier=_mean((1 - probability) ** 2, groups, seed),
        ece=ece,
        mean_margin=_mean(margins, groups, seed),
        longer_reply_accuracy=_accuracy(longer, groups),
        accuracy_where_longer_chosen=_accuracy_where(margins, groups, longer > 0),
        accuracy_where_shorter_chosen=_accuracy_where(margins, groups, longer < 0),
        seconds=seconds,
        seed=seed,
    )


def preference_margins(
    reward_model: RewardModel, dataset: Dataset, *, progress: bool = True, batch_pairs: int = 16
) -> Floats:
    """Return the margin of each pair.

    Args:
        reward_model: Scores responses.
        dataset: Text columns `prompt`, `chosen` and `rejected`.
        progress: Show a progress bar.
        batch_pairs: Pairs a call of `score`.

    Returns:
        Float64 [P], in the dataset's order.

    Raises:
        ValueError: The dataset is empty, `batch_pairs` is below 1, or a score is not finite or
            missing; the message names the row.
    """
    if len(dataset) == 0 or batch_pairs < 1:
        raise ValueError(
            f"found {len(dataset)} pairs and batch_pairs={batch_pairs}; required are at least one "
            "of each. Load pairs to evaluate on, or raise batch_pairs."
        )
    margins = np.empty(len(dataset))
    with tqdm(total=len(dataset), unit="pair", desc="scoring", disable=not progress) as bar:
        for start in range(0, len(dataset), batch_pairs):
            rows = dataset[start : start + batch_pairs]
            count = len(rows["prompt"])
            # The two replies to a prompt side by side, so that a model can share the prompt.
            prompts = [prompt for prompt in rows["prompt"] for _ in range(2)]
            replies = [
                reply
                for pair in zip(rows["chosen"], rows["rejected"], strict=True)
                for reply in pair
            ]
            with torch.inference_mode():
                scores = reward_model.score(prompts, replies)
            if tuple(scores.shape) != (2 * count,):
                raise ValueError(
                    f"the reward model returned scores of shape {list(scores.shape)} for "
                    f"{2 * count} responses (rows {start} to {start + count - 1}); required is "
                    "one score a response. Mend its score()."
                )
            pairs = scores.detach().to("cpu", torch.float64).numpy().reshape(count, 2)  # [P, 2]
            _require_finite(pairs, start, rows)
            margins[start : start + count] = pairs[:, 0] - pairs[:, 1]
            bar.update(count)
    return margins


def longer_reply_accuracy(dataset: Dataset) -> Interval:
    """Accuracy of preferring the reply with more characters, equal lengths counting half.

    Raises:
        ValueError: The dataset is empty.
    """
    return _accuracy(_length_margins(dataset), _number_prompts(dataset))


def bag_of_words_accuracy(train: Dataset, test: Dataset, *, seed: int = 0) -> BagOfWordsBaseline:
    """Accuracy of logistic regression on the difference of two replies' token counts.

    A reply is log1p of how often each token of the training replies occurs in it. There is no
    intercept, so swapping a pair flips its margin. The penalty is chosen among `_L2_GRID` by log
    loss in cross validation over the training prompts; the test pairs are read once, at the end.

    Args:
        train: Text columns `prompt`, `chosen` and `rejected`.
        test: The same, of other prompts.
        seed: Of the division into folds.

    Raises:
        ValueError: `test` is empty, or `train` has fewer than two prompts.
    """
    groups = _number_prompts(train)
    prompts = int(groups.max(initial=-1)) + 1
    if prompts < 2 or len(test) == 0:
        raise ValueError(
            f"found {prompts} training prompts and {len(test)} test pairs; required are at least "
            "2 and 1. Load more pairs, or choose another holdout."
        )
    vocabulary: dict[str, int] = {}
    features = _count_differences(train, vocabulary, grow=True)
    folds = min(_FOLDS, prompts)
    fold = (np.random.default_rng(seed).permutation(prompts) % folds)[groups]  # [P]
    losses = []
    for l2 in tqdm(_L2_GRID, desc="choosing the penalty", delay=2, leave=False):
        held_out = np.empty(len(train))
        for index in range(folds):
            weights = _fit_logistic(features[fold != index], len(vocabulary), l2)
            held_out[fold == index] = features[fold == index] @ weights
        losses.append(np.logaddexp(0.0, -held_out).mean())
    l2 = _L2_GRID[int(np.argmin(losses))]
    weights = _fit_logistic(features, len(vocabulary), l2)
    margins = np.asarray(_count_differences(test, vocabulary, grow=False) @ weights)
    return BagOfWordsBaseline(
        accuracy=_accuracy(margins, _number_prompts(test)),
        margins=margins,
        l2=l2,
        vocabulary=len(vocabulary),
    )


def _count_differences(dataset: Dataset, vocabulary: dict[str, int], *, grow: bool) -> csr_array:
    """Return log1p token counts of chosen minus rejected, [P, V]; `grow` adds to `vocabulary`."""
    values: list[float] = []
    columns: list[int] = []
    starts = [0]
    for chosen, rejected in zip(dataset["chosen"], dataset["rejected"], strict=True):
        counts = [Counter(_TOKEN.findall(text.lower())) for text in (chosen, rejected)]
        for token in {**counts[0], **counts[1]}:  # in order of appearance, unlike a set
            if grow:
                vocabulary.setdefault(token, len(vocabulary))
            if token in vocabulary and counts[0][token] != counts[1][token]:
                columns.append(vocabulary[token])
                values.append(np.log1p(counts[0][token]) - np.log1p(counts[1][token]))
        starts.append(len(values))
    return csr_array((values, columns, starts), shape=(len(dataset), len(vocabulary)))


def _fit_logistic(features: csr_array, vocabulary: int, l2: float) -> Floats:
    """Return the weights [V] that minimise mean log loss of `features` [P, V] plus the penalty."""
    transposed = features.T.tocsr()

    def objective(weights: Floats) -> tuple[float, Floats]:
        margins = features @ weights
        loss = np.logaddexp(0.0, -margins).mean() + 0.5 * l2 * (weights @ weights)
        gradient = l2 * weights - transposed @ expit(-margins) / len(margins)
        return float(loss), gradient

    start = np.zeros(vocabulary)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return np.asarray(found.x)


def _number_prompts(dataset: Dataset) -> Integers:
    """Return for each row the number of its prompt, [P] in 0..G-1."""
    number: dict[str, int] = {}
    return np.array(
        [number.setdefault(prompt, len(number)) for prompt in dataset["prompt"]], dtype=np.int64
    )


def _length_margins(dataset: Dataset) -> Floats:
    """Return characters of chosen minus rejected, [P]."""
    pairs = zip(dataset["chosen"], dataset["rejected"], strict=True)
    return np.array([len(chosen) - len(rejected) for chosen, rejected in pairs], dtype=np.float64)


def _mean(values: Floats, groups: Integers, seed: int) -> Interval:
    """Mean over pairs [P], its bootstrap interval over prompts.

    A prompt enters with its linearised contribution, so that the mean over prompts is the mean
    over pairs however unevenly pairs are spread.

    Source: ratio estimator, Cochran 1977, chapter 6.
    """
    deviations = np.bincount(groups, weights=values - values.mean())  # [G]
    return bootstrap_interval(values.mean() + deviations * len(deviations) / len(values), seed=seed)


def _accuracy(margins: Floats, groups: Integers) -> Interval:
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


def _accuracy_where(margins: Floats, groups: Integers, where: NDArray[np.bool_]) -> Interval | None:
    return _accuracy(margins[where], groups[where]) if where.any() else None


def _require_finite(pairs: Floats, start: int, rows: dict[str, list[str]]) -> None:
    """Refuse scores [P, 2] that are not finite, naming the dataset's row."""
    if np.isfinite(pairs).all():
        return
    row, side = (int(place) for place in np.argwhere(~np.isfinite(pairs))[0])
    column = ("chosen", "rejected")[side]
    raise ValueError(
        f"row {start + row}: the score of the {column} reply is {pairs[row, side]}, required is a "
        f"finite number. The prompt begins {rows['prompt'][row][:60]!r}, the reply "
        f"{rows[column][row][:60]!r}. Check the reward model's weights and precision (a diverged "
        "training or a float16 overflow), or drop the row."
    )

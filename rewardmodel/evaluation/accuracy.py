"""How well a reward model orders pairs that humans have ordered.

Every number is taken over all pairs at once, so none depends on the batch size: batch means of
accuracy are not its mean, and padded evaluation loops lose rows.

Letters: P pairs, G distinct prompts. A margin is the chosen reply's score minus the rejected one's;
`sigmoid(margin)` is the stated probability of the human's choice (Bradley and Terry 1952).
"""

import time
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy.special import expit

from rewardmodel.evaluation.clustered import (
    accuracy_where,
    clustered_accuracy,
    clustered_mean,
    length_margins,
    number_prompts,
)
from rewardmodel.evaluation.margins import preference_margins
from rewardmodel.interface import RewardModel
from search.evaluation.metrics import Interval, expected_calibration_error


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
    groups = number_prompts(dataset)
    longer = length_margins(dataset)
    probability = expit(margins)
    # Each pair in both orders: were the chosen reply always first, every outcome would be 1 and
    # calibration below one half untested. A random order would say the same with noise.
    ece = expected_calibration_error(
        np.concatenate([probability, 1 - probability]), np.repeat([1.0, 0.0], len(margins))
    )
    return RewardEvaluation(
        pairs=len(margins),
        prompts=int(groups.max()) + 1,
        accuracy=clustered_accuracy(margins, groups),
        log_loss=clustered_mean(np.logaddexp(0.0, -margins), groups, seed),
        brier=clustered_mean((1 - probability) ** 2, groups, seed),
        ece=ece,
        mean_margin=clustered_mean(margins, groups, seed),
        longer_reply_accuracy=clustered_accuracy(longer, groups),
        accuracy_where_longer_chosen=accuracy_where(margins, groups, longer > 0),
        accuracy_where_shorter_chosen=accuracy_where(margins, groups, longer < 0),
        seconds=seconds,
        seed=seed,
    )

"""The margins of preference pairs: every text scored once, in the dataset's order."""

from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from rewardmodel.data.conversation import Prompt, Reply, prompts_of, replies_of
from rewardmodel.data.parsing.finished import PAIR_COLUMNS
from rewardmodel.evaluation.scoring import Name, score_texts
from rewardmodel.interface import RewardModel

Floats = NDArray[np.float64]


def pair_texts(dataset: Dataset) -> tuple[list[Prompt], list[Reply], list[bool], Name]:
    """Return prompts, replies, chosen and rejected by turns, and whether each is finished, [2P].

    Last comes what messages call a reply.

    Raises:
        ValueError: The dataset is empty or lacks a column.
    """
    missing = [c for c in ("prompt", "chosen", "rejected") if c not in dataset.column_names]
    if missing or len(dataset) == 0:
        raise ValueError(
            f"found {len(dataset)} pairs with the columns {dataset.column_names}; required are "
            "at least one pair and prompt, chosen and rejected. Load pairs to evaluate on."
        )
    prompts = [prompt for prompt in prompts_of(dataset) for _ in range(2)]
    pairs = zip(replies_of(dataset, "chosen"), replies_of(dataset, "rejected"), strict=True)
    replies = [reply for pair in pairs for reply in pair]

    told: list[Any] = [
        dataset[column] if column in dataset.column_names else [True] * len(dataset)
        for column in PAIR_COLUMNS
    ]
    finished = [value is not False for pair in zip(*told, strict=True) for value in pair]

    def name(n: int) -> str:
        return f"row {n // 2}: the score of the {('chosen', 'rejected')[n % 2]} reply"

    return prompts, replies, finished, name


def pair_scores(
    reward_model: RewardModel, dataset: Dataset, *, progress: bool = True, batch_pairs: int = 16
) -> Floats:
    """Return the scores of each pair, float64 [P, 2]: chosen, rejected.

    A prompt's replies are scored together and each distinct one once, however many pairs hold it.

    Args:
        reward_model: Scores responses.
        dataset: Columns `prompt`, `chosen` and `rejected`, text or messages, and where some replies
            were cut off `chosen_finished` and `rejected_finished`.
        progress: Show a progress bar.
        batch_pairs: Pairs a call of `score`.

    Raises:
        ValueError: The dataset is empty, `batch_pairs` is below 1, or a score is not finite or
            missing; the message names the row.
    """
    prompts, replies, finished, name = pair_texts(dataset)
    if batch_pairs < 1:
        raise ValueError(f"batch_pairs is {batch_pairs}; required is at least 1. Raise it.")
    scores = score_texts(
        reward_model,
        prompts,
        replies,
        progress=progress,
        batch_size=2 * batch_pairs,
        name=name,
        finished=finished,
    )
    return scores.reshape(-1, 2)  # [P, 2]


def preference_margins(
    reward_model: RewardModel, dataset: Dataset, *, progress: bool = True, batch_pairs: int = 16
) -> Floats:
    """Return the margin of each pair, float64 [P] in the dataset's order; see `pair_scores`."""
    scores = pair_scores(reward_model, dataset, progress=progress, batch_pairs=batch_pairs)
    return scores[:, 0] - scores[:, 1]

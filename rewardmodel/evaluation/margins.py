"""Scores and margins of preference pairs, each distinct text scored once."""

from typing import Any

from datasets import Dataset

from rewardmodel.data.conversation import Prompt, Reply, prompts_of, replies_of
from rewardmodel.data.parsing.finished import PAIR_COLUMNS
from rewardmodel.evaluation.scoring import Floats, Name, score_texts
from rewardmodel.interface import RewardModel


def pair_texts(dataset: Dataset) -> tuple[list[Prompt], list[Reply], list[bool], Name]:
    """Prompts, replies, whether each is finished, and names; [2P], chosen and rejected alternating.

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


def pair_scores(reward_model: RewardModel, dataset: Dataset, *, batch_pairs: int = 16) -> Floats:
    """The scores of each pair, float64 [P, 2]: chosen, rejected.

    Args:
        reward_model: Scores responses.
        dataset: Columns `prompt`, `chosen` and `rejected`, text or messages; optional
            `chosen_finished` and `rejected_finished`.
        batch_pairs: Pairs per call of `score`.

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
        batch_size=2 * batch_pairs,
        name=name,
        finished=finished,
    )
    return scores.reshape(-1, 2)  # [P, 2]


def preference_margins(
    reward_model: RewardModel, dataset: Dataset, *, batch_pairs: int = 16
) -> Floats:
    """The margin of each pair, float64 [P] in the dataset's order; see `pair_scores`."""
    scores = pair_scores(reward_model, dataset, batch_pairs=batch_pairs)
    return scores[:, 0] - scores[:, 1]

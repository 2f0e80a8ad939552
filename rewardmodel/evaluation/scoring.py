"""Scoring each distinct text once, in batches.

The responses to one prompt go to the reward model together, so that a model that shares prompts
runs each prompt once. Letters: N texts, B texts of one call, M members of an ensemble.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from prefsearch.progress import progress as progress_bar
from rewardmodel.data.conversation import Prompt, Reply, prompts_of, replies_of
from rewardmodel.data.parsing.finished import PAIR_COLUMNS
from rewardmodel.interface import (
    RewardModel,
    UncertainRewardModel,
    member_scores_of,
    score_replies,
)

Floats = NDArray[np.float64]
Name = Callable[[int], str]
"""The name of the n-th text in messages, such as "row 3: the score of the chosen reply"."""


def score_texts(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    batch_size: int = 32,
    name: Name | None = None,
    finished: Sequence[bool] | None = None,
) -> Floats:
    """Scores N responses, each distinct pair of prompt and response once.

    Args:
        reward_model: Scores responses.
        prompts: N prompts.
        responses: N responses.
        batch_size: Texts per call of `score`; changes speed and memory, not the result.
        name: Names a text in messages.
        finished: Whether each response is finished; None takes all as finished.

    Returns:
        float64 [N].

    Raises:
        ValueError: `batch_size` is below 1, or a score is missing or not finite; the message names
            the text.
    """
    score = functools.partial(score_replies, reward_model)
    return _score_distinct(score, prompts, responses, finished, batch_size, name, dims=1)[0]


def score_texts_by_member(
    ensemble: UncertainRewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    batch_size: int = 32,
    name: Name | None = None,
    finished: Sequence[bool] | None = None,
) -> Floats:
    """Scores N responses with each member of an ensemble, float64 [M, N]; see `score_texts`."""
    score = functools.partial(member_scores_of, ensemble)
    return _score_distinct(score, prompts, responses, finished, batch_size, name, dims=2)


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

    marks: list[object] = [
        dataset[column] if column in dataset.column_names else [True] * len(dataset)
        for column in PAIR_COLUMNS
    ]
    finished = [value is not False for pair in zip(*marks, strict=True) for value in pair]

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


def _score_distinct(
    score: Callable[..., Tensor],
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    finished: Sequence[bool] | None,
    batch_size: int,
    name: Name | None,
    *,
    dims: int,
) -> Floats:
    """Scores [M, N], M = 1 for a score of one dimension."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; required is at least 1. Raise it.")
    firsts: dict[tuple[Prompt, Reply, bool], int] = {}
    place = np.empty(len(prompts), dtype=np.int64)  # [N], the distinct text of each
    ends = [True] * len(prompts) if finished is None else finished
    for n, text in enumerate(zip(prompts, responses, ends, strict=True)):
        place[n] = firsts.setdefault(text, n)
    found: Floats | None = None
    with progress_bar("scoring", len(firsts)) as bar:
        for batch in _batches(prompts, firsts, batch_size):
            with torch.inference_mode():
                raw = score(
                    [prompts[n] for n in batch],
                    [responses[n] for n in batch],
                    finished=True if finished is None else [finished[n] for n in batch],
                )
            members = 1 if found is None else len(found)
            if dims == 2 and found is None and raw.ndim == 2:
                members = max(1, raw.shape[0])
            if tuple(raw.shape) != (members, len(batch))[-dims:]:
                raise ValueError(
                    f"the reward model returned scores of shape {list(raw.shape)} for "
                    f"{len(batch)} responses (texts {min(batch)} to {max(batch)}); required is "
                    f"{'one score a response' if dims == 1 else 'members x responses'}. "
                    "Mend its scoring."
                )
            scores = raw.detach().to("cpu", torch.float64).numpy().reshape(-1, len(batch))
            _require_finite(scores, batch, prompts, responses, name)
            found = np.empty((len(scores), len(prompts))) if found is None else found
            found[:, batch] = scores
            bar.advance(len(batch))
    if found is None:
        raise ValueError("found no texts to score; required is at least one. Load some.")
    return found[:, place]


def _batches(
    prompts: Sequence[Prompt], firsts: dict[tuple[Prompt, Reply, bool], int], batch_size: int
) -> list[list[int]]:
    """Divides the distinct texts into batches; splits a prompt only where it fills one alone."""
    by_prompt: dict[Prompt, list[int]] = {}
    for n in firsts.values():
        by_prompt.setdefault(prompts[n], []).append(n)
    batches: list[list[int]] = [[]]
    for group in by_prompt.values():
        if batches[-1] and len(batches[-1]) + len(group) > batch_size:
            batches.append([])
        for n in group:
            if len(batches[-1]) == batch_size:
                batches.append([])
            batches[-1].append(n)
    return [batch for batch in batches if batch]


def _require_finite(
    scores: Floats,
    batch: Sequence[int],
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    name: Name | None,
) -> None:
    """Refuses scores [M, B] that are not finite, naming the text."""
    if np.isfinite(scores).all():
        return
    at, member = (int(place) for place in np.argwhere(~np.isfinite(scores.T))[0])
    n = batch[at]
    who = f" by member {member}" if len(scores) > 1 else ""
    raise ValueError(
        f"{name(n) if name else f'text {n}: the score'}{who} is {scores[member, at]}, required is "
        f"a finite number. The prompt begins {str(prompts[n])[:60]!r}, the reply "
        f"{str(responses[n])[:60]!r}. Check the reward model's weights and precision (a diverged "
        "training or a float16 overflow), or drop the row."
    )

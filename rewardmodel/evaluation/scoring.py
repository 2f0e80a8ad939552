"""Each distinct text scored once, whatever it is asked for and in whatever batches.

A prompt's responses go to the reward model together, so that a model that shares prompts runs each
once. Letters: N texts as asked for, B texts of one call, M members of an ensemble.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefsearch.progress import progress as progress_bar
from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.interface import (
    RewardModel,
    UncertainRewardModel,
    member_scores_of,
    score_replies,
)

Floats = NDArray[np.float64]
Name = Callable[[int], str]
"""What a message calls the n-th text, such as "row 3: the score of the chosen reply"."""


def score_texts(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    progress: bool,
    batch_size: int = 32,
    name: Name | None = None,
    finished: Sequence[bool] | None = None,
) -> Floats:
    """Score responses, each distinct pair of prompt and response once.

    Args:
        reward_model: Scores responses.
        prompts: N prompts.
        responses: N responses.
        progress: Show a progress bar.
        batch_size: Texts a call of `score`; changes speed and memory, not the result.
        name: What a message calls a text.
        finished: Of each response whether it is whole; None takes all for whole.

    Returns:
        Float64 [N], in the order asked.

    Raises:
        ValueError: `batch_size` is below 1, or a score is missing or not finite; the message names
            the text.
    """

    def score(batch: Sequence[int]) -> Tensor:
        asked, said = [prompts[n] for n in batch], [responses[n] for n in batch]
        told = True if finished is None else [finished[n] for n in batch]
        return score_replies(reward_model, asked, said, finished=told)

    return _score_distinct(score, prompts, responses, finished, None, progress, batch_size, name)[0]


def score_texts_by_member(
    ensemble: UncertainRewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    progress: bool,
    batch_size: int = 32,
    name: Name | None = None,
    finished: Sequence[bool] | None = None,
) -> Floats:
    """Score responses by each member of an ensemble, float64 [M, N]; see `score_texts`.

    Args:
        ensemble: M members.
        prompts: N prompts.
        responses: N responses.
        progress: Show a progress bar.
        batch_size: Texts a call.
        name: What a message calls a text.
        finished: Of each response whether it is whole; None takes all for whole.
    """

    def score(batch: Sequence[int]) -> Tensor:
        asked, said = [prompts[n] for n in batch], [responses[n] for n in batch]
        told = True if finished is None else [finished[n] for n in batch]
        return member_scores_of(ensemble, asked, said, finished=told)

    return _score_distinct(score, prompts, responses, finished, -1, progress, batch_size, name)


def _score_distinct(
    score: Callable[[Sequence[int]], Tensor],
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    finished: Sequence[bool] | None,
    members: int | None,
    progress: bool,
    batch_size: int,
    name: Name | None,
) -> Floats:
    """Return scores [M, N]; `members` is None for one model, -1 for as many as there are.

    `score` is given numbers of texts.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; required is at least 1. Raise it.")
    firsts: dict[tuple[Prompt, Reply, bool], int] = {}
    place = np.empty(len(prompts), dtype=np.int64)  # [N], the distinct text of each
    told = [True] * len(prompts) if finished is None else finished
    for n, text in enumerate(zip(prompts, responses, told, strict=True)):
        place[n] = firsts.setdefault(text, n)
    found: Floats | None = None
    with progress_bar("scoring", len(firsts), enabled=progress) as bar:
        for batch in _batches(prompts, firsts, batch_size):
            with torch.inference_mode():
                raw = score(batch)
            expected = (len(batch),) if members is None else (max(members, 1), len(batch))
            if members == -1 and raw.ndim == 2:
                members, expected = raw.shape[0], (raw.shape[0], len(batch))
            if tuple(raw.shape) != expected:
                raise ValueError(
                    f"the reward model returned scores of shape {list(raw.shape)} for "
                    f"{len(batch)} responses (texts {min(batch)} to {max(batch)}); required is "
                    f"{'one score a response' if members is None else 'members x responses'}. "
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
    """Divide the distinct texts into batches; a prompt is split only where it fills one alone."""
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
    """Refuse scores [M, B] that are not finite, naming the text."""
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

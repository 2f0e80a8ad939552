"""Whether a response's score depends on the batch that it is scored in.

Padding, the position of the end token and attention masks can make scores of one text differ
between batches; a planner's choice would then depend on its batch size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.interface import RewardModel, require_finite


@dataclass(frozen=True)
class BatchInvariance:
    """The largest difference between a text's score alone and in a batch.

    Attributes:
        rows: Texts that were scored.
        max_difference: In the reward model's unit, at least 0.
        row: The text of that difference.
        company: The batch of that difference: "in one batch", "shuffled" or "beside a long text".
        alone: Its score alone.
        together: Its score in that batch.
        spread: Standard deviation of the scores alone, for comparison.
    """

    rows: int
    max_difference: float
    row: int
    company: str
    alone: float
    together: float
    spread: float


def measure_batch_invariance(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    seed: int = 0,
) -> BatchInvariance:
    """Scores texts alone, in one batch, in a shuffled one, and in one padded to a longer text.

    Args:
        reward_model: Scores responses.
        prompts: B prompts; some should repeat, so that shared prompts are covered.
        responses: B responses, of different lengths.
        seed: Of the shuffle.

    Raises:
        ValueError: There are fewer than two texts, or a score is not finite.
    """
    count = len(responses)
    if count < 2 or len(prompts) != count:
        raise ValueError(
            f"found {len(prompts)} prompts and {count} responses; required are as many of each, "
            "and at least 2. Give more texts."
        )
    prompts, responses = list(prompts), list(responses)
    order = np.random.default_rng(seed).permutation(count)
    longest = max(range(count), key=lambda i: len(str(prompts[i])) + len(str(responses[i])))
    filler = " ".join([str(responses[longest])] * 3)
    with torch.inference_mode():
        alone = [
            _score(reward_model, [prompt], [response])[0]
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        together = {"in one batch": _score(reward_model, prompts, responses)}
        shuffled = _score(reward_model, [prompts[i] for i in order], [responses[i] for i in order])
        together["shuffled"] = [shuffled[i] for i in np.argsort(order)]
        together["beside a long text"] = _score(
            reward_model, [prompts[longest], *prompts], [filler, *responses]
        )[1:]
    differences = {
        company: [abs(a - b) for a, b in zip(alone, scores, strict=True)]
        for company, scores in together.items()
    }
    company = max(differences, key=lambda name: max(differences[name]))
    row = int(np.argmax(differences[company]))
    return BatchInvariance(
        rows=count,
        max_difference=differences[company][row],
        row=row,
        company=company,
        alone=alone[row],
        together=together[company][row],
        spread=float(np.std(alone)),
    )


def _score(
    reward_model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[Reply]
) -> list[float]:
    scores = reward_model.score(prompts, responses)
    require_finite(scores, responses)
    return scores.double().tolist()

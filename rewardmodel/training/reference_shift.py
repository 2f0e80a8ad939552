"""Centering a reward model: zero is the mean score of demonstrations.

The likelihood of comparisons is invariant to shifts. Stiennon et al. 2020 put zero at the reference
summaries, so that a positive score is better than what people wrote.
"""

from typing import Any

import torch
from datasets import Dataset

from rewardmodel.data.conversation import prompts_of, replies_of
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.pretrained.tokenization import TextEncoder


def center_on(reference: Dataset, model: Any, encoder: TextEncoder) -> list[float]:
    """Moves a trained classifier's zero to the mean score of demonstrations; returns the shifts.

    A head with a bias absorbs the shift. One without keeps it as `reward_shift` in the model's
    configuration, which `rewardmodel` subtracts; other readers of the folder then see scores that
    are higher by this constant.

    Args:
        reference: Columns `prompt` and `completion`, and optionally `finished`.
        model: Sequence classifier of M heads, adapters included.
        encoder: Its tokenization.

    Raises:
        ValueError: If there is no demonstration.
    """
    if len(reference) == 0:
        raise ValueError("no demonstrations to center the scores on; required: at least 1")
    plain = plain_model(model)
    training = model.training
    marked = "finished" in reference.column_names
    told = reference["finished"] if marked else [True] * len(reference)
    scores = SequenceRewardModel(model, encoder).outputs(
        prompts_of(reference),
        replies_of(reference, "completion"),
        finished=[value is not False for value in told],
    )  # [B, M]
    model.train(training)
    means = scores.mean(0)
    head = getattr(plain, "score", None) or getattr(plain, "classifier", None)
    bias = getattr(head, "bias", None)
    if bias is not None:
        with torch.no_grad():
            bias -= means.to(bias)
    else:
        shift = means.tolist()
        plain.config.reward_shift = shift if len(shift) > 1 else shift[0]
    return means.tolist()

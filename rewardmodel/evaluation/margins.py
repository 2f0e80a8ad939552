"""The margins of preference pairs: every pair scored once, in the dataset's order."""

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rewardmodel.interface import RewardModel

Floats = NDArray[np.float64]


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

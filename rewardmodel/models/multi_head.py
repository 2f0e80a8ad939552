"""Reward models with several heads on one backbone: an ensemble in one forward pass.

An `AutoModelForSequenceClassification` of M labels whose configuration has `reward_heads: M`; a
classifier of M classes has no such entry and is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.interface import Finished, require_finite
from rewardmodel.models.aggregation import Aggregate, combine, require_aggregate
from rewardmodel.models.sequence import SequenceRewardModel, load_scorer, open_encoder
from rewardmodel.pretrained.adapters import adapter_folder
from rewardmodel.pretrained.checkpoints import read_config
from rewardmodel.pretrained.input_format import ChosenFormat
from rewardmodel.pretrained.source import resolve_model
from rewardmodel.pretrained.tokenization import TextEncoder


def reward_heads(source: str) -> int | None:
    """The number of reward heads in a model's configuration, or None."""
    source = resolve_model(source)
    if adapter_folder(source) is not None and not (Path(source) / "config.json").is_file():
        return None
    return read_config(source).get("reward_heads")


class MultiHeadRewardModel(SequenceRewardModel):
    """Scores responses with several heads on one backbone; an `UncertainRewardModel`."""

    def __init__(
        self,
        model: Any,
        encoder: TextEncoder,
        *,
        aggregate: Aggregate = "mean",
        weight: float = 1.0,
        batch_size: int = 128,
    ) -> None:
        """Takes a loaded classifier.

        Args:
            model: Sequence classifier of M labels. `config.reward_shift`, a number or one per head,
                is subtracted from their scores.
            encoder: Its tokenization.
            aggregate: How the heads' scores become one; see `rewardmodel.models.aggregation`.
            weight: Of their disagreement.
            batch_size: Rows per forward pass.
        """
        require_aggregate(aggregate)
        super().__init__(model, encoder, batch_size=batch_size, reduce=self._combined)
        self.aggregate: Aggregate = aggregate
        self.weight = weight
        shift = getattr(model.config, "reward_shift", None) or 0.0
        self._shifts = torch.tensor(shift, dtype=torch.float32)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        max_length: int | None = None,
        batch_size: int = 128,
        input_format: ChosenFormat = "auto",
        aggregate: Aggregate = "mean",
        weight: float = 1.0,
    ) -> Self:
        """Loads a trained model of several heads by hub id or local folder.

        Raises:
            ValueError: If weights or tokenizer are missing, or the configuration has no
                `reward_heads`.
        """
        heads = reward_heads(source)
        if heads is None:
            raise ValueError(
                f"{source} does not say in config.json how many reward heads it has; required: "
                "reward_heads, equal to its number of labels. Train with several heads, or write "
                "it there if its labels are rewards"
            )
        model = load_scorer(source, init_head=False, heads=heads)
        encoder = open_encoder(source, model, max_length, input_format=input_format, warns=True)
        return cls(model, encoder, aggregate=aggregate, weight=weight, batch_size=batch_size)

    def member_scores(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores of each head, float32 [M, B]; see `UncertainRewardModel`."""
        outputs = self.outputs(prompts, responses, finished=finished)
        require_finite(outputs.sum(1), responses)
        return (outputs - self._shifts).T

    def _combined(self, outputs: Tensor) -> Tensor:
        """Combined scores [B] of the heads' outputs [B, M], NaN where a head's is not finite."""
        scores = combine((outputs - self._shifts).T, self.aggregate, weight=self.weight)
        return scores.where(outputs.isfinite().all(1), torch.nan)  # a minimum would hide infinity

"""`trl.RewardTrainer` for pairs and rankings, with shared prompts.

Rows come tokenized, so TRL's own preprocessing (which drops long pairs) is skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState
from trl import RewardConfig, RewardTrainer

from rewardmodel.pretrained.tokenization import token_types
from rewardmodel.training.batching.layouts import Layout, Tensors
from rewardmodel.training.batching.length_sampler import LengthGroupedOrder
from rewardmodel.training.loss_config import RANKING_LOSSES, LossConfig
from rewardmodel.training.losses import (
    centering_loss,
    pair_loss,
)

RankingLoss = Callable[..., Tensor]
_COLUMNS = ("sequences", "shared", "seconds", "probability", "margin", "ranks", "head_weights")


@dataclass(frozen=True)
class ComparisonCollator:
    """Collates rows of `tokenize_comparisons`: token tensors and labels.

    Attributes:
        layout: Lays out the tokens.
    """

    layout: Layout

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Tensors:
        """Makes a batch of G rows.

        Returns:
            The layout's tensors; `slots` int64 [G, K], the index of each response's score, -1 where
            a short group is filled up; and, as far as the rows have them, `probability` [G],
            `margin` [G], `ranks` [G, K], `head_weights` [G, M].
        """
        tensors = self.layout.collate([(row["sequences"], row["shared"]) for row in rows])
        if "seconds" in rows[0]:  # of encoders, which are trained a row a response
            seconds = torch.tensor([place for row in rows for place in row["seconds"]])
            tensors["token_type_ids"] = token_types(tensors["attention_mask"], seconds)
        counts = [len(row["sequences"]) for row in rows]
        slots = torch.full((len(rows), max(counts)), -1)
        start = 0
        for line, count in enumerate(counts):
            slots[line, :count] = torch.arange(start, start + count)
            start += count
        tensors["slots"] = slots
        for name in ("probability", "margin", "head_weights"):
            if name in rows[0]:
                tensors[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32)
        if "ranks" in rows[0]:
            ranks = torch.zeros_like(slots)
            for line, row in enumerate(rows):
                ranks[line, : counts[line]] = torch.tensor(row["ranks"])
            tensors["ranks"] = ranks
        return tensors


class _EpochOfOrder(TrainerCallback):
    """Sets the order's epoch, also where a resumed loader hides it behind wrappers."""

    def __init__(self, order: LengthGroupedOrder) -> None:
        self._order = order

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Sets the number of the epoch that begins or resumes."""
        self._order.set_epoch(int(state.epoch))


class ComparisonTrainer(RewardTrainer):
    """Trains sequence classifiers on rows of `tokenize_comparisons`."""

    def __init__(
        self,
        model: Any,
        train_dataset: Dataset,
        *,
        layout: Layout,
        objective: LossConfig,
        args: RewardConfig,
        **rest: Any,
    ) -> None:
        """Takes a classifier with a label per head, and rows of `tokenize_comparisons`.

        Raises:
            ValueError: If this process has several GPUs, over which transformers would split a
                batch.
        """
        if args.n_gpu > 1:
            raise ValueError(
                f"found {args.n_gpu} GPUs in one process; required: a process for each. Start it "
                "with `accelerate launch`, or take one GPU with CUDA_VISIBLE_DEVICES=0"
            )
        self._objective = objective
        self._ranking_loss: RankingLoss = resolve_name(RANKING_LOSSES[objective.rankings])
        self._layout = layout
        self._rows = train_dataset
        labels, model.config.num_labels = model.config.num_labels, 1  # all that trl allows
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            data_collator=ComparisonCollator(layout),
            **rest,
        )
        model.config.num_labels = labels
        if not self.args.bf16:
            # TRL turns all that is trained on a quantized base into bfloat16, which without
            # automatic casting meets float32 states at the head.
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.data = weight.data.float()

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Takes rows as they are: tokenized, none dropped."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        """Names the columns that reach the collator."""
        self._signature_columns = list(_COLUMNS)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedOrder:
        """The same order in every process, and after a restart."""
        args = self.args
        order = LengthGroupedOrder(
            self._rows["length"],
            rows=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            seed=args.data_seed if args.data_seed is not None else args.seed,
            grouped=self._objective.group_by_length,
        )
        self.add_callback(_EpochOfOrder(order))
        return order

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean loss over the groups of a batch and over heads.

        Raises:
            ValueError: If it is not finite, before it has touched a weight.
        """
        scores = self._layout.scores(model, inputs).float()  # [S, M]
        losses = comparison_losses(  # [G, M]
            scores, inputs, self._objective, ranking_loss=self._ranking_loss
        )
        weights = inputs.get("head_weights")
        loss = (losses if weights is None else losses * weights).mean()
        # One synchronization per step, as in Trainer's own filter of NaN, but with an error.
        if not bool(torch.isfinite(loss)):
            raise ValueError(
                f"the training loss is {loss.item()} at update {self.state.global_step + 1}; "
                "required: finite. Lower learning_rate or max_grad_norm, train in float32, or look "
                "for broken rows in the data; the last checkpoint is untouched"
            )
        with torch.no_grad():
            chosen, rejected = ends_of_groups(scores, inputs)  # [G, M]
            decided = decided_groups(inputs)[:, None].expand_as(chosen)
            right = (chosen > rejected).float() + 0.5 * (chosen == rejected)
            seen = self._metrics["train" if model.training else "eval"]
            if bool(decided.any()):
                seen["accuracy"].append(float(right[decided].mean()))
            seen["margin"].append(float((chosen - rejected).mean()))
            seen["mean_reward"].append(float(scores.mean()))
        return (loss, {"logits": scores}) if return_outputs else loss


def comparison_losses(
    scores: Tensor, inputs: Tensors, objective: LossConfig, *, ranking_loss: RankingLoss
) -> Tensor:
    """The loss of each group under each head, [G, M], of scores [S, M] of all responses.

    Args:
        scores: Of all responses of the batch.
        inputs: Of `ComparisonCollator`.
        objective: Settings of the loss.
        ranking_loss: The entry of `RANKING_LOSSES` that `objective` names.
    """
    slots = inputs["slots"]
    real = slots >= 0
    grouped = scores[slots.clamp(min=0)]  # [G, K, M]
    if "ranks" not in inputs:
        losses = pair_loss(
            grouped[:, 0],
            grouped[:, 1],
            probability=inputs["probability"],
            margin=inputs.get("margin"),
            ties=objective.ties,
            tie_threshold=objective.tie_threshold,
            label_smoothing=objective.label_smoothing,
        )
    else:
        losses = ranking_loss(
            grouped, inputs["ranks"], ties=objective.ties, tie_threshold=objective.tie_threshold
        )
    if objective.center_rewards_coefficient:
        losses = losses + objective.center_rewards_coefficient * centering_loss(grouped, real)
    return losses


def decided_groups(inputs: Tensors) -> Tensor:
    """Whether one response of a group is better than another, bool [G]: the rest are ties."""
    if "ranks" not in inputs:
        return inputs["probability"] != 0.5
    ranks = inputs["ranks"]
    return ranks.max(1).values > ranks.masked_fill(ranks == 0, int(ranks.max()) + 1).min(1).values


def ends_of_groups(scores: Tensor, inputs: Tensors) -> tuple[Tensor, Tensor]:
    """Scores of the best and of the worst response of each group, each [G, M]."""
    slots = inputs["slots"]
    if "ranks" not in inputs:
        return scores[slots[:, 0]], scores[slots[:, 1]]
    ranks = inputs["ranks"]
    best = ranks.masked_fill(ranks == 0, int(ranks.max()) + 1).argmin(1)
    worst = ranks.argmax(1)
    lines = torch.arange(len(slots), device=slots.device)
    return scores[slots[lines, best]], scores[slots[lines, worst]]

"""Training a process reward model: a token classifier with labels at the ends of steps.

`transformers.Trainer` with a collator and a loss. Labels may be shares between 0 and 1. No row is
dropped for its length: the prompt is cut from its left, and where the steps alone are too long the
last ones are left out; both are counted.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainingArguments

from rewardmodel.data.conversation import prompts_of
from rewardmodel.data.steps import SEPARATOR, step_ids
from rewardmodel.models.process import load_step_scorer
from rewardmodel.models.sequence import open_encoder
from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.pretrained.adapters import adapter_folder
from rewardmodel.pretrained.tokenization import TextEncoder
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.run import run_trainer, save_model

_logger = logging.getLogger(__name__)
_IGNORED = -100.0  # the trainer counts labels other than this, and sums over accumulated batches


def train_process_model(
    base: str,
    steps: Dataset,
    folder: Path,
    *,
    optimization: OptimConfig,
    separator: str = SEPARATOR,
    checkpoints: Path | None = None,
    keep_checkpoints: bool = False,
) -> dict[str, Any]:
    """Trains a process reward model and saves it.

    Args:
        base: Hub id, folder, package or GGUF file of a language model or a token classifier.
        steps: Columns `prompt`, `completions` (the steps) and `labels` in [0, 1], as
            `rewardmodel.data.steps.load_steps` returns them.
        folder: Output, an ordinary transformers (or peft) folder.
        optimization: Optimization settings.
        separator: Text between steps; kept in the saved model.
        checkpoints: Folder of checkpoints, default `folder` with `-trainer` added.
        keep_checkpoints: Leave them there; the caller removes them.

    Returns:
        Counts and losses: `rows`, `steps`, `cut` (rows that were too long), `lost_steps`,
        `updates`, `seconds`...

    Raises:
        ValueError: If the data is empty or of one kind only, the base cannot be loaded or the loss
            diverges.
        StorageError: If the disk is full.
    """
    _require_both_kinds(steps)
    torch.manual_seed(optimization.seed)
    model = load_step_scorer(base, init_head=True)
    encoder = open_encoder(base, model, optimization.max_length, input_format="text", trains=True)
    tokenizer = encoder.tokenizer
    rows, counts = _tokenize(steps, encoder, separator)
    if counts["cut"]:
        _logger.warning(
            "%d of %d rows are longer than %d tokens and were cut (prompt first, from the left); "
            "%d steps were lost",
            *(counts["cut"], counts["rows"], encoder.max_length, counts["lost_steps"]),
        )
    adapters = None if hasattr(model, "peft_config") else optimization.adapters("TOKEN_CLS")
    if adapters is not None:
        from peft import get_peft_model

        # Of token classifiers, "all-linear" takes the head, too, which is trained as a whole.
        heads = [name for name in ("score", "classifier") if hasattr(model, name)]
        adapters.exclude_modules, adapters.modules_to_save = heads, heads
        model = get_peft_model(model, adapters)
    model.config.step_separator = separator
    checkpoints = checkpoints or folder.with_name(folder.name + "-trainer")
    arguments = optimization.trainer_arguments(checkpoints)
    del arguments["max_length"]  # of TRL's trainers
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=rows,
        data_collator=_Collator(tokenizer.pad_token_id),
        compute_loss_func=step_loss,
        processing_class=tokenizer,
    )
    outcome = run_trainer(trainer)
    tokenizer.model_max_length = encoder.max_length  # what it was trained with, for scoring
    save_model(
        trainer,
        tokenizer,
        folder,
        merge=bool(optimization.lora_rank) and adapter_folder(base) is not None,
        keep_checkpoints=keep_checkpoints,
        # Beside an adapter, too, to which peft gives none: it keeps the separator.
        finish=plain_model(model).config.save_pretrained,
    )
    return {**counts, **outcome}


def step_loss(
    outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Cross entropy at the ends of steps, in nats: the sum over steps, divided by their number.

    Args:
        outputs: With logits [B, T, 2], or [B, T, 1].
        labels: float [B, T]: probability that the step which ends there is right, or -100.
        num_items_in_batch: Steps over all batches of an update; None takes this batch alone.
    """
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
    ends = labels != _IGNORED
    found, right = logits[ends].float(), labels[ends]  # [S, L], [S]
    # Right against wrong: with two labels, the difference of their logits.
    margins = found[:, 0] if found.shape[1] == 1 else found[:, 1] - found[:, 0]
    total = torch.nn.functional.binary_cross_entropy_with_logits(margins, right, reduction="sum")
    return total / (len(right) if num_items_in_batch is None else num_items_in_batch)


class _Collator:
    """Pads rows on the right and puts each label at the end of its step."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Tensors [B, T] of B rows."""
        width = max(len(row["ids"]) for row in rows)
        ids = torch.full((len(rows), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full((len(rows), width), _IGNORED)
        for line, row in enumerate(rows):
            ids[line, : len(row["ids"])] = torch.tensor(row["ids"])
            mask[line, : len(row["ids"])] = 1
            labels[line, torch.tensor(row["ends"])] = torch.tensor(row["labels"]).float()
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _tokenize(
    steps: Dataset, encoder: TextEncoder, separator: str
) -> tuple[Dataset, dict[str, int]]:
    """Rows of ids, positions of ends and labels, and counts of what was cut."""
    rows: dict[str, list[object]] = {"ids": [], "ends": [], "labels": []}
    counts = {"rows": len(steps), "steps": 0, "cut": 0, "lost_steps": 0}
    columns = (prompts_of(steps), steps["completions"], steps["labels"])
    for prompt, texts, labels in zip(*columns, strict=True):
        made = step_ids(encoder, prompt, texts, separator=separator)
        kept = len(made.ends) - made.lost
        counts["steps"] += kept
        counts["cut"] += made.cut
        counts["lost_steps"] += made.lost
        if not kept:
            continue  # counted: no step of it ends within the limit
        rows["ids"].append(made.prompt + made.steps)
        rows["ends"].append([len(made.prompt) + end for end in made.ends[:kept]])
        rows["labels"].append([float(label) for label in labels[:kept]])
    if not rows["ids"]:
        raise ValueError(
            f"max_length: found {encoder.max_length}, within which no step ends; required: room "
            "for the first step of a row at least. Raise it"
        )
    return Dataset.from_dict(rows), counts


def _require_both_kinds(steps: Dataset) -> None:
    """Refuses data without both right and wrong steps."""
    if len(steps) == 0:
        raise ValueError("no steps to train on; required: at least 1 row")
    labels = {float(label) for row in steps["labels"] for label in row}
    if len(labels) < 2:
        raise ValueError(
            f"all steps have the label {labels.pop() if labels else None}; required: right and "
            "wrong ones, or nothing can be told apart. Add rows of the other kind"
        )

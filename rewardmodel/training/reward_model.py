"""Training a reward model on preference pairs, through `trl.RewardTrainer`.

TRL sees token ids only (its stable seam: `chosen_ids` and `rejected_ids`), so training and scoring
share one tokenisation, and no pair is dropped for its length: the prompt is cut instead, and
counted.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from rewardmodel.sequence import is_adapter, load_scorer
from rewardmodel.tokenization import TextEncoder, context_length, fit_embeddings, load_tokenizer
from rewardmodel.training.optimisation import Optimisation
from rewardmodel.training.trainer_run import run_trainer, save_model

_logger = logging.getLogger(__name__)


def train_reward_model(
    base: str,
    preferences: Dataset,
    folder: Path,
    *,
    optimisation: Optimisation,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Trains a Bradley-Terry reward model and saves it.

    Args:
        base: Hub id or folder to begin from: the fine-tuned policy (Stiennon et al. 2020), another
            language model, or a classifier.
        preferences: Columns `prompt`, `chosen`, `rejected` and optionally `margin`.
        folder: Where the model goes, an ordinary transformers (or peft) folder.
        optimisation: How to train.
        checkpoints: Where checkpoints go on the way, default `folder` with `-trainer` added.

    Returns:
        Counts and losses: `pairs`, `cut` (pairs that were too long), `updates`, `seconds`...

    Raises:
        ValueError: If the data is empty, the base cannot be loaded or the loss diverges.
        StorageError: If the disk is full.
    """
    if len(preferences) == 0:
        raise ValueError("no preference pairs to train on; required: at least 1")
    torch.manual_seed(optimisation.seed)
    tokenizer = load_tokenizer(base)
    model = load_scorer(base, init_head=True)
    fit_embeddings(model, tokenizer)
    encoder = TextEncoder(tokenizer, optimisation.max_length or context_length(model) or 2**20)
    rows: dict[str, list[Any]] = {"chosen_ids": [], "rejected_ids": []}
    cut = 0
    texts = zip(preferences["prompt"], preferences["chosen"], preferences["rejected"], strict=True)
    for prompt, chosen, rejected in texts:
        rows["chosen_ids"].append(encoder.joined(prompt, chosen))
        rows["rejected_ids"].append(encoder.joined(prompt, rejected))
        cut += max(encoder.overflow(prompt, text) for text in (chosen, rejected)) > 0
    if "margin" in preferences.column_names:
        rows["margin"] = list(preferences["margin"])
    if cut:
        _logger.warning(
            "%d of %d pairs are longer than %d tokens and were cut (prompt first, from the left)",
            cut, len(preferences), encoder.max_length,
        )  # fmt: skip
    checkpoints = checkpoints or folder.with_name(folder.name + "-trainer")
    arguments = RewardConfig(**optimisation.trainer_arguments(checkpoints, len(preferences)))
    trainer = RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        peft_config=None if hasattr(model, "peft_config") else optimisation.adapters("SEQ_CLS"),
    )
    outcome = run_trainer(trainer)
    tokenizer.model_max_length = encoder.max_length  # what it was trained with, for scoring
    save_model(trainer, tokenizer, folder, merge=bool(optimisation.lora_rank) and is_adapter(base))
    return {"pairs": len(preferences), "cut": cut, **outcome}

"""Training a Bradley-Terry reward model on human comparisons."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl import RewardConfig

from rewardmodel.data.conversation import prompts_of, replies_of
from rewardmodel.models.sequence import SequenceRewardModel, load_scorer, open_encoder
from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.pretrained.adapters import adapter_folder
from rewardmodel.pretrained.input_format import ChosenFormat, keep_input_format
from rewardmodel.pretrained.tokenization import TextEncoder
from rewardmodel.training.batching.comparisons import tokenize_comparisons
from rewardmodel.training.batching.layout_choice import choose_layout
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.model_card import write_model_card
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.quantization import quantized
from rewardmodel.training.run import run_trainer, save_model
from rewardmodel.training.trainer import ComparisonTrainer

_logger = logging.getLogger(__name__)


def train_reward_model(
    base: str,
    preferences: Dataset,
    folder: Path,
    *,
    optimization: OptimConfig,
    objective: LossConfig | None = None,
    reference: Dataset | None = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    input_format: ChosenFormat = "auto",
    checkpoints: Path | None = None,
    keep_checkpoints: bool = False,
    facts: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Trains a reward model and saves it.

    Args:
        base: Hub id, folder, package or GGUF file: the fine-tuned policy (Stiennon et al. 2020),
            another language model, or a classifier.
        preferences: Pairs, as `rewardmodel.load_preferences` returns them, or rankings, as
            `rewardmodel.load_rankings` does.
        folder: Output, an ordinary transformers (or peft) folder.
        optimization: Optimization settings.
        objective: The loss and the layout of batches.
        reference: Demonstrations (`prompt`, `completion`) whose mean score becomes 0, or None.
        load_in_4bit: Loads the base in 4 bits, under adapters.
        load_in_8bit: Loads the base in 8 bits, under adapters.
        input_format: Whether it reads prompt and response as one "text" or as a "pair" of
            segments; "auto" detects it (`rewardmodel.pretrained.input_format`). Kept in the saved
            model.
        checkpoints: Folder of checkpoints, default `folder` with `-trainer` added.
        keep_checkpoints: Leave them there; the caller removes them.
        facts: More for the model card, such as where the data came from.

    Returns:
        Counts and losses: those of `ComparisonCounts`, and `pairs`, `layout`, `updates`,
        `seconds`, `reward_shift`...

    Raises:
        ValueError: If the data is empty or all ties, the base cannot be loaded, its inputs are not
            supported, or the loss diverges.
        StorageError: If the disk is full.
    """
    objective = objective or LossConfig()
    torch.manual_seed(optimization.seed)
    model = load_scorer(
        base, init_head=True, **quantized(load_in_4bit=load_in_4bit, load_in_8bit=load_in_8bit)
    )
    encoder = open_encoder(
        base, model, optimization.max_length, input_format=input_format, trains=True
    )
    tokenizer = encoder.tokenizer
    _keep_input_format(model, encoder, preferences)
    rows, counts = tokenize_comparisons(preferences, encoder, objective, seed=optimization.seed)
    model = prepare_model(model, optimization, objective)
    layout = choose_layout(
        model,
        objective,
        pad_id=tokenizer.pad_token_id,
        max_tokens=encoder.max_length or 2**20,
        checkpointing=optimization.gradient_checkpointing,
    )
    checkpoints = checkpoints or folder.with_name(folder.name + "-trainer")
    trainer = ComparisonTrainer(
        model=model,
        train_dataset=rows,
        layout=layout,
        objective=objective,
        args=RewardConfig(**optimization.trainer_arguments(checkpoints)),
        processing_class=tokenizer,
    )
    outcome = {
        "pairs": counts.groups,
        **asdict(counts),
        "layout": layout.name,
        **run_trainer(trainer),
    }
    tokenizer.model_max_length = encoder.max_length  # what it was trained with, for scoring
    if trainer.is_world_process_zero() and reference is not None:
        outcome["reward_shift"] = center_on(reference, trainer.model, encoder)

    card = {
        "base": (facts or {}).get("base", base),
        "data": dict(facts or {}),
        "training": outcome,
        "optimization": asdict(optimization),
        "objective": asdict(objective),
        "max_length": encoder.max_length,
    }

    def finish(scratch: Path) -> None:
        # Beside an adapter, too, to which peft gives none: it holds the shift and the heads.
        plain_model(trainer.model).config.save_pretrained(scratch)
        write_model_card(scratch, card)

    save_model(
        trainer,
        tokenizer,
        folder,
        merge=bool(optimization.lora_rank) and adapter_folder(base) is not None,
        keep_checkpoints=keep_checkpoints,
        finish=finish,
    )
    return outcome


def _keep_input_format(model: PreTrainedModel, encoder: TextEncoder, preferences: Dataset) -> None:
    """Writes into a model's configuration how its prompts are read."""
    prompts = preferences["prompt"][:1] if len(preferences) else [""]
    messages = not isinstance(prompts[0], str)
    keep_input_format(plain_model(model).config, encoder.input_format, messages=messages)


def prepare_model(model: Any, optimization: OptimConfig, objective: LossConfig) -> Any:
    """Gives a loaded one-label classifier its heads and adapters; returns the model to train.

    Raises:
        ValueError: If there are to be several heads on a model whose head is no linear layer, or on
            a trained adapter, whose head cannot be replaced.
    """
    plain = plain_model(model)
    if getattr(plain.config, "reward_shift", None):
        del plain.config.reward_shift  # training moves the zero; `center_on` sets it anew
    if objective.heads > 1:
        _widen_head(plain, objective.heads, adapters=plain is not model)
    adapters = None if plain is not model else optimization.adapters("SEQ_CLS")
    if adapters is None:
        return model
    from peft import get_peft_model

    name = _head_name(plain)
    adapters.modules_to_save = None if name is None else [name]
    return get_peft_model(model, adapters)


def _widen_head(plain: Any, heads: int, *, adapters: bool) -> None:
    """Replaces the head by `heads` new linear heads."""
    name = _head_name(plain)
    if name is None or adapters:
        what = "a trained adapter" if adapters else type(plain).__name__
        raise ValueError(
            f"heads: found {heads} heads for {what}; required: a model whose head is one linear "
            "layer, full or with new adapters. Take heads: 1 and an ensemble of several models"
        )
    old = getattr(plain, name)
    new = torch.nn.Linear(old.in_features, heads, bias=old.bias is not None)
    torch.nn.init.normal_(new.weight, std=(old.in_features + 1) ** -0.5)
    if new.bias is not None:
        torch.nn.init.zeros_(new.bias)
    setattr(plain, name, new.to(old.weight))
    plain.num_labels = plain.config.num_labels = heads
    plain.config.reward_heads = heads


def _head_name(plain: Any) -> str | None:
    """The name of a classifier's linear head."""
    names = ("score", "classifier")
    return next((n for n in names if isinstance(getattr(plain, n, None), torch.nn.Linear)), None)


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

"""Training a reward model on preference pairs, through `trl.RewardTrainer`.

TRL sees token ids only (its stable seam: `chosen_ids` and `rejected_ids`), so training and scoring
share one tokenisation, and no pair is dropped for its length: the prompt is cut instead, and
counted.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import RewardConfig, RewardTrainer

from rewardmodel.sequence import is_adapter, load_scorer
from rewardmodel.tokenization import TextEncoder, context_length, fit_embeddings, load_tokenizer
from search.evaluation.run_directory import new_folder
from search.evaluation.settings import check_types, require

_logger = logging.getLogger(__name__)


@dataclass
class Optimisation:
    """How a model is trained; shared by every training door.

    Attributes:
        epochs: Passes over the data.
        learning_rate: Peak, of AdamW with warm-up and cosine decay.
        batch_size: Rows (pairs, for a reward model) a device and step.
        gradient_accumulation_steps: Steps gathered into one update.
        warmup_ratio: Share of all updates spent warming up.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        max_length: Tokens of prompt and response together; null takes the model's context.
        save_steps: Updates between checkpoints that `--resume` continues from; 0 keeps none.
        gradient_checkpointing: Trade time for memory.
        bf16: Train in bfloat16 (needs a GPU that has it).
        lora_rank: Train LoRA adapters of this rank; 0 trains every weight.
        lora_alpha: Scale of the adapters.
        lora_target_modules: Linear layers that get adapters.
        seed: Of everything random.
    """

    epochs: float = 1.0
    learning_rate: float = 1e-5
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int | None = None
    save_steps: int = 0
    gradient_checkpointing: bool = False
    bf16: bool = False
    lora_rank: int = 0
    lora_alpha: int = 32
    lora_target_modules: str = "all-linear"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)
        require(self.epochs > 0, "epochs", self.epochs, "more than 0")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")
        require(self.batch_size > 0, "batch_size", self.batch_size, "at least 1")
        steps = self.gradient_accumulation_steps
        require(steps > 0, "gradient_accumulation_steps", steps, "at least 1")
        require(0 <= self.warmup_ratio < 1, "warmup_ratio", self.warmup_ratio, "in [0, 1)")
        require(self.lora_rank >= 0, "lora_rank", self.lora_rank, "0 or more")
        require(self.save_steps >= 0, "save_steps", self.save_steps, "0 or more")
        if self.max_length is not None:
            require(self.max_length >= 8, "max_length", self.max_length, "at least 8 tokens")

    def trainer_arguments(self, output: Path, rows: int) -> dict[str, Any]:
        """The arguments that TRL's trainers share.

        Args:
            output: Folder for checkpoints.
            rows: Training rows, for the length of the warm-up.
        """
        updates = self.epochs * rows / (self.batch_size * self.gradient_accumulation_steps)
        return {
            "output_dir": str(output),
            "num_train_epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "lr_scheduler_type": "cosine",
            "warmup_steps": int(self.warmup_ratio * updates),
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "max_length": None,  # rows come tokenised and cut already
            "save_strategy": "steps" if self.save_steps else "no",
            "save_steps": self.save_steps or 500,
            "save_total_limit": 2,
            "gradient_checkpointing": self.gradient_checkpointing,
            "bf16": self.bf16,
            "use_cpu": not torch.cuda.is_available(),
            "dataloader_pin_memory": torch.cuda.is_available(),
            "report_to": "none",
            "logging_steps": 20,
            "seed": self.seed,
            "data_seed": self.seed,
        }

    def adapters(self, task_type: str) -> Any:
        """The peft configuration, or None for full training.

        Args:
            task_type: `"SEQ_CLS"` (whose new head is trained and saved too) or `"CAUSAL_LM"`.
        """
        if not self.lora_rank:
            return None
        from peft import LoraConfig

        return LoraConfig(
            r=self.lora_rank,
            lora_alpha=self.lora_alpha,
            target_modules=self.lora_target_modules,
            task_type=task_type,
            modules_to_save=["score"] if task_type == "SEQ_CLS" else None,
        )


class _LossProgress(ProgressCallback):
    """A progress bar that shows the loss instead of printing every log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Shows the newest loss behind the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")


def run_trainer(trainer: Any) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint in the trainer's folder if there is one.

    Raises:
        ValueError: If the loss is not finite at the end.
    """
    output = Path(trainer.args.output_dir)
    checkpoint = _last_whole_checkpoint(output)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_LossProgress)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    final = losses[-1] if losses else result.training_loss
    if not torch.isfinite(torch.tensor(final)):
        raise ValueError(
            f"the training loss is {final} after {result.global_step} updates; required: finite. "
            "Lower learning_rate or max_grad_norm, or look for broken rows in the data"
        )
    return {
        "updates": result.global_step,
        "loss_first": losses[0] if losses else final,
        "loss_last": final,
        "seconds": round(result.metrics["train_runtime"], 1),
    }


def save_model(trainer: Any, tokenizer: Any, folder: Path, *, merge: bool = False) -> None:
    """Saves weights and tokenizer in one rename, then drops the checkpoints on the way.

    Args:
        trainer: After training.
        tokenizer: Of the model.
        folder: Where they go; nothing is left there if the disk is full.
        merge: Save adapters merged into the weights that they were trained on, needed where those
            are not what `base_model_name_or_path` names.
    """
    if not trainer.is_world_process_zero():
        return
    model = trainer.model.merge_and_unload() if merge else trainer.model
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)


def _last_whole_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that was written to its end: its state file is written last."""
    whole = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)


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

"""`OptimConfig`: the optimization settings of every training command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prefsearch.config.bounds import (
    CountOrZero,
    FractionBelowOne,
    LearningRate,
    NonNegative,
    Seed,
    Size,
    Within,
)
from prefsearch.config.checks import check_types


@dataclass
class OptimConfig:
    """Optimization settings, shared by every training command.

    Attributes:
        epochs: Passes over the data.
        learning_rate: Peak, of AdamW with warm-up and cosine decay.
        batch_size: Rows (pairs, for a reward model) per device and step.
        gradient_accumulation_steps: Steps accumulated into one update.
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
        seed: Random seed.
    """

    epochs: Annotated[float, Within(gt=0, le=100_000)] = 1.0
    learning_rate: LearningRate = 1e-5
    batch_size: Size = 16
    gradient_accumulation_steps: Size = 1
    warmup_ratio: FractionBelowOne = 0.05
    weight_decay: Annotated[float, Within(ge=0, le=100)] = 0.0
    max_grad_norm: NonNegative = 1.0
    max_length: Annotated[int, Within(ge=8, le=2**24, unit="tokens")] | None = None
    save_steps: CountOrZero = 500
    gradient_checkpointing: bool = False
    bf16: bool = False
    lora_rank: Annotated[int, Within(ge=0, le=2**16)] = 0
    lora_alpha: Annotated[int, Within(ge=1, le=2**20)] = 32
    lora_target_modules: str = "all-linear"
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)

    def trainer_arguments(self, output: Path) -> dict[str, Any]:
        """The arguments that TRL's trainers share; checkpoints go to `output`."""
        import torch

        return {
            "output_dir": str(output),
            "num_train_epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "lr_scheduler_type": "cosine",
            "warmup_steps": self.warmup_ratio,  # below 1 it is a share
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "max_length": None,  # rows come tokenized and cut already
            "save_strategy": "steps" if self.save_steps else "no",
            "save_steps": self.save_steps or 500,  # the trainer requires one
            "gradient_checkpointing": self.gradient_checkpointing,
            "bf16": self.bf16,
            "use_cpu": not torch.cuda.is_available(),
            "dataloader_pin_memory": torch.cuda.is_available(),
            "report_to": "none",
            "logging_steps": 20,
            "logging_first_step": True,
            "logging_nan_inf_filter": False,  # it would report a finite loss after NaN
            "ddp_find_unused_parameters": False,
            # Buffers are the same everywhere; writing them between two passes breaks the gradient.
            "ddp_broadcast_buffers": False,
            "seed": self.seed,
            "data_seed": self.seed,
        }

    def adapters(self, task_type: str) -> Any:
        """The peft configuration, or None for full training."""
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

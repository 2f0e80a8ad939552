"""Running a trainer of transformers or trl with checkpoints, and saving its model."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_callback import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from prefsearch.storage.errors import StorageError, naming_path
from prefsearch.storage.folders import new_folder, remove_folder
from rewardmodel.training.checkpoints import (
    KeepWholeCheckpoints,
    last_whole_checkpoint,
    remove_unfinished,
    seconds_before,
)


class _LossProgress(ProgressCallback):
    """A progress bar that shows the loss; the last loss is logged."""

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Advances the bar, and requests a log at the last update."""
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: object,
    ) -> None:
        """Shows the newest loss behind the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")


class _StopAtNaN(TrainerCallback):
    """Stops diverged training before a checkpoint or model is saved."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Checks the weights before they are saved: a finite loss may break them."""
        if not (control.should_save or state.global_step >= state.max_steps):
            return
        for name, weight in kwargs["model"].named_parameters():
            if weight.requires_grad and not bool(weight.isfinite().all()):
                raise ValueError(_diverged(f"the weight {name} is not finite", state.global_step))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: object,
    ) -> None:
        """Checks the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ValueError(_diverged(f"the training loss is {loss}", state.global_step))


def _diverged(what: str, updates: int) -> str:
    return (
        f"{what} after {updates} updates; required: finite. Lower learning_rate or max_grad_norm, "
        "or look for broken rows in the data"
    )


def run_trainer(trainer: Any) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint in the trainer's folder if there is one.

    Raises:
        ValueError: If the loss or a weight is not finite, or the checkpoints are of another model.
        DamagedRunError: If there are checkpoints and none is intact.
        StorageError: If the disk is full.
    """
    output = Path(trainer.args.output_dir)
    checkpoint = last_whole_checkpoint(output, trainer.model)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    keeper = KeepWholeCheckpoints(trainer, output, seconds_before(checkpoint))
    for callback in (_LossProgress, _StopAtNaN, keeper):
        trainer.add_callback(callback)
    try:
        with naming_path(output, "write a checkpoint to"):
            result = trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except StorageError:
        if trainer.is_world_process_zero():
            remove_unfinished(output)
        raise
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    final = losses[-1] if losses else result.training_loss
    if not math.isfinite(final):
        raise ValueError(_diverged(f"the training loss is {final}", result.global_step))
    return {
        "updates": result.global_step,
        "loss_first": losses[0] if losses else final,
        "loss_last": final,
        "seconds": round(keeper.seconds, 1),
    }


def save_model(
    trainer: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    merge: bool = False,
    finish: Callable[[Path], None] | None = None,
    keep_checkpoints: bool = False,
) -> None:
    """Saves weights and tokenizer in one rename, then removes the checkpoints.

    Args:
        trainer: After training.
        tokenizer: Of the model.
        folder: Output; nothing is left there if the disk is full.
        merge: Save adapters merged into the weights that they were trained on, needed where those
            are not what `base_model_name_or_path` names.
        finish: Adds to the folder before it appears.
        keep_checkpoints: Leave the checkpoints to the caller.
    """
    if not trainer.is_world_process_zero():
        return
    model = trainer.model.merge_and_unload() if merge else trainer.model
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if finish is not None:
            finish(scratch)
    if not keep_checkpoints:
        remove_folder(Path(trainer.args.output_dir))

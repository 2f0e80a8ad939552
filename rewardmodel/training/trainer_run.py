"""Running a trainer of transformers or trl to its end, and keeping what it made.

From the last whole checkpoint, if there is one; the model appears in one rename.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from search.evaluation.run_directory import new_folder


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

"""Running a trainer of transformers or trl to its end, and keeping what it made.

From the last whole checkpoint, if there is one; the model appears in one rename.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

from search.evaluation.run_directory import new_folder


class _LossProgress(ProgressCallback):
    """A progress bar that shows the loss instead of printing every log; the last loss is logged."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves the bar on, and asks for the log that the last few updates would not get."""
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Shows the newest loss behind the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")


class _StopAtNaN(TrainerCallback):
    """Ends training that has diverged, before a checkpoint or a model is made of it."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks at the weights where they are about to be saved: a finite loss may break them."""
        if not (control.should_save or state.global_step >= state.max_steps):
            return
        for name, weight in kwargs["model"].named_parameters():
            if weight.requires_grad and not bool(weight.isfinite().all()):
                raise ValueError(_diverged(f"the weight {name} is not finite", state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Looks at the loss."""
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
        ValueError: If the loss or a weight is not finite.
    """
    output = Path(trainer.args.output_dir)
    checkpoint = last_whole_checkpoint(output)
    if checkpoint is not None:
        require_same_weights(checkpoint, trainer.model)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_LossProgress)
    trainer.add_callback(_StopAtNaN)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    final = losses[-1] if losses else result.training_loss
    if not math.isfinite(final):
        raise ValueError(_diverged(f"the training loss is {final}", result.global_step))
    return {
        "updates": result.global_step,
        "loss_first": losses[0] if losses else final,
        "loss_last": final,
        "seconds": round(result.metrics["train_runtime"], 1),
    }


def save_model(
    trainer: Any,
    tokenizer: Any,
    folder: Path,
    *,
    merge: bool = False,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Saves weights and tokenizer in one rename, then drops the checkpoints on the way.

    Args:
        trainer: After training.
        tokenizer: Of the model.
        folder: Where they go; nothing is left there if the disk is full.
        merge: Save adapters merged into the weights that they were trained on, needed where those
            are not what `base_model_name_or_path` names.
        finish: Adds to the folder before it appears.
    """
    if not trainer.is_world_process_zero():
        return
    model = trainer.model.merge_and_unload() if merge else trainer.model
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if finish is not None:
            finish(scratch)
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)


def last_whole_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that was written to its end: its state file is written last."""
    whole = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)


def require_same_weights(checkpoint: str, model: Any) -> None:
    """Refuses to go on from a checkpoint of another model.

    Raises:
        ValueError: A weight is missing there or has another shape; the message names it.
    """
    saved: dict[str, list[int]] = {}
    for path in Path(checkpoint).glob("*model*.safetensors"):  # of adapters, adapter_model
        with safe_open(path, framework="pt") as file:
            saved |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    own = {name: list(weight.shape) for name, weight in _saved_state(model).items()}
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    # peft may keep embeddings beside the adapters.
    names = own.keys() if hasattr(model, "peft_config") else own.keys() | saved.keys()
    for name in sorted(names - tied):
        if own.get(name) != saved.get(name):
            raise ValueError(
                f"{checkpoint} is a checkpoint of another model: its weight {name} has shape "
                f"{saved.get(name, 'none, it is missing')}, this model's "
                f"{own.get(name, 'none, it has no such weight')}; required: a checkpoint of the "
                "same model and settings. Choose another folder, or delete the checkpoints"
            )


def _saved_state(model: Any) -> dict[str, Any]:
    """The weights that a checkpoint of a model holds: of adapters, theirs alone."""
    if not hasattr(model, "peft_config"):
        return model.state_dict()
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, save_embedding_layers=False)

"""Checkpoints of a transformers trainer: complete ones only, the newest kept, and resuming.

transformers writes a checkpoint file by file under its final name, and resumes from an incomplete
one silently. Here a checkpoint counts only with a manifest of its files and their digests, which is
written last.
"""

import logging
import re
import time
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import Module
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState

from prefsearch.run.directory import DamagedRunError
from prefsearch.storage.checkpoints import newest_intact, numbered_checkpoints, remove_oldest
from prefsearch.storage.digests import describe_files, find_damage
from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.folders import flush_tree, remove_folder
from prefsearch.storage.json_text import read_object

MANIFEST = "files.json"
_STATE = "trainer_state.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")
_KEPT = 2

_logger = logging.getLogger(__name__)


class KeepWholeCheckpoints(TrainerCallback):
    """Writes manifests of complete checkpoints, and keeps the newest by their numbers of updates.

    The loss is logged before each checkpoint, so that later logs do not depend on resuming.
    """

    def __init__(self, trainer: Trainer, output: Path, seconds: float) -> None:
        """Takes the trainer, its folder, and the seconds of training before it was resumed."""
        self._output = output
        self._trainer = trainer
        self._before = seconds
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time of training so far, over all processes that took part one after another."""
        return self._before + time.perf_counter() - self._began

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Removes an old checkpoint of the same name before one is written."""
        if control.should_save:
            control.should_log = True
            if state.is_world_process_zero:
                remove_folder(self._output / f"checkpoint-{state.global_step}")

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Writes the manifest, once all processes have written their parts."""
        self._trainer.accelerator.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = self._output / f"checkpoint-{state.global_step}"
        with naming_path(folder, "write"):
            flush_tree(folder)
        files = describe_files([folder], base=folder)
        write_json_atomic(folder / MANIFEST, {"files": files, "seconds": round(self.seconds, 1)})
        numbered = numbered_checkpoints(self._output, _FOLDER)
        # Later checkpoints were damaged, and training resumed from an earlier one.
        for path in numbered[numbered.index(folder) + 1 :]:
            remove_folder(path)
        remove_oldest(_complete(self._output), keep=_KEPT)


def last_whole_checkpoint(output: Path, model: Module) -> Path | None:
    """The newest intact checkpoint in a folder; damaged ones are logged.

    Raises:
        ValueError: If a checkpoint is one of another model than `model`.
        DamagedRunError: If there are checkpoints and all are damaged.
    """
    for path in numbered_checkpoints(output, _FOLDER):
        # A process killed before the manifest was written leaves an incomplete checkpoint.
        if not (path / MANIFEST).is_file() and (path / _STATE).is_file():
            require_same_weights(path, model)
            _logger.warning("%s is incomplete (it has no %s) and is skipped", path, MANIFEST)
    try:
        newest = newest_intact(_complete(output), _require_intact)
    except ValueError as error:
        raise DamagedRunError(
            f"{error}; and there is no other whole checkpoint. Restore it from a copy, or "
            f"remove {output} to train from the beginning"
        ) from error
    if newest is not None:
        require_same_weights(newest, model)
    return newest


def remove_unfinished(output: Path) -> None:
    """Removes incomplete checkpoints, such as on a full disk."""
    for path in numbered_checkpoints(output, _FOLDER):
        if not (path / MANIFEST).is_file():
            remove_folder(path)


def seconds_before(checkpoint: Path | None) -> float:
    """The training time at a checkpoint."""
    if checkpoint is None:
        return 0.0
    return float(read_object(checkpoint / MANIFEST)["seconds"])


def require_same_weights(checkpoint: Path, model: Module) -> None:
    """Refuses to resume from a checkpoint of another model.

    Raises:
        ValueError: A weight is missing there or has another shape; the message names it.
    """
    saved: dict[str, list[int]] = {}
    for path in checkpoint.glob("*model*.safetensors"):  # of adapters, adapter_model
        try:
            with safe_open(path, framework="pt") as file:
                saved |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        except SafetensorError:
            return  # cut short, as a checkpoint is that was being written
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


def _require_intact(checkpoint: Path) -> None:
    """Refuses a checkpoint whose files are not those of its manifest."""
    path = checkpoint / MANIFEST
    try:
        files = read_object(path)["files"]
        seconds_before(checkpoint)
        known = {_STATE, *files}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"{path}: found no list of files ({type(error).__name__}: {error})"
        ) from error
    if known != set(files):
        raise ValueError(f"{path}: found no {_STATE} in it; required: the files of a checkpoint")
    more = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
    if more := sorted(more - {MANIFEST, *files}):
        raise ValueError(f"{checkpoint}: found {more[0]}; required: the files of {MANIFEST} alone")
    if (damage := find_damage(files, base=checkpoint)) is not None:
        raise ValueError(damage)


def _complete(output: Path) -> list[Path]:
    """A folder's complete checkpoints, the oldest first."""
    found = numbered_checkpoints(output, _FOLDER)
    return [path for path in found if (path / MANIFEST).is_file()]


def _saved_state(model: Module) -> dict[str, Tensor]:
    """The weights that a checkpoint of a model holds: of an adapter, its own alone."""
    if not hasattr(model, "peft_config"):
        return model.state_dict()
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, save_embedding_layers=False)

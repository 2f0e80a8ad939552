"""Checkpoints of a transformers trainer: complete ones only, the newest kept, and resuming.

transformers writes a checkpoint file by file under its final name, and resumes from an incomplete
one silently. Here a checkpoint counts only with a manifest of its files and their digests, which is
written last.
"""

import logging
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer_callback import TrainerCallback

from prefsearch.run.directory import DamagedRunError
from prefsearch.storage.digests import describe_files, find_damage
from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.folders import flush_tree, remove_folder
from prefsearch.storage.json_text import read_object

MANIFEST = "files.json"
_STATE = "trainer_state.json"
_KEPT = 2

_logger = logging.getLogger(__name__)


class KeepWholeCheckpoints(TrainerCallback):
    """Writes manifests of complete checkpoints, and keeps the newest by their numbers of updates.

    The loss is logged before each checkpoint, so that later logs do not depend on resuming.
    """

    def __init__(self, trainer: Any, seconds: float) -> None:
        """Takes the trainer, and the seconds of training before it was resumed."""
        self._trainer = trainer
        self._before = seconds
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time of training so far, over all processes that took part one after another."""
        return self._before + time.perf_counter() - self._began

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Removes an old checkpoint of the same name before one is written."""
        if control.should_save:
            control.should_log = True
            if state.is_world_process_zero:
                remove_folder(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes the manifest, once all processes have written their parts."""
        self._trainer.accelerator.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        output = Path(args.output_dir)
        folder = output / f"checkpoint-{state.global_step}"
        with naming_path(folder, "write"):
            flush_tree(folder)
        files = describe_files([folder], base=folder)
        write_json_atomic(folder / MANIFEST, {"files": files, "seconds": round(self.seconds, 1)})
        for number, path in _numbered(output):
            # A greater number is of a checkpoint that was damaged and was not resumed.
            if number > state.global_step or number in _older(output)[_KEPT:]:
                remove_folder(path)


def last_whole_checkpoint(output: Path, model: Any) -> Path | None:
    """The newest intact checkpoint in a folder; damaged ones are logged.

    Raises:
        ValueError: If a checkpoint is one of another model than `model`.
        DamagedRunError: If there are checkpoints and all are damaged.
    """
    damaged: list[str] = []
    for _, path in reversed(_numbered(output)):
        if not (path / MANIFEST).is_file():
            if (path / _STATE).is_file():
                require_same_weights(path, model)
                _logger.warning("%s has no %s and is passed over: it is not whole", path, MANIFEST)
            continue  # a kill came before it was whole
        found = _damage_of(path)
        if found is None:
            require_same_weights(path, model)
            for what in damaged:
                _logger.warning("%s; training goes on from %s", what, path)
            return path
        damaged.append(found)
    if damaged:
        raise DamagedRunError(
            f"{damaged[0]}; and there is no other whole checkpoint. Restore it from a copy, or "
            f"remove {output} to train from the beginning"
        )
    return None


def remove_unfinished(output: Path) -> None:
    """Removes incomplete checkpoints, such as on a full disk."""
    for _, path in _numbered(output):
        if not (path / MANIFEST).is_file():
            remove_folder(path)


def seconds_before(checkpoint: Path | None) -> float:
    """The training time at a checkpoint."""
    if checkpoint is None:
        return 0.0
    return float(read_object(checkpoint / MANIFEST)["seconds"])


def require_same_weights(checkpoint: Path, model: Any) -> None:
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


def _damage_of(checkpoint: Path) -> str | None:
    """The damage of a checkpoint that was complete, or None."""
    path = checkpoint / MANIFEST
    try:
        files = read_object(path)["files"]
        seconds_before(checkpoint)
        known = {_STATE, *files}
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"{path}: found no list of files ({type(error).__name__}: {error})"
    if known != set(files):
        return f"{path}: found no {_STATE} in it; required: the files of a checkpoint"
    more = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
    if more := sorted(more - {MANIFEST, *files}):
        return f"{checkpoint}: found {more[0]}, which is none of its files; required: those alone"
    return find_damage(files, base=checkpoint)


def _numbered(output: Path) -> list[tuple[int, Path]]:
    """A folder's checkpoints by their numbers of updates, the oldest first."""
    found = ((path.name.rpartition("-")[2], path) for path in output.glob("checkpoint-*"))
    return sorted((int(number), path) for number, path in found if number.isdecimal())


def _older(output: Path) -> list[int]:
    """The numbers of complete checkpoints, the newest first."""
    return [n for n, path in reversed(_numbered(output)) if (path / MANIFEST).is_file()]


def _saved_state(model: Any) -> dict[str, Any]:
    """The weights that a checkpoint of a model holds: of an adapter, its own alone."""
    if not hasattr(model, "peft_config"):
        return model.state_dict()
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, save_embedding_layers=False)

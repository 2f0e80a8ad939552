"""Saves and loads a whole training run.

The main process writes weights, moments and counters; every process writes its own replay,
episodes under way and random states.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from atari_bridge.replay.files import load_replay, save_replay
from atari_bridge.training.checkpoints import (
    checkpoint_name,
    checkpoints_of,
    load_module,
    load_numpy,
    load_optimizer,
    load_tensors,
    read_manifest,
    save_numpy,
    save_optimizer,
    save_tensors,
    write_manifest,
)
from atari_bridge.training.loop import Training
from atari_bridge.training.progress import Counters
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.checkpoints import newest_intact, remove_oldest
from prefsearch.storage.files import write_json_atomic


def save_training(run: RunDirectory, training: Training, *, max_part_bytes: int | None) -> Path:
    """Writes a checkpoint of all processes in one rename, and removes older ones.

    Args:
        run: The run's folder.
        training: In each process, at the same number of decisions.
        max_part_bytes: Largest file of weights, moments and replay; None: no bound.

    Raises:
        StorageError: If the disk is full; the checkpoint before is intact.
    """
    name = checkpoint_name(training.counters.decisions, training.counters.updates)
    accelerator = training.accelerator
    if accelerator.num_processes == 1:
        with run.folder(name) as folder:
            _write_shared(folder, training, max_part_bytes)
            _write_own(folder, training, max_part_bytes)
            write_manifest(folder, facts(training))
    else:
        # Every process writes its own folder; the main one moves them into the checkpoint.
        shared = run.checkpoints / f"{name}.gathering"
        # Left behind by a process that was killed here.
        shutil.rmtree(shared / f"process-{accelerator.process_index}", ignore_errors=True)
        _write_own(shared, training, max_part_bytes)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            with run.folder(name) as folder:
                for part in sorted(shared.iterdir()):
                    part.rename(folder / part.name)
                _write_shared(folder, training, max_part_bytes)
                write_manifest(folder, facts(training))
            shared.rmdir()
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        keep = training.settings.length.keep_checkpoints
        remove_oldest(checkpoints_of(run.checkpoints), keep=keep)
    return run.checkpoints / name


def facts(training: Training) -> dict[str, object]:
    """The manifest's facts: enough to build the agent without the run's folder."""
    settings = training.settings
    return {
        "game": settings.environment.game,
        "decisions": training.counters.decisions,
        "updates": training.counters.updates,
        "processes": training.accelerator.num_processes,
        "num_actions": training.environment.num_actions,
        "observation_shape": list(training.environment.observation_shape),
        "environment": asdict(settings.environment),
        "network": asdict(settings.network),
        "search": asdict(settings.search),
        "discount": settings.learning.discount,
        "seed": settings.seed,
    }


def _write_shared(folder: Path, training: Training, max_part_bytes: int | None) -> None:
    for name, network in (
        ("network", training.network),
        ("target_network", training.target_network),
    ):
        path = folder / f"{name}.safetensors"
        save_tensors(path, network.state_dict(), max_part_bytes=max_part_bytes)
    save_optimizer(
        folder / "optimizer.safetensors",
        training.learner.optimizer,
        max_part_bytes=max_part_bytes,
    )
    write_json_atomic(folder / "counters.json", asdict(training.counters))


def _write_own(folder: Path, training: Training, max_part_bytes: int | None) -> None:
    own = folder / f"process-{training.accelerator.process_index}"
    own.mkdir(parents=True, exist_ok=True)
    save_replay(training.replay, own / "replay", max_part_bytes=max_part_bytes)
    save_numpy(own / "games.safetensors", training.actors.state())
    states = {name: generator.get_state() for name, generator in _generators(training).items()}
    states["torch"] = torch.get_rng_state()
    save_tensors(own / "random.safetensors", states)
    state = training.replay_generator.bit_generator.state
    write_json_atomic(own / "random.json", state)
    write_json_atomic(own / "recent.json", list(training.recent))


def _generators(training: Training) -> dict[str, torch.Generator]:
    return {
        "play": training.play_generator,
        "learn": training.learn_generator,
        "search": training.search_generator,
    }


def load_training(run: RunDirectory, training: Training) -> bool:
    """Loads the newest intact checkpoint of a run, if there is one.

    Returns:
        Whether there was one.

    Raises:
        ValueError: If it is damaged or of other settings, naming the file and the remedy.
    """
    run.require_all_steps()
    # The main process chooses for all.
    main = training.accelerator.is_main_process
    folder = newest_intact(checkpoints_of(run.checkpoints), read_manifest) if main else None
    folder = broadcast_object_list([folder])[0]
    if folder is None:
        return False
    manifest = read_manifest(folder, check_files=False)  # the main process did
    processes = training.accelerator.num_processes
    if manifest.get("processes") != processes:
        raise ValueError(
            f"{folder}: found a checkpoint of {manifest.get('processes')} processes; required: "
            f"{processes}, as now started, since each has a replay of its own. Start as many"
        )
    own = folder / f"process-{training.accelerator.process_index}"
    load_module(folder / "network.safetensors", training.network)
    load_module(folder / "target_network.safetensors", training.target_network)
    load_optimizer(folder / "optimizer.safetensors", training.learner.optimizer)
    training.counters = Counters(**json.loads((folder / "counters.json").read_text()))
    training.learner.updates = training.counters.updates
    load_replay(training.replay, own / "replay")
    training.actors.restore(load_numpy(own / "games.safetensors"))
    states = load_tensors(own / "random.safetensors")
    for name, generator in _generators(training).items():
        generator.set_state(states[name])
    torch.set_rng_state(states["torch"])
    training.replay_generator.bit_generator.state = json.loads((own / "random.json").read_text())
    training.recent.extend(json.loads((own / "recent.json").read_text()))
    return True

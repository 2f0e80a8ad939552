"""Loads a trained agent from a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atari_bridge.acting.config import SearchSettings
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.checkpoints import (
    MANIFEST,
    checkpoints_of,
    load_module,
    read_manifest,
)


@dataclass(frozen=True)
class Agent:
    """A trained network and the settings that it plays with.

    Attributes:
        model: The network as a planning model, on the GPU if there is one.
        environment: Settings of training, such as `terminal_on_life_loss` and `clip_rewards`.
        search: Settings of self-play.
        facts: The checkpoint's manifest.
        folder: The checkpoint.
    """

    model: NetworkModel
    environment: EnvironmentConfig
    search: SearchSettings
    facts: dict[str, Any]
    folder: Path


def find_checkpoint(path: str | Path) -> Path:
    """Resolves a path to a checkpoint: itself, or the newest one of a run's folder.

    Raises:
        ValueError: If there is none.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return path
    found = checkpoints_of(path / "checkpoints") or checkpoints_of(path)
    if not found:
        raise ValueError(
            f"{path}: found no checkpoint; required: a run of `prefsearch atari train`, or one of "
            "the folders in its checkpoints"
        )
    return found[-1]


def load_agent(path: str | Path, *, game: str | None = None) -> Agent:
    """Loads an agent from a checkpoint or a run.

    Args:
        path: Of either.
        game: The expected game. Required for a "module:id": its module is imported, and no code is
            run that only a file names.

    Raises:
        ValueError: If there is no checkpoint, it is damaged, or of another game than `game`; naming
            the file.
    """
    folder = find_checkpoint(path)
    facts = read_manifest(folder)
    try:
        environment = EnvironmentConfig(**facts["environment"])
        _require_game(folder, environment.game, game)
        search = SearchSettings(**facts["search"])
        discount = facts["discount"]
        network = build_network(
            NetworkConfig(**facts["network"]),
            frame_shape=tuple(facts["observation_shape"]),
            frame_stack=environment.frame_stack,
            num_actions=facts["num_actions"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / MANIFEST}: found settings that no agent can be built from "
            f"({type(error).__name__}: {error}); required: those that a run wrote. Copy the "
            "checkpoint again"
        ) from error
    load_module(folder / "network.safetensors", network)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    return Agent(
        model=NetworkModel(network, discount=discount),
        environment=environment,
        search=search,
        facts=facts,
        folder=folder,
    )


def _require_game(folder: Path, found: str, expected: str | None) -> None:
    """Refuses a checkpoint of another game, or a module that the caller did not name."""
    if expected and expected != found:
        raise ValueError(
            f"{folder / MANIFEST}: found a checkpoint of the game {found!r}; required: "
            f"{expected!r}, as requested. Name another checkpoint, or leave the game out"
        )
    if ":" in found and not expected:
        raise ValueError(
            f"{folder / MANIFEST}: found the game {found!r}, whose module would be imported; "
            "required: the same id from the caller, since no code that a file names is run. If you "
            f"trust it, pass game={found!r}"
        )

"""A trained agent out of a checkpoint, to be judged, watched or gone on from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atari_bridge.acting.config import SearchSettings
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.checkpoints import (
    MANIFEST,
    load_module,
    newest_checkpoint,
    read_manifest,
)


@dataclass(frozen=True)
class Agent:
    """What a checkpoint's weights need to play.

    Attributes:
        model: The network as a planning model, on the GPU if there is one.
        environment: Of training; lost lives and clipped rewards included.
        search: Of self-play.
        facts: The checkpoint's manifest.
        folder: The checkpoint.
    """

    model: NetworkModel
    environment: EnvironmentConfig
    search: SearchSettings
    facts: dict[str, Any]
    folder: Path


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the newest of a run's folder.

    Raises:
        ValueError: If there is none.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return path
    newest = newest_checkpoint(path / "checkpoints") or newest_checkpoint(path)
    if newest is None:
        raise ValueError(
            f"{path}: found no checkpoint; required: a run of `prefsearch atari train`, or one of "
            "the folders in its checkpoints"
        )
    return newest


def load_agent(path: str | Path, *, game: str | None = None) -> Agent:
    """Loads an agent from a checkpoint or a run.

    Args:
        path: Of either.
        game: The game that the caller expects. Needed where it is "module:id", whose module is
            imported when the game is opened: no code that a file names is run.

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
        network = network_for(
            NetworkConfig(**facts["network"]),
            frame=tuple(facts["observation_shape"]),
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
    """Refuses a checkpoint of another game, or one whose game names a module that nobody gave."""
    if expected and expected != found:
        raise ValueError(
            f"{folder / MANIFEST}: found a checkpoint of the game {found!r}; required: "
            f"{expected!r}, as asked. Name another checkpoint, or leave the game out"
        )
    if ":" in found and not expected:
        raise ValueError(
            f"{folder / MANIFEST}: found the game {found!r}, whose module would be imported; "
            "required: the same id from the caller, since no code that a file names is run. If you "
            f"trust it, pass game={found!r}"
        )


def network_for(
    config: NetworkConfig, *, frame: tuple[int, ...], frame_stack: int, num_actions: int
) -> MuZeroNetwork:
    """Builds the network of an agent that sees S frames at a time.

    Args:
        config: Sizes.
        frame: Shape of one frame, `(C, H, W)`, or `(D,)` of vectors.
        frame_stack: S.
        num_actions: A.
    """
    is_image = len(frame) == 3
    return build_network(
        config,
        observation_shape=(frame_stack * frame[0], *frame[1:]) if is_image else frame,
        num_actions=num_actions,
        frame_channels=frame[0] if is_image else None,
    )

"""Who plays for a run: this process by itself, or others for it.

A run asks for rows and does not know where they were played (`atari_bridge.acting.actors` has
workers).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from atari_bridge.acting.config import SearchSettings
from atari_bridge.acting.search_settings import playing_planner
from atari_bridge.acting.self_play import Played, SelfPlay
from atari_bridge.acting.timed_planner import TimedPlanner
from atari_bridge.networks.planning_model import NetworkModel
from search import Planner


class Players(Protocol):
    """Hands over what was played."""

    def play(self, *, decisions_made: int, progress: float) -> Played:
        """Plays on with the newest weights.

        Args:
            decisions_made: Of the run so far.
            progress: Share of the run that is done, 0 to 1.

        Returns:
            Rows in the order in which a replay takes them, any number of decisions at least 1.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs to go on with the same games."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a state."""
        ...

    def broken_lanes(self) -> list[int]:
        """Lanes whose streams were broken off since last asked; each goes on with a new game."""
        ...


class RefreshedPlanner(Planner, Protocol):
    """A planner that searches with weights of its own, which have to be kept up to date."""

    def refresh(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes new weights."""
        ...


class LocalPlayers:
    """Plays in this process, one decision in every environment at a time.

    Args:
        self_play: The games.
        model: The network that is being trained.
        search: How to plan.
        generator: Source of the searches' randomness.
        on_search: Told the seconds of each search.
    """

    def __init__(
        self,
        self_play: SelfPlay,
        model: NetworkModel,
        search: SearchSettings,
        *,
        generator: torch.Generator,
        on_search: Callable[[float], None],
    ) -> None:
        self._self_play, self._model, self._search = self_play, model, search
        self._generator, self._on_search = generator, on_search

    def play(self, *, decisions_made: int, progress: float) -> Played:
        """One decision in every environment."""
        return self._self_play.play(
            self._model,
            TimedPlanner(playing_planner(self._search, progress=progress), self._on_search),
            decisions_made=decisions_made,
            generator=self._generator,
        )

    def state(self) -> dict[str, Any]:
        """The games under way."""
        return self._self_play.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Plays the games again up to where they were."""
        self._self_play.restore(state)

    def broken_lanes(self) -> list[int]:
        """None: what plays here does not break off alone."""
        return []

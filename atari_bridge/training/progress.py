"""Counters of a run, and the time that its parts take."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from search import Planner, PlanningModel, SearchOutput


@dataclass
class Counters:
    """Progress of a run."""

    decisions: int = 0
    updates: int = 0
    pending_updates: float = 0.0  # due and not yet made


@dataclass
class Clock:
    """Seconds spent.

    Attributes:
        play: In self-play with its searches.
        batches: Making batches, or waiting for them where they are made during updates.
        updates: In updates.
        search: In searches of self-play and reanalysis; included in the others, or beside them.
    """

    play: float = 0.0
    batches: float = 0.0
    updates: float = 0.0
    search: float = 0.0


@dataclass(frozen=True)
class TimedPlanner:
    """A planner that adds the time of its searches to a clock."""

    planner: Planner
    clock: Clock = field(repr=False)

    @property
    def num_simulations(self) -> int:
        """The planner's."""
        return self.planner.num_simulations

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Searches; see `search.Planner`."""
        started = time.perf_counter()
        output = self.planner.plan(model, observation, generator=generator)
        self.clock.search += time.perf_counter() - started
        return output

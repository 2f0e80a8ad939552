"""How long a run searches: a planner that tells what each of its searches took."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from search import Planner, PlanningModel, SearchOutput


@dataclass(frozen=True)
class TimedPlanner:
    """A planner with a clock.

    Attributes:
        planner: Searches.
        on_search: Told the seconds of each search.
    """

    planner: Planner
    on_search: Callable[[float], None]

    @property
    def num_simulations(self) -> int:
        """The planner's."""
        return self.planner.num_simulations

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Searches, and tells how long it took."""
        started = time.perf_counter()
        output = self.planner.plan(model, observation, generator=generator)
        self.on_search(time.perf_counter() - started)
        return output

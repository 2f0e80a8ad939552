"""Searches of reanalysis by workers beside the process that learns.

With a worker that dies nothing is lost: another searches its share, with the same seed. This file
does not know what is searched for, nor where workers live.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atari_bridge.acting.worker_pool import (
    Crew,
    Host,
    ReceivedWeights,
    WorkerDiedError,
    weight_arrays,
)
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from search import Planner, PlanningModel, SearchOutput


class PlanWorker:
    """A copy of the target network that searches, in a process of its own.

    Args:
        network: Of the right shape; its weights do not matter.
        planner: Searches.
        discount: Of a step.
        device: Where it computes.
    """

    def __init__(
        self, network: MuZeroNetwork, planner: Planner, discount: float, device: str
    ) -> None:
        self._weights, self._planner = ReceivedWeights(network, device), planner
        self._model = NetworkModel(self._weights.network, discount=discount)

    def plan(
        self, weights: Mapping[str, np.ndarray], version: int, observation: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Action `[M]`, its weights `[M, A]` and value `[M]`, for M observations."""
        self._weights.take_up(weights, version)
        generator = torch.Generator().manual_seed(seed)
        found = self._planner.plan(self._model, torch.tensor(observation), generator=generator)
        action, weight, value = found.action, found.action_weights, found.value
        return action.cpu().numpy(), weight.cpu().numpy(), value.cpu().numpy()


class RemotePlanner:
    """A `search.Planner` for reanalysis: K workers search a share of the batch each.

    Every share has a seed of its own, drawn from the generator, so that what is found does not
    depend on who finds it; it does depend on K where the search is noisy. No tree is handed back.

    Args:
        network: The target network; read at the first search, afterwards `refresh` tells.
        planner: What the workers search with.
        host: Where workers live.
        workers: K.
        discount: Of a step.
        device: Where workers compute.
        max_restarts: Deaths of workers that are put up with.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        planner: Planner,
        *,
        host: Host,
        workers: int,
        discount: float,
        device: str = "cpu",
        max_restarts: int = 10,
    ) -> None:
        self._network, self._planner, self._host = network, planner, host
        self._discount, self._device = discount, device
        self._weights, self._version, self._blank = None, 0, None
        self.crew = Crew(host, "reanalyze", self._start, size=workers, max_restarts=max_restarts)

    def _start(self, worker: int) -> Any:
        if self._blank is None:
            self._blank = self._host.put(copy.deepcopy(self._network).cpu())
        return self._host.start(
            PlanWorker, self._blank, self._planner, self._discount, self._device
        )

    @property
    def num_simulations(self) -> int:
        """Of each search."""
        return self._planner.num_simulations

    def refresh(self, state: Mapping[str, Tensor]) -> None:
        """Searches with these weights from now on; to be called whenever the target changed."""
        self._weights = self._host.put(weight_arrays(state))
        self._version += 1

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Searches from each observation.

        Args:
            model: Not used: the workers have copies of it.
            observation: `[B, ...]`.
            generator: Source of the shares' seeds, on the CPU.

        Returns:
            The decision, on the observations' device.

        Raises:
            ChildProcessError: If workers died too often.
        """
        if self._weights is None:
            self.refresh(self._network.state_dict())
        size = self.crew.size
        seeds = torch.randint(2**31, (size,), generator=generator).tolist()
        parts = observation.cpu().tensor_split(max(1, min(size, len(observation))))
        found: list[tuple[np.ndarray, ...]] = [()] * len(parts)
        under_way: dict[Any, tuple[int, int, Any]] = {}

        def ask(part: int, worker: int) -> None:
            handle, seen = self.crew[worker], parts[part].numpy()
            ticket = self._host.ask(handle, "plan", self._weights, self._version, seen, seeds[part])
            under_way[ticket] = part, worker, handle

        for part in range(len(parts)):
            ask(part, part)
        while under_way:
            for ticket in self._host.done(list(under_way)):
                part, worker, handle = under_way.pop(ticket)
                try:
                    found[part] = self._host.take(ticket)
                except WorkerDiedError as error:
                    self.crew.bury(worker, handle, error)
                    ask(part, (worker + 1) % size)
        columns = [torch.tensor(np.concatenate(arrays)) for arrays in zip(*found, strict=True)]
        action, weights, value = (column.to(observation.device) for column in columns)
        return SearchOutput(action=action, action_weights=weights, value=value, tree=None)

    def close(self) -> None:
        """Ends the workers."""
        self.crew.close()

"""Searches of reanalysis by Ray actors.

No result depends on which worker computes it: if one dies, another repeats its share with the same
seed.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atari_bridge.acting.worker_pool import (
    RayBackend,
    ReceivedWeights,
    WorkerDiedError,
    WorkerPool,
    weight_arrays,
)
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from search import Planner, PlanningModel, SearchOutput


class ReanalyzeWorker:
    """A worker with a copy of the target network.

    Args:
        network: Of the right shape, with any weights.
        planner: Searches.
        discount: Per decision.
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
        """Action `[M]`, action weights `[M, A]` and value `[M]` for M observations."""
        self._weights.load(weights, version)
        generator = torch.Generator().manual_seed(seed)
        found = self._planner.plan(self._model, torch.tensor(observation), generator=generator)
        action, weight, value = found.action, found.action_weights, found.value
        return action.cpu().numpy(), weight.cpu().numpy(), value.cpu().numpy()


class RayPlanner:
    """A `search.Planner` that splits each batch among K workers.

    Each share has a seed of its own, drawn from the generator; results of noisy searches depend on
    K. No tree is returned.

    Args:
        network: The target network; read at the first search, afterwards by `refresh`.
        planner: The workers' planner.
        backend: Runs the workers.
        workers: K.
        discount: Per decision.
        device: Where workers compute.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        planner: Planner,
        *,
        backend: RayBackend,
        workers: int,
        discount: float,
        device: str = "cpu",
    ) -> None:
        self._network, self._planner, self._backend = network, planner, backend
        self._discount, self._device = discount, device
        self._weights, self._version, self._template = None, 0, None
        self.pool = WorkerPool(backend, "reanalyze", self._start, size=workers)

    def _start(self, index: int) -> Any:
        if self._template is None:
            self._template = self._backend.put(copy.deepcopy(self._network).cpu())
        return self._backend.start(
            ReanalyzeWorker, self._template, self._planner, self._discount, self._device
        )

    @property
    def num_simulations(self) -> int:
        """Of each search."""
        return self._planner.num_simulations

    def refresh(self, state: Mapping[str, Tensor]) -> None:
        """Sends new weights; to be called whenever the target network changes."""
        self._weights = self._backend.put(weight_arrays(state))
        self._version += 1

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Searches from each observation.

        Args:
            model: Unused: the workers have copies of it.
            observation: `[B, ...]`.
            generator: Source of the shares' seeds, on the CPU.

        Raises:
            ChildProcessError: If workers died too often.
        """
        if self._weights is None:
            self.refresh(self._network.state_dict())
        size = self.pool.size
        seeds = torch.randint(2**31, (size,), generator=generator).tolist()
        parts = observation.cpu().tensor_split(max(1, min(size, len(observation))))
        found: list[tuple[np.ndarray, ...]] = [()] * len(parts)
        pending: dict[Any, tuple[int, int, Any]] = {}

        def submit(part: int, worker: int) -> None:
            handle, seen = self.pool[worker], parts[part].numpy()
            arguments = (self._weights, self._version, seen, seeds[part])
            pending[self._backend.call(handle, "plan", *arguments)] = part, worker, handle

        for part in range(len(parts)):
            submit(part, part)
        while pending:
            for future in self._backend.wait(list(pending)):
                part, worker, handle = pending.pop(future)
                try:
                    found[part] = self._backend.get(future)
                except WorkerDiedError as error:
                    self.pool.restart(worker, handle, error)
                    submit(part, (worker + 1) % size)
        columns = [torch.tensor(np.concatenate(arrays)) for arrays in zip(*found, strict=True)]
        action, weights, value = (column.to(observation.device) for column in columns)
        return SearchOutput(action=action, action_weights=weights, value=value, tree=None)

    def close(self) -> None:
        """Ends the workers."""
        self.pool.close()

"""A pool of worker processes that are restarted when they die, as Ray actors."""

import importlib
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atari_bridge.networks.interface import MuZeroNetwork
from prefsearch.cli.signals import keeping_handlers
from prefsearch.config.checks import require

logger = logging.getLogger(__name__)

MAX_RESTARTS = 10
"""Restarts in one pool before the run fails."""


class WorkerDiedError(RuntimeError):
    """A worker process is gone, and the result of its call with it."""


class RayBackend:
    """Runs workers as Ray actors, on this machine or on the cluster that RAY_ADDRESS names.

    Ray is started if it is not running, and ends with this process. The calls of one worker are
    executed in order.

    Args:
        actors: How many there will be.
        gpus: Share of a GPU that each takes.

    Raises:
        ImportError: Without Ray.
        ValueError: If there are too few GPUs.
    """

    def __init__(self, *, actors: int, gpus: float = 0.0) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ImportError(
                "workers: found no Ray; required for play_workers and reanalyze_workers above 0. "
                "Install it: pip install 'prefsearch[ray]'"
            ) from error
        if not self._ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            with keeping_handlers():  # Ray's own makes an exit code of the signal's number
                self._ray.init(include_dashboard=False, logging_level=logging.WARNING)
        found = self._ray.cluster_resources().get("GPU", 0.0)
        # Below 1, an actor lies on one GPU, which takes whole actors only.
        fit = math.inf if gpus == 0 else found * int(1 / gpus) if gpus < 1 else found // gpus
        enough = f"a share that {actors} actors find on {found:g} GPUs known to Ray, none on two"
        require(actors <= fit, "worker_gpus", gpus, enough)
        # No processor is claimed, or more actors than processors would wait forever.
        self._options = {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
        errors = importlib.import_module("ray.exceptions")
        self._deaths = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        )

    def put(self, value: object) -> Any:
        """Stores a copy of a value for all workers; it is freed with the result."""
        return self._ray.put(value)

    def start(self, worker: type, *arguments: object) -> Any:
        """Starts a worker and returns its handle without waiting."""
        return self._ray.remote(**self._options)(worker).remote(*arguments)

    def call(self, handle: Any, method: str, *arguments: object) -> Any:
        """Calls a method of a worker and returns a future."""
        return getattr(handle, method).remote(*arguments)

    def wait(self, futures: Sequence[Any]) -> list[Any]:
        """Waits for the first future; returns all that are done."""
        self._ray.wait(list(futures), num_returns=1)
        return self._ray.wait(list(futures), num_returns=len(futures), timeout=0)[0]

    def get(self, future: Any) -> Any:
        """The result of a future; an exception of the method is raised here.

        Raises:
            WorkerDiedError: If the worker, or its result, is gone.
            ChildProcessError: If the worker could not start.
        """
        try:
            return self._ray.get(future)
        except self._deaths as error:
            cause = " ".join(str(error).split())
            if getattr(error, "actor_init_failed", False):
                raise ChildProcessError(f"a worker could not begin: {cause}") from error
            raise WorkerDiedError(cause) from error

    def stop(self, handle: Any) -> None:
        """Ends a worker, dead or alive."""
        if self._ray.is_initialized():
            self._ray.kill(handle)


class WorkerPool:
    """K workers that are restarted when they die.

    Args:
        backend: Runs them.
        name: Of the workers, for messages.
        start: Starts the worker of an index.
        size: K.
    """

    def __init__(
        self, backend: RayBackend, name: str, start: Callable[[int], Any], *, size: int
    ) -> None:
        self._backend, self._name, self._start = backend, name, start
        self.size, self._restarts = size, 0
        self._handles: dict[int, Any] = {}

    def __getitem__(self, index: int) -> Any:
        """The handle of a worker, which is started if need be."""
        if index not in self._handles:
            self._handles[index] = self._start(index)
        return self._handles[index]

    def restart(self, index: int, handle: Any, cause: WorkerDiedError) -> None:
        """Replaces a dead worker.

        Args:
            index: Of the worker.
            handle: Of the one that died; nothing is done if it was replaced before.
            cause: Of its death.

        Raises:
            ChildProcessError: After `MAX_RESTARTS` restarts.
        """
        if self._handles.get(index) is not handle:
            return
        self._backend.stop(self._handles.pop(index))  # it may be unreachable and yet alive
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise ChildProcessError(
                f"{self._name} workers: found {self._restarts} deaths, the last that of worker "
                f"{index} ({cause}); required: at most {MAX_RESTARTS} in a run. Look at the "
                "memory left and at Ray's logs, and go on from the last checkpoint with --resume"
            ) from cause
        logger.warning(
            "%s worker %d died and is restarted (%d of at most %d restarts): %s",
            *(self._name, index, self._restarts, MAX_RESTARTS, cause),
        )
        self._handles[index] = self._start(index)

    def close(self) -> None:
        """Ends all workers."""
        for handle in self._handles.values():
            self._backend.stop(handle)
        self._handles.clear()


class ReceivedWeights:
    """A worker's copy of a network, updated from arrays when their version changes."""

    def __init__(self, network: MuZeroNetwork, device: str) -> None:
        self.network, self._version = network.to(device), -1

    def load(self, arrays: Mapping[str, np.ndarray], version: int) -> None:
        """Loads the arrays of `weight_arrays`, unless this version is loaded already."""
        if version != self._version:
            # Arrays received are read-only, so they are copied.
            self.network.load_state_dict({name: torch.tensor(a) for name, a in arrays.items()})
            self._version = version


def weight_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A state dict as arrays on the CPU, which may share its memory."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}

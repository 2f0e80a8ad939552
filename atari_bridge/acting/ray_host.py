"""Workers as Ray actors. This is the only file that knows Ray, which is an extra."""

import importlib
import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from atari_bridge.acting.worker_pool import WorkerDiedError
from prefsearch.cli.signals import keeping_handlers
from prefsearch.config.checks import require


class RayHost:
    """Workers as Ray actors, on this machine or on the cluster that RAY_ADDRESS names.

    Ray is started if it is not; it ends with this process, be that killed: Ray watches it.

    Args:
        actors: How many there will be.
        gpus: Share of a GPU of each.

    Raises:
        ImportError: Without Ray.
        ValueError: If there are fewer GPUs than that; the actors would wait for ever.
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
        enough = f"a share that {actors} actors find on {found:g} GPUs known to Ray, none on two"
        # Below 1, an actor lies on one GPU, which takes whole actors alone.
        room = math.inf if gpus == 0 else found * int(1 / gpus) if gpus < 1 else found // gpus
        require(actors <= room, "worker_gpus", gpus, enough)
        # No processor is claimed, so that more actors than processors do not wait for ever.
        self._options = {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
        errors = importlib.import_module("ray.exceptions")
        self._deaths = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        )

    def put(self, value: Any) -> Any:
        """Copies a value to where all actors read it; it goes when the result does."""
        return self._ray.put(value)

    def start(self, worker: type, *arguments: Any) -> Any:
        """Starts an actor."""
        return self._ray.remote(**self._options)(worker).remote(*arguments)

    def ask(self, handle: Any, method: str, *arguments: Any) -> Any:
        """Calls a method."""
        return getattr(handle, method).remote(*arguments)

    def done(self, tickets: Sequence[Any]) -> list[Any]:
        """Waits for one, and looks at all."""
        self._ray.wait(list(tickets), num_returns=1)
        return self._ray.wait(list(tickets), num_returns=len(tickets), timeout=0)[0]

    def take(self, ticket: Any) -> Any:
        """The answer. What a method raised is raised here as it is: it would be raised again.

        Raises:
            WorkerDiedError: If the actor, or what it answered, is gone.
            ChildProcessError: If the actor could not begin at all.
        """
        try:
            return self._ray.get(ticket)
        except self._deaths as error:
            cause = " ".join(str(error).split())
            if getattr(error, "actor_init_failed", False):
                raise ChildProcessError(f"a worker could not begin: {cause}") from error
            raise WorkerDiedError(cause) from error

    def stop(self, handle: Any) -> None:
        """Kills an actor."""
        if self._ray.is_initialized():
            self._ray.kill(handle)

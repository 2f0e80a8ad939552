"""Workers that are replaced when they die, and how weights get to them.

This file does not know what they work at, nor where they live: a `Host` does.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from atari_bridge.networks.interface import MuZeroNetwork

logger = logging.getLogger(__name__)


class WorkerDiedError(RuntimeError):
    """A worker is gone, and what it was asked for with it."""


class Host(Protocol):
    """Where workers live. Calls of one worker are answered in their order."""

    def put(self, value: Any) -> Any:
        """Makes a value, as it is now, known to all; the result may be handed to workers."""
        ...

    def start(self, worker: type, *arguments: Any) -> Any:
        """Starts a worker; returns a handle at once."""
        ...

    def ask(self, handle: Any, method: str, *arguments: Any) -> Any:
        """Asks a worker, perhaps a dead one; returns a ticket at once."""
        ...

    def done(self, tickets: Sequence[Any]) -> list[Any]:
        """Waits until one ticket or more is answered; returns all that are."""
        ...

    def take(self, ticket: Any) -> Any:
        """The answer.

        Raises:
            WorkerDiedError: If there will be none.
        """
        ...

    def stop(self, handle: Any) -> None:
        """Ends a worker, perhaps a dead one."""
        ...


class Crew:
    """K workers that are replaced when they die.

    Args:
        host: Where they live.
        name: What they are called in messages.
        start: Starts the worker of a number.
        size: K.
        max_restarts: Of all of them together.
    """

    def __init__(
        self, host: Host, name: str, start: Callable[[int], Any], *, size: int, max_restarts: int
    ) -> None:
        self._host, self._name, self._start = host, name, start
        self.size, self._max_restarts, self._restarts = size, max_restarts, 0
        self._handles: dict[int, Any] = {}

    def __getitem__(self, worker: int) -> Any:
        """The handle of a worker, which is started if need be."""
        if worker not in self._handles:
            self._handles[worker] = self._start(worker)
        return self._handles[worker]

    def bury(self, worker: int, handle: Any, cause: WorkerDiedError) -> None:
        """Takes note of a death, and starts another in the dead one's place.

        Args:
            worker: Its number.
            handle: The one that did not answer; one that was replaced before is passed over.
            cause: Of its death.

        Raises:
            ChildProcessError: At one death too many.
        """
        if self._handles.get(worker) is not handle:
            return
        self._host.stop(self._handles.pop(worker))  # it may be out of reach and yet alive
        self._restarts += 1
        if self._restarts > self._max_restarts:
            raise ChildProcessError(
                f"{self._name} workers: found {self._restarts} deaths, the last that of worker "
                f"{worker} ({cause}); required: at most {self._max_restarts} in a run. Look at the "
                "memory left and at Ray's logs, and go on from the last checkpoint with --resume"
            ) from cause
        logger.warning(
            "%s worker %d died and is replaced (%d of at most %d restarts): %s",
            *(self._name, worker, self._restarts, self._max_restarts, cause),
        )
        self._handles[worker] = self._start(worker)

    def close(self) -> None:
        """Ends all workers."""
        for handle in self._handles.values():
            self._host.stop(handle)
        self._handles.clear()


class ReceivedWeights:
    """A network's weights, sent as arrays and taken up where they are new."""

    def __init__(self, network: MuZeroNetwork, device: str) -> None:
        self.network, self._version = network.to(device), -1

    def take_up(self, arrays: Mapping[str, np.ndarray], version: int) -> None:
        """Loads weights of `weight_arrays` if their version is another than the last."""
        if version != self._version:
            # What was sent is read-only, so it is copied.
            self.network.load_state_dict({name: torch.tensor(a) for name, a in arrays.items()})
            self._version = version


def weight_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A state dict as arrays on the CPU, which may share its memory."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}

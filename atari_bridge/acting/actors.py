"""Actors, the sources of a run's experience: `SelfPlay` in this process, or Ray actors."""

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from atari_bridge.acting.planners import self_play_planner
from atari_bridge.acting.self_play import SelfPlay, SelfPlayOutput
from atari_bridge.acting.worker_pool import (
    RayBackend,
    ReceivedWeights,
    WorkerDiedError,
    WorkerPool,
    weight_arrays,
)
from atari_bridge.environments.factory import open_environment
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.config import AgentSettings
from prefsearch.config.checks import require
from prefsearch.run.directory import step_seed

CHUNK = 4
"""Decisions in each environment that a worker makes between two updates of its weights."""


class Actors(Protocol):
    """The source of a run's experience."""

    def play(self, *, decisions_made: int, progress: float) -> SelfPlayOutput:
        """Plays with the newest weights.

        Args:
            decisions_made: In the run so far.
            progress: Fraction of the run that is done, 0 to 1.

        Returns:
            Rows of at least one decision, in the order in which a replay takes them.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Arrays for a checkpoint, see `restore`."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continues from a state."""
        ...

    def interrupted_envs(self) -> list[int]:
        """Environments whose episodes were lost since the last call; each begins a new one."""
        ...

    def close(self) -> None:
        """Ends worker processes, if any."""
        ...


class PlayWorker:
    """A worker with M environments and a copy of the network.

    Args:
        network: Of the right shape, with any weights.
        settings: The agent's.
        first_env_index: Index of its first environment.
        num_envs: M.
        seed: Of its episodes and searches.
        device: Where it computes.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        settings: AgentSettings,
        first_env_index: int,
        num_envs: int,
        seed: int,
        device: str,
    ) -> None:
        self._weights = ReceivedWeights(network, device)
        self._self_play = SelfPlay(
            open_environment(settings.environment, num_envs=num_envs),
            NetworkModel(self._weights.network, discount=settings.learning.discount),
            lambda progress: self_play_planner(settings.search, progress=progress),
            torch.Generator().manual_seed(seed),
            frame_stack=settings.environment.frame_stack,
            seed=seed,
            first_env_index=first_env_index,
            terminal_on_life_loss=settings.environment.terminal_on_life_loss,
        )

    def play(
        self,
        weights: Mapping[str, np.ndarray],
        version: int,
        decisions_made: int,
        progress: float,
    ) -> SelfPlayOutput:
        """A chunk of decisions in every environment."""
        self._weights.load(weights, version)
        parts = [
            self._self_play.play(decisions_made=decisions_made, progress=progress)
            for _ in range(CHUNK)
        ]
        return SelfPlayOutput(
            [rows for part in parts for rows in part.rows],
            [episode for part in parts for episode in part.episodes],
        )


class RayActors:
    """Plays by K workers while this process learns.

    Each worker has one chunk of decisions pending, so self-play is at most K chunks ahead of
    learning, with weights that are one chunk old. When a worker dies, its chunk and its episodes
    under way are lost, and its environments begin new ones; rows received before stay valid.

    Args:
        network: The network that is being trained.
        settings: The agent's.
        backend: Runs the workers.
        workers: K; worker w has environments w * M to (w + 1) * M - 1.
        num_envs: K * M.
        seed: Of everything random.
        device: Where workers compute.

    Raises:
        ValueError: If environments cannot be divided evenly.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        settings: AgentSettings,
        *,
        backend: RayBackend,
        workers: int,
        num_envs: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._share, rest = divmod(num_envs, workers)
        fits = f"a divisor of the {num_envs} environments of a process"
        require(rest == 0, "play_workers", workers, fits)
        self._network, self._settings, self._backend = network, settings, backend
        self._seed, self._device = seed, device
        self._calls, self._template = 0, None
        self._started = 0  # workers ever started, so that no two have the same seed
        self._interrupted: set[int] = set()
        self._pending: dict[Any, tuple[int, Any]] = {}  # future: worker and its handle
        self.pool = WorkerPool(backend, "play", self._start, size=workers)

    def _start(self, index: int) -> Any:
        if self._template is None:
            self._template = self._backend.put(copy.deepcopy(self._network).cpu())
        seed = step_seed(self._seed, f"worker-{self._started}")
        self._started += 1
        first, share, device = index * self._share, self._share, self._device
        return self._backend.start(
            PlayWorker, self._template, self._settings, first, share, seed, device
        )

    def play(self, *, decisions_made: int, progress: float) -> SelfPlayOutput:
        """Waits for at least one chunk; submits the next before returning.

        Raises:
            ChildProcessError: If workers died too often.
        """
        weights = self._backend.put(weight_arrays(self._network.state_dict()))
        arguments = (weights, self._calls, decisions_made, progress)
        self._calls += 1
        busy = {worker for worker, _ in self._pending.values()}
        for worker in range(self.pool.size):
            if worker not in busy:
                self._submit(worker, arguments)
        played = SelfPlayOutput([], [])
        # Within a call a worker dies before its rows arrive, never after: rows of earlier calls
        # lie before the cut that `interrupted_envs` reports, its new rows after it.
        while not played.rows:
            for future in self._backend.wait(list(self._pending)):
                worker, handle = self._pending.pop(future)
                try:
                    part: SelfPlayOutput = self._backend.get(future)
                except WorkerDiedError as error:
                    first = worker * self._share
                    self._interrupted.update(range(first, first + self._share))
                    self.pool.restart(worker, handle, error)
                else:
                    played.rows.extend(part.rows)
                    played.episodes.extend(part.episodes)
                self._submit(worker, arguments)
        return played

    def _submit(self, worker: int, arguments: tuple[object, ...]) -> None:
        handle = self.pool[worker]
        self._pending[self._backend.call(handle, "play", *arguments)] = worker, handle

    def interrupted_envs(self) -> list[int]:
        """Environments of workers that died since the last call; all of them after `restore`."""
        interrupted = sorted(self._interrupted)
        self._interrupted.clear()
        return interrupted

    def state(self) -> dict[str, np.ndarray]:
        """The number of workers started; episodes under way are not kept."""
        return {"started": np.array([self._started], np.int64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Begins new episodes in all environments, and reports all as interrupted.

        So a resumed run is not bit for bit the uninterrupted one. States of other actors, or of
        another number of workers, are accepted.
        """
        self.close()
        self._started = int(state["started"][0]) if "started" in state else 0
        self._interrupted.update(range(self.pool.size * self._share))

    def close(self) -> None:
        """Ends the workers; pending chunks are lost."""
        self._pending.clear()
        self.pool.close()

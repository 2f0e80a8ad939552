"""Self-play by workers beside the process that learns.

Of a worker that dies, the rows that it handed over stay valid; the chunk it was at and its games
under way are lost, and its lanes begin new games behind a cut. This file does not know where rows
are kept, nor where workers live.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from atari_bridge.acting.search_settings import playing_planner
from atari_bridge.acting.self_play import Played, SelfPlay
from atari_bridge.acting.worker_pool import (
    Crew,
    Host,
    ReceivedWeights,
    WorkerDiedError,
    weight_arrays,
)
from atari_bridge.environments.opening import open_environment
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.config import AgentSettings
from prefsearch.config.checks import require
from prefsearch.run.directory import step_seed


class PlayWorker:
    """M environments and a copy of the network, in a process of its own.

    Args:
        network: Of the right shape; its weights do not matter.
        settings: The agent's.
        first_lane: Number of the first of its lanes.
        lanes: M.
        seed: Of its games and searches.
        device: Where it computes.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        settings: AgentSettings,
        first_lane: int,
        lanes: int,
        seed: int,
        device: str,
    ) -> None:
        self._search = settings.search
        self._self_play = SelfPlay(
            open_environment(settings.environment, num_environments=lanes),
            frame_stack=settings.environment.frame_stack,
            seed=seed,
            first_lane=first_lane,
            life_loss_ends=settings.environment.life_loss_ends,
        )
        self._weights = ReceivedWeights(network, device)
        self._model = NetworkModel(self._weights.network, discount=settings.learning.discount)
        self._generator = torch.Generator().manual_seed(seed)

    def play(
        self,
        weights: Mapping[str, np.ndarray],
        version: int,
        chunk: int,
        decisions_made: int,
        progress: float,
    ) -> Played:
        """`chunk` decisions in every environment."""
        self._weights.take_up(weights, version)
        planner = playing_planner(self._search, progress=progress)
        parts = [
            self._self_play.play(
                self._model, planner, decisions_made=decisions_made, generator=self._generator
            )
            for _ in range(chunk)
        ]
        return Played(
            [rows for part in parts for rows in part.rows],
            [episode for part in parts for episode in part.episodes],
        )


class RemotePlayers:
    """`Players` whose games are played by K workers while this process learns.

    Each worker has one chunk under way, never more, so play is ahead of learning by K chunks at
    most, and weights are older by one chunk. A row's `made_at` is the count of decisions when its
    chunk was begun. Workers start at the first `play`.

    Args:
        network: The one that learns.
        settings: The agent's.
        host: Where workers live.
        workers: K; worker w has lanes w * M to (w + 1) * M - 1.
        num_environments: K * M.
        seed: Of everything random.
        device: Where workers compute.
        chunk_decisions: Of a chunk, in each environment.
        weights_interval: Calls of `play` after which weights are sent again.
        max_restarts: Deaths of workers that are put up with.

    Raises:
        ValueError: If environments cannot be shared out evenly.
    """

    def __init__(
        self,
        network: MuZeroNetwork,
        settings: AgentSettings,
        *,
        host: Host,
        workers: int,
        num_environments: int,
        seed: int,
        device: str = "cpu",
        chunk_decisions: int = 4,
        weights_interval: int = 1,
        max_restarts: int = 10,
    ) -> None:
        self._share, rest = divmod(num_environments, workers)
        fits = f"a divisor of the {num_environments} environments of a process"
        require(rest == 0, "play_workers", workers, fits)
        require(chunk_decisions >= 1, "chunk_decisions", chunk_decisions, "at least 1")
        require(weights_interval >= 1, "weights_interval", weights_interval, "at least 1")
        self._network, self._settings, self._host = network, settings, host
        self._seed, self._device = seed, device
        self._chunk, self._weights_interval = chunk_decisions, weights_interval
        self._calls, self._weights, self._blank = 0, None, None
        self._started = 0  # workers ever, of the runs before too; no two have a seed in common
        self._broken: set[int] = set()
        self._under_way: dict[Any, tuple[int, Any]] = {}  # ticket: worker and its handle
        self.crew = Crew(host, "play", self._start, size=workers, max_restarts=max_restarts)

    def _start(self, worker: int) -> Any:
        if self._blank is None:
            self._blank = self._host.put(copy.deepcopy(self._network).cpu())
        seed = step_seed(self._seed, f"worker-{self._started}")
        self._started += 1
        first, device = worker * self._share, self._device
        return self._host.start(
            PlayWorker, self._blank, self._settings, first, self._share, seed, device
        )

    def play(self, *, decisions_made: int, progress: float) -> Played:
        """Waits for a worker or more to finish a chunk; begins their next before returning.

        Raises:
            ChildProcessError: If workers died too often.
        """
        if self._calls % self._weights_interval == 0:
            self._weights = self._host.put(weight_arrays(self._network.state_dict()))
        version = self._calls // self._weights_interval
        self._calls += 1
        now = (self._weights, version, self._chunk, decisions_made, progress)
        busy = {worker for worker, _ in self._under_way.values()}
        for worker in range(self.crew.size):
            if worker not in busy:
                self._ask(worker, now)
        played = Played([], [])
        # In one call a worker dies before it hands over rows, never after: what it handed over in
        # calls before lies in front of the cut that `broken_lanes` asks for, its new rows behind.
        while not played.rows:
            for ticket in self._host.done(list(self._under_way)):
                worker, handle = self._under_way.pop(ticket)
                try:
                    part: Played = self._host.take(ticket)
                except WorkerDiedError as error:
                    self._broken.update(self._lanes(worker))
                    self.crew.bury(worker, handle, error)
                else:
                    played.rows.extend(part.rows)
                    played.episodes.extend(part.episodes)
                self._ask(worker, now)
        return played

    def _ask(self, worker: int, now: tuple[Any, ...]) -> None:
        handle = self.crew[worker]
        self._under_way[self._host.ask(handle, "play", *now)] = worker, handle

    def _lanes(self, worker: int) -> range:
        return range(worker * self._share, (worker + 1) * self._share)

    def broken_lanes(self) -> list[int]:
        """Lanes of workers that died since last asked; all of them after `restore`."""
        broken = sorted(self._broken)
        self._broken.clear()
        return broken

    def state(self) -> dict[str, np.ndarray]:
        """How many workers were started; games under way are no part of it."""
        return {"started": np.array([self._started], np.int64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Begins new games in all lanes, and reports all of them as broken.

        So a run that goes on with workers is not bit for bit what it would have been: it loses
        the games that were under way. No game of the run so far is played again. A state of other
        players, or of another number of workers, will do too.
        """
        self.close()
        self._started = int(state["started"][0]) if "started" in state else 0
        self._broken.update(range(self.crew.size * self._share))

    def close(self) -> None:
        """Ends the workers; what they were at is lost."""
        self._under_way.clear()
        self.crew.close()

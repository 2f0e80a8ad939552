"""The training loop: self-play, replay and updates in a fixed order and ratio.

A run is cut into parts of `save_every` decisions, each of which ends with a checkpoint. A run
that is resumed from one continues exactly: on one device, bit for bit.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from accelerate import Accelerator

from atari_bridge.acting.actors import Actors, RayActors
from atari_bridge.acting.planners import reanalyze_planner, self_play_planner
from atari_bridge.acting.ray_planner import RayPlanner
from atari_bridge.acting.self_play import Episode, SelfPlay
from atari_bridge.acting.worker_pool import RayBackend
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.learning.batches import Batch, BatchMaker
from atari_bridge.learning.learner import Learner
from atari_bridge.learning.reanalyze import Reanalyzer
from atari_bridge.networks.building import build_network
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import Sample
from atari_bridge.training.config import AgentSettings, WorkerSettings
from atari_bridge.training.progress import Clock, Counters, TimedPlanner
from prefsearch.config.checks import require
from prefsearch.run.directory import step_seed
from search import Planner


@dataclass
class Training:
    """A training run, in one process (of several, each with environments and a replay of its own).

    Attributes:
        settings: The agent's.
        environment: This process's N environments.
        accelerator: Devices and processes.
        workers: Ray actors for self-play and reanalysis, if any.
        on_progress: Called after each round of self-play and each update.
        on_new_target: Called with the target network's weights whenever they change.
    """

    settings: AgentSettings
    environment: VectorEnvironment
    accelerator: Accelerator
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    on_progress: Callable[["Training"], None] | None = None
    on_new_target: Callable[[Mapping[str, torch.Tensor]], None] | None = None
    counters: Counters = field(default_factory=Counters)
    clock: Clock = field(default_factory=Clock)
    recent: deque[float] = field(default_factory=lambda: deque[float](maxlen=32))

    def __post_init__(self) -> None:
        """Builds networks, replay, learner and actors."""
        settings, environment = self.settings, self.environment
        self._check()
        rank, device = self.accelerator.process_index, self.accelerator.device
        seed = step_seed(settings.seed, f"process-{rank}")
        # All processes draw the same weights; all other random numbers are each process's own.
        torch.manual_seed(step_seed(settings.seed, "network"))
        self.network = self._build_network().to(device)
        self.target_network = self._build_network().to(device)
        self.target_network.load_state_dict(self.network.state_dict())
        torch.manual_seed(seed)
        self.play_generator = torch.Generator().manual_seed(seed)
        self.learn_generator = torch.Generator().manual_seed(seed + 1)
        self.search_generator = torch.Generator().manual_seed(seed + 2)
        self.replay_generator = np.random.default_rng(seed)
        share = settings.replay.replay_capacity // self.accelerator.num_processes
        self.replay = Replay(
            replace(settings.replay, replay_capacity=share),
            num_envs=environment.num_envs,
            observation_shape=environment.observation_shape,
            observation_dtype=environment.observation_dtype,
            num_actions=environment.num_actions,
            frame_stack=settings.environment.frame_stack,
            lookahead=settings.learning.lookahead,
        )
        self.learner = Learner(
            self.network,
            self.target_network,
            settings.learning,
            accelerator=self.accelerator,
            generator=self.learn_generator,
        )
        count = self.workers.play_workers + self.workers.reanalyze_workers
        backend = RayBackend(actors=count, gpus=self.workers.worker_gpus) if count else None
        self.actors = self._build_actors(backend, seed)
        self._ray_planner = self._build_ray_planner(backend)
        planner = self._ray_planner or reanalyze_planner(settings.search)
        self.batches = BatchMaker(
            settings.learning,
            Reanalyzer(
                settings.learning,
                model=self._planning_model(self.target_network),
                planner=TimedPlanner(planner, self.clock),
            ),
            clip_rewards=settings.environment.clip_rewards,
            prefix_horizon=settings.network.prefix_horizon
            if settings.network.value_prefix
            else None,
            with_future=settings.network.self_supervised != "none",
            device=device,
        )

    def _check(self) -> None:
        """Checks settings against each other.

        Raises:
            ValueError: If the batch cannot be divided, or learning starts before a row is ready.
        """
        settings, processes = self.settings, self.accelerator.num_processes
        rows = settings.learning.batch_size
        require(rows % processes == 0, "batch_size", rows, f"a multiple of {processes} processes")
        count = self.environment.num_envs * processes
        least = count * (settings.learning.lookahead + 1)
        starts = settings.length.learning_starts
        required = f"at least {least}, when the first row of {count} environments can be sampled"
        require(starts >= least or self.total_updates == 0, "learning_starts", starts, required)

    def _build_network(self) -> MuZeroNetwork:
        return build_network(
            self.settings.network,
            frame_shape=self.environment.observation_shape,
            frame_stack=self.settings.environment.frame_stack,
            num_actions=self.environment.num_actions,
        )

    def _build_actors(self, backend: RayBackend | None, seed: int) -> Actors:
        settings, count = self.settings, self.workers.play_workers
        if backend is not None and count:
            return RayActors(
                self.network,
                settings,
                backend=backend,
                workers=count,
                num_envs=self.environment.num_envs,
                seed=seed,
                device="cuda" if self.workers.worker_gpus else "cpu",
            )
        return SelfPlay(
            self.environment,
            self._planning_model(self.network),
            self._self_play_planner,
            self.play_generator,
            frame_stack=settings.environment.frame_stack,
            seed=seed,
            terminal_on_life_loss=settings.environment.terminal_on_life_loss,
        )

    def _self_play_planner(self, progress: float) -> Planner:
        planner = self_play_planner(self.settings.search, progress=progress)
        return TimedPlanner(planner, self.clock)

    def _build_ray_planner(self, backend: RayBackend | None) -> RayPlanner | None:
        if backend is None or not self.workers.reanalyze_workers:
            return None
        planner = RayPlanner(
            self.target_network,
            reanalyze_planner(self.settings.search),
            backend=backend,
            workers=self.workers.reanalyze_workers,
            discount=self.settings.learning.discount,
            device="cuda" if self.workers.worker_gpus else "cpu",
        )
        self.on_new_target = planner.refresh
        return planner

    def _planning_model(self, network: MuZeroNetwork) -> NetworkModel:
        """A network as a planning model, in the run's precision."""
        half = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else None
        return NetworkModel(network, discount=self.settings.learning.discount, amp_dtype=half)

    def close(self) -> None:
        """Ends worker processes, if any."""
        self.actors.close()
        if self._ray_planner is not None:
            self._ray_planner.close()

    @property
    def total_updates(self) -> int:
        """Updates of the whole run."""
        length = self.settings.length
        return int(self._updates_due(length.total_decisions)) + length.final_updates

    @property
    def is_done(self) -> bool:
        """Whether the last decision and the last update are made."""
        return (
            self.counters.decisions >= self.settings.length.total_decisions
            and self.counters.updates >= self.total_updates
        )

    def run_part(self) -> dict[str, object]:
        """Plays and learns up to the next checkpoint; returns the part's measurements.

        Raises:
            FloatingPointError: If the loss is not finite; the last checkpoint is intact.
        """
        vars(self.clock).update(vars(Clock()))
        started, before = time.perf_counter(), Counters(**vars(self.counters))
        length = self.settings.length
        episodes: list[Episode] = []
        sums: dict[str, float] = {}
        if self.counters.decisions >= length.total_decisions:
            # As many updates as other parts have.
            part = max(1.0, length.save_every * (length.updates_per_decision or 1.0)) // 1
            self.counters.pending_updates = min(self.total_updates - self.counters.updates, part)
            _add(sums, self.learn(int(self.counters.pending_updates)))
        end = min(
            (self.counters.decisions // length.save_every + 1) * length.save_every,
            length.total_decisions,
        )
        while self.counters.decisions < end:
            interval = self.counters.decisions // length.train_every
            episodes += self.play()
            if self.counters.decisions // length.train_every > interval:
                _add(sums, self.learn(int(self.counters.pending_updates)))
            if self.on_progress is not None:
                self.on_progress(self)
        return self._summary(before, episodes, sums, time.perf_counter() - started)

    def play(self) -> list[Episode]:
        """One round of self-play in every process; returns this process's finished episodes."""
        started = time.perf_counter()
        progress = self.counters.decisions / self.settings.length.total_decisions
        played = self.actors.play(decisions_made=self.counters.decisions, progress=progress)
        for env in self.actors.interrupted_envs():
            self.replay.cut(env)
        for rows in played.rows:
            self.replay.append(rows)
        here = sum(int((~rows.void).sum()) for rows in played.rows)
        before = self.counters.decisions
        self.counters.decisions += here * self.accelerator.num_processes
        self.counters.pending_updates += self._updates_due(
            self.counters.decisions
        ) - self._updates_due(before)
        self.recent.extend(episode.game_return for episode in played.episodes)
        self.clock.play += time.perf_counter() - started
        return played.episodes

    def _updates_due(self, decisions: int) -> float:
        """Updates for the first `decisions`, the last ones of the run not counted."""
        length = self.settings.length
        counted = min(decisions, length.total_decisions) - length.learning_starts
        return max(0, counted) * length.updates_per_decision

    def learn(self, count: int) -> dict[str, float]:
        """Makes `count` updates; returns the sums of their losses, by name.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        sums: dict[str, float] = {}
        batches = self._overlapped(count) if self.settings.length.overlap else self._in_turn(count)
        for sample, batch in batches:
            started = time.perf_counter()
            update = self.learner.update(batch)
            self.replay.update_priorities(sample.index, update.priorities)
            self.counters.updates += 1
            self.counters.pending_updates -= 1
            _add(sums, update.losses)
            self.clock.updates += time.perf_counter() - started
            if self.on_progress is not None:
                self.on_progress(self)
        return sums

    def _in_turn(self, count: int) -> Iterator[tuple[Sample, Batch]]:
        """Batches, each made after the update before it."""
        for _ in range(count):
            started = time.perf_counter()
            sample, batch = self.next_batch()
            self.clock.batches += time.perf_counter() - started
            yield sample, batch

    def _overlapped(self, count: int) -> Iterator[tuple[Sample, Batch]]:
        """Batches, each made by a thread during the update before it.

        Samples use priorities that are one update old; the order of all draws is fixed, and no
        batch is being made when this ends.
        """
        with ThreadPoolExecutor(1) as thread:
            ahead: tuple[Sample, Future[Batch]] | None = None
            for number in range(count):
                started = time.perf_counter()
                if ahead is None:
                    sample = self._draw()
                    ahead = sample, thread.submit(self._make, sample, self.counters.updates)
                sample, batch = ahead[0], ahead[1].result()
                ahead = None
                if number + 1 == count:
                    self._refresh_target()  # while no batch is being made
                else:
                    following = self._draw()
                    ahead = following, thread.submit(self._make, following, self.counters.updates)
                self.clock.batches += time.perf_counter() - started  # waiting alone
                yield sample, batch

    def next_batch(self) -> tuple[Sample, Batch]:
        """Samples rows from the replay and makes a batch of them, with reanalysis."""
        sample = self._draw()
        return sample, self._make(sample, self.counters.updates)

    def _draw(self) -> Sample:
        """Samples rows for a batch, and refreshes the target network it is made with."""
        self._refresh_target()
        learning = self.settings.learning
        return self.replay.sample(
            learning.batch_size // self.accelerator.num_processes,
            beta=learning.beta(self.counters.updates / max(1, self.total_updates)),
            generator=self.replay_generator,
        )

    def _refresh_target(self) -> None:
        if self.learner.refresh_target() and self.on_new_target is not None:
            self.on_new_target(self.target_network.state_dict())

    def _make(self, sample: Sample, updates_made: int) -> Batch:
        return self.batches.make(
            self.replay,
            sample,
            decisions_made=self.counters.decisions,
            updates_made=updates_made,
            generator=self.replay_generator,
            search_generator=self.search_generator,
        )

    def _summary(
        self, before: Counters, episodes: list[Episode], sums: Mapping[str, float], seconds: float
    ) -> dict[str, object]:
        """A part's measurements, as JSON values."""
        updates = self.counters.updates - before.updates
        returns = [episode.game_return for episode in episodes]
        return {
            "decisions": self.counters.decisions,
            "frames": self.counters.decisions * self.environment.frame_skip,
            "updates": self.counters.updates,
            "games": len(returns),
            "mean_return": float(np.mean(returns)) if returns else None,
            "seconds": seconds,
            "play_seconds": self.clock.play,
            "batch_seconds": self.clock.batches,
            "update_seconds": self.clock.updates,
            "search_seconds": self.clock.search,
            "losses": {name: value / max(1, updates) for name, value in sums.items()},
        }


def _add(sums: dict[str, float], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value

"""A run: play, remember, learn, in a fixed order and ratio; kept so that a kill loses little.

The run is cut into parts of `part_decisions` decisions. At the end of a part the whole state is
saved, and what was measured is written down. A run that goes on from there goes on exactly: on one
device, bit for bit.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from atari_bridge.acting.players import LocalPlayers, Players, RefreshedPlanner
from atari_bridge.acting.search_settings import reanalysing_planner
from atari_bridge.acting.self_play import Episode, SelfPlay
from atari_bridge.acting.timed_planner import TimedPlanner
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.learning.batches import Batch, BatchMaker
from atari_bridge.learning.learner import Learner
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import Sample
from atari_bridge.training.agent import network_for
from atari_bridge.training.config import AgentSettings
from atari_bridge.training.progress import Clock, Counters
from prefsearch.config.checks import require
from prefsearch.run.directory import step_seed


@dataclass
class Training:
    """A run under way in one process (of several, each with lanes and a replay of its own).

    Attributes:
        settings: The agent's.
        environment: This process's N environments.
        accelerator: Devices and processes.
        on_progress: Told counters and recent returns after each round of play.
        on_new_target: Told the target network's weights whenever they change.
        players: Who plays; None: this process.
    """

    settings: AgentSettings
    environment: VectorEnvironment
    accelerator: Accelerator
    on_progress: Callable[["Training"], None] | None = None
    on_new_target: Callable[[Mapping[str, torch.Tensor]], None] | None = None
    players: Players | None = None
    counters: Counters = field(default_factory=Counters)
    clock: Clock = field(default_factory=Clock)
    recent: deque[float] = field(default_factory=lambda: deque[float](maxlen=32))

    def __post_init__(self) -> None:
        """Builds network, replay, learner and games."""
        settings, environment = self.settings, self.environment
        self._check()
        rank, device = self.accelerator.process_index, self.accelerator.device
        seed = step_seed(settings.seed, f"process-{rank}")
        # Weights are drawn alike in all processes; all other draws are each process's own.
        torch.manual_seed(step_seed(settings.seed, "network"))
        self.network = self._network().to(device)
        self.target_network = self._network().to(device)
        self.target_network.load_state_dict(self.network.state_dict())
        torch.manual_seed(seed)
        self.play_generator = torch.Generator().manual_seed(seed)
        self.learn_generator = torch.Generator().manual_seed(seed + 1)
        self.search_generator = torch.Generator().manual_seed(seed + 2)
        self.replay_generator = np.random.default_rng(seed)
        share = settings.replay.replay_capacity // self.accelerator.num_processes
        self.replay = Replay(
            replace(settings.replay, replay_capacity=share),
            lanes=environment.num_environments,
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
        self.batches = BatchMaker(
            settings.learning,
            model=self.planned_with(self.target_network),
            planner=TimedPlanner(reanalysing_planner(settings.search), self._note_search),
            clip_rewards=settings.environment.clip_rewards,
            prefix_horizon=settings.network.prefix_horizon
            if settings.network.value_prefix
            else None,
            with_future=settings.network.self_supervised != "none",
            device=device,
        )
        if self.players is None:
            self.players = LocalPlayers(
                SelfPlay(
                    environment,
                    frame_stack=settings.environment.frame_stack,
                    seed=seed,
                    life_loss_ends=settings.environment.life_loss_ends,
                ),
                self.planned_with(self.network),
                settings.search,
                generator=self.play_generator,
                on_search=self._note_search,
            )

    def _check(self) -> None:
        """Checks settings of different rooms against each other.

        Raises:
            ValueError: If the batch cannot be shared out, or learning begins before a row is ready.
        """
        settings, processes = self.settings, self.accelerator.num_processes
        rows = settings.learning.batch_size
        require(rows % processes == 0, "batch_size", rows, f"a multiple of {processes} processes")
        lanes = self.environment.num_environments * processes
        least = lanes * (settings.learning.lookahead + 1)
        starts = settings.length.start_decisions
        required = f"at least {least}, when the first row of {lanes} environments can be learned"
        require(starts >= least or self.total_updates == 0, "start_decisions", starts, required)

    def _network(self) -> MuZeroNetwork:
        return network_for(
            self.settings.network,
            frame=self.environment.observation_shape,
            frame_stack=self.settings.environment.frame_stack,
            num_actions=self.environment.num_actions,
        )

    def employ(self, players: Players | None, planner: RefreshedPlanner | None) -> None:
        """Lets others play, or search old rows anew; None leaves that to this process."""
        self.players = players or self.players
        if planner is not None:
            timed = TimedPlanner(planner, self._note_search)
            self.batches = replace(self.batches, planner=timed)
            self.on_new_target = planner.refresh

    def _note_search(self, seconds: float) -> None:
        # Play and batches are never under way at a time, so nobody else adds to it.
        self.clock.search += seconds

    def planned_with(self, network: MuZeroNetwork) -> NetworkModel:
        """A network as a planning model, in the run's precision."""
        half = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else None
        return NetworkModel(network, discount=self.settings.learning.discount, amp_dtype=half)

    @property
    def total_updates(self) -> int:
        """Updates of the whole run."""
        length = self.settings.length
        return int(self._due(length.total_decisions)) + length.last_updates

    @property
    def is_done(self) -> bool:
        """Whether the last decision and the last update are made."""
        return (
            self.counters.decisions >= self.settings.length.total_decisions
            and self.counters.updates >= self.total_updates
        )

    def run_part(self) -> dict[str, Any]:
        """Plays and learns up to the next checkpoint; returns what the part measured.

        Raises:
            FloatingPointError: If the loss is not finite; the last checkpoint is intact.
        """
        self.clock = Clock()
        started, before = time.perf_counter(), Counters(**vars(self.counters))
        length = self.settings.length
        episodes: list[Episode] = []
        sums: dict[str, float] = {}
        if self.counters.decisions >= length.total_decisions:
            self.counters.owed = min(self.total_updates - self.counters.updates, self._last_part)
            _add(sums, self.learn(int(self.counters.owed)))
        end = min(
            (self.counters.decisions // length.part_decisions + 1) * length.part_decisions,
            length.total_decisions,
        )
        while self.counters.decisions < end:
            spell = self.counters.decisions // length.learn_every
            episodes += self.play()
            if self.counters.decisions // length.learn_every > spell:
                _add(sums, self.learn(int(self.counters.owed)))
            if self.on_progress is not None:
                self.on_progress(self)
        return self._summary(before, episodes, sums, time.perf_counter() - started)

    @property
    def _last_part(self) -> float:
        """Updates of a part after the last decision: as many as others have."""
        length = self.settings.length
        return max(1.0, length.part_decisions * (length.updates_per_decision or 1.0)) // 1

    def play(self) -> list[Episode]:
        """One decision in every environment of every process; games that ended in this one."""
        started = time.perf_counter()
        progress = self.counters.decisions / self.settings.length.total_decisions
        assert self.players is not None
        played = self.players.play(decisions_made=self.counters.decisions, progress=progress)
        for lane in self.players.broken_lanes():
            self.replay.cut(lane)
        for rows in played.rows:
            self.replay.append(rows)
        here = sum(int((~rows.void).sum()) for rows in played.rows)
        made = here * self.accelerator.num_processes
        self.counters.decisions += made
        self.counters.owed += self._due(self.counters.decisions) - self._due(
            self.counters.decisions - made
        )
        self.recent.extend(episode.game_return for episode in played.episodes)
        self.clock.play += time.perf_counter() - started
        return played.episodes

    def _due(self, decisions: int) -> float:
        """Updates that the first `decisions` bring, the last ones not counted."""
        length = self.settings.length
        counted = min(decisions, length.total_decisions) - length.start_decisions
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
            self.counters.owed -= 1
            _add(sums, update.losses)
            self.clock.updates += time.perf_counter() - started
            if self.on_progress is not None:
                self.on_progress(self)
        return sums

    def _in_turn(self, count: int) -> Iterator[tuple[Sample, Batch]]:
        """Batches, each begun when the one before is learned from."""
        for _ in range(count):
            started = time.perf_counter()
            sample, batch = self.next_batch()
            self.clock.batches += time.perf_counter() - started
            yield sample, batch

    def _overlapped(self, count: int) -> Iterator[tuple[Sample, Batch]]:
        """Batches, each made by a thread while the one before is learned from.

        Draws are one update behind in what they know of priorities; the order of all draws is
        fixed, and no batch is under way when this ends.
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
                    self._refresh_target()  # due or not, nobody is making a batch now
                else:
                    following = self._draw()
                    ahead = following, thread.submit(self._make, following, self.counters.updates)
                self.clock.batches += time.perf_counter() - started  # waiting alone
                yield sample, batch

    def next_batch(self) -> tuple[Sample, Batch]:
        """Rows drawn from the replay, and the batch of them, searched anew where that is due."""
        sample = self._draw()
        return sample, self._make(sample, self.counters.updates)

    def _draw(self) -> Sample:
        """Rows for a batch, and the target network it will be made with."""
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
    ) -> dict[str, Any]:
        """What a part measured, as JSON values."""
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

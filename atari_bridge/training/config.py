"""Configuration of a training run and of the agent that it trains."""

from dataclasses import dataclass, field
from typing import Annotated

from atari_bridge.acting.config import SearchSettings
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.learning.config import LearningConfig
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.replay.config import ReplayConfig
from prefsearch.config.bounds import Count, CountOrZero, Seed, Within
from prefsearch.config.checks import check_types


@dataclass(frozen=True)
class TrainSchedule:
    """Length of a run, and its ratio of updates to decisions.

    Attributes:
        total_decisions: In all environments; emulator frames are frame_skip times as many.
        learning_starts: Decisions before the first update.
        updates_per_decision: Updates for each decision after those.
        final_updates: Updates after the last decision.
        train_every: Decisions between two training phases, which make all pending updates. Larger
            values let `overlap` do more.
        save_every: Decisions between two checkpoints; after the last decision, as many updates
            as those would bring. A kill loses at most these.
        keep_checkpoints: Number of newest checkpoints kept; with 1 there is none to fall back on
            if it is damaged later.
        overlap: Make each batch in a thread during the update before it; for GPUs, or with
            `threads` 1 for two processors.
    """

    total_decisions: Count = 100_000
    learning_starts: CountOrZero = 2_000
    updates_per_decision: Annotated[float, Within(ge=0, le=10_000)] = 1.0
    final_updates: CountOrZero = 20_000
    train_every: Count = 1
    save_every: Count = 5_000
    keep_checkpoints: Count = 1
    overlap: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)


@dataclass(frozen=True)
class WorkerSettings:
    """Ray actors for asynchronous self-play and reanalysis.

    Without them a run is reproducible bit for bit. With play workers it is not: the weights that
    an episode is played with depend on timing. A worker that dies is restarted, up to ten times.

    Attributes:
        play_workers: Ray actors that divide the environments among them; 0: this process plays
            between updates. Needs prefsearch[ray].
        reanalyze_workers: Ray actors that divide each batch's searches among them; 0: this process
            searches. Needs prefsearch[ray].
        worker_gpus: Share of a GPU that each actor takes, such as 0.2; 0: they use the CPU. Ray
            does not count the memory that training takes on the same GPU.
    """

    play_workers: Annotated[int, Within(ge=0, le=2**16)] = 0
    reanalyze_workers: Annotated[int, Within(ge=0, le=2**16)] = 0
    worker_gpus: Annotated[float, Within(ge=0, le=1024)] = 0.0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)


@dataclass(frozen=True)
class AgentSettings:
    """All settings that an agent's numbers depend on."""

    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    search: SearchSettings = field(default_factory=SearchSettings)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    length: TrainSchedule = field(default_factory=TrainSchedule)
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)

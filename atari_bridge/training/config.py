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
class RunLength:
    """How long a run is, and how learning keeps step with play.

    Attributes:
        total_decisions: Of all environments together; frames are frame_skip times as many.
        start_decisions: Decisions before the first update.
        updates_per_decision: Updates that each decision after those brings.
        last_updates: Updates after the last decision.
        learn_every: Decisions between spells of learning; what is due is made up for then. More
            lets `overlap` do more.
        part_decisions: Between two checkpoints, with the updates that they bring, or as many
            updates after the last decision; a kill loses at most these.
        keep_checkpoints: How many of the newest are kept; with 1 there is none to go back to if it
            is damaged later. One that is not complete never counts.
        overlap: Make each batch in a thread while the one before is learned from; for GPUs, or
            with `threads` 1 for two processors.
    """

    total_decisions: Count = 100_000
    start_decisions: CountOrZero = 2_000
    updates_per_decision: Annotated[float, Within(least=0, most=10_000)] = 1.0
    last_updates: CountOrZero = 20_000
    learn_every: Count = 1
    part_decisions: Count = 5_000
    keep_checkpoints: Count = 1
    overlap: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)


@dataclass(frozen=True)
class WorkerSettings:
    """Ray actors for asynchronous self-play and reanalysis.

    Attributes:
        play_workers: Actors among which the environments are shared out; 0: this process plays,
            between updates. Needs prefsearch[ray].
        reanalyze_workers: Actors among which the searches of old rows are shared out; 0: this
            process searches. Needs prefsearch[ray].
        worker_gpus: Share of a GPU that each actor takes, such as 0.2; 0: they compute on the CPU.
            Ray does not know of the memory that learning takes on the same GPU.
    """

    play_workers: Annotated[int, Within(least=0, most=2**16)] = 0
    reanalyze_workers: Annotated[int, Within(least=0, most=2**16)] = 0
    worker_gpus: Annotated[float, Within(least=0, most=1024)] = 0.0

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
    length: RunLength = field(default_factory=RunLength)
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)

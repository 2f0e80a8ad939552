"""What an agent and its run are, as plain values: one room's settings beside the other's."""

from dataclasses import dataclass

from atari_bridge.environments import EnvironmentConfig
from atari_bridge.learning.config import LearningConfig
from atari_bridge.networks import NetworkConfig
from atari_bridge.replay import ReplayConfig
from atari_bridge.search_settings import SearchSettings
from search.evaluation.settings import check_types, require


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

    total_decisions: int = 100_000
    start_decisions: int = 2_000
    updates_per_decision: float = 1.0
    last_updates: int = 20_000
    learn_every: int = 1
    part_decisions: int = 5_000
    keep_checkpoints: int = 1
    overlap: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        for name in ("total_decisions", "part_decisions", "keep_checkpoints", "learn_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("start_decisions", "updates_per_decision", "last_updates"):
            finite = 0 <= getattr(self, name) < float("inf")
            require(finite, name, getattr(self, name), "at least 0, and finite")


@dataclass(frozen=True)
class AgentSettings:
    """Everything that an agent's numbers depend on, room by room."""

    environment: EnvironmentConfig
    network: NetworkConfig
    search: SearchSettings
    replay: ReplayConfig
    learning: LearningConfig
    length: RunLength
    seed: int

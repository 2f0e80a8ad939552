"""How far a run is, and where its time went."""

from dataclasses import dataclass


@dataclass
class Clock:
    """Where the time of a part went, in seconds.

    Attributes:
        play: With its searches.
        batches: Making them; waiting for them where they are made beside updates.
        updates: Learning.
        search: Searches of this process, of play and of reanalysis; a part of the others, or
            beside them.
    """

    play: float = 0.0
    batches: float = 0.0
    updates: float = 0.0
    search: float = 0.0


@dataclass
class Counters:
    """How far a run is."""

    decisions: int = 0
    updates: int = 0
    owed: float = 0.0  # updates due and not yet made

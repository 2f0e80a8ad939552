"""A model's states after tokens, hidden states and logits, and growing buffers of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class States:
    """The model's states after M tokens.

    Attributes:
        hidden: Last hidden states [M, d].
        logits: Next-token logits [M, V], only where the head alone does not make them.
    """

    hidden: Tensor
    logits: Tensor | None


def pick(states: States, index: Tensor | slice) -> States:
    """Some of M states, by place."""
    if isinstance(index, Tensor):
        index = index.to(states.hidden.device)
    logits = states.logits
    return States(states.hidden[index], None if logits is None else logits[index])


def joined(states: Sequence[States]) -> States:
    """States concatenated."""
    logits = [one.logits for one in states if one.logits is not None]
    return States(torch.cat([one.hidden for one in states]), torch.cat(logits) if logits else None)


class KeptStates:
    """States in buffers that at least double as they grow; each has an index."""

    def __init__(self) -> None:
        """Starts empty."""
        self._states: States | None = None
        self._used = 0

    @property
    def width(self) -> int:
        """d, the size of a hidden state; 0 before the first."""
        return 0 if self._states is None else self._states.hidden.shape[1]

    @torch.inference_mode()
    def add(self, states: States) -> list[int]:
        """Adds M states and returns their indices."""
        end = self._used + len(states.hidden)
        if self._states is None:
            self._states = _emptied(states, 0)
        if end > len(self._states.hidden):
            grown = _emptied(states, max(end, 2 * len(self._states.hidden), 64))
            _write(grown, 0, pick(self._states, slice(self._used)))
            self._states = grown
        _write(self._states, self._used, states)
        places = list(range(self._used, end))
        self._used = end
        return places

    def read(self, places: Sequence[int]) -> States:
        """The states at indices."""
        assert self._states is not None
        return pick(self._states, torch.tensor(places, dtype=torch.long))

    def hidden(self, places: Sequence[int]) -> Tensor:
        """The hidden states at indices, [R, d]."""
        assert self._states is not None
        device = self._states.hidden.device
        return self._states.hidden[torch.tensor(places, dtype=torch.long, device=device)]

    def keep(self, places: Sequence[int]) -> list[int]:
        """Drops all others; returns the new indices."""
        if self._states is None or not places:
            self._states, self._used = None, 0
            return []
        states = self.read(places)
        self._states, self._used = None, 0
        return self.add(states)


def _emptied(states: States, count: int) -> States:
    """Room for `count` states of the same kind."""
    hidden, logits = states.hidden, states.logits
    return States(
        hidden.new_empty(count, hidden.shape[1]),
        None if logits is None else logits.new_empty(count, logits.shape[1]),
    )


def _write(into: States, first: int, states: States) -> None:
    """Copies states to places from `first` on."""
    into.hidden[first : first + len(states.hidden)] = states.hidden
    if into.logits is not None and states.logits is not None:
        into.logits[first : first + len(states.logits)] = states.logits

"""The interface of prefix caches, whether or not branches can share one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from rewardmodel.prefix_cache.backbone import Backbone
from rewardmodel.prefix_cache.states import KeptStates, States

Path = TypeVar("Path", bound=Any)


@dataclass
class Node(Generic[Path]):
    """A node of the prefix tree.

    Attributes:
        prompt: Handle of its prompt.
        path: Its tokens, as ids or as columns of a cache.
        place: Where its state is kept, if it is.
    """

    prompt: int
    path: Path
    place: int | None


class Branches(Protocol):
    """R rows that each hold one prefix and are extended token by token."""

    def feed(self, tokens: Tensor, *, live: Sequence[int]) -> States:
        """Feeds each row one token, int64 [R]; rows not `live` are padding. Returns R states."""
        ...

    def keep(self, lines: Sequence[int]) -> None:
        """Drops all rows but these."""
        ...

    def restart(self, lines: Sequence[int], parents: Sequence[int]) -> None:
        """Gives rows other prefixes, none longer than the longest at the start."""
        ...

    def commit(self, lines: Sequence[int], states: States) -> list[int]:
        """Stores the tokens that rows were fed; returns handles, whose states are `states`."""
        ...


class Prefixes(ABC, Generic[Path]):
    """Prefixes of one model by handle, with the model's state after the last token of each.

    Attributes:
        backbone: The model.
        forward_tokens: Tokens given to the model, by the prompt's handle; padding excluded.
        padding_tokens: Padding tokens given to the model.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Makes an empty cache."""
        self.backbone = backbone
        self.forward_tokens: dict[int, int] = {}
        self.padding_tokens = 0
        self._nodes: dict[int, Node[Path]] = {}
        self._next = 0
        self._kept = KeptStates()

    def hidden(self, nodes: Sequence[int]) -> Tensor:
        """Last hidden states [R, d] after the last token of nodes."""
        return self._kept.hidden(self._places(nodes))

    def logits(self, nodes: Sequence[int]) -> Tensor:
        """Next-token logits [R, V] after nodes, float32."""
        return self.logits_of(self._kept.read(self._places(nodes)))

    def logits_of(self, states: States) -> Tensor:
        """Next-token logits [M, V] of states, float32."""
        logits = states.logits
        return self.backbone.logits(states.hidden) if logits is None else logits.float()

    def ancestor(self, node: int, tokens: int) -> int:
        """Makes a node of the first `tokens` of a node's prefix, at least its prompt's.

        It can be extended, but has no state.
        """
        known = self._nodes[node]
        return self._add(known.prompt, known.path[:tokens], None)

    @abstractmethod
    def bytes_per_token(self) -> int:
        """Bytes of keys and values per token; 0 where none are kept."""

    @abstractmethod
    def add_prompts(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Runs the model over prompts, none empty; returns a handle for each."""

    @abstractmethod
    def feed(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]]
    ) -> tuple[list[int], States]:
        """Adds runs of tokens behind known nodes.

        Args:
            parents: Handles, which may repeat. `~i` stands for the i-th run of this call, which
                must come before those behind it.
            runs: Tokens behind each, none empty.

        Returns:
            A handle for each run, and the states after each of all their tokens, in order.
        """

    @abstractmethod
    def read(self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, rows: int) -> States:
        """The states after the last token of runs behind known nodes; nothing is kept.

        Args:
            parents: Handles, which may repeat.
            runs: Tokens behind each, none empty.
            rows: The most runs per forward pass, which bounds the memory.
        """

    @abstractmethod
    def branches(self, parents: Sequence[int], *, room: int) -> Branches:
        """Rows that extend prefixes token by token, each by at most `room` tokens."""

    @abstractmethod
    def keep(self, nodes: Iterable[int]) -> None:
        """Frees all other nodes; the tokens of the kept nodes' prefixes stay."""

    def _add(self, prompt: int, path: Path, place: int | None) -> int:
        self._nodes[self._next] = Node(prompt, path, place)
        self._next += 1
        return self._next - 1

    def _places(self, nodes: Sequence[int]) -> list[int]:
        """Indices of the states of nodes."""
        places = [self._nodes[node].place for node in nodes]
        assert all(place is not None for place in places), "a node of `ancestor` has no state"
        return places  # type: ignore[return-value]

    @torch.inference_mode()
    def _keep_states(self, nodes: Iterable[int]) -> None:
        """Drops all other nodes and their states."""
        self._nodes = {node: self._nodes[node] for node in nodes}
        known = [node for node in self._nodes.values() if node.place is not None]
        places = self._kept.keep([node.place for node in known if node.place is not None])
        for node, place in zip(known, places, strict=True):
            node.place = place

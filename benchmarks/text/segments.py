"""Other ways to search over blocks of sampled tokens.

They draw the same tokens from the same counter-based random numbers as the product, and differ in
what a segment continues: the whole prefix run again, as a call of `generate` for each node does, or
a copy of its parent's cache. Both sample the segments of all prompts side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from benchmarks.text.models import Subject
from benchmarks.text.peers import PeerPlanningModel, laid_out, prefill, stacked_cache, step_rows
from policies.generation.counter_rng import child_key, root_key, uniforms
from policies.generation.proposals import Proposal

BLOCK = 12
Draw = Callable[[Tensor, Sequence[int], int], Tensor]
"""Draws a token for each row: hidden states [R, d], the segments' keys, and the token's place."""


class RerunSegments:
    """Remembers token ids; a segment's whole prefix is run into a cache that is then dropped."""

    def __init__(self, body: nn.Module) -> None:
        self._body = body
        self._ids: list[list[int]] = []

    def start(self, prompts: Sequence[list[int]]) -> tuple[list[int], Tensor]:
        """Runs prompts; returns handles and hidden states [B, d]."""
        _, hidden = prefill(self._body, prompts)
        return self._add([list(prompt) for prompt in prompts]), hidden

    def extend(
        self, parents: Sequence[int], keys: Sequence[int], draw: Draw
    ) -> tuple[list[int], Tensor]:
        """Samples a segment behind each of R prefixes; returns handles and hidden states."""
        rows = [self._ids[parent] for parent in parents]
        lengths = [len(row) for row in rows]
        width = max(lengths)
        cache = DynamicCache()
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        output = self._body(input_ids=ids, past_key_values=cache, use_cache=True)
        hidden = output.last_hidden_state[torch.arange(len(rows)), torch.tensor(lengths) - 1]
        drawn, hidden = sample(self._body, cache, lengths, hidden, keys=keys, draw=draw)
        made = [row + new for row, new in zip(rows, drawn.tolist(), strict=True)]
        return self._add(made), hidden

    def _add(self, rows: Sequence[list[int]]) -> list[int]:
        self._ids += rows
        return list(range(len(self._ids) - len(rows), len(self._ids)))


class CopySegments:
    """Remembers each node's cache and last hidden state."""

    def __init__(self, body: nn.Module) -> None:
        self._body = body
        self._rows: list[Tensor] = []
        self._hidden: list[Tensor] = []

    def start(self, prompts: Sequence[list[int]]) -> tuple[list[int], Tensor]:
        """Runs prompts; returns handles and hidden states [B, d]."""
        rows, hidden = prefill(self._body, prompts)
        return self._add(rows, hidden), hidden

    def extend(
        self, parents: Sequence[int], keys: Sequence[int], draw: Draw
    ) -> tuple[list[int], Tensor]:
        """Samples a segment behind each of R prefixes; returns handles and hidden states."""
        cache, lengths = laid_out([self._rows[parent] for parent in parents])
        hidden = torch.stack([self._hidden[parent] for parent in parents])
        _, hidden = sample(self._body, cache, lengths, hidden, keys=keys, draw=draw)
        stacked = stacked_cache(cache)  # [2 * layers, R, heads, L + BLOCK, d]
        width = max(lengths)
        made = [
            torch.cat([stacked[:, line, :, :length], stacked[:, line, :, width:]], dim=2)
            for line, length in enumerate(lengths)
        ]
        return self._add(made, hidden), hidden

    def _add(self, rows: Sequence[Tensor], hidden: Tensor) -> list[int]:
        self._rows += rows
        self._hidden += hidden.unbind(0)
        return list(range(len(self._rows) - len(rows), len(self._rows)))


def sample(
    body: nn.Module,
    cache: DynamicCache,
    lengths: Sequence[int],
    hidden: Tensor,
    *,
    keys: Sequence[int],
    draw: Draw,
) -> tuple[Tensor, Tensor]:
    """Samples `BLOCK` tokens on each row of a cache.

    Returns:
        Tokens [R, BLOCK] and the hidden states [R, d] after the last.
    """
    drawn = []
    for place in range(BLOCK):
        drawn.append(draw(hidden, keys, place))
        hidden = step_rows(body, cache, lengths, drawn[-1], width=max(lengths))
    return torch.stack(drawn, dim=1), hidden


class SegmentPeer(PeerPlanningModel):
    """Searches over sampled blocks with any of the stores above."""

    def __init__(self, subject: Subject, store: Any, *, num_actions: int) -> None:
        super().__init__(num_actions)
        self._head, self._store = subject.head, store
        self._output = subject.policy.model.get_output_embeddings()
        self._end_id, self._proposal = subject.policy.encoder.end_id, Proposal(unit="block")
        self._keys: dict[int, int] = {}

    def _start(self, prompts: list[list[int]]) -> list[int]:
        nodes, hidden = self._store.start(prompts)
        return self._remember(nodes, hidden, [root_key(0, number) for number in range(len(nodes))])

    def _extend(self, edges: list[tuple[int, int]]) -> list[int]:
        keys = [child_key(self._keys[node], action) for node, action in edges]
        nodes, hidden = self._store.extend([node for node, _ in edges], keys, self._draw)
        return self._remember(nodes, hidden, keys)

    def _remember(self, nodes: list[int], hidden: Tensor, keys: Sequence[int]) -> list[int]:
        self._keys.update(zip(nodes, keys, strict=True))
        self._values.update(zip(nodes, self._head(hidden).tolist(), strict=True))
        return nodes

    def _logits(self, nodes: Sequence[int]) -> Tensor:
        return torch.zeros(len(nodes), self.num_actions)

    def _draw(self, hidden: Tensor, keys: Sequence[int], place: int) -> Tensor:
        log_probabilities = self._output(hidden).float().log_softmax(-1)
        log_probabilities[:, self._end_id] = -torch.inf
        levels = torch.from_numpy(uniforms(keys, [place] * len(keys)))
        return self._proposal.draw(log_probabilities, levels)


STORES: dict[str, Callable[[Any], Any]] = {"rerun": RerunSegments, "copy": CopySegments}

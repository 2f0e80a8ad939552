"""A search tree's keys and values: every prefix is computed once and stored once.

A node is a run of tokens; its path from the prompt is a prefix. The keys and values of all nodes of
all prompts lie in one pool of rows, one row a token. To extend some nodes, the rows of their paths
are gathered into one batch, tokens are decoded from there, and only the new tokens' rows go back
into the pool. Any attention model whose cache is plain keys and values works; for the others
(sliding windows, linear attention, state spaces) every step runs the whole prefix again, which is
slow and right.

This file does not know about values, rewards or search.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from policies.language_model import Policy
from policies.proposals import Proposal

_logger = logging.getLogger(__name__)
_CHECK_TOLERANCE = 1e-3


class _GrowingLayer(DynamicLayer):
    """A layer's keys and values with room to grow, so that a new token is written, not appended."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.length = keys.shape[-2]
        self.keys = torch.nn.functional.pad(keys, (0, 0, 0, room))  # [R, heads, length + room, d]
        self.values = torch.nn.functional.pad(values, (0, 0, 0, room))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes new tokens behind the old ones and returns all so far."""
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Tokens held, the left padding included."""
        return self.length


@dataclass
class _Node:
    """One run of tokens in the tree.

    Attributes:
        parent: Its handle, -1 at a prompt.
        root: Handle of the prompt it answers.
        ids: Its own tokens.
        finished: Whether the response ends here.
        response_tokens: Tokens of the response up to and including this node.
        rows: Pool rows of the whole path, int64 [path]; empty where nothing was stored.
        hidden: Last hidden state [d] after the last token; None where the model did not see it.
        logits: Next-token logits [V], kept only where the head cannot make them from `hidden`.
    """

    parent: int
    root: int
    ids: list[int]
    finished: bool = False
    response_tokens: int = 0
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    hidden: Tensor | None = None
    logits: Tensor | None = None


class KVTree:
    """Segments of text under one or many prompts, and the model's state at the end of each.

    Attributes:
        generated_tokens: Tokens sampled, by the prompt's handle.
        forward_tokens: Tokens that the model was given, prompts and idle rows of a batch included.
    """

    def __init__(self, policy: Policy, proposal: Proposal, *, reencode: bool | None = None) -> None:
        """Makes an empty tree.

        Args:
            policy: Whose model runs.
            proposal: How segments are sampled.
            reencode: True never reuses keys and values; None decides by the model's kind of cache.
        """
        self.policy = policy
        self.proposal = proposal
        self.generated_tokens: dict[int, int] = {}
        self.forward_tokens = 0
        self._model = policy.model
        self._device = policy.model.device
        self._nodes: list[_Node] = []
        self._keys: list[Tensor] = []  # per layer [capacity, heads, d]
        self._values: list[Tensor] = []
        self._used = 0
        self._ends: Tensor | None = None
        self._head_makes_logits = False
        self._reencode = reencode

    # ------------------------------------------------------------------------------------ reading

    def finished(self, node: int) -> bool:
        """Whether the response ends at this node."""
        return self._nodes[node].finished

    def stops_at_once(self, node: int) -> bool:
        """Whether a node is the end token alone."""
        ids = self._nodes[node].ids
        return len(ids) == 1 and ids[0] in self.policy.end_ids

    def root(self, node: int) -> int:
        """The handle of the prompt that a node belongs to."""
        return self._nodes[node].root

    def segment_text(self, node: int) -> str:
        """The text of one node alone."""
        return self.policy.encoder.tokenizer.decode(self._nodes[node].ids, skip_special_tokens=True)

    def response_ids(self, node: int) -> list[int]:
        """The tokens from the prompt's end to this node."""
        ids: list[list[int]] = []
        while self._nodes[node].parent >= 0:
            ids.append(self._nodes[node].ids)
            node = self._nodes[node].parent
        return [token for run in reversed(ids) for token in run]

    def response_text(self, node: int) -> str:
        """The text from the prompt's end to this node, without special tokens."""
        ids = self.response_ids(node)
        return self.policy.encoder.tokenizer.decode(ids, skip_special_tokens=True)

    def hidden(self, nodes: Sequence[int]) -> Tensor:
        """Last hidden states [R, d] after the last token of unfinished nodes."""
        states = [self._nodes[node].hidden for node in nodes]
        assert all(state is not None for state in states), "finished nodes have no hidden state"
        return torch.stack(states)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------ growing

    @torch.inference_mode()
    def add_prompts(self, prompts: Sequence[list[int]]) -> list[int]:
        """Runs the model over prompts, all in one batch.

        Args:
            prompts: Token ids; none may be empty, and each needs room for a response.

        Returns:
            A handle for each.

        Raises:
            ValueError: If a prompt is empty or leaves no room in the model's context.
        """
        room = self.policy.room_for_prompts(self.proposal.max_new_tokens)
        for row, prompt in enumerate(prompts):
            if not prompt:
                raise ValueError(f"prompt {row} is empty; required: at least one token")
            if len(prompt) > room:
                raise ValueError(
                    f"prompt {row} has {len(prompt)} tokens; required: at most {room}, since the "
                    f"model's context is {self.policy.context} and max_new_tokens is "
                    f"{self.proposal.max_new_tokens}. Shorten the prompt or lower max_new_tokens"
                )
        if self._ends is None:
            self._prepare(prompts[0])
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        width = int(lengths.max())
        # Left padding ends every prompt in the last column, where decoding goes on. Models that
        # cannot reuse a cache may not know padding either, and get it on the right, unseen.
        starts = torch.zeros_like(lengths) if self._reencode else width - lengths
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (prompt, start) in enumerate(zip(prompts, starts.tolist(), strict=True)):
            ids[row, start : start + len(prompt)] = torch.tensor(prompt)
            mask[row, start : start + len(prompt)] = 1
        self.forward_tokens += ids.numel()
        output = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(self._device),
            use_cache=not self._reencode,
            output_hidden_states=True,
        )
        last = (torch.arange(len(prompts)), starts + lengths - 1)
        hidden, logits = output.hidden_states[-1][last], output.logits[last].float()
        handles = []
        for row, prompt in enumerate(prompts):
            handle = len(self._nodes)
            node = _Node(parent=-1, root=handle, ids=list(prompt), hidden=hidden[row].clone())
            if not self._head_makes_logits:
                node.logits = logits[row].clone()
            if not self._reencode:
                columns = range(width - len(prompt), width)
                node.rows = self._store(output.past_key_values.layers, [row] * len(prompt), columns)
            self._nodes.append(node)
            self.generated_tokens[handle] = 0
            handles.append(handle)
        return handles

    @torch.inference_mode()
    def extend(
        self,
        nodes: Sequence[int],
        *,
        generator: torch.Generator | None,
        forbid_end: Sequence[bool] | None = None,
    ) -> list[int]:
        """Samples one more segment after each of some unfinished nodes, all in one batch.

        Args:
            nodes: Handles; one may stand there several times and gets as many segments.
            generator: Source of randomness, on the model's device.
            forbid_end: Rows whose segment may not consist of the end token alone.

        Returns:
            A handle for each new segment.
        """
        end_ids = self.policy.end_ids
        sources = [self._nodes[node] for node in nodes]
        assert not any(source.finished for source in sources), "a finished node cannot be extended"
        batch = _Reencoded(self, nodes) if self._reencode else _Cached(self, nodes)
        made = [
            _Node(parent=node, root=source.root, ids=[], response_tokens=source.response_tokens)
            for node, source in zip(nodes, sources, strict=True)
        ]
        logits = self._next_logits(sources)  # [R, V]
        if forbid_end is not None:
            forbidden = torch.tensor(forbid_end, device=logits.device).nonzero()  # [F, 1]
            ends = torch.tensor(sorted(end_ids), device=logits.device)
            logits[forbidden, ends] = -torch.inf
        rows = list(range(len(nodes)))  # which new node each row of the batch decodes
        open_rows = set(rows)
        while open_rows:
            drawn = self.proposal.draw(logits, generator=generator)
            tokens = drawn.tolist()
            ended: set[int] = set()
            for line, row in enumerate(rows):
                if row not in open_rows:
                    continue
                node, token = made[row], tokens[line]
                node.ids.append(token)
                node.response_tokens += 1
                self.generated_tokens[node.root] += 1
                full = node.response_tokens >= self.proposal.max_new_tokens
                node.finished = token in end_ids or full
                if node.finished:
                    open_rows.discard(row)
                elif self._ends[token] or len(node.ids) >= self.proposal.segment_limit:  # type: ignore[index]
                    ended.add(row)
            if not open_rows:
                break
            if 2 * len(open_rows) <= len(rows):
                kept = [line for line, row in enumerate(rows) if row in open_rows]
                batch.commit(made, rows)
                batch.keep(kept)
                rows, drawn = [rows[line] for line in kept], drawn[kept]
            self.forward_tokens += batch.fed_tokens()
            logits, hidden = batch.feed(drawn)
            for line, row in enumerate(rows):
                if row in ended:
                    made[row].hidden = hidden[line].clone()
                    if not self._head_makes_logits:
                        made[row].logits = logits[line].clone()
            open_rows -= ended
        batch.commit(made, rows)
        first = len(self._nodes)
        self._nodes.extend(made)
        return list(range(first, first + len(made)))

    # ----------------------------------------------------------------------------------- internals

    def _prepare(self, prompt: list[int]) -> None:
        """Decides, on the first prompt, what can be reused, and checks it against a plain run."""
        ids = torch.tensor([prompt if len(prompt) > 1 else prompt * 3], device=self._device)
        output = self._model(input_ids=ids, use_cache=True, output_hidden_states=True)
        logits = output.logits[:, -1].float()
        self._ends = self.proposal.boundaries(self.policy.encoder.tokenizer, logits.shape[-1])
        head = self._model.get_output_embeddings()
        if head is not None:
            made = head(output.hidden_states[-1][:, -1]).float()
            self._head_makes_logits = bool(torch.allclose(made, logits, atol=_CHECK_TOLERANCE))
        layers = getattr(getattr(output, "past_key_values", None), "layers", None) or []
        plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        if self._reencode is None:
            self._reencode = not (plain and self._step_agrees(ids, logits))
            if self._reencode:
                kinds = sorted({type(layer).__name__ for layer in layers}) or ["no layers"]
                _logger.warning(
                    "the cache of %s (%s) cannot be shared by a search tree: every step runs the "
                    "whole prefix again",
                    type(self._model).__name__, ", ".join(kinds),
                )  # fmt: skip
        if not self._reencode:
            for layer in layers:
                for pool, states in ((self._keys, layer.keys), (self._values, layer.values)):
                    pool.append(states.new_empty(1024, states.shape[1], states.shape[3]))

    def _step_agrees(self, ids: Tensor, logits: Tensor) -> bool:
        """Whether the last token, fed to a gathered and padded cache, gives the same logits."""
        cache = self._model(input_ids=ids[:, :-1], use_cache=True).past_key_values
        padding = (0, 0, 2, 0)  # two columns on the left, as a batch of unequal paths has
        layers = [
            _GrowingLayer(
                torch.nn.functional.pad(layer.keys, padding),
                torch.nn.functional.pad(layer.values, padding),
                room=1,
            )
            for layer in cache.layers
        ]
        mask = torch.ones(1, ids.shape[1] + 2, dtype=torch.long, device=self._device)
        mask[:, :2] = 0
        step = (
            self._model(
                input_ids=ids[:, -1:],
                attention_mask=mask,
                position_ids=torch.tensor([[ids.shape[1] - 1]], device=self._device),
                past_key_values=_cache_of(layers),
                use_cache=True,
            )
            .logits[:, -1]
            .float()
        )
        scale = max(1.0, float(logits.abs().max()))
        tolerance = _CHECK_TOLERANCE if self._model.dtype == torch.float32 else 0.05
        return bool((logits - step).abs().max() < tolerance * scale)

    def _next_logits(self, sources: Sequence[_Node]) -> Tensor:
        """Next-token logits [R, V] after each node, float32."""
        if not self._head_makes_logits:
            return torch.stack([source.logits for source in sources])  # type: ignore[misc]
        hidden = torch.stack([source.hidden for source in sources])  # type: ignore[misc]
        return self._model.get_output_embeddings()(hidden).float()

    def _store(
        self, layers: Sequence[Any], rows: Sequence[int], columns: Sequence[int]
    ) -> np.ndarray:
        """Copies tokens of a batch into the pool.

        Args:
            layers: Of the batch's cache, keys and values [R, heads, L, d].
            rows: For each token its row of the batch.
            columns: For each token its place in the row.

        Returns:
            Pool rows, int64 [tokens].
        """
        end = self._used + len(rows)
        capacity = self._keys[0].shape[0]
        if end > capacity:
            grow = max(capacity, end - capacity)
            for pool in (self._keys, self._values):
                pool[:] = [torch.cat([t, t.new_empty(grow, *t.shape[1:])]) for t in pool]
        at = (
            torch.tensor(rows, device=self._device),
            slice(None),
            torch.tensor(columns, device=self._device),
        )
        for index, layer in enumerate(layers):
            self._keys[index][self._used : end] = layer.keys[at]  # [tokens, heads, d]
            self._values[index][self._used : end] = layer.values[at]
        stored = np.arange(self._used, end)
        self._used = end
        return stored


def _cache_of(layers: Sequence[DynamicLayer]) -> DynamicCache:
    cache: Any = DynamicCache()
    cache.layers = list(layers)
    return cache


class _Cached:
    """Rows that decode from keys and values gathered along their paths."""

    def __init__(self, tree: KVTree, nodes: Sequence[int]) -> None:
        self.tree = tree
        paths = [tree._nodes[node].rows for node in nodes]
        self.width = max(map(len, paths))
        gather = np.zeros((len(paths), self.width), np.int64)
        mask = np.zeros((len(paths), self.width), np.int64)
        for line, path in enumerate(paths):
            gather[line, self.width - len(path) :] = path
            mask[line, self.width - len(path) :] = 1
        index = torch.from_numpy(gather).to(tree._device)
        self.mask = torch.from_numpy(mask).to(tree._device)  # [R, width]
        self.position = self.mask.sum(-1, keepdim=True)  # [R, 1] of the next token
        room = tree.proposal.segment_limit
        self.layers = [
            # [R, width, heads, d] -> [R, heads, width, d]
            _GrowingLayer(keys[index].transpose(1, 2), values[index].transpose(1, 2), room)
            for keys, values in zip(tree._keys, tree._values, strict=True)
        ]
        self.cache = _cache_of(self.layers)
        self.steps = 0

    def fed_tokens(self) -> int:
        """Tokens that the next `feed` gives to the model."""
        return self.mask.shape[0]

    def feed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Gives each row one token; returns next logits [R, V] and hidden states [R, d]."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        output = self.tree._model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
            output_hidden_states=True,
        )
        self.position = self.position + 1
        self.steps += 1
        return output.logits[:, -1].float(), output.hidden_states[-1][:, -1]

    def commit(self, made: Sequence[_Node], rows: Sequence[int]) -> None:
        """Stores the new tokens of every row that has not been stored yet."""
        lines: list[int] = []
        columns: list[int] = []
        pending: list[tuple[_Node, int]] = []
        for line, row in enumerate(rows):
            node = made[row]
            if node.hidden is None:  # finished, or still being decoded
                continue
            if len(node.rows) == 0:
                lines += [line] * len(node.ids)
                columns += range(self.width, self.width + len(node.ids))
                pending.append((node, len(node.ids)))
        if not pending:
            return
        stored = self.tree._store(self.layers, lines, columns)
        for node, count in pending:
            mine, stored = stored[:count], stored[count:]
            node.rows = np.concatenate([self.tree._nodes[node.parent].rows, mine])

    def keep(self, lines: Sequence[int]) -> None:
        """Drops all rows but these."""
        index = torch.tensor(lines, device=self.mask.device)
        self.mask, self.position = self.mask[index], self.position[index]
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[index], layer.values[index]


class _Reencoded:
    """Rows that run their whole path again for every token; right for any causal model."""

    def __init__(self, tree: KVTree, nodes: Sequence[int]) -> None:
        self.tree = tree
        roots = (tree._nodes[tree.root(node)].ids for node in nodes)
        self.paths = [r + tree.response_ids(n) for r, n in zip(roots, nodes, strict=True)]

    def fed_tokens(self) -> int:
        """Tokens that the next `feed` gives to the model."""
        return len(self.paths) * (max(map(len, self.paths)) + 1)

    def feed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Gives each row one token; returns next logits [R, V] and hidden states [R, d]."""
        for path, token in zip(self.paths, tokens.tolist(), strict=True):
            path.append(token)
        lengths = torch.tensor([len(path) for path in self.paths])
        ids = torch.zeros(len(self.paths), int(lengths.max()), dtype=torch.long)
        for line, path in enumerate(self.paths):
            ids[line, : len(path)] = torch.tensor(path)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        device = self.tree._device
        output = self.tree._model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            use_cache=False,
            output_hidden_states=True,
        )
        at = (torch.arange(len(self.paths)), lengths - 1)
        return output.logits[at].float(), output.hidden_states[-1][at]

    def commit(self, made: Sequence[_Node], rows: Sequence[int]) -> None:
        """Nothing is stored."""

    def keep(self, lines: Sequence[int]) -> None:
        """Drops all rows but these."""
        self.paths = [self.paths[line] for line in lines]

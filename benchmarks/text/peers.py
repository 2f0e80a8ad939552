"""Other ways to run a model on the prefixes of a search tree, written from scratch.

Each store answers the same two calls, `start` and `feed`, and differs in what it keeps:

- `RerunStore` keeps token ids alone and runs the whole prefix of every new node, as searches
  do that use a model only as a function of its text (llm-reasoners, TS-LLM);
- `CopyStore` gives each node a cache of its own, cloned from its parent's, and `BatchedCopyStore`
  does so for all prompts in one forward pass;
- `PathStore` gives each node the keys and values of its own tokens, and lays the path out anew for
  every forward pass (PPO-MCTS).

All are written as a strong user would: prompts are run in one batch, the head runs on last tokens
alone, prefixes of equal length take no mask, and there is less bookkeeping than in the product.
`TokenPeer` gives any of them to a planner of `search`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from search import Embedding, RootOutput, StepOutput

Rows = Sequence[Tensor]
"""For each row the keys and values of all layers, [2 * layers, heads, tokens, d]."""


class Store(Protocol):
    """Prefixes of one model."""

    def start(self, prompts: Sequence[list[int]]) -> tuple[list[int], Tensor]:
        """Runs prompts in one batch; returns their handles and last hidden states [B, d]."""
        ...

    def feed(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """Puts a token behind each of R prefixes; returns handles and hidden states [R, d]."""
        ...


class BodyStore:
    """A store that runs a model's body."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._body = model.base_model


class RerunStore(BodyStore):
    """Keeps token ids."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._ids: list[list[int]] = []

    def start(self, prompts: Sequence[list[int]]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        return self._run([list(prompt) for prompt in prompts])

    def feed(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        return self._run([[*self._ids[p], t] for p, t in zip(parents, tokens, strict=True)])

    def _run(self, rows: list[list[int]]) -> tuple[list[int], Tensor]:
        width = max(map(len, rows))
        # Padded on the right, where a causal model does not look: no mask is needed.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        hidden = self._body(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(row) for row in rows]) - 1
        self._ids += rows
        handles = list(range(len(self._ids) - len(rows), len(self._ids)))
        return handles, hidden[torch.arange(len(rows)), last]


class CopyStore(BodyStore):
    """Keeps a cache for each node, made by `copy.deepcopy` of its parent's and one token more.

    That is how the documentation of transformers continues one prefix several times.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._caches: list[DynamicCache] = []

    def start(self, prompts: Sequence[list[int]]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        rows, hidden = prefill(self._body, prompts)
        self._caches += [laid_out([row])[0] for row in rows]
        return list(range(len(self._caches) - len(rows), len(self._caches))), hidden

    def feed(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        first, states = len(self._caches), []
        for parent, token in zip(parents, tokens, strict=True):
            cache = copy.deepcopy(self._caches[parent])
            output = self._body(
                input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True
            )
            self._caches.append(cache)
            states.append(output.last_hidden_state[:, -1])
        return list(range(first, len(self._caches))), torch.cat(states)


class BatchedCopyStore(BodyStore):
    """Keeps a cache for each node; those of a step's parents are laid side by side.

    One forward pass then serves all prompts, and each node keeps its row of the result, a copy
    of its whole prefix.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._rows: list[Tensor] = []  # [2 * layers, heads, tokens, d]

    def start(self, prompts: Sequence[list[int]]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        rows, hidden = prefill(self._body, prompts)
        self._rows += rows
        return list(range(len(self._rows) - len(rows), len(self._rows))), hidden

    def feed(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        pasts = [self._rows[parent] for parent in parents]
        cache, hidden = feed_rows(self._body, pasts, tokens)
        stacked = stacked_cache(cache)  # [2 * layers, R, heads, L + 1, d]
        for line, past in enumerate(pasts):
            row = stacked[:, line]
            length = past.shape[2]
            if length + 1 < row.shape[2]:
                row = torch.cat([row[:, :, :length], row[:, :, -1:]], dim=2)
            self._rows.append(row)
        return list(range(len(self._rows) - len(pasts), len(self._rows))), hidden


class PathStore(BodyStore):
    """Keeps each node's own keys and values."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._own: list[Tensor] = []  # [2 * layers, heads, own tokens, d]
        self._parents: list[int] = []

    def start(self, prompts: Sequence[list[int]]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        rows, hidden = prefill(self._body, prompts)
        return self._add(rows, [-1] * len(rows)), hidden

    def feed(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """See `Store`."""
        pasts = []
        for parent in parents:
            path, node = [], parent
            while node >= 0:
                path.append(self._own[node])
                node = self._parents[node]
            pasts.append(torch.cat(path[::-1], dim=2))
        cache, hidden = feed_rows(self._body, pasts, tokens)
        new = torch.stack([part[:, :, -1:] for layer in cache.layers
                           for part in (layer.keys, layer.values)])  # fmt: skip
        return self._add(list(new.unbind(1)), parents), hidden

    def _add(self, rows: Sequence[Tensor], parents: Sequence[int]) -> list[int]:
        self._own += rows
        self._parents += parents
        return list(range(len(self._own) - len(rows), len(self._own)))


class PeerPlanningModel(ABC):
    """A `search.PlanningModel` whose nodes are handles of a store of prefixes.

    Nothing but a leaf's value counts: rewards are 0 and discounts 1.
    """

    append_only: ClassVar[bool] = True

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions
        self._known: dict[tuple[int, int], int] = {}
        self._values: dict[int, float] = {}

    @torch.inference_mode()
    def root(
        self, observation: list[list[int]], *, generator: torch.Generator | None = None
    ) -> RootOutput:
        """The observation is the prompts' token ids."""
        logits, value, nodes = self._outputs(self._start(observation))
        return RootOutput(logits, value, torch.ones_like(logits, dtype=torch.bool), nodes)

    @torch.inference_mode()
    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """See `search.model.PlanningModel.step`."""
        edges = list(zip(embedding["node"].tolist(), action.tolist(), strict=True))
        fresh = [edge for edge in dict.fromkeys(edges) if edge not in self._known]
        if fresh:
            self._known.update(zip(fresh, self._extend(fresh), strict=True))
        logits, value, nodes = self._outputs([self._known[edge] for edge in edges])
        return StepOutput(
            prior_logits=logits,
            value=value,
            valid_actions=torch.ones_like(logits, dtype=torch.bool),
            embedding=nodes,
            reward=torch.zeros(len(edges)),
            discount=torch.ones(len(edges)),
        )

    def _outputs(self, nodes: Sequence[int]) -> tuple[Tensor, Tensor, Embedding]:
        values = torch.tensor([self._values[node] for node in nodes])
        return self._logits(nodes), values, {"node": torch.tensor(nodes)}

    @abstractmethod
    def _start(self, prompts: list[list[int]]) -> list[int]:
        """Handles of prompts, with their values in `_values`."""

    @abstractmethod
    def _extend(self, edges: list[tuple[int, int]]) -> list[int]:
        """Handles of new children, of node and action each, with their values in `_values`."""

    @abstractmethod
    def _logits(self, nodes: Sequence[int]) -> Tensor:
        """Prior logits, [R, K]."""


class TokenPeer(PeerPlanningModel):
    """Searches over ranked tokens.

    It makes the same decisions as `policies.planning.planning_model.TextPlanningModel` with unit
    `"token"`: the K likeliest tokens of a node are its actions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        store: Store,
        *,
        num_actions: int,
        end_id: int,
        value_of_hidden: Callable[[Tensor], Tensor],
        value_store: Store | None = None,
    ) -> None:
        """Takes the policy and how it is run.

        Args:
            model: The policy, for its head.
            store: Of its prefixes.
            num_actions: K.
            end_id: The token that may not be proposed, since responses here do not end.
            value_of_hidden: Values [R] of hidden states [R, d].
            value_store: Of the value model's prefixes; None values the policy's hidden states.
        """
        super().__init__(num_actions)
        head = model.get_output_embeddings()
        assert head is not None
        self._head = head
        self._store, self._value_store = store, value_store
        self._end_id, self._value_of_hidden = end_id, value_of_hidden
        self._value_nodes: dict[int, int] = {}  # the value model's handles
        self._ranked: dict[int, tuple[list[int], Tensor]] = {}

    def _start(self, prompts: list[list[int]]) -> list[int]:
        nodes, hidden = self._store.start(prompts)
        if self._value_store is not None:
            value_nodes, hidden_of_value = self._value_store.start(prompts)
            return self._remember(nodes, hidden, value_nodes, hidden_of_value)
        return self._remember(nodes, hidden, nodes, hidden)

    def _extend(self, edges: list[tuple[int, int]]) -> list[int]:
        parents = [node for node, _ in edges]
        tokens = [self._ranked[node][0][action] for node, action in edges]
        nodes, hidden = self._store.feed(parents, tokens)
        if self._value_store is not None:
            above = [self._value_nodes[parent] for parent in parents]
            value_nodes, hidden_of_value = self._value_store.feed(above, tokens)
            return self._remember(nodes, hidden, value_nodes, hidden_of_value)
        return self._remember(nodes, hidden, nodes, hidden)

    def _remember(
        self, nodes: list[int], hidden: Tensor, value_nodes: Sequence[int], valued: Tensor
    ) -> list[int]:
        logits = self._head(hidden).float().log_softmax(-1)
        logits[:, self._end_id] = -torch.inf
        weights, tokens = logits.topk(self.num_actions)
        self._ranked.update(zip(nodes, zip(tokens.tolist(), weights, strict=True), strict=True))
        self._values.update(zip(nodes, self._value_of_hidden(valued).tolist(), strict=True))
        self._value_nodes.update(zip(nodes, value_nodes, strict=True))
        return nodes

    def _logits(self, nodes: Sequence[int]) -> Tensor:
        return torch.stack([self._ranked[node][1] for node in nodes])


def prefill(body: nn.Module, prompts: Sequence[list[int]]) -> tuple[list[Tensor], Tensor]:
    """Runs prompts of equal length; returns each one's keys and values, and hidden states."""
    cache = DynamicCache()
    output = body(input_ids=torch.tensor(prompts), past_key_values=cache, use_cache=True)
    # Rows of their own, so that a prompt does not keep its whole batch in memory.
    return [row.contiguous() for row in stacked_cache(cache).unbind(1)], (
        output.last_hidden_state[:, -1]
    )


def feed_rows(body: nn.Module, pasts: Rows, tokens: Sequence[int]) -> tuple[DynamicCache, Tensor]:
    """Feeds one token behind each of R pasts, padded on their right to the longest.

    Returns:
        The cache, the new token in its last column, and hidden states [R, d].
    """
    cache, lengths = laid_out(pasts)
    hidden = step_rows(body, cache, lengths, torch.tensor(tokens), width=max(lengths))
    return cache, hidden


def laid_out(pasts: Rows) -> tuple[DynamicCache, list[int]]:
    """A cache with a row for each past, padded on the right; and the pasts' lengths."""
    lengths = [past.shape[2] for past in pasts]
    width = max(lengths)
    if len(pasts) == 1:
        whole = pasts[0][:, None]
    else:
        wide = [
            past
            if past.shape[2] == width
            else torch.nn.functional.pad(past, (0, 0, 0, width - past.shape[2]))
            for past in pasts
        ]
        whole = torch.stack(wide, dim=1)  # [2 * layers, R, heads, L, d]
    cache = DynamicCache()
    for keys, values in zip(whole[0::2], whole[1::2], strict=True):
        layer = DynamicLayer()
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache, lengths


def step_rows(
    body: nn.Module,
    cache: DynamicCache,
    lengths: Sequence[int],
    tokens: Tensor,
    *,
    width: int,
) -> Tensor:
    """Feeds one token [R] to each row of a cache.

    Args:
        body: Of the model.
        cache: What was laid out, and the tokens fed since.
        lengths: Of each row's past as it was laid out.
        tokens: int64 [R].
        width: Columns that were laid out; tokens fed since lie behind them.

    Returns:
        Hidden states [R, d].
    """
    known = torch.tensor(lengths)
    end = cache.get_seq_length() + 1
    mask = None
    if min(lengths) < width:
        column = torch.arange(end)
        seen = (column < known[:, None]) | (column >= width)  # [R, end]
        mask = torch.zeros(len(lengths), 1, 1, end)
        mask.masked_fill_(~seen[:, None, None], torch.finfo(mask.dtype).min)
    output = body(
        input_ids=tokens[:, None],
        attention_mask=mask,
        position_ids=(known + end - 1 - width)[:, None],
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state[:, 0]


def stacked_cache(cache: DynamicCache) -> Tensor:
    """The keys and values of all layers, [2 * layers, R, heads, tokens, d]."""
    parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    return torch.stack(parts)

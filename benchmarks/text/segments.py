"""Cell of the text-search benchmark that searches over blocks of sampled tokens.

The other sides draw the same tokens from the same keyed numbers as the product, and differ in what
a segment goes on from: the whole prefix run again, as a call of `generate` for each node does, or a
copy of its parent's cache. Both sample the segments of all prompts side by side.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.text.cells import (
    LEAVES,
    Cell,
    Outcome,
    Side,
    TimedRoot,
    depth,
    quiet_planner,
    root_visits,
)
from benchmarks.text.models import Subject
from benchmarks.text.peers import laid_out, prefill, stacked_cache, step_rows
from policies.generation.proposals import Proposal
from policies.generation.random import child_key, root_key, uniforms
from policies.generation.segment_tree import SegmentTree
from policies.planning.planning_model import TextPlanningModel
from policies.planning.scoring import TreeScorer
from search import Embedding, RootOutput, StepOutput

BLOCK = 12
Draw = Callable[[Tensor, Sequence[int], int], Tensor]
"""Draws a token for each row: hidden states [R, d], the segments' keys, and the token's place."""


class RerunSegments:
    """Remembers token ids; a segment's whole prefix is run into a cache that is then dropped."""

    def __init__(self, body: Any) -> None:
        """Takes a model's body."""
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

    def __init__(self, body: Any) -> None:
        """Takes a model's body."""
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
    body: Any,
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


class SegmentPlanningModel:
    """A `search.PlanningModel` over sampled segments with any of the stores above."""

    append_only: ClassVar[bool] = True

    def __init__(self, subject: Subject, store: Any, *, num_actions: int) -> None:
        """Takes the models and a store of the policy's prefixes."""
        self.num_actions = num_actions
        self._head, self._store = subject.head, store
        self._output = subject.policy.model.get_output_embeddings()
        self._end_id, self._proposal = subject.policy.encoder.end_id, Proposal(unit="block")
        self._known: dict[tuple[int, int], int] = {}
        self._keys: dict[int, int] = {}
        self._values: dict[int, float] = {}

    @torch.inference_mode()
    def root(
        self, observation: list[list[int]], *, generator: torch.Generator | None = None
    ) -> RootOutput:
        """The observation is the prompts' token ids."""
        nodes, hidden = self._store.start(observation)
        self._keys.update((node, root_key(0, number)) for number, node in enumerate(nodes))
        self._values.update(zip(nodes, self._head(hidden).tolist(), strict=True))
        shape = (len(nodes), self.num_actions)
        return RootOutput(
            torch.zeros(shape),
            torch.tensor([self._values[node] for node in nodes]),
            torch.ones(shape, dtype=torch.bool),
            {"node": torch.tensor(nodes)},
        )

    @torch.inference_mode()
    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """See `search.model.PlanningModel.step`."""
        edges = list(zip(embedding["node"].tolist(), action.tolist(), strict=True))
        fresh = [edge for edge in dict.fromkeys(edges) if edge not in self._known]
        if fresh:
            keys = [child_key(self._keys[node], slot) for node, slot in fresh]
            made, hidden = self._store.extend([node for node, _ in fresh], keys, self._draw)
            self._keys.update(zip(made, keys, strict=True))
            self._values.update(zip(made, self._head(hidden).tolist(), strict=True))
            self._known.update(zip(fresh, made, strict=True))
        nodes = [self._known[edge] for edge in edges]
        shape = (len(nodes), self.num_actions)
        return StepOutput(
            prior_logits=torch.zeros(shape),
            value=torch.tensor([self._values[node] for node in nodes]),
            valid_actions=torch.ones(shape, dtype=torch.bool),
            embedding={"node": torch.tensor(nodes)},
            reward=torch.zeros(len(nodes)),
            discount=torch.ones(len(nodes)),
        )

    def _draw(self, hidden: Tensor, keys: Sequence[int], place: int) -> Tensor:
        log_probabilities = self._output(hidden).float().log_softmax(-1)
        log_probabilities[:, self._end_id] = -torch.inf
        levels = torch.from_numpy(uniforms(keys, [place] * len(keys)))
        return self._proposal.draw(log_probabilities, levels)


STORES: dict[str, Callable[[Any], Any]] = {"rerun": RerunSegments, "copy": CopySegments}
TITLES = {
    "ours": "prefsearch, one leaf a step",
    "ours, 8 leaves": "prefsearch, 8 leaves a step",
    "rerun": "whole prefix again for each segment",
    "copy": "parent's cache copied for each segment",
}


@dataclass(frozen=True)
class SegmentSearches:
    """Makes sides that search over blocks of `BLOCK` tokens.

    Attributes:
        subject: The models.
        prompts: Texts of equally many tokens.
        simulations: Of each prompt.
        slots: K.
        planner: `"gumbel"` or `"muzero"`, without noise.
    """

    subject: Subject
    prompts: Sequence[str]
    simulations: int
    slots: int
    planner: str = "gumbel"

    def ours(self, leaves: int) -> Side:
        """The product."""
        subject, longest = self.subject, BLOCK * (self.simulations + 1)
        proposal = Proposal(
            unit="block", segment_tokens=BLOCK, max_new_tokens=longest, min_new_tokens=longest
        )

        def run() -> Outcome:
            began = time.process_time()
            tree = SegmentTree(subject.policy, proposal)
            roots = tree.add_ids(self._ids(), prompts=self.prompts)
            prompts = time.process_time() - began
            model = TextPlanningModel(
                TreeScorer(tree, subject.value_model), subject.head, self.slots
            )
            found = self._plan(model, leaves, torch.tensor(roots))
            return Outcome(
                root_visits(found),
                tree.idle_tokens,
                {"prompts": prompts},
                {"nodes": sum(model.segments.values()), "depth": depth(found)},
            )

        return run

    def peer(self, store: str, leaves: int = 1) -> Side:
        """Another way to go on from a prefix, by its name in `STORES`."""
        body = self.subject.policy.model.base_model

        def run() -> Outcome:
            model = SegmentPlanningModel(self.subject, STORES[store](body), num_actions=self.slots)
            timed = TimedRoot(model)
            found = self._plan(timed, leaves, self._ids())
            return Outcome(
                root_visits(found), None, {"prompts": timed.seconds}, {"depth": depth(found)}
            )

        return run

    def _plan(self, model: Any, leaves: int, observation: Any) -> Any:
        planner = quiet_planner(self.planner, self.simulations, slots=self.slots, leaves=leaves)
        return planner.plan(model, observation)

    def _ids(self) -> list[list[int]]:
        return [self.subject.policy.encoder.prompt_ids(prompt) for prompt in self.prompts]


def segment_cell(name: str, title: str, searches: SegmentSearches) -> Cell:
    """The cell of searches over blocks."""
    sides = {"ours": searches.ours(1), "ours, 8 leaves": searches.ours(LEAVES)}
    sides |= {store: searches.peer(store) for store in STORES}
    return Cell(
        name,
        title,
        sides,
        TITLES,
        (("ours", *STORES),),
        prompts=len(searches.prompts),
        work=searches.simulations,
    )

"""Cells of the text-search benchmark that search over tokens or over blocks of sampled tokens."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from benchmarks.text import segments
from benchmarks.text.models import Subject
from benchmarks.text.peers import (
    BatchedCopyStore,
    CopyStore,
    PathStore,
    PeerPlanningModel,
    RerunStore,
    Store,
    TokenPeer,
)
from benchmarks.text.run import Cell, Outcome, Side
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from policies.planning.leaf_values import LeafValue, PartialReward
from policies.planning.planning_model import TextPlanningModel
from policies.planning.scoring import TreeScorer
from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    Planner,
    PlanningModel,
    RootOutput,
    SearchOutput,
)

STORES: dict[str, Callable[[PreTrainedModel], Store]] = {
    "rerun": RerunStore,
    "copy": CopyStore,
    "copy, batched": BatchedCopyStore,
    "paths": PathStore,
}
TITLES = {
    "ours": "prefsearch, one leaf a step",
    "ours, 8 leaves": "prefsearch, 8 leaves a step",
    "rerun": "whole prefix again for each node",
    "copy": "a cache copied for each node",
    "copy, batched": "the same, prompts in one batch",
    "paths": "own keys/values, paths laid out anew",
}
BLOCK_TITLES = TITLES | {
    "rerun": "whole prefix again for each segment",
    "copy": "parent's cache copied for each segment",
}
LEAVES = 8


@dataclass(frozen=True)
class Searches:
    """Makes sides that search; all share prompts, planner, simulations and K.

    Attributes:
        subject: The models.
        prompts: Texts of equally many tokens.
        simulations: Of each prompt.
        num_actions: K.
        planner: `"gumbel"` or `"muzero"`, without noise.
        second_model: Whether the value model values leaves; if not, a head on hidden states does.
        blocks: Whether actions are blocks of sampled tokens; if not, they are ranked tokens.
    """

    subject: Subject
    prompts: Sequence[str]
    simulations: int
    num_actions: int
    planner: str = "gumbel"
    second_model: bool = False
    blocks: bool = False

    @property
    def stores(self) -> Mapping[str, Callable[[Any], Any]]:
        """The other ways to compute prefixes."""
        return segments.STORES if self.blocks else STORES

    def ours(self, leaves: int) -> Side:
        """The product: `TextPlanningModel` over `SegmentTree`."""
        subject = self.subject
        leaf_value: LeafValue = subject.head
        if self.second_model:
            leaf_value = PartialReward(subject.value_model, finished=False)

        def run() -> Outcome:
            began = time.process_time()
            tree = SegmentTree(subject.policy, self._proposal())
            roots = tree.add_ids(self._ids(), prompts=self.prompts)
            prompts = time.process_time() - began
            scorer = TreeScorer(tree, subject.value_model)
            model = TextPlanningModel(scorer, leaf_value, self.num_actions)
            timed = TimedRoot(model)
            found = self._planner(leaves).plan(timed, torch.tensor(roots))
            return Outcome(
                root_visits(found),
                tree.padding_tokens,
                {"prompts": prompts + timed.seconds},
                {"nodes": sum(model.segments.values()), "depth": depth(found)},
            )

        return run

    def peer(self, store: str, leaves: int = 1) -> Side:
        """Another way to compute prefixes, by its name in `stores`."""

        def run() -> Outcome:
            timed = TimedRoot(self._peer_model(self.stores[store]))
            found = self._planner(leaves).plan(timed, self._ids())
            parts = {"prompts": timed.seconds}
            return Outcome(root_visits(found), parts=parts, counts={"depth": depth(found)})

        return run

    def cell(self, name: str, title: str) -> Cell:
        """Ours with one and with 8 leaves, and all stores."""
        sides = {"ours": self.ours(1), "ours, 8 leaves": self.ours(LEAVES)}
        sides |= {store: self.peer(store) for store in self.stores}
        titles = BLOCK_TITLES if self.blocks else TITLES
        return Cell(
            name,
            title,
            sides,
            {side: titles[side] for side in sides},
            (("ours", *self.stores),),
            prompts=len(self.prompts),
            work=self.simulations,
        )

    def _proposal(self) -> Proposal:
        """Nothing ends within the tree, so that every simulation makes a node."""
        if self.blocks:
            longest, size = segments.BLOCK * (self.simulations + 1), segments.BLOCK
            return Proposal(
                unit="block", segment_tokens=size, max_new_tokens=longest, min_new_tokens=longest
            )
        longest = len(self._ids()[0]) + self.simulations
        return Proposal(unit="token", max_new_tokens=longest, min_new_tokens=longest)

    def _peer_model(self, make: Callable[[Any], Any]) -> PeerPlanningModel:
        subject, classifier = self.subject, self.subject.value_model.model
        policy = subject.policy.model
        if self.blocks:
            store = make(policy.base_model)
            return segments.SegmentPeer(subject, store, num_actions=self.num_actions)
        value: Any = subject.head
        if self.second_model:
            value = lambda hidden: classifier.score(hidden)[:, 0]  # noqa: E731
        return TokenPeer(
            policy,
            make(policy),
            num_actions=self.num_actions,
            end_id=subject.policy.encoder.end_id,
            value_of_hidden=value,
            value_store=make(classifier) if self.second_model else None,
        )

    def _ids(self) -> list[list[int]]:
        return [self.subject.policy.encoder.prompt_ids(prompt) for prompt in self.prompts]

    def _planner(self, leaves: int) -> Planner:
        leaves = min(leaves, self.simulations)
        if self.planner == "muzero":
            return MuZeroPlanner(
                self.simulations, dirichlet_fraction=0.0, temperature=0.0, leaves_per_step=leaves
            )
        return GumbelMuZeroPlanner(
            self.simulations,
            max_num_considered_actions=self.num_actions,
            gumbel_scale=0.0,
            leaves_per_step=leaves,
        )


class TimedRoot:
    """A planning model that measures the CPU seconds of its root."""

    append_only: ClassVar[bool] = True

    def __init__(self, model: PlanningModel) -> None:
        self.num_actions, self.step = model.num_actions, model.step
        self.seconds = 0.0
        self._model = model

    def root(self, observation: object, *, generator: torch.Generator | None = None) -> RootOutput:
        """See `search.model.PlanningModel.root`."""
        began = time.process_time()
        found = self._model.root(observation, generator=generator)
        self.seconds += time.process_time() - began
        return found


def root_visits(found: SearchOutput) -> list[list[int]]:
    """Visits of the root's actions, [B][K]."""
    assert found.tree is not None
    return found.tree.children_visits[:, found.tree.ROOT].tolist()


def depth(found: SearchOutput) -> int:
    """Edges from the root to the deepest node of any tree."""
    assert found.tree is not None
    deepest = 0
    for line in found.tree.parents.tolist():
        depths: dict[int, int] = {0: 0}
        for node, parent in enumerate(line):
            if parent >= 0 and node > 0:
                depths[node] = depths.get(parent, 0) + 1
        deepest = max(deepest, *depths.values())
    return deepest

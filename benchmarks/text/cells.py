"""Cells of the text-search benchmark that search over tokens: one search, and one decision.

A side is a function that makes one whole search from the prompts' tokens to the decision and says
what it decided. All sides of a cell share prompts, planner, simulations and slots.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.text.models import Subject
from benchmarks.text.peers import (
    BatchedCopyStore,
    CopyStore,
    PathStore,
    PeerPlanningModel,
    RerunStore,
    Store,
)
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

STORES: dict[str, Callable[[Any], Store]] = {
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
LEAVES = 8


@dataclass(frozen=True)
class Outcome:
    """What a side did.

    Attributes:
        visits: Of the root's slots, [B][K], where there is a tree.
        padding: Tokens among those given to the models that filled batches up, if the side knows.
        parts: CPU seconds of parts, by name.
        counts: Whatever else is worth knowing.
    """

    visits: list[list[int]] | None = None
    padding: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)


Side = Callable[[], Outcome]


@dataclass(frozen=True)
class Cell:
    """Sides that are timed in turn.

    Attributes:
        name: In the results.
        title: In words.
        sides: By name; the first is the yardstick of all ratios.
        titles: Of the sides.
        agree: Groups of sides that must decide alike.
        prompts: How many.
        work: Simulations or responses for each prompt.
    """

    name: str
    title: str
    sides: dict[str, Side]
    titles: dict[str, str]
    agree: tuple[tuple[str, ...], ...]
    prompts: int
    work: int


@dataclass(frozen=True)
class Searches:
    """Makes sides that search over tokens.

    Attributes:
        subject: The models.
        prompts: Texts of equally many tokens.
        simulations: Of each prompt.
        slots: K.
        planner: `"gumbel"` or `"muzero"`, without noise.
        second_model: Whether the value model values leaves; if not, a head on hidden states does.
    """

    subject: Subject
    prompts: Sequence[str]
    simulations: int
    slots: int
    planner: str = "gumbel"
    second_model: bool = False

    def ours(self, leaves: int) -> Side:
        """The product: `TextPlanningModel` over `SegmentTree`."""
        subject = self.subject
        length = len(self._ids()[0])
        # Nothing ends within the tree, so that every simulation makes a node.
        proposal = Proposal(
            unit="token", max_new_tokens=length + self.simulations, min_new_tokens=length
            + self.simulations,
        )  # fmt: skip
        leaf_value: LeafValue = subject.head
        if self.second_model:
            leaf_value = PartialReward(subject.value_model, finished=False)

        def run() -> Outcome:
            began = time.process_time()
            tree = SegmentTree(subject.policy, proposal)
            roots = tree.add_ids(self._ids(), prompts=self.prompts)
            prompts = time.process_time() - began
            scorer = TreeScorer(tree, subject.value_model)
            model = TextPlanningModel(scorer, leaf_value, self.slots)
            timed = TimedRoot(model)
            found = self._planner(leaves).plan(timed, torch.tensor(roots))
            made = sum(model.segments.values())
            return Outcome(
                root_visits(found),
                tree.idle_tokens,
                {"prompts": prompts + timed.seconds},
                {"nodes": made, "depth": depth(found)},
            )

        return run

    def peer(self, store: str, leaves: int = 1) -> Side:
        """Another way to compute prefixes, by its name in `STORES`."""
        subject, make = self.subject, STORES[store]
        policy = subject.policy.model
        classifier = subject.value_model.model

        def score(hidden: Tensor) -> Tensor:
            return classifier.score(hidden)[:, 0]

        def run() -> Outcome:
            model = PeerPlanningModel(
                policy,
                make(policy),
                num_actions=self.slots,
                end_id=subject.policy.encoder.end_id,
                value_of_hidden=score if self.second_model else subject.head,
                value_store=make(classifier) if self.second_model else None,
            )
            timed = TimedRoot(model)
            found = self._planner(leaves).plan(timed, self._ids())
            return Outcome(
                root_visits(found),
                parts={"prompts": timed.seconds},
                counts={"depth": depth(found)},
            )

        return run

    def _ids(self) -> list[list[int]]:
        return [self.subject.policy.encoder.prompt_ids(prompt) for prompt in self.prompts]

    def _planner(self, leaves: int) -> Planner:
        return quiet_planner(self.planner, self.simulations, slots=self.slots, leaves=leaves)


def quiet_planner(name: str, simulations: int, *, slots: int, leaves: int) -> Planner:
    """A tree search without noise, `"gumbel"` or `"muzero"`."""
    leaves = min(leaves, simulations)
    if name == "muzero":
        return MuZeroPlanner(
            simulations, dirichlet_fraction=0.0, temperature=0.0, leaves_per_step=leaves
        )
    return GumbelMuZeroPlanner(
        simulations, max_num_considered_actions=slots, gumbel_scale=0.0, leaves_per_step=leaves
    )


class TimedRoot:
    """A planning model that knows how many CPU seconds its root took."""

    append_only: ClassVar[bool] = True

    def __init__(self, model: PlanningModel) -> None:
        self.num_actions, self.step = model.num_actions, model.step
        self.seconds = 0.0
        self._model = model

    def root(self, observation: Any, *, generator: torch.Generator | None = None) -> RootOutput:
        """See `search.model.PlanningModel.root`."""
        began = time.process_time()
        found = self._model.root(observation, generator=generator)
        self.seconds += time.process_time() - began
        return found


def root_visits(found: SearchOutput) -> list[list[int]]:
    """Visits of the root's slots, [B][K]."""
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


def search_cell(name: str, title: str, searches: Searches, stores: Sequence[str]) -> Cell:
    """A cell of searches over tokens: ours with one and with 8 leaves, and other stores."""
    sides = {"ours": searches.ours(1), "ours, 8 leaves": searches.ours(LEAVES)}
    sides |= {store: searches.peer(store) for store in stores}
    return Cell(
        name,
        title,
        sides,
        {side: TITLES[side] for side in sides},
        (("ours", *stores),),
        prompts=len(searches.prompts),
        work=searches.simulations,
    )

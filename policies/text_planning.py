"""Text as a planning problem: states are prefixes, actions are slots for sampled segments.

Samples of the policy are exchangeable, so their prior is uniform over the K slots of a node, and a
slot is drawn only when it is first stepped into: a simulation costs one segment, and no token goes
into a child that the search never visits. Finished text earns the reward model's score with
discount 0. The embedding is a handle into the key/value tree, so the core moves integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from policies.kv_tree import KVTree
from policies.leaf_values import LeafValue
from rewardmodel.interface import RewardModel
from search import Embedding, RootOutput, StepOutput


@dataclass
class TextPlanningModel:
    """A `search.PlanningModel` over one key/value tree.

    Attributes:
        tree: Where segments live; prompts are added by the caller.
        prompts: The prompt's text, by its handle.
        reward_model: Scores finished responses.
        leaf_value: Values unfinished ones.
        num_actions: K, the slots of a node.
        scores: Scores of the finished nodes, by handle.
    """

    append_only: ClassVar[bool] = True  # every row stepped is text that was generated

    tree: KVTree
    prompts: dict[int, str]
    reward_model: RewardModel
    leaf_value: LeafValue
    num_actions: int
    scores: dict[int, float] = field(default_factory=dict)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)
    _stops: set[int] = field(default_factory=set)

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Describes unfinished nodes to plan from.

        Args:
            observation: int64 [B], handles of prompts or of committed segments.
            generator: Not used; nothing is drawn here.
        """
        nodes = observation.tolist()
        return RootOutput(
            prior_logits=torch.zeros(len(nodes), self.num_actions),
            value=self._values(nodes),
            valid_actions=torch.ones(len(nodes), self.num_actions, dtype=torch.bool),
            embedding={"node": observation},
        )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Steps into slots; one that was stepped into before costs nothing.

        Args:
            embedding: `{"node": int64 [R]}`.
            action: int64 [R], the slot at each node.
            generator: Source of randomness for new segments.
        """
        edges = list(zip(embedding["node"].tolist(), action.tolist(), strict=True))
        self._draw([edge for edge in dict.fromkeys(edges) if self._is_new(edge)], generator)
        already_over = torch.tensor([self.tree.finished(node) for node, _ in edges])
        nodes = [node if self.tree.finished(node) else self.child(node, k) for node, k in edges]
        over = torch.tensor([self.tree.finished(node) for node in nodes])
        reward = torch.tensor([self.scores.get(node, 0.0) for node in nodes])
        return StepOutput(
            prior_logits=torch.zeros(len(nodes), self.num_actions),
            value=self._values(nodes),
            valid_actions=(~over)[:, None].expand(-1, self.num_actions),  # [R, K]
            embedding={"node": torch.tensor(nodes)},
            reward=reward.masked_fill(already_over, 0.0),
            discount=(~over).float(),
        )

    def child(self, node: int, slot: int) -> int:
        """The handle of a segment that was drawn before."""
        return self._children[node, slot]

    def drawn(self, node: int, slot: int) -> bool:
        """Whether a slot has been stepped into."""
        return (node, slot) in self._children

    def segments(self) -> dict[int, int]:
        """How many segments were drawn, by the prompt's handle."""
        counts = dict.fromkeys(self.prompts, 0)
        for node, _ in self._children:
            counts[self.tree.root(node)] += 1
        return counts

    def best_finished(self, prompt: int) -> int | None:
        """The finished node with the highest score under a prompt, the earliest of equals."""
        under = [node for node in self.scores if self.tree.root(node) == prompt]
        return max(under, key=lambda node: self.scores[node], default=None)

    def _is_new(self, edge: tuple[int, int]) -> bool:
        return not self.tree.finished(edge[0]) and edge not in self._children

    def _draw(self, edges: Sequence[tuple[int, int]], generator: torch.Generator | None) -> None:
        """Samples one segment for each new slot and scores those that finish the response."""
        if not edges:
            return
        # Two slots that both stop here would be one child twice: only the first may.
        forbid = [node in self._stops for node, _ in edges]
        made = self.tree.extend([n for n, _ in edges], generator=generator, forbid_end=forbid)
        finished = []
        for (node, slot), child in zip(edges, made, strict=True):
            self._children[node, slot] = child
            if self.tree.finished(child):
                finished.append(child)
                if self.tree.stops_at_once(child):
                    self._stops.add(node)
        if finished:
            scores = self.reward_model.score(
                [self.prompts[self.tree.root(node)] for node in finished],
                [self.tree.response_text(node) for node in finished],
            )
            self.scores.update(zip(finished, scores.tolist(), strict=True))

    def _values(self, nodes: Sequence[int]) -> Tensor:
        """Values [R]: 0 where the response is over, the leaf value elsewhere."""
        values = torch.zeros(len(nodes))
        alive = [line for line, node in enumerate(nodes) if not self.tree.finished(node)]
        if alive:
            values[alive] = self.leaf_value.values(
                self.tree, self.prompts, [nodes[i] for i in alive]
            )
        return values

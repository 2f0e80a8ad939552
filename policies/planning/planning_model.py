"""Text as a planning problem: a state is a prefix, an action one of K proposals at a node.

Samples of the policy are exchangeable, so their prior is uniform over the K proposals of a node,
and one is sampled only when it is first stepped into: a simulation costs one segment, and no token
goes into a child that the search never visits. Ranked tokens have the node's own probabilities as
priors. Finished text earns the reward model's score with discount 0. The embedding is a handle into
the `SegmentTree`, so the core moves integers.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from policies.generation.sampling import require_finite
from policies.planning.leaf_values import LeafValue
from policies.planning.scoring import TreeScorer
from policies.planning.segment_rewards import SegmentReward
from search import Embedding, RootOutput, StepOutput

Edge = tuple[int, int]
"""A node's handle and an action."""


@dataclass(frozen=True)
class _Ranked:
    """The likeliest tokens of a node: ids, log-probabilities, and prior logits [K]."""

    tokens: list[int]
    log_probabilities: list[float]
    logits: Tensor


@dataclass
class TextPlanningModel:
    """A `search.PlanningModel` over one batch of prompts.

    An action that the token budget does not pay for leads nowhere: it ends there, with the value of
    its node.

    Attributes:
        scorer: The tree of text, and the reward model.
        leaf_value: Values unfinished nodes.
        num_actions: K, the proposals of a node.
        segment_reward: What segments earn on the way, beside the score at the end.
        resamples: How often a segment that equals a sibling is sampled again before its action
            leads to that sibling; None lets siblings be equal.
        token_budget: The most tokens sampled for a prompt; None for no limit.
        closed: Prompts whose budget is spent.
        segments: How many segments were sampled, by the prompt's handle.
    """

    append_only: ClassVar[bool] = True  # every row stepped is text that was generated

    scorer: TreeScorer
    leaf_value: LeafValue
    num_actions: int
    segment_reward: SegmentReward | None = None
    resamples: int | None = None
    token_budget: int | None = None
    closed: set[int] = field(default_factory=set)
    segments: Counter[int] = field(default_factory=Counter)
    _ranked: dict[int, _Ranked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keeps the tree at hand."""
        self.tree = self.scorer.tree

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Describes unfinished nodes to plan from.

        Args:
            observation: int64 [B], handles of prompts or of committed segments.
            generator: Not used; random numbers are keyed by place.
        """
        nodes = observation.tolist()
        logits, valid = self._priors(nodes)
        return RootOutput(
            prior_logits=logits,
            value=self._node_values(nodes),
            valid_actions=valid,
            embedding={"node": observation},
        )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Samples what actions lead to; one that was sampled before costs nothing.

        Args:
            embedding: `{"node": int64 [R]}`.
            action: int64 [R].
            generator: Not used.
        """
        tree = self.tree
        edges = list(zip(embedding["node"].tolist(), action.tolist(), strict=True))
        self._sample_within_budget(self._new(edges))
        nodes, rewards, over = [], [], []
        for node, choice in edges:
            segment = tree.segment(node)
            child = segment.children.get(choice)
            if child is not None:
                reached = tree.segment(child)
                nodes.append(child)
                rewards.append((reached.reward or 0.0) + (reached.score or 0.0))
                over.append(reached.finished)
            else:  # beyond a finished response, or beyond the budget
                nodes.append(node)
                rewards.append(0.0 if segment.finished else segment.value or 0.0)
                over.append(True)
        alive = [node for node, ended in zip(nodes, over, strict=True) if not ended]
        known = iter(self._node_values(alive).tolist())
        values = [0.0 if ended else next(known) for ended in over]
        logits, valid = self._priors(nodes)
        return StepOutput(
            prior_logits=logits,
            value=torch.tensor(values),
            valid_actions=valid & ~torch.tensor(over)[:, None],
            embedding={"node": torch.tensor(nodes)},
            reward=torch.tensor(rewards),
            discount=(~torch.tensor(over)).float(),
        )

    def sample(self, edges: Sequence[Edge]) -> None:
        """Samples actions, whatever the budget; those that were sampled before stay."""
        self._sample(self._new(edges))

    # ----------------------------------------------------------------------------------- internals

    def _new(self, edges: Sequence[Edge]) -> list[Edge]:
        """The edges that were not sampled before, each once."""
        segment = self.tree.segment
        return [
            (node, action)
            for node, action in dict.fromkeys(edges)
            if not segment(node).finished and action not in segment(node).children
        ]

    def _priors(self, nodes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Prior logits and valid actions [R, K] of nodes; finished ones have any."""
        shape = (len(nodes), self.num_actions)
        if not self.tree.proposal.ranked:
            return torch.zeros(shape), torch.ones(shape, dtype=torch.bool)
        fresh = [node for node in dict.fromkeys(nodes)
                 if node not in self._ranked and not self.tree.finished(node)]  # fmt: skip
        if fresh:
            tokens, weights, chances = self.tree.ranked(fresh, self.num_actions)
            known = chances.tolist()
            require_finite([self.tree.segment(n) for n in fresh], known, self.tree.describe)
            rows = zip(fresh, tokens.tolist(), known, weights.cpu(), strict=True)
            for node, mine, log_probabilities, logits in rows:
                self._ranked[node] = _Ranked(mine, log_probabilities, logits)
        logits = torch.full(shape, -torch.inf)
        for line, node in enumerate(nodes):
            if node in self._ranked:
                own = self._ranked[node].logits
                logits[line, : len(own)] = own
        valid = logits > -torch.inf
        return logits.masked_fill(~valid, 0.0), valid

    def _sample_within_budget(self, edges: Sequence[Edge]) -> None:
        """Samples new actions as far as the prompts' budgets reach, in order.

        A segment is sampled only if the budget pays for it at its longest and, as long as no
        response is finished, for finishing this one: so a line can always be finished. What was not
        paid for beside others is tried again when the length of those is known.
        """
        if self.token_budget is None:
            self._sample(edges)
            return
        while edges and (paid := self._affordable(edges)):
            self._sample([edge for edge in edges if edge in paid])
            edges = [edge for edge in edges if edge not in paid]
            if edges and self.leaf_value.samples:  # values cost tokens, too
                made = [self.tree.segment(node).children[action] for node, action in paid]
                self._node_values([n for n in made if not self.tree.finished(n)])
        self.closed |= {self.tree.root(node) for node, _ in edges}

    def _affordable(self, edges: Sequence[Edge]) -> set[Edge]:
        """The edges that the prompts' budgets pay for whatever comes of them, first ones first."""
        assert self.token_budget is not None
        tree = self.tree
        left: dict[int, int] = {}
        finished: dict[int, bool] = {}  # by prompt
        paid: set[Edge] = set()
        for node, action in edges:
            root = tree.root(node)
            if root not in left:
                left[root] = self.token_budget - tree.generated_tokens[root]
                finished[root] = tree.best_finished(root) is not None
            to_the_end = tree.proposal.max_new_tokens - tree.segment(node).length
            longest = min(tree.proposal.segment_limit, to_the_end)
            again = longest * (self.resamples or 0)
            most = longest + again
            if self.leaf_value.samples:  # the value goes on from the segment to the end
                most += to_the_end
            # What is sampled again is spent beside the line that has to be finished.
            needed = most if finished[root] else max(most, again + to_the_end)
            if left[root] >= needed:
                paid.add((node, action))
                left[root] -= most
            else:
                left[root] = -1  # what comes later waits its turn
        return paid

    def _sample(self, edges: Sequence[Edge]) -> None:
        """Samples a segment for each new action, scores those that finish, rewards all."""
        if not edges:
            return
        tree = self.tree
        if tree.proposal.ranked:
            ranked = [(self._ranked[node], action) for node, action in edges]
            made = tree.append(
                [node for node, _ in edges],
                [known.tokens[action] for known, action in ranked],
                [known.log_probabilities[action] for known, action in ranked],
            )
        else:
            made = tree.extend([node for node, _ in edges], [action for _, action in edges])
            if self.resamples is not None:
                made = self._distinct(edges, made, resamples=self.resamples)
        new = []
        for (node, action), child in zip(edges, made, strict=True):
            tree.segment(node).children[action] = child
            if tree.segment(child).reward is None:
                tree.segment(child).reward = 0.0
                self.segments[tree.root(child)] += 1
                new.append(child)
        if self.segment_reward is not None and new:
            earned = self.segment_reward.rewards(self.scorer, new).tolist()
            self._require_finite(new, earned, source=self.segment_reward)
            for node, reward in zip(new, earned, strict=True):
                tree.segment(node).reward = reward
        finished = [node for node in new if tree.finished(node)]
        if finished:
            self.scorer.score_finished(finished)

    def _distinct(self, edges: Sequence[Edge], made: Sequence[int], *, resamples: int) -> list[int]:
        """Samples segments again that equal a sibling; those that still do become that sibling."""
        tree, made = self.tree, list(made)
        for attempt in range(resamples + 1):
            siblings = {
                (node, tuple(tree.segment(child).ids)): child
                for node, _ in edges
                for child in tree.segment(node).children.values()
            }
            repeats = {}  # line of `edges` to the equal sibling
            for line, (node, _) in enumerate(edges):
                key = (node, tuple(tree.segment(made[line]).ids))
                first = siblings.setdefault(key, made[line])
                if first != made[line]:
                    repeats[line] = first
            if not repeats:
                break
            if attempt == resamples:
                return [repeats.get(line, child) for line, child in enumerate(made)]
            again = tree.extend(
                [edges[line][0] for line in repeats],
                [edges[line][1] for line in repeats],
                attempts=[attempt + 1] * len(repeats),
            )
            for line, child in zip(repeats, again, strict=True):
                made[line] = child
        return made

    def _node_values(self, nodes: Sequence[int]) -> Tensor:
        """Leaf values [R] of unfinished nodes, each computed once."""
        segment = self.tree.segment
        fresh = [node for node in dict.fromkeys(nodes) if segment(node).value is None]
        if fresh:
            values = self.leaf_value.values(self.scorer, fresh).tolist()
            self._require_finite(fresh, values, source=self.leaf_value)
            for node, value in zip(fresh, values, strict=True):
                segment(node).value = value
        return torch.tensor([segment(node).value for node in nodes])

    def _require_finite(
        self, nodes: Sequence[int], values: Sequence[float], *, source: object
    ) -> None:
        """Refuses values of nodes that are not finite, naming prompt and text."""
        for node, value in zip(nodes, values, strict=True):
            if not math.isfinite(value):
                raise ValueError(
                    f"{self.tree.describe(node)}: {type(source).__name__} gave {value} for the "
                    f"response so far, {self.tree.response_text(node)[:80]!r}; required: finite "
                    "numbers. Fit or train its model again, or take another dtype"
                )

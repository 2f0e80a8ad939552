"""Text as a planning problem: states are prefixes, actions are slots for segments.

Samples of the policy are exchangeable, so their prior is uniform over the K slots of a node, and a
slot is drawn only when it is first stepped into: a simulation costs one segment, and no token goes
into a child that the search never visits. Ranked tokens have the node's own probabilities as
priors. Finished text earns the reward model's score with discount 0. The embedding is a handle into
the key/value tree, so the core moves integers.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from policies.planning.context import TextContext
from policies.planning.leaf_values import LeafValue
from policies.planning.segment_rewards import SegmentReward
from search import Embedding, RootOutput, StepOutput

Edge = tuple[int, int]
"""A node's handle and a slot."""


@dataclass(frozen=True)
class _Ranked:
    """The likeliest tokens of a node: themselves, under the policy, and as prior logits [K]."""

    tokens: list[int]
    log_probabilities: list[float]
    logits: Tensor


@dataclass
class TextPlanningModel:
    """A `search.PlanningModel` over one batch of prompts.

    A slot that the token budget does not reach leads nowhere: it ends there, worth what its node is
    worth.

    Attributes:
        context: The tree, the prompts and what finished.
        leaf_value: Values unfinished nodes.
        num_actions: K, the slots of a node.
        segment_reward: What segments earn on the way, beside the score at the end.
        redraws: How often a segment is drawn again if a sibling says the same, before its slot is
            made to lead to that sibling; None lets siblings be equal.
        token_budget: The most tokens sampled for a prompt; None for no limit.
        closed: Prompts whose budget is spent.
        segments: How many segments were drawn, by the prompt's handle.
    """

    append_only: ClassVar[bool] = True  # every row stepped is text that was generated

    context: TextContext
    leaf_value: LeafValue
    num_actions: int
    segment_reward: SegmentReward | None = None
    redraws: int | None = None
    token_budget: int | None = None
    closed: set[int] = field(default_factory=set)
    segments: Counter[int] = field(default_factory=Counter)
    _children: dict[int, dict[int, int]] = field(default_factory=dict)
    _rewards: dict[int, float] = field(default_factory=dict)
    _values: dict[int, float] = field(default_factory=dict)
    _ranked: dict[int, _Ranked] = field(default_factory=dict)

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Describes unfinished nodes to plan from.

        Args:
            observation: int64 [B], handles of prompts or of committed segments.
            generator: Not used; draws are keyed by place.
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
        """Steps into slots; one that was stepped into before costs nothing.

        Args:
            embedding: `{"node": int64 [R]}`.
            action: int64 [R], the slot at each node.
            generator: Not used.
        """
        tree = self.context.tree
        edges = list(zip(embedding["node"].tolist(), action.tolist(), strict=True))
        self._draw([edge for edge in dict.fromkeys(edges) if self._is_new(edge)])
        nodes, rewards, over = [], [], []
        for node, slot in edges:
            child = self._children.get(node, {}).get(slot)
            if child is not None:
                nodes.append(child)
                rewards.append(self._rewards[child] + self.context.scores.get(child, 0.0))
                over.append(tree.finished(child))
            else:  # beyond a finished response, or beyond the budget
                nodes.append(node)
                rewards.append(0.0 if tree.finished(node) else self._values.get(node, 0.0))
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

    def drawn(self, node: int) -> dict[int, int]:
        """The children of a node by slot, as far as they were drawn."""
        return self._children.get(node, {})

    def draw(self, edges: Sequence[Edge]) -> None:
        """Draws slots, whatever the budget says; those that were drawn before stay."""
        self._fill([edge for edge in dict.fromkeys(edges) if self._is_new(edge)])

    def below(self, node: int) -> Iterable[int]:
        """A node and all its unfinished descendants."""
        waiting = [node]
        while waiting:
            at = waiting.pop()
            if not self.context.tree.finished(at):
                yield at
                waiting += set(self.drawn(at).values())

    def forget_all_but(self, nodes: Collection[int]) -> None:
        """Forgets the children of all other nodes; drawn again, a slot holds what it held."""
        for node in list(self._children):
            if node not in nodes:
                del self._children[node]
                continue
            self._children[node] = {
                slot: child
                for slot, child in self._children[node].items()
                if child in nodes or self.context.tree.finished(child)
            }

    # ----------------------------------------------------------------------------------- internals

    def _is_new(self, edge: Edge) -> bool:
        node, slot = edge
        return not self.context.tree.finished(node) and slot not in self._children.get(node, {})

    def _priors(self, nodes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Prior logits and valid actions [R, K] of nodes; finished ones have any."""
        shape = (len(nodes), self.num_actions)
        if not self.context.tree.proposal.ranked:
            return torch.zeros(shape), torch.ones(shape, dtype=torch.bool)
        fresh = [node for node in dict.fromkeys(nodes)
                 if node not in self._ranked and not self.context.tree.finished(node)]  # fmt: skip
        if fresh:
            tokens, weights, chances = self.context.tree.ranked(fresh, self.num_actions)
            said = chances.tolist()
            tree = self.context.tree
            tree.require_finite([tree.segment(node) for node in fresh], said)
            rows = zip(fresh, tokens.tolist(), said, weights.cpu(), strict=True)
            for node, mine, log_probabilities, logits in rows:
                self._ranked[node] = _Ranked(mine, log_probabilities, logits)
        logits = torch.full(shape, -torch.inf)
        for line, node in enumerate(nodes):
            if node in self._ranked:
                known = self._ranked[node].logits
                logits[line, : len(known)] = known
        valid = logits > -torch.inf
        return logits.masked_fill(~valid, 0.0), valid

    def _draw(self, edges: Sequence[Edge]) -> None:
        """Draws new slots as far as the prompts' budgets reach, in order.

        A segment is drawn only if the budget pays for it at its longest and, as long as no response
        is finished, for finishing this one: so a line can always be finished. What was not paid for
        beside others is tried again when it is known how long those became.
        """
        while edges and self.token_budget is not None:
            paid = self._affordable(edges)
            if not paid:
                break
            self._fill([edge for edge in edges if edge in paid])
            edges = [edge for edge in edges if edge not in paid]
            if edges and self.leaf_value.samples:  # values cost tokens, too
                made = [self._children[node][slot] for node, slot in paid]
                self._node_values([n for n in made if not self.context.tree.finished(n)])
        if self.token_budget is None:
            self._fill(edges)
        else:
            self.closed |= {self.context.tree.root(node) for node, _ in edges}

    def _affordable(self, edges: Sequence[Edge]) -> set[Edge]:
        """The edges that the prompts' budgets pay for whatever comes of them, first ones first."""
        assert self.token_budget is not None
        tree = self.context.tree
        left: dict[int, int] = {}
        finished: dict[int, bool] = {}  # by prompt
        paid: set[Edge] = set()
        for node, slot in edges:
            root = tree.root(node)
            if root not in left:
                left[root] = self.token_budget - tree.generated_tokens[root]
                finished[root] = self.context.best_finished(root) is not None
            to_the_end = tree.proposal.max_new_tokens - tree.segment(node).length
            longest = min(tree.proposal.segment_limit, to_the_end)
            again = longest * (self.redraws or 0)
            most = longest + again
            if self.leaf_value.samples:  # the value goes on from the segment to the end
                most += to_the_end
            # What is drawn again is spent beside the line that has to be finished.
            needed = most if finished[root] else max(most, again + to_the_end)
            if left[root] >= needed:
                paid.add((node, slot))
                left[root] -= most
            else:
                left[root] = -1  # what comes later waits its turn
        return paid

    def _fill(self, edges: Sequence[Edge]) -> None:
        """Draws a segment for each new slot, scores those that finish, rewards all."""
        if not edges:
            return
        tree = self.context.tree
        if tree.proposal.ranked:
            ranked = [(self._ranked[node], slot) for node, slot in edges]
            made = tree.append(
                [node for node, _ in edges],
                [known.tokens[slot] for known, slot in ranked],
                [known.log_probabilities[slot] for known, slot in ranked],
            )
        else:
            made = tree.extend([node for node, _ in edges], [slot for _, slot in edges])
            if self.redraws is not None:
                made = self._distinct(edges, made, redraws=self.redraws)
        new = []
        for (node, slot), child in zip(edges, made, strict=True):
            self._children.setdefault(node, {})[slot] = child
            if child not in self._rewards:
                self._rewards[child] = 0.0
                self.segments[tree.root(child)] += 1
                new.append(child)
        if self.segment_reward is not None and new:
            earned = self.segment_reward.rewards(self.context, new).tolist()
            self._require_finite(new, earned, said_by=self.segment_reward)
            self._rewards.update(zip(new, earned, strict=True))
        finished = [node for node in new if tree.finished(node)]
        if finished:
            self.context.judge(finished)

    def _distinct(self, edges: Sequence[Edge], made: Sequence[int], *, redraws: int) -> list[int]:
        """Draws segments again that repeat a sibling; what still does becomes that sibling."""
        tree, made = self.context.tree, list(made)
        for attempt in range(redraws + 1):
            said = {
                (node, tuple(tree.segment(child).ids)): child
                for node, _ in edges
                for child in self.drawn(node).values()
            }
            repeats = {}  # line of `edges` to the sibling that says the same
            for line, (node, _) in enumerate(edges):
                first = said.setdefault((node, tuple(tree.segment(made[line]).ids)), made[line])
                if first != made[line]:
                    repeats[line] = first
            if not repeats:
                break
            if attempt == redraws:
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
        """Leaf values [R] of unfinished nodes, each asked for once."""
        fresh = [node for node in dict.fromkeys(nodes) if node not in self._values]
        if fresh:
            values = self.leaf_value.values(self.context, fresh).tolist()
            self._require_finite(fresh, values, said_by=self.leaf_value)
            self._values.update(zip(fresh, values, strict=True))
        return torch.tensor([self._values[node] for node in nodes])

    def _require_finite(
        self, nodes: Sequence[int], values: Sequence[float], *, said_by: object
    ) -> None:
        """Refuses values of nodes that are no numbers, naming prompt and text."""
        for node, value in zip(nodes, values, strict=True):
            if not math.isfinite(value):
                tree = self.context.tree
                raise ValueError(
                    f"{tree.describe(tree.root(node))}: {type(said_by).__name__} gave {value} for "
                    f"the response so far, {tree.response_text(node)[:80]!r}; required: finite "
                    "numbers. Fit or train its model again, or take another dtype"
                )

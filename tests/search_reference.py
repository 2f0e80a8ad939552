"""Oracles for the planning core: random table models, and the search written as plain recursion.

The reference searches one tree of Python objects, keeps every return it ever backed up, and
knows nothing of tensors: what it shares with `search` is the papers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from search import Embedding, RootOutput, StepOutput


@dataclass
class TableModel:
    """T random MDPs of S states; an observation `[B]` names the table of each row, state 0 starts.

    Tables: `next_state`, `reward`, `discount` `[T, S, A]`; `prior_logits`, `valid_actions`
    `[T, S, A]` and `value` `[T, S]` of each state. `step_rows` logs the rows of each step call.
    """

    next_state: Tensor
    reward: Tensor
    discount: Tensor
    prior_logits: Tensor
    valid_actions: Tensor
    value: Tensor
    step_rows: list[int] = field(default_factory=list)

    @property
    def num_actions(self) -> int:
        return self.reward.shape[2]

    def root(self, observation: Tensor, *, generator: Any = None) -> RootOutput:
        state = torch.zeros_like(observation)
        trace = torch.full((observation.shape[0], 3), -1, dtype=torch.int32)
        return RootOutput(
            prior_logits=self.prior_logits[observation, state],
            value=self.value[observation, state],
            valid_actions=self.valid_actions[observation, state],
            embedding={"table": observation, "state": state, "trace": trace},
        )

    def step(self, embedding: Embedding, action: Tensor, *, generator: Any = None) -> StepOutput:
        self.step_rows.append(action.shape[0])
        table, state = embedding["table"], embedding["state"]
        child = self.next_state[table, state, action]
        trace = torch.cat([embedding["trace"][:, 1:], action[:, None].int()], dim=1)
        return StepOutput(
            prior_logits=self.prior_logits[table, child],
            value=self.value[table, child],
            valid_actions=self.valid_actions[table, child],
            embedding={"table": table, "state": child, "trace": trace},
            reward=self.reward[table, state, action],
            discount=self.discount[table, state, action],
        )


def random_tables(
    seed: int,
    *,
    num_tables: int = 4,
    num_states: int = 30,
    num_actions: int = 5,
    discount: float = 0.97,
    invalid: float = 0.0,
    invalid_at_root: float | None = None,
    dead: float = 0.0,
    terminal: float = 0.0,
    uniform_prior: bool = False,
    dtype: torch.dtype = torch.float64,
) -> TableModel:
    """Random tables: `invalid` share of actions, `dead` of states, `terminal` of transitions."""
    generator = torch.Generator().manual_seed(seed)
    states, edges = (num_tables, num_states), (num_tables, num_states, num_actions)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    logits = 2 * torch.randn(edges, generator=generator, dtype=torch.float64)
    valid = uniform(*edges) >= invalid
    if invalid_at_root is not None:
        valid[:, 0] = uniform(num_tables, num_actions) >= invalid_at_root
    spare = torch.randint(num_actions, states, generator=generator)
    valid |= torch.nn.functional.one_hot(spare, num_actions).bool()
    is_dead = uniform(*states) < dead
    is_dead[:, 0] = False
    return TableModel(
        next_state=torch.randint(num_states, edges, generator=generator),
        reward=(2 * uniform(*edges) - 1).to(dtype),
        discount=torch.where(uniform(*edges) < terminal, 0.0, discount).to(dtype),
        prior_logits=(torch.zeros_like(logits) if uniform_prior else logits).to(dtype),
        valid_actions=valid & ~is_dead.unsqueeze(-1),
        value=(4 * uniform(*states) - 2).to(dtype),
    )


def degenerate_tables(
    seed: int,
    *,
    num_tables: int = 8,
    num_states: int = 8,
    num_actions: int = 3,
    gap: float = 2.0**-10,
    far: float = 1.0,
    shared: float = 0.3,
    invalid: float = 0.0,
    terminal: float = 0.0,
    discount: float = 1.0,
    uniform_prior: bool = False,
    dtype: torch.dtype = torch.float64,
) -> TableModel:
    """Tables in which little tells the actions apart.

    Values are multiples of `gap`, 0 to 3 of them (0: all are equal), but every third state's is
    `far` above, which no successor confirms. Of the edges, `shared` have the successor and the
    reward of the action before. All numbers are exact in float32.
    """
    generator = torch.Generator().manual_seed(seed)
    states, edges = (num_tables, num_states), (num_tables, num_states, num_actions)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    overrated = uniform(*states) < 1 / 3
    value = gap * torch.randint(4, states, generator=generator) + far * overrated
    next_state = torch.randint(num_states, edges, generator=generator)
    # A successor that is worth more than it should be is paid for on the way to it.
    tables = torch.arange(num_tables).view(-1, 1, 1)
    reward = -discount * far * overrated[tables, next_state].double()
    reward += gap * torch.randint(2, edges, generator=generator)
    same = uniform(*edges) < shared
    for action in range(1, num_actions):
        for table in (next_state, reward):
            before, own = table[..., action - 1], table[..., action]
            table[..., action] = torch.where(same[..., action], before, own)
    logits = 2 * torch.randn(edges, generator=generator, dtype=torch.float64)
    valid = uniform(*edges) >= invalid
    spare = torch.randint(num_actions, states, generator=generator)
    valid |= torch.nn.functional.one_hot(spare, num_actions).bool()
    ends = uniform(*edges) < terminal
    return TableModel(
        next_state=next_state,
        reward=reward.to(dtype),
        discount=torch.where(ends, 0.0, discount).to(dtype),
        prior_logits=(torch.zeros_like(logits) if uniform_prior else logits).to(dtype),
        valid_actions=valid,
        value=value.to(dtype),
    )


def hopeless_prior_table() -> TableModel:
    """One table, float32, of 40 states and 2 actions, whose priors hide where the value is.

    Action 0 of every state leads to one that is worth little, and action 1 is hopeless by its
    logit, by less than the unscaled Q-values differ; neither weight survives `prior * exp(Q)`.
    """
    states = torch.arange(40)
    value = torch.full((1, 40), 100.0)
    value[0, 3::2] = -100.0
    edges = (1, 40, 2)
    return TableModel(
        next_state=torch.stack([(2 * states + 1) % 40, (2 * states + 2) % 40], dim=1).unsqueeze(0),
        reward=torch.zeros(edges),
        discount=torch.ones(edges),
        prior_logits=torch.tensor([0.0, -200.0]).expand(edges).contiguous(),
        valid_actions=torch.ones(edges, dtype=torch.bool),
        value=value,
    )


@dataclass
class Node:
    """A node of the reference: its state's tables, its edges, every return backed up into it."""

    state: int
    raw: float
    prior: list[float]
    valid: list[bool]
    terminal: bool
    index: int
    returns: list[float]
    children: dict[int, tuple[float, float, "Node"]] = field(default_factory=dict)
    waiting: int = 0
    hidden: bool = False
    guess: float = 0.0
    arrival: tuple["Node", int, tuple[float, float, "Node"]] | None = None

    @property
    def value(self) -> float:
        """Mean of all returns, the raw value being the first; a guess before the model spoke."""
        return self.guess if self.hidden else sum(self.returns) / len(self.returns)

    @property
    def count(self) -> int:
        return len(self.returns) + self.waiting

    def hide(self, guess: float) -> None:
        """Makes a fresh node one of which only its parent's value is known."""
        self.hidden, self.guess, self.returns = True, guess, []

    def speak(self) -> None:
        if self.hidden and self.arrival is not None:
            parent, action, edge = self.arrival
            self.hidden = False
            parent.children[action] = edge

    def visits(self, action: int) -> int:
        return self.children[action][2].count if action in self.children else 0

    def q(self, action: int) -> float:
        reward, discount, child = self.children[action]
        return reward + discount * child.value


Score = Callable[[Node], list[float]]


def softmax(logits: list[float]) -> list[float]:
    """Softmax of a list; -inf has probability 0, a list of nothing else is uniform."""
    top = max(logits)
    if top == -math.inf:
        return [1 / len(logits)] * len(logits)
    exps = [math.exp(logit - top) for logit in logits]
    return [e / sum(exps) for e in exps]


def first_best(scores: list[float], allowed: list[bool]) -> int:
    return max((a for a, ok in enumerate(allowed) if ok), key=lambda a: (scores[a], -a))


def q_by_parent_and_siblings(node: Node) -> list[float]:
    """Q-values to [0, 1] by the least and greatest of node value and visited Q-values."""
    known = [node.value] + [node.q(a) for a in node.children]
    low, span = min(known), max(max(known) - min(known), 1e-8)
    return [(node.q(a) - low) / span if a in node.children else 0 for a in range(len(node.valid))]


def q_completed(node: Node, c_visit: float = 50.0, c_scale: float = 0.1) -> list[float]:
    """Completed, rescaled and scaled Q-values."""
    actions = range(len(node.valid))
    num_visits = sum(node.visits(a) for a in actions)
    mixed = node.raw
    if node.children:
        mass = sum(node.prior[a] for a in node.children)
        weighted = sum(node.prior[a] * node.q(a) for a in node.children) / mass
        mixed = (node.raw + num_visits * weighted) / (1 + num_visits)
    completed = [node.q(a) if a in node.children else mixed for a in actions]
    low, span = min(completed), max(max(completed) - min(completed), 1e-8)
    scale = (c_visit + max(node.visits(a) for a in actions)) * c_scale
    return [scale * (q - low) / span for q in completed]


class ReferenceSearch:
    """One search of one table: MuZero's (`gumbel=None`), EfficientZero's or Gumbel MuZero's.

    With `leaves_per_step` above 1 a step first walks that many times, each walk counting as a visit
    of what it passes, and only then learns what the leaves are worth.
    """

    def __init__(
        self,
        model: TableModel,
        table: int,
        *,
        num_simulations: int,
        max_depth: int | None = None,
        gumbel: list[float] | None = None,
        max_considered: int = 16,
        efficientzero: bool = False,
        leaves_per_step: int = 1,
    ) -> None:
        self.tables = {
            name: getattr(model, name)[table].tolist()
            for name in ("next_state", "reward", "discount", "prior_logits", "valid_actions")
        }
        self.values = model.value[table].tolist()
        self.max_depth = num_simulations if max_depth is None else max_depth
        self.gumbel = gumbel
        self.root = self.make_node(0, discount=1.0, index=0)
        num_valid = sum(self.root.valid)
        self.schedule = self.halving(min(max_considered, num_valid), num_simulations)
        self.efficientzero = efficientzero
        for first in range(0, num_simulations, leaves_per_step):
            last = min(first + leaves_per_step, num_simulations)
            walks = [self.walk(simulation) for simulation in range(first, last)]
            for leaf, _ in walks:
                leaf.speak()
            for leaf, path in walks:
                leaf.returns.append(leaf.raw)
                leaf.waiting -= 1
                value = leaf.raw
                for node, action in reversed(path):
                    reward, discount, _ = node.children[action]
                    value = reward + discount * value
                    node.returns.append(value)
                    node.waiting -= 1

    def make_node(self, state: int, *, discount: float, index: int) -> Node:
        valid = self.tables["valid_actions"][state]
        logits = self.tables["prior_logits"][state]
        logits = [logit if ok else -math.inf for logit, ok in zip(logits, valid, strict=True)]
        terminal = discount == 0 or not any(valid)
        raw = self.values[state]
        return Node(state, raw, softmax(logits), valid, terminal, index, [raw])

    def walk(self, simulation: int) -> tuple[Node, list[tuple[Node, int]]]:
        """Goes down to a leaf, counting visits; returns it and the edges passed."""
        node, path = self.root, []
        self.sibling_mean = 0.0
        while True:
            action = self.select(node, len(path), simulation)
            node.waiting += 1
            path.append((node, action))
            if action not in node.children:
                edge = (node.state, action)
                reward, discount, state = (
                    self.tables[name][edge[0]][edge[1]]
                    for name in ("reward", "discount", "next_state")
                )
                child = self.make_node(state, discount=discount, index=simulation + 1)
                child.hide(node.value)
                node.children[action] = (0.0, 1.0, child)
                child.arrival = (node, action, (reward, discount, child))
                child.waiting += 1
                return child, path
            node = node.children[action][2]
            if node.terminal or node.hidden or len(path) == self.max_depth:
                node.waiting += 1
                return node, path

    def select(self, node: Node, depth: int, simulation: int) -> int:
        actions = range(len(node.valid))
        if self.efficientzero:
            return self.select_by_tree_bounds(node)
        if self.gumbel is None:
            n, q = node.count, q_by_parent_and_siblings(node)
            rate = math.sqrt(n) * (1.25 + math.log((n + 19652 + 1) / 19652))
            scores = [q[a] + rate * node.prior[a] / (1 + node.visits(a)) for a in actions]
            return first_best(scores, node.valid)
        if depth == 0:
            level = self.schedule[simulation]
            allowed = [node.valid[a] and node.visits(a) == level for a in actions]
            return first_best(self.root_scores(), allowed)
        improved = self.improved_policy(node)
        total = sum(node.visits(a) for a in actions)
        return first_best([improved[a] - node.visits(a) / (1 + total) for a in actions], node.valid)

    def select_by_tree_bounds(self, node: Node) -> int:
        """EfficientZero's PUCT: Q-values scaled over the tree, unvisited ones by their siblings."""
        known = [node.q(a) for a in node.children]
        above = [self.sibling_mean] if node is not self.root else []
        self.sibling_mean = sum(known + above) / max(1, len(known + above))
        bounds, stack = [], [self.root]
        while stack:
            at = stack.pop()
            bounds += [at.q(a) for a in at.children]
            stack += [child for _, _, child in at.children.values()]
        total = sum(node.visits(a) for a in node.children)
        rate = math.sqrt(total) * (1.25 + math.log((total + 19652 + 1) / 19652))
        scores = []
        for a, prior in enumerate(node.prior):
            q = node.q(a) if a in node.children else self.sibling_mean
            if bounds and max(bounds) > min(bounds):
                q = (q - min(bounds)) / max(max(bounds) - min(bounds), 0.01)
            scores.append(min(max(q, 0), 1) + rate * prior / (1 + node.visits(a)))
        return first_best(scores, node.valid)

    def root_scores(self) -> list[float]:
        assert self.gumbel is not None
        logits = [math.log(p) if p > 0 else -math.inf for p in self.root.prior]
        terms = zip(self.gumbel, logits, q_completed(self.root), strict=True)
        return [sum(term) for term in terms]

    def improved_policy(self, node: Node) -> list[float]:
        logits = [math.log(p) if p > 0 else -math.inf for p in node.prior]
        return softmax([x + q for x, q in zip(logits, q_completed(node), strict=True)])

    def decide(self) -> int:
        """The action: of the most visited the one of greatest value, for Gumbel of best score."""
        counts = [self.root.visits(a) for a in range(len(self.root.valid))]
        most = [c == max(counts) for c in counts]
        if self.gumbel is not None:
            return first_best(self.root_scores(), most)
        return first_best([self.root.q(a) if m else 0.0 for a, m in enumerate(most)], most)

    @staticmethod
    def halving(num_considered: int, num_simulations: int) -> list[int]:
        """Sequential Halving played out on a row of arms; the count each pull required."""
        arms = [0] * num_considered
        rounds = max(1, math.ceil(math.log2(num_considered)))
        alive, pulls = num_considered, []
        while len(pulls) < num_simulations:
            for _ in range(max(1, int(num_simulations / (rounds * alive)))):
                for arm in range(alive):
                    pulls.append(arms[arm])
                    arms[arm] += 1
            alive = min(alive, max(2, alive // 2))
        return pulls[:num_simulations]


def to_dict(node: Node, edge: tuple[int, float, float, float] | None = None) -> dict[str, Any]:
    """A reference tree in the form of `Tree.to_dict`; `edge` is action, prior, reward, discount."""
    action, prior, reward, discount = edge or (None, None, None, None)
    return {
        "node": node.index,
        "action": action,
        "visits": node.count,
        "value": node.value,
        "prior": prior,
        "reward": reward,
        "discount": discount,
        "children": [
            to_dict(child, (a, node.prior[a], r, d))
            for a, (r, d, child) in sorted(node.children.items())
        ],
    }


def assert_same_tree(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Compares two nested trees: integers exactly, floats within an absolute tolerance."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key == "children":
            assert len(found[key]) == len(value)
            for child, other in zip(found[key], value, strict=True):
                assert_same_tree(child, other, tolerance)
        elif isinstance(value, float):
            assert abs(found[key] - value) <= tolerance, (key, found[key], value)
        else:
            assert found[key] == value, (key, found, expected)

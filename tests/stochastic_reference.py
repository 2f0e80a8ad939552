"""Oracles for planning with chance: random stochastic tables, the search as recursion, expectimax.

As in `search_reference`, the reference search knows nothing of tensors. A chance node is a `Node`
whose valid actions are its outcomes, numbered from A.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from search import AfterstateOutput, Embedding, RootOutput, StepOutput
from tests.search_reference import Node, first_best, q_by_parent_and_siblings, softmax

TRACE = 4


@dataclass
class StochasticTable:
    """T random games of S states, A actions and C outcomes; an observation `[B]` names the table.

    Of states: `prior_logits`, `valid_actions` `[T, S, A]`, `value` `[T, S]`. Of afterstates:
    `chance_logits`, `valid_outcomes` `[T, S, A, C]`, `afterstate_value` `[T, S, A]`. Of outcomes:
    `next_state`, `reward`, `discount` `[T, S, A, C]`.

    States and afterstates have leaves of one name (`where`) and of different shapes and dtypes;
    `trace` and `path` remember the last four actions and outcomes, numbered from A. `calls` logs
    the function and the rows of each call.
    """

    prior_logits: Tensor
    valid_actions: Tensor
    value: Tensor
    chance_logits: Tensor
    valid_outcomes: Tensor
    afterstate_value: Tensor
    next_state: Tensor
    reward: Tensor
    discount: Tensor
    calls: list[tuple[str, int]] = field(default_factory=list)

    @property
    def num_actions(self) -> int:
        return self.reward.shape[2]

    @property
    def num_outcomes(self) -> int:
        return self.reward.shape[3]

    def root(self, observation: Tensor, *, generator: Any = None) -> RootOutput:
        state = torch.zeros_like(observation)
        trace = torch.full((len(observation), TRACE), -1, dtype=torch.int32)
        return RootOutput(
            prior_logits=self.prior_logits[observation, state],
            value=self.value[observation, state],
            valid_actions=self.valid_actions[observation, state],
            embedding={"table": observation, "where": state, "trace": trace},
        )

    def step_action(
        self, embedding: Embedding, action: Tensor, *, generator: Any = None
    ) -> AfterstateOutput:
        self.calls.append(("action", len(action)))
        assert embedding.keys() == {"table", "where", "trace"}
        table, state = embedding["table"], embedding["where"]
        # A leaf of the same name as a state's, of another shape and dtype.
        where = torch.stack([state, action], dim=1).to(torch.int16)
        path = torch.cat([embedding["trace"][:, 1:], action[:, None].int()], dim=1)
        return AfterstateOutput(
            chance_logits=self.chance_logits[table, state, action],
            value=self.afterstate_value[table, state, action],
            valid_outcomes=self.valid_outcomes[table, state, action],
            embedding={"row": table, "where": where, "path": path.double()},
        )

    def step_outcome(
        self, embedding: Embedding, outcome: Tensor, *, generator: Any = None
    ) -> StepOutput:
        self.calls.append(("outcome", len(outcome)))
        assert embedding.keys() == {"row", "where", "path"}
        table, (state, action) = embedding["row"], embedding["where"].long().unbind(dim=1)
        edge = (table, state, action, outcome)
        child = self.next_state[edge]
        event = (outcome + self.num_actions)[:, None].int()
        trace = torch.cat([embedding["path"][:, 1:].int(), event], dim=1)
        return StepOutput(
            prior_logits=self.prior_logits[table, child],
            value=self.value[table, child],
            valid_actions=self.valid_actions[table, child],
            embedding={"table": table, "where": child, "trace": trace},
            reward=self.reward[edge],
            discount=self.discount[edge],
        )


def random_games(
    seed: int,
    *,
    num_tables: int = 4,
    num_states: int = 20,
    num_actions: int = 4,
    num_outcomes: int = 3,
    discount: float = 0.97,
    invalid: float = 0.0,
    invalid_at_root: float | None = None,
    invalid_outcomes: float = 0.0,
    dead: float = 0.0,
    terminal: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> StochasticTable:
    """Random games: `invalid` share of actions and outcomes, `dead` states, `terminal` edges."""
    generator = torch.Generator().manual_seed(seed)
    states = (num_tables, num_states)
    pairs = (*states, num_actions)
    edges = (*pairs, num_outcomes)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def keep_one(valid: Tensor) -> Tensor:
        spare = torch.randint(valid.shape[-1], valid.shape[:-1], generator=generator)
        return valid | torch.nn.functional.one_hot(spare, valid.shape[-1]).bool()

    valid = uniform(*pairs) >= invalid
    if invalid_at_root is not None:
        valid[:, 0] = uniform(num_tables, num_actions) >= invalid_at_root
    is_dead = uniform(*states) < dead
    is_dead[:, 0] = False
    return StochasticTable(
        prior_logits=(2 * normal(*pairs)).to(dtype),
        valid_actions=keep_one(valid) & ~is_dead.unsqueeze(-1),
        value=(4 * uniform(*states) - 2).to(dtype),
        chance_logits=(1.5 * normal(*edges)).to(dtype),
        valid_outcomes=keep_one(uniform(*edges) >= invalid_outcomes),
        afterstate_value=(4 * uniform(*pairs) - 2).to(dtype),
        next_state=torch.randint(1, num_states, edges, generator=generator),
        reward=(2 * uniform(*edges) - 1).to(dtype),
        discount=torch.where(uniform(*edges) < terminal, 0.0, discount).to(dtype),
    )


class StochasticReference:
    """One search of one table; `root` is its result."""

    def __init__(
        self,
        model: StochasticTable,
        table: int,
        *,
        num_simulations: int,
        max_depth: int | None = None,
    ) -> None:
        names = [name for name in vars(model) if name != "calls"]
        self.tables = {name: getattr(model, name)[table].tolist() for name in names}
        self.num_actions, self.num_outcomes = model.num_actions, model.num_outcomes
        self.max_depth = num_simulations if max_depth is None else max_depth
        self.root = self.state_node(0, discount=1.0, index=0)
        for simulation in range(num_simulations):
            self.simulate(self.root, depth=0, index=simulation + 1)

    def state_node(self, state: int, *, discount: float, index: int) -> Node:
        """A fresh decision node; its index among the tables is the state's."""
        valid = self.tables["valid_actions"][state] + [False] * self.num_outcomes
        logits = self.tables["prior_logits"][state] + [0.0] * self.num_outcomes
        terminal = discount == 0 or not any(valid)
        return self.node(state, self.tables["value"][state], logits, valid, terminal, index)

    def afterstate_node(self, state: int, action: int, *, index: int) -> Node:
        """A fresh chance node; its index among the tables is -1 - (state * A + action)."""
        valid = [False] * self.num_actions + self.tables["valid_outcomes"][state][action]
        logits = [0.0] * self.num_actions + self.tables["chance_logits"][state][action]
        key = -1 - (state * self.num_actions + action)
        value = self.tables["afterstate_value"][state][action]
        return self.node(key, value, logits, valid, False, index)

    def node(self, key, raw, logits, valid, terminal, index) -> Node:
        logits = [logit if ok else -math.inf for logit, ok in zip(logits, valid, strict=True)]
        return Node(key, raw, softmax(logits), valid, terminal, index, [raw])

    def simulate(self, node: Node, *, depth: int, index: int) -> float:
        """Backs one return up into `node` and says which."""
        if depth == self.max_depth or node.terminal:
            result = node.raw
        else:
            action = self.select(node)
            if action in node.children:
                reward, discount, child = node.children[action]
                deeper = self.simulate(child, depth=depth + 1, index=index)
            else:
                reward, discount, child = node.children[action] = self.expand(node, action, index)
                deeper = child.raw
            result = reward + discount * deeper
        node.returns.append(result)
        return result

    def expand(self, node: Node, action: int, index: int) -> tuple[float, float, Node]:
        if node.state >= 0:
            return 0.0, 1.0, self.afterstate_node(node.state, action, index=index)
        state, taken = divmod(-1 - node.state, self.num_actions)
        reward, discount, following = (
            self.tables[name][state][taken][action - self.num_actions]
            for name in ("reward", "discount", "next_state")
        )
        return reward, discount, self.state_node(following, discount=discount, index=index)

    def select(self, node: Node) -> int:
        """PUCT at decisions, the outcome furthest below its quota at chance nodes."""
        choices = range(len(node.valid))
        if node.state < 0:
            return first_best([node.prior[a] / (node.visits(a) + 1) for a in choices], node.valid)
        n, q = len(node.returns), q_by_parent_and_siblings(node)
        rate = math.sqrt(n) * (1.25 + math.log((n + 19652 + 1) / 19652))
        scores = [q[a] + rate * node.prior[a] / (1 + node.visits(a)) for a in choices]
        return first_best(scores, node.valid)


def expectimax(model: StochasticTable, table: int, *, horizon: int) -> list[float]:
    """Exact value of each action of state 0 with `horizon` actions left, -inf where invalid."""
    tables = {
        name: getattr(model, name)[table].tolist()
        for name in ("valid_actions", "valid_outcomes", "reward", "discount", "next_state")
    }
    chance = model.chance_logits[table].masked_fill(~model.valid_outcomes[table], -math.inf)
    probs = chance.softmax(dim=-1).tolist()

    def action_value(state: int, action: int, left: int) -> float:
        total = 0.0
        for outcome, prob in enumerate(probs[state][action]):
            reward, discount, child = (
                tables[name][state][action][outcome]
                for name in ("reward", "discount", "next_state")
            )
            later = discount * best(child, left - 1) if discount != 0 and left > 1 else 0.0
            total += prob * (reward + later)
        return total

    def best(state: int, left: int) -> float:
        return max((v for v in values(state, left) if v > -math.inf), default=0.0)

    def values(state: int, left: int) -> list[float]:
        allowed = tables["valid_actions"][state]
        return [
            action_value(state, action, left) if ok else -math.inf
            for action, ok in enumerate(allowed)
        ]

    return values(0, horizon)

"""Stochastic MuZero: planning where the outcome of an action is partly chance.

A stochastic model has two step functions, for actions and for chance outcomes. The search uses it
as one model of A + C actions, in which outcomes are the actions of chance nodes.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from search.mcts import run_mcts
from search.model import (
    Embedding,
    RootOutput,
    StepOutput,
    check_finite,
    check_leaves,
    check_tensor,
    fail,
    validate_root,
    validate_step,
)
from search.planners.base import (
    SearchOutput,
    release_output,
    require_int,
)
from search.planners.muzero import PuctPlanner, sample_by_visits
from search.selection import StochasticSelection
from search.tree import allocate_tree

STATE, AFTERSTATE, IS_DECISION = "state.", "afterstate.", "is_decision"


@dataclass(frozen=True)
class AfterstateOutput:
    """Outputs of a stochastic model for an afterstate: action taken, chance outcome pending.

    Attributes:
        chance_logits: `[M, C]` float; unnormalized log-probabilities of the outcomes. Must be
            finite where the outcome is valid, ignored elsewhere.
        value: `[M]` float; expected discounted return of the state and action, the reward to come
            included. For the player who acted, in games of two players too.
        embedding: leaves `[M, ...]`, passed to `StochasticPlanningModel.step_outcome`. Their names,
            shapes and dtypes may be others than the states'.
        valid_outcomes: `[M, C]` bool, True where possible, at least one a row; None: all are.
    """

    chance_logits: Tensor
    value: Tensor
    embedding: Embedding
    valid_outcomes: Tensor | None = None


class StochasticPlanningModel(Protocol):
    """A planning model in which actions have chance outcomes.

    A transition is two steps: an action leads from a state to an afterstate, without reward or
    discount, and a chance outcome from there to the next state. With two players `step_outcome`
    has discount -1 and its reward is for the player who acted, as the afterstate's value is.

    Rows are independent, as in `PlanningModel`; each function is called with only those rows that
    need it, in any number, under `torch.inference_mode`.
    """

    @property
    def num_actions(self) -> int:
        """A, the number of actions, valid or not."""
        ...

    @property
    def num_outcomes(self) -> int:
        """C, the number of chance outcomes, valid or not, at least 1."""
        ...

    def root(self, observation: Any, *, generator: torch.Generator | None = None) -> RootOutput:
        """Evaluates a batch of B observations: states, where an action is to be chosen."""
        ...

    def step_action(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> AfterstateOutput:
        """Takes `action` `[M]` int64, 0 to A-1, from the states of `embedding`."""
        ...

    def step_outcome(
        self, embedding: Embedding, outcome: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Steps the afterstates of `embedding` by `outcome` `[M]` int64, 0 to C-1.

        Returns the outputs for the next state, in the leaves of `root`.
        """
        ...


@dataclass(frozen=True)
class StochasticMuZeroPlanner(PuctPlanner):
    """Plans with Stochastic MuZero's search; with noise off, as `mctx.stochastic_muzero_policy`.

    Decisions are chosen by PUCT, as in `MuZeroPlanner`. At a chance node the outcome of greatest
    probability / (1 + visits) is next: after n outcomes one of probability p has come at least
    `floor(n * p)` and at most `p * (n + C - 1)` times.

    The output's tree has A + C actions: outcome c is action A + c, edges into afterstates have
    reward 0 and discount 1, and each leaf of its embeddings has the prefix `state.` or
    `afterstate.`, zeros at nodes of the other kind; leaf `is_decision` distinguishes the kinds.
    `search.selection.slice_actions(tree, slice(0, A))` is the tree mctx returns.

    Deviations from mctx: those of `MuZeroPlanner`, among them that nothing is searched below
    discount 0; outcomes may be invalid; the model steps only rows that need it.

    Attributes:
        num_simulations: The budget, at least 1: rows of `step_action` and `step_outcome` together
            per root. A transition to a new state costs two.
        max_depth: Most edges between root and leaf, actions and outcomes alike; None for no limit.
        Others: As in `search.planners.muzero.PuctPlanner`.

    Raises:
        ValueError: If a number is out of its range.

    Source: Antonoglou et al. 2022 (Stochastic MuZero), Section 4. There an outcome is sampled at
    each visit of a chance node; the quota is mctx's, and of less variance.
    """

    def plan(
        self,
        model: StochasticPlanningModel,
        observation: object,
        *,
        generator: torch.Generator | None = None,
        dirichlet_noise: Tensor | None = None,
    ) -> SearchOutput:
        """Searches from each observation.

        Args:
            model: The stochastic model; not a `PlanningModel`, hence this is no `Planner`.
            observation: Passed to `model.root`.
            generator: Source of the noise, of sampled actions and of the model's randomness.
            dirichlet_noise: `[B, A]` probabilities to use in place of drawn noise (for tests).

        Returns:
            The decision: `action` is 0 to A-1 and `action_weights` `[B, A]`, outcomes left out.

        Raises:
            ValueError: If the model's outputs break the contract, or the noise has another shape.
        """
        require_int("StochasticPlanningModel", "num_actions", model.num_actions, minimum=1)
        require_int("StochasticPlanningModel", "num_outcomes", model.num_outcomes, minimum=1)
        select = StochasticSelection(self.puct(), model.num_actions)
        with torch.inference_mode():
            root = model.root(observation, generator=generator)
            validate_root(root, model.num_actions)
            root = self.mix_noise(root, dirichlet_noise, generator=generator)
            alternating = _AlternatingModel(model, root, select=select, generator=generator)
            tree = run_mcts(
                alternating,
                alternating.root(observation),
                num_simulations=self.num_simulations,
                root_action_selection=select,
                interior_action_selection=select,
                max_depth=self.max_depth,
                leaves_per_step=self.leaves_per_step,
                backend=self.backend,
                generator=generator,
            )
            summary = tree.summary()
            weights = summary.visit_probs[:, : model.num_actions]
            action = sample_by_visits(
                weights,
                temperature=self.temperature,
                qvalues=summary.qvalues[:, : model.num_actions],
                generator=generator,
            )
        return release_output(action, weights, tree.node_values[:, tree.ROOT], tree)


class _AlternatingModel:
    """A stochastic model as a `PlanningModel` of A + C actions, opened at the roots of one search.

    Every node needs the leaves of both kinds, and those of afterstates are known only after the
    first call of `step_action`. So the first edge of every root is stepped here, and its output is
    kept for the search's first step: no extra row is spent.
    """

    def __init__(
        self,
        model: StochasticPlanningModel,
        root: RootOutput,
        *,
        select: StochasticSelection,
        generator: torch.Generator | None,
    ) -> None:
        self._model = model
        is_decision = torch.ones_like(root.value, dtype=torch.bool)
        embedding = _prefixed(root.embedding, STATE) | {IS_DECISION: is_decision}
        wide = _widen(root, model.num_outcomes)
        # Selection reads no embeddings, so the trees it looks at here have none.
        bare = allocate_tree(replace(wide, embedding={}), 1)
        action = select(bare, bare.roots)
        step = self._step_action(embedding, action, like=None, generator=generator)
        self._first: tuple[Tensor, StepOutput] | None = (action, step)
        afterstate = _blank(_leaves(step.embedding, AFTERSTATE), AFTERSTATE)
        self._root = replace(wide, embedding=embedding | afterstate)

    @property
    def num_actions(self) -> int:
        """A + C."""
        return self._model.num_actions + self._model.num_outcomes

    def root(self, observation: object, *, generator: torch.Generator | None = None) -> RootOutput:
        """The roots this search was opened at, whatever the arguments."""
        return self._root

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Steps each row as its kind requires: `[M]` actions, or outcomes numbered from A."""
        first, self._first = self._first, None
        # A search's first call has the roots' rows in their order. Were the action another (a
        # compiled rule may round a near tie differently), the kept output is not used.
        if first is not None and torch.equal(first[0], action):
            return first[1]
        is_decision = embedding[IS_DECISION]
        # Host synchronization: each function gets only the rows that need it, or is not called.
        decisions = is_decision.nonzero().squeeze(-1)  # [D]
        chances = (~is_decision).nonzero().squeeze(-1)  # [M - D]
        parts: list[StepOutput] = []
        if decisions.numel() > 0:
            at = _take(embedding, decisions, STATE)
            like = _leaves(at, AFTERSTATE)
            parts.append(self._step_action(at, action[decisions], like=like, generator=generator))
        if chances.numel() > 0:
            at = _take(embedding, chances, AFTERSTATE)
            parts.append(self._step_outcome(at, action[chances], generator=generator))
        if len(parts) == 1:
            return parts[0]
        return _reorder(parts[0], parts[1], order=torch.cat([decisions, chances]).argsort())

    def _step_action(
        self,
        embedding: Embedding,
        action: Tensor,
        *,
        like: Embedding | None,
        generator: torch.Generator | None,
    ) -> StepOutput:
        """From decision nodes to chance nodes."""
        state = _leaves(embedding, STATE)
        afterstate = self._model.step_action(state, action, generator=generator)
        num_actions, num_outcomes = self._model.num_actions, self._model.num_outcomes
        validate_afterstate(afterstate, num_outcomes, num_rows=len(action), like=like)
        valid = afterstate.valid_outcomes
        if valid is None:
            valid = torch.ones_like(afterstate.chance_logits, dtype=torch.bool)
        return StepOutput(
            prior_logits=pad(afterstate.chance_logits, (num_actions, 0)),  # [M, A + C]
            value=afterstate.value,
            valid_actions=pad(valid, (num_actions, 0), value=False),
            embedding={
                **_blank(state, STATE),
                **_prefixed(afterstate.embedding, AFTERSTATE),
                IS_DECISION: torch.zeros_like(action, dtype=torch.bool),
            },
            reward=torch.zeros_like(afterstate.value),
            discount=torch.ones_like(afterstate.value),
        )

    def _step_outcome(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None
    ) -> StepOutput:
        """From chance nodes to decision nodes."""
        afterstate = _leaves(embedding, AFTERSTATE)
        outcome = action - self._model.num_actions
        step = self._model.step_outcome(afterstate, outcome, generator=generator)
        state = _leaves(embedding, STATE)
        validate_step(step, self._model.num_actions, num_rows=len(action), parent=state)
        widened = {
            **_prefixed(step.embedding, STATE),
            **_blank(afterstate, AFTERSTATE),
            IS_DECISION: torch.ones_like(action, dtype=torch.bool),
        }
        return replace(_widen(step, self._model.num_outcomes), embedding=widened)


def validate_afterstate(
    afterstate: AfterstateOutput, num_outcomes: int, *, num_rows: int, like: Embedding | None
) -> None:
    """Checks shapes, dtypes, finite values and that each row has a valid outcome.

    Args:
        afterstate: The model's output.
        num_outcomes: C.
        num_rows: M, the number of actions stepped.
        like: Leaves `[M, ...]` whose names, shapes and dtypes the embedding must have, as all
            afterstates share one buffer; None for the first, which sets them.

    Raises:
        ValueError: Naming the field, the row, what was found, what is required and the remedy.
    """
    owner, shape = "AfterstateOutput", (num_rows, num_outcomes)
    logits, valid = afterstate.chance_logits, afterstate.valid_outcomes
    check_tensor(owner, "value", afterstate.value, shape=shape[:1])
    check_tensor(owner, "chance_logits", logits, shape=shape)
    if valid is None:
        valid = torch.ones_like(logits, dtype=torch.bool)
    check_tensor(owner, "valid_outcomes", valid, shape=shape, mask=True)
    check_leaves(owner, afterstate.embedding, num_rows, like=like, whose="the first afterstates'")
    numbers = {"value": afterstate.value, "chance_logits": logits}
    check_finite(owner, numbers, valid=valid, mask="valid_outcomes")
    none_valid = ~valid.any(dim=-1)
    if bool(none_valid.any()):
        fail(
            f"{owner}.valid_outcomes, row {int(none_valid.nonzero()[0, 0])}",
            found=f"0 of {num_outcomes} outcomes valid",
            required="at least one valid outcome at an afterstate",
            remedy="End an episode by discount 0 in step_outcome; chance itself always has one.",
        )


_Output = TypeVar("_Output", RootOutput, StepOutput)


def _widen(output: _Output, num_outcomes: int) -> _Output:
    """A decision's output `[M, A]` as one of A + C actions, the outcomes invalid."""
    return replace(
        output,
        prior_logits=pad(output.prior_logits, (0, num_outcomes)),
        valid_actions=pad(output.valid_actions, (0, num_outcomes), value=False),
    )


def _take(embedding: Embedding, rows: Tensor, prefix: str) -> dict[str, Tensor]:
    """Some rows of one kind's leaves; of all others as many rows, whose values are not read."""
    count = len(rows)
    return {
        name: leaf[rows] if name.startswith(prefix) and count < len(leaf) else leaf[:count]
        for name, leaf in embedding.items()
    }


def _leaves(embedding: Embedding, prefix: str) -> dict[str, Tensor]:
    """The leaves of one kind, under the names the model gave them."""
    named = embedding.items()
    return {name.removeprefix(prefix): leaf for name, leaf in named if name.startswith(prefix)}


def _prefixed(embedding: Embedding, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: leaf for name, leaf in embedding.items()}


def _blank(embedding: Embedding, prefix: str) -> dict[str, Tensor]:
    """Zeros for the leaves of the other kind of node."""
    return {prefix + name: torch.zeros_like(leaf) for name, leaf in embedding.items()}


def _reorder(first: StepOutput, second: StepOutput, *, order: Tensor) -> StepOutput:
    """Rows of both outputs, one after the other, then taken in `order` `[M]`."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(first, name), getattr(second, name)])[order]

    embedding = {
        name: torch.cat([leaf, second.embedding[name]])[order]
        for name, leaf in first.embedding.items()
    }
    names = ("prior_logits", "value", "valid_actions", "reward", "discount")
    return StepOutput(embedding=embedding, **{name: joined(name) for name in names})

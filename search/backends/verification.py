"""Verify a compiled search against plain torch on a small fixed problem, once a process.

The CUDA kernels are compiled on the user's machine, for a device that may never have been tested.
So the first search of a process with a compiled variant grows the trees of a small fixed problem
with both backends.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from search.backends.rules import EFFICIENT, HALVING, MIN_MAX, MIXED, TRANSFORMS, Rules
from search.halving import considered_visits_table
from search.model import Embedding, PlanningModel, RootOutput, StepOutput
from search.selection import (
    ActionSelection,
    EfficientZeroSelection,
    HalvingSelection,
    ImprovedPolicySelection,
    PuctSelection,
    StochasticSelection,
)
from search.tree import Tree, mask_logits

logger = logging.getLogger(__name__)

_NUM_SIMULATIONS, _MAX_DEPTH = 12, 5
_NUM_TREES, _NUM_STATES, _MOST_VALID = 3, 16, 12
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}

Selections: TypeAlias = tuple[ActionSelection, ActionSelection]
"""The rules of the root and of all other nodes."""


class Search(Protocol):
    """A search whose rules are fixed; arguments as in `search.mcts.run_mcts`."""

    def __call__(
        self,
        model: PlanningModel,
        root: RootOutput,
        *,
        num_simulations: int,
        max_depth: int | None,
        leaves_per_step: int,
        kept: Tree | None,
        generator: torch.Generator | None,
    ) -> Tree:
        """Grows trees."""
        ...


SearchMaker: TypeAlias = Callable[[Selections], Search]
"""Makes the search of one backend by the rules given."""


@dataclass(frozen=True)
class Variant:
    """What a compiled variant of the search depends on.

    Attributes:
        root_rule: As in `search.backends.rules.Rules`, as are the next four.
        transform: The Q-transform.
        rescale_values: Its option.
        use_mixed_value: Its option.
        num_outcomes: Actions that are chance outcomes.
        num_actions: A, outcomes included.
        dtype: Of the trees.
        device: Of the trees.
    """

    root_rule: int
    transform: int
    rescale_values: bool
    use_mixed_value: bool
    num_outcomes: int
    num_actions: int
    dtype: torch.dtype
    device: torch.device


def name_variant(rules: Rules, num_actions: int, *, like: Tensor, dtype: torch.dtype) -> Variant:
    """The variant that a search by `rules` runs, on the device of `like`."""
    return Variant(
        root_rule=rules.root_rule,
        transform=rules.transform,
        rescale_values=bool(rules.option("rescale_values")),
        use_mixed_value=bool(rules.option("use_mixed_value")),
        num_outcomes=num_actions - rules.decisions(num_actions),
        num_actions=num_actions,
        dtype=dtype,
        device=like.device,
    )


class FormCheck:
    """Compares a compiled form with plain torch, once a process and variant."""

    def __init__(self) -> None:
        self._problems: dict[Variant, str | None] = {}
        self._lock = threading.Lock()

    def find_problem(
        self, variant: Variant, compiled: SearchMaker, plain: SearchMaker
    ) -> str | None:
        """What is wrong with the compiled form of a variant, None where nothing is.

        The first call compares, and logs the outcome; later calls return it.
        """
        with self._lock:
            if variant not in self._problems:
                start = time.perf_counter()
                problem = compare_forms(variant, compiled, plain)
                seconds = time.perf_counter() - start
                if problem is None:
                    logger.info(
                        "search on %s: compiled kernels and plain torch grew the same trees of a "
                        "small fixed problem (%.2f s, compiling included)",
                        variant.device,
                        seconds,
                    )
                else:
                    logger.warning(
                        "search on %s: compiled kernels differ from plain torch (%s, on a small "
                        "fixed problem); the search runs in plain torch, which is slower",
                        variant.device,
                        problem,
                    )
                self._problems[variant] = problem
            return self._problems[variant]


def compare_forms(variant: Variant, compiled: SearchMaker, plain: SearchMaker) -> str | None:
    """Grows trees of the fixed problem in both forms; returns how they differ, or None."""
    model = _FixedProblem(variant)
    with torch.inference_mode():
        root = model.root(None)
        rules = _fix_rules(variant, root)

        def grow(make: SearchMaker, leaves_per_step: int) -> Tree:
            return make(rules)(
                model,
                root,
                num_simulations=_NUM_SIMULATIONS,
                max_depth=_MAX_DEPTH,
                leaves_per_step=leaves_per_step,
                kept=None,
                generator=None,
            )

        for leaves_per_step in (1, 3):
            expected = grow(plain, leaves_per_step)
            try:
                problem = _find_difference(grow(compiled, leaves_per_step), expected)
            except Exception as error:  # noqa: BLE001 whatever a compiler or a driver raises
                problem = f"{type(error).__name__}: {error}"
            if problem is not None:
                return problem
    return None


def _find_difference(found: Tree, expected: Tree) -> str | None:
    """The first field in which two batches of trees differ, or None."""
    tolerance = _TOLERANCES[expected.raw_values.dtype]
    for field in fields(Tree):
        if field.name == "embeddings":
            continue
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if other.dtype.is_floating_point:
            same = one.dtype == other.dtype and torch.allclose(
                one, other, rtol=tolerance, atol=tolerance
            )
        else:
            same = torch.equal(one, other)
        if not same:
            return f"different {field.name}"
    used = expected.node_visits > 0
    for name, leaf in expected.embeddings.items():
        if not torch.equal(found.embeddings[name][used], leaf[used]):
            return f"different embeddings[{name!r}]"
    return None


def _fix_rules(variant: Variant, root: RootOutput) -> Selections:
    """The variant's rules with fixed numbers; the kernels do not depend on them."""
    options = {
        MIN_MAX: {"min_value": -3.0, "max_value": 3.0},
        MIXED: {
            "rescale_values": variant.rescale_values,
            "use_mixed_value": variant.use_mixed_value,
        },
    }.get(variant.transform, {})
    qtransform = partial(TRANSFORMS[variant.transform], **options)
    if variant.root_rule == HALVING:
        table = considered_visits_table(4, _NUM_SIMULATIONS, device=root.value.device)
        num_considered = root.valid_actions.sum(dim=-1).clamp_max(4)
        logits = mask_logits(root.prior_logits, root.valid_actions)
        gumbel = 0.5 * torch.sin(5.0 * logits.clamp(-9.0, 9.0))
        halving = HalvingSelection(qtransform, gumbel=gumbel, schedule=table[num_considered])
        return halving, ImprovedPolicySelection(qtransform)
    rule: ActionSelection = PuctSelection(qtransform)
    if variant.root_rule == EFFICIENT:
        rule = EfficientZeroSelection()
    elif variant.num_outcomes > 0:
        rule = StochasticSelection(
            PuctSelection(qtransform), variant.num_actions - variant.num_outcomes
        )
    return rule, rule


class _FixedProblem:
    """Tables of sines: the same numbers on every machine, far from each other.

    Only some actions, spread over all, are valid, so that a wide node is no harder. With chance
    outcomes, odd states are chance nodes.
    """

    def __init__(self, variant: Variant) -> None:
        self.num_actions = variant.num_actions
        size = (_NUM_TREES, _NUM_STATES, variant.num_actions)
        edge = torch.arange(_NUM_TREES * _NUM_STATES * variant.num_actions).view(size)
        state = torch.arange(_NUM_TREES * _NUM_STATES).view(size[:2])
        action, at = edge % variant.num_actions, torch.arange(_NUM_STATES).view(1, -1, 1)
        stride = -(-variant.num_actions // _MOST_VALID)
        valid = (action % stride == 0) & (edge % 7 != 3)
        following = (5 * edge + 3 * action + 1) % _NUM_STATES
        if variant.num_outcomes > 0:
            is_outcome = action >= variant.num_actions - variant.num_outcomes
            valid = (is_outcome == (at % 2 == 1)) & ((action % stride == 0) | is_outcome)
            following = following // 2 * 2 + (at + 1) % 2
        else:
            valid[..., 0] = True
        ends = (edge % 11 == 5) & (at % 2 == 1)

        def sine(numbers: Tensor, scale: float) -> Tensor:
            return (scale * torch.sin(numbers.double() * 0.7 + scale)).to(variant.dtype)

        tables = {
            "logits": sine(1.3 * edge, 2.0),
            "value": sine(1.9 * state, 1.5),
            "valid": valid,
            "following": following,
            "reward": sine(2.7 * edge, 0.8),
            "discount": torch.where(ends, 0.0, 0.9).to(variant.dtype),
        }
        self.tables = {name: table.to(variant.device) for name, table in tables.items()}

    def root(self, observation: object, *, generator: torch.Generator | None = None) -> RootOutput:
        """State 0 of each table."""
        table = torch.arange(_NUM_TREES, device=self.tables["value"].device)
        state = torch.zeros_like(table)
        return RootOutput(
            prior_logits=self.tables["logits"][table, state],
            value=self.tables["value"][table, state],
            valid_actions=self.tables["valid"][table, state],
            embedding={"table": table, "state": state},
        )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """A transition a row."""
        table = embedding["table"]
        edge = (table, embedding["state"], action)
        child = self.tables["following"][edge]
        return StepOutput(
            prior_logits=self.tables["logits"][table, child],
            value=self.tables["value"][table, child],
            valid_actions=self.tables["valid"][table, child],
            embedding={"table": table, "state": child},
            reward=self.tables["reward"][edge],
            discount=self.tables["discount"][edge],
        )

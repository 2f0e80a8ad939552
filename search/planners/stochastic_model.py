"""The contract for planning where chance has a part in what an action leads to.

This file does not know what a stochastic model is made of, as `search.model` does not for those
without chance; from there come the forms of states, here are those of afterstates.
"""

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from search.model import Embedding, RootOutput, StepOutput


@dataclass(frozen=True)
class AfterstateOutput:
    """What a stochastic model says of an afterstate: an action is taken, chance is still to come.

    Attributes:
        chance_logits: `[M, C]` float; unnormalized log-probabilities of the outcomes. Must be
            finite where the outcome is valid, ignored elsewhere.
        value: `[M]` float; expected discounted return of the state and action, the reward to come
            included. For the player who acted, in games of two players too.
        embedding: leaves `[M, ...]`, handed to `StochasticPlanningModel.step_outcome`. Their names,
            shapes and dtypes may be others than the states'.
        valid_outcomes: `[M, C]` bool, True where possible, at least one a row; None: all are.
    """

    chance_logits: Tensor
    value: Tensor
    embedding: Embedding
    valid_outcomes: Tensor | None = None


class StochasticPlanningModel(Protocol):
    """A model that can be planned with where chance has a part in what an action leads to.

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
        """Takes `action` `[M]` int64, 0 to A-1, from the states remembered by `embedding`."""
        ...

    def step_outcome(
        self, embedding: Embedding, outcome: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Lets `outcome` `[M]` int64, 0 to C-1, happen at the afterstates of `embedding`.

        The answer is of the next state, in the leaves of `root`.
        """
        ...


def validate_afterstate(
    afterstate: AfterstateOutput, num_outcomes: int, *, num_rows: int, like: Embedding | None
) -> None:
    """Checks shapes, dtypes, finite values and that each row has a valid outcome.

    Args:
        afterstate: The model's answer.
        num_outcomes: C.
        num_rows: M, the number of actions stepped.
        like: Leaves `[M, ...]` whose names, shapes and dtypes the embedding must have, as all
            afterstates live in one buffer; None for the first, which sets them.

    Raises:
        ValueError: Naming the field, the row, what was found, what is required and the remedy.
    """
    shape, logits = (num_rows, num_outcomes), afterstate.chance_logits
    _require_form("value", afterstate.value, shape=shape[:1])
    _require_form("chance_logits", logits, shape=shape)
    valid = afterstate.valid_outcomes
    if valid is None:
        valid = torch.ones_like(logits, dtype=torch.bool)
    _require_form("valid_outcomes", valid, shape=shape, mask=True)
    _require_leaves(afterstate.embedding, num_rows, like=like)
    checks = {
        "value": torch.isfinite(afterstate.value),
        "chance_logits": (torch.isfinite(logits) | ~valid).all(dim=-1),
        "valid_outcomes": valid.any(dim=-1),
    }  # [M] bool each
    # The one host synchronization of a validation: a NaN found later has no name.
    if bool(torch.stack(list(checks.values())).all()):
        return
    field = next(field for field, good in checks.items() if not bool(good.all()))
    row = int((~checks[field]).nonzero()[0, 0])
    if field == "valid_outcomes":
        _fail(
            f"{field}, row {row}",
            found=f"0 of {num_outcomes} outcomes valid",
            required="at least one valid outcome at an afterstate",
            remedy="End an episode by discount 0 in step_outcome; chance itself always has one.",
        )
    _fail(
        f"{field}, row {row}",
        found=f"{getattr(afterstate, field)[row].tolist()}",
        required="finite values" + " where valid_outcomes is True" * (field == "chance_logits"),
        remedy="Check the model's weights and inputs for this row; mark outcomes that cannot "
        "happen in valid_outcomes instead of in the numbers.",
    )


def _require_form(
    field: str, tensor: Tensor, *, shape: tuple[int, ...], mask: bool = False
) -> None:
    """Checks one tensor's shape, and that it is boolean (`mask`) or floating point."""
    if tuple(tensor.shape) != shape:
        _fail(
            field,
            found=f"shape {list(tensor.shape)}",
            required=f"shape {list(shape)}",
            remedy="Rows come first, one per action stepped; then num_outcomes where the field "
            "has outcomes.",
        )
    if tensor.dtype != torch.bool if mask else not tensor.dtype.is_floating_point:
        _fail(
            field,
            found=f"dtype {tensor.dtype}",
            required="dtype torch.bool, True where possible" if mask else "a floating-point dtype",
            remedy=f"Convert with {'.bool()' if mask else '.float()'}.",
        )


def _require_leaves(embedding: Embedding, num_rows: int, *, like: Embedding | None) -> None:
    """Checks the leaves of afterstates against `like`, or for M rows where there is none."""
    if like is not None and embedding.keys() != like.keys():
        _fail(
            "embedding",
            found=f"leaves {sorted(embedding)}",
            required=f"the leaves of the search's first afterstates, {sorted(like)}",
            remedy="Return the same leaves from every call of step_action.",
        )
    for name, leaf in embedding.items():
        form = f"shape {list(leaf.shape)} and dtype {leaf.dtype}"
        if leaf.ndim < 1 or leaf.shape[0] != num_rows:
            _fail(
                f'embedding["{name}"]',
                found=form,
                required=f"shape [{num_rows}, ...], one row per action stepped",
                remedy="Give every leaf of the embedding the batch as its first dimension.",
            )
        if like is not None and (leaf.shape != like[name].shape or leaf.dtype != like[name].dtype):
            _fail(
                f'embedding["{name}"]',
                found=form,
                required=f"{list(like[name].shape)} and {like[name].dtype}, as at first",
                remedy="Give each leaf one shape and dtype at every afterstate.",
            )


def _fail(field: str, *, found: str, required: str, remedy: str) -> NoReturn:
    raise ValueError(f"AfterstateOutput.{field}: found {found}; required {required}. {remedy}")

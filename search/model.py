"""The contract between the planning core and whoever brings a model to plan with.

This file does not know what a model is made of: a learned dynamics network, a language model and
a table all look the same from here, two functions that return the same four tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias

import torch
from torch import Tensor

Embedding: TypeAlias = Mapping[str, Tensor]
"""What a model remembers of a node: named leaves `[B, ...]` of any dtype, opaque to the core."""


@dataclass(frozen=True)
class RootOutput:
    """What a planning model says of the state a search starts from.

    Attributes:
        prior_logits: `[B, A]` float; unnormalized log-probabilities of the policy. Must be finite
            where the action is valid, ignored elsewhere (so `-inf` may mark invalid actions).
        value: `[B]` float; expected discounted return from the state, for the player to move.
        valid_actions: `[B, A]` bool, True where allowed; each root needs at least one.
        embedding: leaves `[B, ...]`, handed back to `PlanningModel.step`.
    """

    prior_logits: Tensor
    value: Tensor
    valid_actions: Tensor
    embedding: Embedding


@dataclass(frozen=True)
class StepOutput:
    """What a planning model says of one transition and of the child it leads to.

    Attributes:
        prior_logits: `[B, A]` float; the child's, as in `RootOutput`.
        value: `[B]` float; the child's expected discounted return, for the child's player.
        valid_actions: `[B, A]` bool; the child's. None valid makes the child terminal.
        embedding: leaves `[B, ...]`; the child's, with the root's names, dtypes and shapes.
        reward: `[B]` float; reward of the transition, for the parent's player.
        discount: `[B]` float; multiplies the child's value. 0 ends the episode, -1 alternates
            two players.
    """

    prior_logits: Tensor
    value: Tensor
    valid_actions: Tensor
    embedding: Embedding
    reward: Tensor
    discount: Tensor


class PlanningModel(Protocol):
    """A model that can be planned with: evaluate a state, step an action from a known node.

    Rows are independent: planners call `step` with any batch size, on rows gathered in any
    order and with repetition. A tree search steps only the rows that need a new node, and
    best-of-N flattens `[B, K]` slots into `[B*K]` rows. Whatever a row needs must therefore be
    in its embedding, never in its position. Both functions run under `torch.inference_mode`.

    What they return is the search's until it ends: a model must not write to those tensors again
    (it returns a clone of a buffer that its next call overwrites), nor to the embedding that it is
    handed, which may be one of them. To return the same unchanged tensor twice is fine.

    On CUDA, `step` may be called for rows whose answer is thrown away, so that no search waits for
    the host. A model that must not be asked in vain, since it remembers all that it is asked, says
    so by an attribute `append_only = True`.
    """

    @property
    def num_actions(self) -> int:
        """A, the number of actions, valid or not."""
        ...

    def root(self, observation: Any, *, generator: torch.Generator | None = None) -> RootOutput:
        """Evaluates a batch of B observations, of whatever kind the model takes."""
        ...

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Takes `action` `[M]` int64 from the nodes remembered by `embedding` `[M, ...]`."""
        ...


def evaluate_root(
    planning_model: PlanningModel, observation: Any, *, generator: torch.Generator | None = None
) -> RootOutput:
    """Calls `planning_model.root` and validates what it returns.

    Raises:
        ValueError: See `validate_root`.
    """
    root = planning_model.root(observation, generator=generator)
    validate_root(root, planning_model.num_actions)
    return root


def evaluate_step(
    planning_model: PlanningModel,
    embedding: Embedding,
    *,
    action: Tensor,
    rows: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> StepOutput:
    """Calls `planning_model.step` on `[M, ...]` leaves and `[M]` actions and validates the answer.

    Raises:
        ValueError: See `validate_step`, where `rows` is described.
    """
    step = planning_model.step(embedding, action, generator=generator)
    num_actions, num_rows = planning_model.num_actions, action.shape[0]
    validate_step(step, num_actions, num_rows=num_rows, parent=embedding, rows=rows)
    return step


def validate_root(root: RootOutput, num_actions: int) -> None:
    """Checks shapes, dtypes, finite values and that each root has a valid action.

    Args:
        root: The model's answer, batch `[B]` read off `root.value`.
        num_actions: A.

    Raises:
        ValueError: Naming the field, the row, what was found, what is required and the remedy.
    """
    check_root_form(root, num_actions)
    if root.value.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # what is being recorded has no numbers yet
    has_valid = root.valid_actions.any(dim=-1)
    _check_finite(root, {"value": root.value})
    if not bool(has_valid.all()):
        _fail(
            f"RootOutput.valid_actions, row {_first_row(~has_valid)}",
            found=f"0 of {num_actions} actions valid",
            required="at least one valid action at the root",
            remedy="Do not plan from finished states: drop such rows before calling plan.",
        )


def check_root_form(root: RootOutput, num_actions: int) -> None:
    """Checks the shapes and dtypes of a root, and reads no number; arguments as `validate_root`.

    Raises:
        ValueError: Naming the field, what was found, what is required and the remedy.
    """
    _check_form(root, num_actions)
    for name, leaf in root.embedding.items():
        if leaf.ndim < 1 or leaf.shape[0] != root.value.shape[0]:
            _fail(
                f'RootOutput.embedding["{name}"]',
                found=f"shape {list(leaf.shape)}",
                required=f"shape [{root.value.shape[0]}, ...], one row per observation",
                remedy="Give every leaf of the embedding the batch as its first dimension.",
            )


def validate_step(
    step: StepOutput,
    num_actions: int,
    *,
    num_rows: int,
    parent: Embedding,
    rows: Tensor | None = None,
) -> None:
    """Checks shapes, dtypes and finite values of a step of M rows.

    Args:
        step: As in `check_form`, as are `num_actions`, `num_rows` and `parent`.
        num_actions: A.
        num_rows: M.
        parent: The embedding that was stepped.
        rows: `[M]` int64, the observation that each row descends from, which errors then name;
            without it they name the row of the step.

    Raises:
        ValueError: Naming the field, the row, what was found, what is required and the remedy.
    """
    check_form(step, num_actions, num_rows=num_rows, parent=parent)
    named = {"value": step.value, "reward": step.reward, "discount": step.discount}
    _check_finite(step, named, rows=rows)


def check_form(step: StepOutput, num_actions: int, *, num_rows: int, parent: Embedding) -> None:
    """Checks the shapes and dtypes of a step of M rows, and reads no number.

    Args:
        step: The model's answer.
        num_actions: A.
        num_rows: M, the number of actions stepped.
        parent: The embedding that was stepped, leaves `[M, ...]`: the child's must have the same
            names, shapes and dtypes, as both live in one buffer.

    Raises:
        ValueError: Naming the field, what was found, what is required and the remedy.
    """
    _check_form(step, num_actions)
    if step.value.shape[0] != num_rows:
        _fail(
            "StepOutput.value",
            found=f"{step.value.shape[0]} rows",
            required=f"{num_rows} rows, one per action stepped",
            remedy="Read the batch size off the action, not off the observation.",
        )
    if step.embedding.keys() != parent.keys():
        _fail(
            "StepOutput.embedding",
            found=f"leaves {sorted(step.embedding)}",
            required=f"the root's leaves {sorted(parent)}",
            remedy="Return the same leaves from root and from step.",
        )
    for name, leaf in step.embedding.items():
        if leaf.shape != parent[name].shape or leaf.dtype != parent[name].dtype:
            _fail(
                f'StepOutput.embedding["{name}"]',
                found=f"shape {list(leaf.shape)} and dtype {leaf.dtype}",
                required=f"{list(parent[name].shape)} and {parent[name].dtype}, as stepped from",
                remedy="Give each leaf one shape and dtype at every node.",
            )
    for name, leaf in (("reward", step.reward), ("discount", step.discount)):
        _check_tensor("StepOutput", name, leaf, shape=tuple(step.value.shape))


def _check_form(output: RootOutput | StepOutput, num_actions: int) -> None:
    """Checks the shapes and dtypes of the fields root and step share."""
    owner = type(output).__name__
    if output.value.ndim != 1 or output.value.shape[0] == 0:
        _fail(
            f"{owner}.value",
            found=f"shape {list(output.value.shape)}",
            required="shape [B] with B at least 1",
            remedy="Return one scalar value per row (squeeze a trailing dimension).",
        )
    shape = (output.value.shape[0], num_actions)
    _check_tensor(owner, "value", output.value, shape=shape[:1])
    _check_tensor(owner, "prior_logits", output.prior_logits, shape=shape)
    _check_tensor(owner, "valid_actions", output.valid_actions, shape=shape, mask=True)


def _check_tensor(
    owner: str, field: str, tensor: Tensor, *, shape: tuple[int, ...], mask: bool = False
) -> None:
    """Checks one tensor's shape, and that it is boolean (`mask`) or floating point."""
    if tuple(tensor.shape) != shape:
        _fail(
            f"{owner}.{field}",
            found=f"shape {list(tensor.shape)}",
            required=f"shape {list(shape)}",
            remedy="Rows come first, one per state; then num_actions where the field has actions.",
        )
    if mask and tensor.dtype != torch.bool:
        _fail(
            f"{owner}.{field}",
            found=f"dtype {tensor.dtype}",
            required="dtype torch.bool, True where the action is allowed",
            remedy="Convert with .bool(), and check that it is not a mask of invalid actions.",
        )
    if not mask and not tensor.dtype.is_floating_point:
        _fail(
            f"{owner}.{field}",
            found=f"dtype {tensor.dtype}",
            required="a floating-point dtype",
            remedy="Convert with .float().",
        )


def _check_finite(
    output: RootOutput | StepOutput, named: Mapping[str, Tensor], *, rows: Tensor | None = None
) -> None:
    """Checks `[M]` tensors, and the logits of valid actions, for NaN and infinities.

    Args:
        output: What the model said of M rows.
        named: Further fields.
        rows: `[M]` int64, the number by which errors name each row; None for its own.
    """
    logits_finite = (torch.isfinite(output.prior_logits) | ~output.valid_actions).all(dim=-1)
    finite = {"prior_logits": logits_finite}  # [B] bool each
    finite |= {field: torch.isfinite(tensor) for field, tensor in named.items()}
    # The one host synchronization of a validation: a NaN found later has no name.
    if bool(torch.stack(list(finite.values())).all()):
        return
    field = next(field for field, good in finite.items() if not bool(good.all()))
    row = _first_row(~finite[field])
    tensor = getattr(output, field)
    where = " where valid_actions is True" if field == "prior_logits" else ""
    name = row if rows is None else int(rows[row])
    _fail(
        f"{type(output).__name__}.{field}, row {name}",
        found=f"{tensor[row].tolist()}",
        required=f"finite values{where}",
        remedy="Check the model's weights and inputs for this row; mark actions that cannot be "
        "taken in valid_actions instead of in the numbers.",
    )


def _first_row(bad: Tensor) -> int:
    return int(bad.nonzero()[0, 0])


def _fail(subject: str, *, found: str, required: str, remedy: str) -> NoReturn:
    raise ValueError(f"{subject}: found {found}; required {required}. {remedy}")

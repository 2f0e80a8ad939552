"""The interface of a planning model, and the validation of what it returns.

A learned dynamics network, a language model and a table all implement the same two functions, which
return the same four tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias

import torch
from torch import Tensor

Embedding: TypeAlias = Mapping[str, Tensor]
"""A model's state at a node: named leaves `[B, ...]` of any dtype, opaque to the core."""


@dataclass(frozen=True)
class RootOutput:
    """Outputs of a planning model for the state a search starts from.

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
    """Outputs of a planning model for one transition and the child it leads to.

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
    best-of-N flattens `[B, K]` actions into `[B*K]` rows. Whatever a row needs must therefore be
    in its embedding, never in its position. Both functions run under `torch.inference_mode`.

    The search reads the returned tensors until it ends: a model must not write to them again (it
    returns a clone of a buffer that its next call overwrites), nor to the embedding it is given,
    which may be one of them. To return the same unchanged tensor twice is fine.

    On CUDA, `step` may be called for rows whose outputs are discarded, so that no search waits for
    the host. A model that stores every row it steps sets an attribute `append_only = True`, and is
    stepped only with the rows that are needed.
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
        """Takes `action` `[M]` int64 from the nodes of `embedding` `[M, ...]`."""
        ...


def evaluate_root(
    planning_model: PlanningModel, observation: object, *, generator: torch.Generator | None = None
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
    """Calls `planning_model.step` on `[M, ...]` leaves and `[M]` actions and validates the output.

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
        root: The model's output, batch `[B]` read off `root.value`.
        num_actions: A.

    Raises:
        ValueError: Naming the field, the row, what was found, what is required and the remedy.
    """
    check_root_form(root, num_actions)
    if root.value.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # what is being recorded has no numbers yet
    has_valid = root.valid_actions.any(dim=-1)
    numbers = {"prior_logits": root.prior_logits, "value": root.value}
    check_finite("RootOutput", numbers, valid=root.valid_actions)
    if not bool(has_valid.all()):
        fail(
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
    check_leaves("RootOutput", root.embedding, root.value.shape[0], like=None, whose="")


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
    fields = ("prior_logits", "value", "reward", "discount")
    numbers = {field: getattr(step, field) for field in fields}
    check_finite("StepOutput", numbers, valid=step.valid_actions, rows=rows)


def check_form(step: StepOutput, num_actions: int, *, num_rows: int, parent: Embedding) -> None:
    """Checks the shapes and dtypes of a step of M rows, and reads no number.

    Args:
        step: The model's output.
        num_actions: A.
        num_rows: M, the number of actions stepped.
        parent: The embedding that was stepped, leaves `[M, ...]`: the child's must have the same
            names, shapes and dtypes, as both live in one buffer.

    Raises:
        ValueError: Naming the field, what was found, what is required and the remedy.
    """
    _check_form(step, num_actions)
    if step.value.shape[0] != num_rows:
        fail(
            "StepOutput.value",
            found=f"{step.value.shape[0]} rows",
            required=f"{num_rows} rows, one per action stepped",
            remedy="Read the batch size off the action, not off the observation.",
        )
    check_leaves("StepOutput", step.embedding, num_rows, like=parent, whose="the root's")
    for name, leaf in (("reward", step.reward), ("discount", step.discount)):
        check_tensor("StepOutput", name, leaf, shape=tuple(step.value.shape))


def _check_form(output: RootOutput | StepOutput, num_actions: int) -> None:
    """Checks the shapes and dtypes of the fields root and step share."""
    owner = type(output).__name__
    if output.value.ndim != 1 or output.value.shape[0] == 0:
        fail(
            f"{owner}.value",
            found=f"shape {list(output.value.shape)}",
            required="shape [B] with B at least 1",
            remedy="Return one scalar value per row (squeeze a trailing dimension).",
        )
    shape = (output.value.shape[0], num_actions)
    check_tensor(owner, "value", output.value, shape=shape[:1])
    check_tensor(owner, "prior_logits", output.prior_logits, shape=shape)
    check_tensor(owner, "valid_actions", output.valid_actions, shape=shape, mask=True)


def check_tensor(
    owner: str, field: str, tensor: Tensor, *, shape: tuple[int, ...], mask: bool = False
) -> None:
    """Checks one tensor's shape, and that it is boolean (`mask`) or floating point."""
    if tuple(tensor.shape) != shape:
        fail(
            f"{owner}.{field}",
            found=f"shape {list(tensor.shape)}",
            required=f"shape {list(shape)}",
            remedy="Rows come first, one per state; then num_actions or num_outcomes where the "
            "field has them.",
        )
    if mask and tensor.dtype != torch.bool:
        fail(
            f"{owner}.{field}",
            found=f"dtype {tensor.dtype}",
            required="dtype torch.bool, True where allowed",
            remedy="Convert with .bool(), and check that it is not a mask of invalid actions.",
        )
    if not mask and not tensor.dtype.is_floating_point:
        fail(
            f"{owner}.{field}",
            found=f"dtype {tensor.dtype}",
            required="a floating-point dtype",
            remedy="Convert with .float().",
        )


def check_leaves(
    owner: str, embedding: Embedding, num_rows: int, *, like: Embedding | None, whose: str
) -> None:
    """Checks that an embedding's leaves have M rows, and the names and forms of `like`, if given.

    Args:
        owner: The output, for errors.
        embedding: Leaves `[M, ...]`.
        num_rows: M.
        like: Leaves `[M, ...]` that share a buffer with these.
        whose: What errors call them.
    """
    if like is not None and embedding.keys() != like.keys():
        fail(
            f"{owner}.embedding",
            found=f"leaves {sorted(embedding)}",
            required=f"{whose} leaves {sorted(like)}",
            remedy="Return the same leaves for every state.",
        )
    for name, leaf in embedding.items():
        form = f"shape {list(leaf.shape)} and dtype {leaf.dtype}"
        if leaf.ndim < 1 or leaf.shape[0] != num_rows:
            fail(
                f'{owner}.embedding["{name}"]',
                found=form,
                required=f"shape [{num_rows}, ...], one row per state",
                remedy="Give every leaf of the embedding the batch as its first dimension.",
            )
        if like is not None and (leaf.shape != like[name].shape or leaf.dtype != like[name].dtype):
            fail(
                f'{owner}.embedding["{name}"]',
                found=form,
                required=f"{list(like[name].shape)} and {like[name].dtype}, as at first",
                remedy="Give each leaf one shape and dtype at every node.",
            )


def check_finite(
    owner: str,
    numbers: Mapping[str, Tensor],
    *,
    valid: Tensor,
    mask: str = "valid_actions",
    rows: Tensor | None = None,
) -> None:
    """Checks numbers of M rows for NaN and infinities.

    Args:
        owner: The output, for errors.
        numbers: By field, `[M]`, or `[M, A]` of which only valid entries count.
        valid: `[M, A]` bool.
        mask: The field of `valid`.
        rows: `[M]` int64, the number by which errors name each row; None for its own.
    """
    finite = {
        field: torch.isfinite(tensor)
        if tensor.ndim == 1
        else (torch.isfinite(tensor) | ~valid).all(dim=-1)
        for field, tensor in numbers.items()
    }  # [M] bool each
    # The one host synchronization of a validation: a NaN found later has no name.
    if bool(torch.stack(list(finite.values())).all()):
        return
    field = next(field for field, good in finite.items() if not bool(good.all()))
    row = _first_row(~finite[field])
    where = f" where {mask} is True" if numbers[field].ndim > 1 else ""
    fail(
        f"{owner}.{field}, row {row if rows is None else int(rows[row])}",
        found=f"{to_list(numbers[field][row])}",
        required=f"finite values{where}",
        remedy=f"Check the model's weights and inputs for this row; mark "
        f"{mask.removeprefix('valid_')} that cannot be taken in {mask} instead of in the numbers.",
    )


def to_list(tensor: Tensor) -> Any:
    """A tensor as nested lists (or a number); torch's stub leaves their type open."""
    return tensor.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _first_row(bad: Tensor) -> int:
    return int(bad.nonzero()[0, 0])


def fail(subject: str, *, found: str, required: str, remedy: str) -> NoReturn:
    """Raises the error of an output that breaks the contract."""
    raise ValueError(f"{subject}: found {found}; required {required}. {remedy}")

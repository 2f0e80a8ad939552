"""The interface of a planner, and checks of the numbers users pass to planners."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from prefsearch.config.checks import shown
from search.model import PlanningModel, to_list
from search.tree import Tree


@dataclass(frozen=True)
class SearchOutput:
    """A planner's decision for each of B observations.

    Attributes:
        action: `[B]` int64, the action to take, always a valid one.
        action_weights: `[B, A]`, sums to 1 over actions: the policy target. Zero where invalid.
        value: `[B]`, the root's expected discounted return after the search.
        tree: The search tree, or None where a planner keeps none. Its tensors were made under
            `torch.inference_mode`; the three fields above were not and can be trained on.
    """

    action: Tensor
    action_weights: Tensor
    value: Tensor
    tree: Tree | None


class Planner(Protocol):
    """Plans from a batch of observations with a planning model, within a budget."""

    @property
    def num_simulations(self) -> int:
        """The budget: at most this many rows of `PlanningModel.step` per root."""
        ...

    def plan(
        self, model: PlanningModel, observation: Any, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Searches from each observation.

        Args:
            model: The planning model.
            observation: Passed to `model.root` as it is.
            generator: Source of all randomness, the planner's and the model's; torch's default
                generator if None.

        Returns:
            The decision; device and dtype follow the model's outputs.

        Raises:
            ValueError: If the model's outputs break the contract of `search.model`.
        """
        ...


def release_output(
    action: Tensor, action_weights: Tensor, value: Tensor, tree: Tree | None
) -> SearchOutput:
    """Builds the output of a planner; call it outside `torch.inference_mode`.

    The copies `[B]`, `[B, A]`, `[B]` are ordinary tensors: autograd refuses to save an inference
    tensor for backward, and the weights and value are made to be training targets.
    """
    return SearchOutput(
        action=action.clone(),
        action_weights=action_weights.clone(),
        value=value.clone(),
        tree=tree,
    )


def require_int(
    owner: str, name: str, value: object, *, minimum: int, optional: bool = False
) -> None:
    """Checks that a user's number is an int (not a bool) of at least `minimum`, or None.

    Raises:
        ValueError: Naming the parameter, what was found, what is required and the remedy.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        alternative = " or None (no limit)" if optional else ""
        raise ValueError(
            f"{owner}.{name}: found {shown(value)} ({type(value).__name__}); required an int of at "
            f"least {minimum}{alternative}. Pass a whole number, {minimum} or more, as {name}."
        )


def require_float(
    owner: str,
    name: str,
    value: object,
    *,
    minimum: float = 0.0,
    maximum: float = math.inf,
    above: bool = False,
) -> None:
    """Checks that a user's number is finite and in `[minimum, maximum]` (`above`: not minimum).

    Raises:
        ValueError: Naming the parameter, what was found, what is required and the remedy.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -math.inf < value < math.inf  # math.isfinite fails on huge integers
        or not minimum <= value <= maximum
        or (above and value == minimum)
    ):
        bound = f"above {minimum}" if above else f"of at least {minimum}"
        bound += "" if math.isinf(maximum) else f" and at most {maximum}"
        raise ValueError(
            f"{owner}.{name}: found {shown(value)} ({type(value).__name__}); required a finite "
            f"number {bound}. Pass such a number as {name} (YAML reads 1e-3 as text: write 1.0e-3)."
        )


def require_choice(owner: str, name: str, value: object, *, choices: tuple[str, ...]) -> None:
    """Checks that a user's word is one of several.

    Raises:
        ValueError: Naming the parameter, what was found, what is required and the remedy.
    """
    if value not in choices:
        raise ValueError(
            f"{owner}.{name}: found {shown(value)}; required one of {', '.join(choices)}. Correct "
            "the name."
        )


def require_noise(
    owner: str,
    name: str,
    noise: Tensor,
    *,
    valid: Tensor,
    good: Callable[[Tensor], Tensor],
    required: str,
) -> None:
    """Checks noise that a caller passed; its numbers not while a CUDA graph is captured.

    Args:
        owner: The planner's name.
        name: The argument.
        noise: The noise, required to be `[B, A]`.
        valid: `[B, A]` bool, the valid actions.
        good: `[B, A]` to bool `[B]`: whether a row of the noise, 0 where invalid, will do.
        required: What is required of a row, in words.

    Raises:
        ValueError: Naming the argument and row, what was found, what is required and the remedy.
    """
    found, subject = None, f"{owner}.plan.{name}"
    if noise.shape != valid.shape:
        found = f"shape {list(noise.shape)}"
        required = f"shape {list(valid.shape)}, one number per row and action"
    elif not (valid.is_cuda and torch.cuda.is_current_stream_capturing()):
        bad = ~good(noise.masked_fill(~valid, 0.0))
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            found, subject = to_list(noise[row]), f"{subject}, row {row}"
    if found is not None:
        raise ValueError(
            f"{subject}: found {found}; required {required}. Leave {name} out to have it drawn."
        )

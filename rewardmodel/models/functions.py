"""Python functions as reward models.

Two signatures are accepted: `f(prompts, responses)`, and that of TRL's reward functions,
`f(prompts=..., completions=..., **columns)`, recognized by a parameter named `completions`.
Conversations are passed as lists of {role, content} messages. Replies are plain text in the first,
and lists of one assistant message in TRL's.

Whatever a function raises, on import or when called, becomes a `UserCodeError` that names it. It
must not change its arguments.
"""

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from prefsearch.config.user_code import UserCodeError, running_user_code, shown_value
from rewardmodel.data.conversation import Prompt, Reply, plain, reply_messages
from rewardmodel.data.text_rows import require_rows
from rewardmodel.interface import require_finite
from rewardmodel.models.function_import import import_object

_REMEDY = "Correct the function: it has to give every response a number"
_OURS = {"rewardmodel", "policies", "search", "atari_bridge", "prefsearch"}


class FunctionRewardModel:
    """Scores responses with a function; a `RewardModel`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        columns: Mapping[str, Mapping[Any, Any]] | None = None,
    ) -> None:
        """Takes a function.

        Args:
            function: Returns B numbers for B prompts and responses.
            name: For messages.
            columns: Further columns of a function of TRL's signature, such as right answers: the
                value for each prompt, by the column's name.

        Raises:
            ValueError: If the function has neither signature, or needs other columns.
        """
        self._function = function
        self.name = name or getattr(function, "__qualname__", type(function).__name__)
        self._columns = dict(columns or {})
        self._by_name = self._takes_completions()

    @classmethod
    def load(cls, reference: str) -> Self:
        """Imports a function, which runs its module.

        Args:
            reference: `package.module:name` or `path/to/file.py:name`.

        Raises:
            ValueError: If there is no such module or function, or the module cannot be run.
        """
        found = import_object(reference)
        if not callable(found):
            raise UserCodeError(
                f"{reference}: found a {type(found).__name__}; required: a function of prompts and "
                "responses that returns a score for each"
            )
        return cls(found, name=reference)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> Tensor:
        """Scores responses, float32 [B]; see `RewardModel`.

        Raises:
            ValueError: If the function does not return one finite number per response; the message
                names the row.
        """
        require_rows(prompts, responses)
        if not responses:
            return torch.empty(0)
        found = self.call(prompts, responses)
        scores = torch.tensor(numbers_of(found, responses, source=self.name), dtype=torch.float32)
        require_finite(scores, responses, found_by=self.name, remedy=_REMEDY)
        return scores

    def call(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> Any:
        """The function's result for prompts and responses, not checked.

        Raises:
            UserCodeError: If it raises anything, or changes its arguments.
        """
        if not self._by_name:
            return run_function(self._function, prompts, responses, name=self.name)
        columns = {
            column: [self._value(column, values, prompt) for prompt in prompts]
            for column, values in self._columns.items()
        }
        return run_function(
            self._function, prompts, responses, name=self.name, by_name=True, columns=columns
        )

    def _takes_completions(self) -> bool:
        """Whether the function has TRL's signature."""
        try:
            with running_user_code(self.name, required="a function of prompts and responses"):
                parameters = inspect.signature(self._function).parameters
        except UserCodeError as error:
            if isinstance(error.__cause__, TypeError | ValueError):  # a builtin without a signature
                return False
            raise
        kinds = [parameter.kind for parameter in parameters.values()]
        positional = {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        }
        any_name = inspect.Parameter.VAR_KEYWORD in kinds
        if "completions" in parameters or (any_name and not positional & set(kinds)):
            known = {"prompts", "completions", *self._columns}
            lacking = [
                name
                for name, parameter in parameters.items()
                if parameter.default is parameter.empty
                and parameter.kind
                not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
                and name not in known
            ]
            if lacking:
                raise ValueError(
                    f"{self.name} needs {', '.join(lacking)} beside prompts and completions; "
                    "required: no more than is there. Commands give a function no other columns: "
                    f"write it to look {lacking[0]!r} up by the prompt, or, to compare with right "
                    "answers, name answers:FILE instead. FunctionRewardModel takes "
                    f"columns={{{lacking[0]!r}: {{prompt: value}}}}"
                )
            if not any_name and (left := set(self._columns) - set(parameters)):
                raise ValueError(
                    f"{self.name} takes no {', '.join(sorted(left))}; leave it out of columns, or "
                    "give the function **columns"
                )
            return True
        try:
            inspect.signature(self._function).bind([], [])
        except TypeError as error:
            raise ValueError(
                f"{self.name}{inspect.signature(self._function)} cannot be called ({error}); "
                "required: f(prompts, responses), or f(prompts, completions, **columns) as TRL's "
                "reward functions"
            ) from error
        return False

    def _value(self, column: str, values: Mapping[Any, Any], prompt: Prompt) -> Any:
        if prompt not in values:
            raise ValueError(
                f"{self.name} needs {column!r} for the prompt "
                f"{str(prompt)[:80]!r}, which has none; required: "
                "one for every prompt"
            )
        return values[prompt]


def run_function(
    function: Callable[..., object],
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    name: str,
    by_name: bool = False,
    columns: Mapping[str, list[object]] | None = None,
) -> Any:
    """Calls a user's function of prompts and responses.

    Args:
        function: A function of this project is called without these checks.
        prompts: B prompts.
        responses: B responses.
        name: Of the function, for messages.
        by_name: Whether it has TRL's signature.
        columns: Its further columns.

    Returns:
        Its result, as plain Python where it can be, since reading it may run the user's code.

    Raises:
        UserCodeError: If it raises anything, or changes its arguments.
    """

    def given() -> tuple[list[Any], list[Any]]:
        own_prompts = [plain(prompt) for prompt in prompts]
        if not by_name:
            return own_prompts, [plain(response) for response in responses]
        # TRL gives its functions messages for messages, a reply as a list of one.
        pairs = zip(prompts, responses, strict=True)
        return own_prompts, [r if isinstance(p, str) else reply_messages(r) for p, r in pairs]

    own_prompts, replies = copy.deepcopy(given())
    module = str(getattr(function, "__module__", "")).partition(".")[0]
    if module in _OURS:
        return function(own_prompts, replies)
    first = f"the first to the prompt {str(prompts[0])[:60]!r}" if prompts else "none"
    what = f"{name}, called for {len(responses)} responses, {first}"
    with running_user_code(what, required="a score for each. Correct the function"):
        if by_name:
            found = function(prompts=own_prompts, completions=replies, **(columns or {}))
        else:
            found = function(own_prompts, replies)
        found = _read(found, len(responses))
    if (own_prompts, replies) != given():
        raise UserCodeError(
            f"{name} changed the prompts or responses that it was given, {first}; required: a "
            "function that leaves them as they are, since its scores are taken to be in their "
            "order. Let it work on copies"
        )
    return found


def _read(found: Any, count: int) -> Any:
    """The result of a function for `count` responses, as plain Python where it can be."""
    if inspect.iscoroutine(found):
        found.close()
        raise TypeError("it is an async function, whose scores would have to be awaited")
    if isinstance(found, Tensor):
        return found.detach().cpu().tolist()
    if isinstance(found, np.ndarray | np.generic):
        return found.tolist()
    if isinstance(found, str | bytes | Mapping | Set) or not hasattr(type(found), "__iter__"):
        return found
    # An iterator may have no end.
    items = list(itertools.islice(found, count + 1) if isinstance(found, Iterator) else found)
    return [_number(item) for item in items]


def _number(item: Any) -> Any:
    """An item as a float, or unchanged where it is none, which `numbers_of` refuses."""
    if isinstance(item, str | bytes):
        return item
    try:
        return float(item)
    except Exception:  # noqa: BLE001  whatever its own code raises
        return item


def numbers_of(found: Any, responses: Sequence[Reply], *, source: str) -> list[float]:
    """The result of a function for B responses as B numbers, which may not be finite.

    Raises:
        UserCodeError: If it is not one number per response, in their order.
    """
    unordered = isinstance(found, str | bytes | Mapping | Set)
    try:
        if unordered:
            raise TypeError("in no order of the responses")
        values = list(found)
    except Exception as error:
        raise UserCodeError(
            f"{source} gave {type(found).__name__}; required: {len(responses)} numbers, one a "
            f"response in their order. Found: {shown_value(found)}"
        ) from error
    if len(values) != len(responses):
        raise UserCodeError(
            f"{source} gave {len(values)} scores for {len(responses)} responses; required: one each"
        )
    numbers = []
    for row, value in enumerate(values):
        try:
            if isinstance(value, str | bytes):
                raise TypeError("text")
            numbers.append(float(value))
        except Exception as error:
            raise UserCodeError(
                f"{source} scored row {row} as {shown_value(value)}; required: a number. "
                f"Response: {str(responses[row])[:80]!r}. {_REMEDY}"
            ) from error
    return numbers

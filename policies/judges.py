"""The judge that a search never sees: gold scores from the embedded world, a file or a function."""

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from doors.command_line import for_python
from rewardmodel.data.conversation import Prompt, plain
from rewardmodel.data.rows import OnBadRow, PreferenceDataError
from rewardmodel.simulated import SimulatedHuman
from rewardmodel.verifiers import AnswerMatch, ExactMatch
from search.evaluation.records import plain_number

Judge = Callable[[Sequence[Any], Sequence[str]], Sequence[float]]
"""Gold scores of B prompts, each text or a list of {role, content} messages, and B responses."""

_ANSWERS = "answers:"


def load_judge(
    name: str | None, *, answer_form: str = "auto", on_bad_row: OnBadRow = "error"
) -> Judge | None:
    """Finds the gold judge that a setting names.

    Args:
        name: `"simulated"`, `"answers:PATH"`, `"module:function"`, or None.
        answer_form: How answers are read from responses, for `"answers:PATH"`.
        on_bad_row: Of that file: "error" ends at the first bad row, "skip" leaves them out.

    Raises:
        ValueError: If there is no such file, module or function.
    """
    if name is None:
        return None
    if name == "simulated":
        return SimulatedHuman().utilities
    if name.startswith(_ANSWERS):
        path = name.removeprefix(_ANSWERS)
        try:
            return AnswerMatch.load(path, form=answer_form, on_bad_row=on_bad_row)
        except PreferenceDataError as error:  # the columns that flags name are the prompts'
            raise for_python(error) from error
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a file of the user's, beside where the command is typed
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f'gold: found {name!r}; required: null, "simulated", "answers:PATH" or '
            f'"module:function" that can be imported ({error})'
        ) from error
    if not callable(found):
        raise ValueError(
            f"gold: found {name!r}, a {type(found).__name__}; required: a function of prompts and "
            "responses that returns a score for each"
        )
    return cast(Judge, found)


def judged(
    judge: Judge, prompts: Sequence[Prompt], responses: Sequence[str], *, rows: Sequence[int]
) -> list[float]:
    """Asks a judge and checks what it says.

    Args:
        judge: Which.
        prompts: B prompts.
        responses: B responses.
        rows: B numbers by which an error names the row, those of the prompts.

    Returns:
        B finite scores.

    Raises:
        ValueError: If there is not one score a response, or one is no finite number.
    """
    known = isinstance(judge, AnswerMatch | ExactMatch)  # by prompts as they are
    given = prompts if known else [plain(prompt) for prompt in prompts]
    said: Any = plain_number(judge(given, responses))
    try:
        scores = [float(plain_number(score)) for score in said]  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the gold judge returned {type(said).__name__} {str(said)[:60]!r} ({error}); "
            "required: one number a response"
        ) from error
    if len(scores) != len(responses):
        row = rows[min(len(scores), len(responses) - 1)]
        raise ValueError(
            f"the gold judge returned {len(scores)} scores for {len(responses)} responses (they "
            f"part at row {row}); required: one a response, in their order"
        )
    broken = [i for i, score in enumerate(scores) if not math.isfinite(score)]
    if broken:
        i = broken[0]
        raise ValueError(
            f"the gold judge scored row {rows[i]} as {scores[i]} ({len(broken)} of {len(scores)} "
            f"scores are not finite); required: finite numbers. Response: {responses[i][:80]!r}"
        )
    return scores

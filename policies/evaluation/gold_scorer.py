"""Gold scores, from a reward model, function or answers that the search never uses."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from prefsearch.cli.command_line import for_python
from prefsearch.storage.json_text import plain_number
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.rows import OnBadRow, PreferenceDataError
from rewardmodel.interface import Finished, RewardModel, score_replies
from rewardmodel.models.functions import FunctionRewardModel, UserCodeError, run_function
from rewardmodel.models.loading import FORMS, load_reward_model, names_function
from rewardmodel.models.verifiers import AnswerMatch, ExactMatch

GoldScorer = Callable[[Sequence[Any], Sequence[str]], Sequence[float]]
"""Gold scores of B prompts, each text or a list of {role, content} messages, and B responses.

A `ModelGoldScorer` takes prompts as they are, and which responses are finished.
"""


@dataclass(frozen=True)
class ModelGoldScorer:
    """A reward model as the gold scorer.

    Attributes:
        reward_model: Another one than the search plans against.
    """

    reward_model: RewardModel

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Finished = True
    ) -> list[float]:
        """Scores responses, those that are not finished without an end token."""
        scores = score_replies(self.reward_model, prompts, responses, finished=finished)
        return scores.tolist()


def load_gold_scorer(
    name: str | None, *, answer_form: str = "auto", on_bad_row: OnBadRow = "error"
) -> GoldScorer | None:
    """Finds the gold scorer that a setting names.

    Args:
        name: What `rewardmodel.models.loading.load_reward_model` takes, or None.
        answer_form: How answers are read from responses, for `"answers:FILE"`.
        on_bad_row: Of that file: "error" ends at the first bad row, "skip" leaves them out.

    Raises:
        ValueError: If there is no such model, file, module or function.
    """
    if name is None:
        return None
    try:
        found = load_reward_model(name, answer_form=answer_form, on_bad_row=on_bad_row)
    except PreferenceDataError as error:  # the columns that flags name are the prompts'
        raise for_python(error) from error
    except ValueError as error:
        if names_function(name) and not name.startswith("answers:"):
            raise type(error)(
                f'gold: found {name!r} ({error}); required: null, "simulated", "answers:PATH" or '
                f"another of {FORMS}"
            ) from error
        raise
    if isinstance(found, AnswerMatch):
        return found
    return found.call if isinstance(found, FunctionRewardModel) else ModelGoldScorer(found)


def gold_scores(
    scorer: GoldScorer,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    rows: Sequence[int],
    finished: Finished = True,
) -> list[float]:
    """Calls a gold scorer and checks what it returns.

    Args:
        scorer: The gold scorer.
        prompts: B prompts.
        responses: B responses.
        rows: B numbers by which an error names the row, those of the prompts.
        finished: Whether the responses ended by themselves, all or each.

    Returns:
        B finite scores.

    Raises:
        UserCodeError: If there is not one score a response, one is no finite number, or the scorer
            raises anything.
    """
    if isinstance(scorer, ModelGoldScorer):
        found = scorer(prompts, responses, finished=finished)
    elif isinstance(scorer, AnswerMatch | ExactMatch):  # by prompts as they are
        found = scorer(prompts, responses)
    else:
        owner = getattr(scorer, "__self__", None)
        name = owner.name if isinstance(owner, FunctionRewardModel) else _name_of(scorer)
        try:
            if isinstance(owner, FunctionRewardModel):
                found = scorer(prompts, responses)
            else:
                found = run_function(scorer, prompts, responses, name=f"the gold scorer {name}")
        except UserCodeError as error:
            raise UserCodeError(f"row {rows[0]} and those behind it: {error}") from error
    values: Any = plain_number(found)
    try:
        if isinstance(values, str | bytes | Mapping | Set) or any(
            isinstance(s, str) for s in values
        ):
            raise TypeError("no numbers in the order of the responses")
        scores = [float(plain_number(score)) for score in values]  # type: ignore[arg-type]
    except Exception as error:
        raise UserCodeError(
            f"the gold scorer returned {type(values).__name__} {str(values)[:60]!r} ({error}); "
            "required: one number a response"
        ) from error
    if len(scores) != len(responses):
        row = rows[min(len(scores), len(responses) - 1)]
        raise UserCodeError(
            f"the gold scorer returned {len(scores)} scores for {len(responses)} responses (they "
            f"part at row {row}); required: one a response, in their order"
        )
    broken = [i for i, score in enumerate(scores) if not math.isfinite(score)]
    if broken:
        i = broken[0]
        raise UserCodeError(
            f"the gold scorer scored row {rows[i]} as {scores[i]} ({len(broken)} of {len(scores)} "
            f"scores are not finite); required: finite numbers. Response: {responses[i][:80]!r}"
        )
    return scores


def _name_of(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__name__)

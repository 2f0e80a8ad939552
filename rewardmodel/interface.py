"""The reward model interfaces: scores, sessions, steps and ensembles."""

# pyright: strict
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from rewardmodel.data.conversation import Prompt, Reply

Finished = bool | Sequence[bool]
"""Whether responses end where their text does: all, or each of B."""


@runtime_checkable
class RewardModel(Protocol):
    """A model of human preference: scores a response to a prompt.

    Where `score` has a keyword `finished`, `score_replies` passes which responses were cut off, as
    at `max_new_tokens`.
    """

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> Tensor:
        """Scores finished responses.

        Args:
            prompts: B prompts: texts, or conversations, which a model renders with its own chat
                template.
            responses: B responses, the i-th to the i-th prompt: plain text, without markup.

        Returns:
            float32 [B] on the CPU, higher is better; finite. Only differences under one prompt are
            meaningful.

        Raises:
            ValueError: If a score is not finite; the message names the row.
        """
        ...


class ScoringSession(RewardModel, Protocol):
    """A reward model that caches the prefixes it has read, for one search."""

    @property
    def forward_tokens(self) -> int:
        """Tokens given to the model so far, padding included."""
        ...

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores responses, float32 [B] on the CPU; see `RewardModel.score`.

        `finished`: whether responses end here, all or each. Those that do not are scored at
        their last token, without the end token.
        """
        ...

    def keep(self, prompts: Collection[Prompt]) -> None:
        """Drops all other prompts from the cache."""
        ...


@runtime_checkable
class SessionRewardModel(RewardModel, Protocol):
    """A reward model with sessions."""

    def session(self) -> ScoringSession:
        """Starts a session with an empty cache."""
        ...


@runtime_checkable
class StepRewardModel(Protocol):
    """A reward model that scores each step of a response."""

    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        """Scores the steps of responses.

        Args:
            prompts: B prompts.
            steps: The steps of B responses, at least one each.

        Returns:
            float32 [T_i] on the CPU for each response, one score a step, higher is better; finite.

        Raises:
            ValueError: If a response has no steps, or a score is not finite; the message names
                the row.
        """
        ...


@runtime_checkable
class UncertainRewardModel(RewardModel, Protocol):
    """A reward model of several members, whose disagreement measures its uncertainty."""

    def member_scores(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> Tensor:
        """Scores of each member, float32 [M, B] on the CPU, on the scale that `score` combines."""
        ...


def each_finished(finished: Finished, count: int) -> list[bool]:
    """Whether each of `count` responses is finished.

    Raises:
        ValueError: If there are not `count` values.
    """
    if isinstance(finished, bool):
        return [finished] * count
    if len(finished) != count:
        raise ValueError(f"found {len(finished)} values of finished and {count} responses")
    return list(finished)


def score_replies(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    finished: Finished,
) -> Tensor:
    """Scores responses some of which may have been cut off, float32 [B].

    `finished` is passed on if `score` has such a keyword; other reward models, such as functions
    and verifiers, score the text alone.
    """
    return _call(reward_model.score, prompts, responses, finished)


def member_scores_of(
    reward_model: UncertainRewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    finished: Finished,
) -> Tensor:
    """Scores of each member, float32 [M, B]; as `score_replies`."""
    return _call(reward_model.member_scores, prompts, responses, finished)


def _call(
    score: Callable[..., Tensor],
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    finished: Finished,
) -> Tensor:
    """Calls a method, with `finished` if it has such a keyword."""
    if "finished" in inspect.signature(score).parameters:
        return score(prompts, responses, finished=finished)
    return score(prompts, responses)


DIVERGED = "The model diverged: train it again with a lower learning rate"


def require_finite(
    scores: Tensor, responses: Sequence[Reply], *, found_by: str = "", remedy: str = DIVERGED
) -> None:
    """Refuses scores [B] that are not finite.

    `found_by` names the model in the message, and `remedy` ends it.

    Raises:
        ValueError: If a score is not finite; the message names the row.
    """
    broken = [int(row) for row in (~scores.isfinite()).nonzero().flatten()]
    if broken:
        raise ValueError(
            f"{found_by or 'the reward model'} scored row {broken[0]} as "
            f"{scores[broken[0]].item()} ({len(broken)} of {len(scores)} rows are not finite); "
            f"required: finite scores. Response: {str(responses[broken[0]])[:80]!r}. {remedy}"
        )

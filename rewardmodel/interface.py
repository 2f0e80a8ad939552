"""What a reward model is to the rest of the project."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from rewardmodel.data.conversation import Prompt, Reply

Finished = bool | Sequence[bool]
"""Whether responses end where their text does: said of all, or of each of B."""


@runtime_checkable
class RewardModel(Protocol):
    """A model of the human: how good is a response to a prompt?

    Models whose `score` has a keyword `finished` are told which responses were cut off, as at
    `max_new_tokens` (`score_replies`).
    """

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> Tensor:
        """Scores finished responses.

        Args:
            prompts: B prompts: texts, or conversations, which a model renders with its own chat
                template.
            responses: B responses, the i-th to the i-th prompt: plain text, without markup.

        Returns:
            float32 [B] on the CPU, higher is better. Only differences under one prompt mean
            something; every entry is finite.

        Raises:
            ValueError: If a score is not finite; the message names the row.
        """
        ...


class ScoringSession(RewardModel, Protocol):
    """A reward model that remembers what it has read, for one search."""

    @property
    def forward_tokens(self) -> int:
        """Tokens given to the model so far, those that only fill a batch up included."""
        ...

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores responses; see `RewardModel.score`.

        Args:
            prompts: B prompts.
            responses: B responses, the i-th to the i-th prompt.
            finished: Whether the responses end here, all or each. Those that do not are scored at
                their last token, without the end token.

        Returns:
            float32 [B] on the CPU.
        """
        ...

    def keep(self, prompts: Collection[Prompt]) -> None:
        """Forgets all other prompts."""
        ...


@runtime_checkable
class SessionRewardModel(RewardModel, Protocol):
    """A reward model with sessions."""

    def session(self) -> ScoringSession:
        """Starts a session that has read nothing."""
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
            float32 [T_i] on the CPU for each response, one score a step, higher is better; every
            entry is finite.

        Raises:
            ValueError: If a response has no steps, or a score is not finite; the message names
                the row.
        """
        ...


@runtime_checkable
class UncertainRewardModel(RewardModel, Protocol):
    """A reward model of several members, whose disagreement says how sure it is."""

    def member_scores(self, prompts: Sequence[Prompt], responses: Sequence[Reply]) -> Tensor:
        """Scores responses with each member.

        Args:
            prompts: B prompts.
            responses: B responses, the i-th to the i-th prompt.

        Returns:
            float32 [M, B] on the CPU, a row a member, on the scale on which `score` combines them.
        """
        ...


def each_finished(finished: Finished, count: int) -> list[bool]:
    """Whether each of `count` responses is finished.

    Raises:
        ValueError: If it is not said of as many as there are.
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
    """Scores of responses some of which may have been cut off, float32 [B].

    Args:
        reward_model: Is told which are finished if its `score` has such a keyword; others, such as
            functions and rules, are given the text alone.
        prompts: B prompts.
        responses: B responses.
        finished: Whether a response is a whole one.
    """
    return _told(reward_model.score, prompts, responses, finished)


def member_scores_of(
    reward_model: UncertainRewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    *,
    finished: Finished,
) -> Tensor:
    """Scores of each member, float32 [M, B]; as `score_replies`."""
    return _told(reward_model.member_scores, prompts, responses, finished)


def _told(
    score: Callable[..., Tensor],
    prompts: Sequence[Prompt],
    responses: Sequence[Reply],
    finished: Finished,
) -> Tensor:
    """Calls a method with `finished` if it has such a keyword."""
    if "finished" in inspect.signature(score).parameters:
        return score(prompts, responses, finished=finished)
    return score(prompts, responses)


DIVERGED = "The model diverged: train it again with a lower learning rate"


def require_finite(
    scores: Tensor, responses: Sequence[Reply], *, found_by: str = "", remedy: str = DIVERGED
) -> None:
    """Refuses scores that are no numbers.

    Args:
        scores: float32 [B].
        responses: The B responses that were scored.
        found_by: What scored them, for the message; "the reward model" where it is not said.
        remedy: What the user can do.

    Raises:
        ValueError: If a score is not finite; the message names the row.
    """
    broken: list[int] = (~scores.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{found_by or 'the reward model'} scored row {broken[0]} as "
            f"{scores[broken[0]].item()} ({len(broken)} of {len(scores)} rows are not finite); "
            f"required: finite scores. Response: {str(responses[broken[0]])[:80]!r}. {remedy}"
        )

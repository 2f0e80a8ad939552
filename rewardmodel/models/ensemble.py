"""An ensemble of reward models, whose disagreement measures its uncertainty.

Scores of Bradley-Terry models are defined up to a shift, so members trained apart may lie on
different scales: the mean then follows the widest, and the minimum the lowest. Members that share
base and data are combined as they are, the default and what Coste et al. 2023 do; `standardize`
puts others on one scale, measured on given texts.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.interface import (
    Finished,
    RewardModel,
    ScoringSession,
    SessionRewardModel,
    require_finite,
    score_replies,
)
from rewardmodel.models.aggregation import Aggregate, combine
from rewardmodel.models.ensemble_file import require_combination
from rewardmodel.models.sequence import PlainSession


class EnsembleRewardModel:
    """Scores responses with several reward models; a `SessionRewardModel`."""

    def __init__(
        self,
        members: Sequence[RewardModel],
        aggregate: Aggregate = "mean",
        *,
        weight: float = 1.0,
        shifts: Sequence[float] | None = None,
        scales: Sequence[float] | None = None,
    ) -> None:
        """Takes loaded members.

        Args:
            members: M reward models.
            aggregate: How their scores become one; see `rewardmodel.models.aggregation`.
            weight: Of their disagreement.
            shifts: Subtracted from each member's scores, M numbers.
            scales: Divisors of the scores after that, M positive numbers.

        Raises:
            ValueError: As `rewardmodel.models.ensemble_file.require_combination`.
        """
        require_combination(len(members), aggregate, weight=weight, shifts=shifts, scales=scales)
        self.members = list(members)
        self.aggregate: Aggregate = aggregate
        self.weight = weight
        self.shifts = list(shifts or [0.0] * len(members))
        self.scales = list(scales or [1.0] * len(members))

    def member_scores(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores of each member, float32 [M, B]; see `UncertainRewardModel`.

        Raises:
            ValueError: If a member's score is not finite; the message names member and row.
        """
        found = [score_replies(m, prompts, responses, finished=finished) for m in self.members]
        return self._collect(found, responses)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Combined scores, float32 [B]; see `RewardModel`."""
        found = self.member_scores(prompts, responses, finished=finished)
        return combine(found, self.aggregate, weight=self.weight)

    def session(self) -> ScoringSession:
        """Starts a session of each member."""
        return _EnsembleSession(self)

    def standardize(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> "EnsembleRewardModel":
        """An ensemble of the same members, each scaled to mean 0 and deviation 1 on given texts.

        Raises:
            ValueError: If there are fewer than two texts, or a member scores all alike.
        """
        if len(responses) < 2:
            raise ValueError(
                f"found {len(responses)} responses to standardize on; required: 2 or more"
            )
        found = [score_replies(m, prompts, responses, finished=finished) for m in self.members]
        raw = torch.stack(found).double()  # [M, B]
        scales = raw.std(1).tolist()
        rounding = 1e-6 * float(raw.abs().max())
        if min(scales) <= rounding:
            raise ValueError(
                f"member {scales.index(min(scales))} gives all {len(responses)} responses the same "
                "score; required: scores that differ. Take other texts, or leave the member out"
            )
        return EnsembleRewardModel(
            self.members,
            self.aggregate,
            weight=self.weight,
            shifts=raw.mean(1).tolist(),
            scales=scales,
        )

    def _collect(self, scores: Sequence[Tensor], responses: Sequence[Reply]) -> Tensor:
        """Members' scores [M, B] on one scale."""
        for number, mine in enumerate(scores):
            require_finite(mine, responses, found_by=f"member {number} of the ensemble")
        found = torch.stack([mine.float().cpu() for mine in scores])
        return (found - torch.tensor(self.shifts)[:, None]) / torch.tensor(self.scales)[:, None]


class _EnsembleSession:
    """A session of each member; members without sessions read every text from its beginning."""

    def __init__(self, ensemble: EnsembleRewardModel) -> None:
        self._ensemble = ensemble
        self._sessions: list[ScoringSession] = [
            member.session() if isinstance(member, SessionRewardModel) else _uncounted(member)
            for member in ensemble.members
        ]

    @property
    def forward_tokens(self) -> int:
        """Tokens given to all members."""
        return sum(session.forward_tokens for session in self._sessions)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Combined scores, float32 [B]; see `ScoringSession`."""
        ensemble = self._ensemble
        found = [s.score(prompts, responses, finished=finished) for s in self._sessions]
        scores = ensemble._collect(found, responses)
        return combine(scores, ensemble.aggregate, weight=ensemble.weight)

    def keep(self, prompts: Collection[Prompt]) -> None:
        """See `ScoringSession`."""
        for session in self._sessions:
            session.keep(prompts)


def _uncounted(member: RewardModel) -> PlainSession:
    """A session of a member that has none, whose tokens are not counted."""

    def score(
        prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[Tensor, int]:
        if finished is False:  # all: values of unfinished text
            raise ValueError(
                f"{type(member).__name__} cannot score unfinished text; required: a reward "
                "model with session(), such as SequenceRewardModel. Score it as finished"
            )
        return score_replies(member, prompts, responses, finished=finished), 0

    return PlainSession(score)

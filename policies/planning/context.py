"""What a search over text knows beside its tree: prompts, scores, and what finished."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from policies.generation.segment_tree import SegmentTree
from rewardmodel.data.conversation import Prompt
from rewardmodel.interface import (
    Finished,
    RewardModel,
    ScoringSession,
    SessionRewardModel,
    score_replies,
)
from rewardmodel.models.functions import UserCodeError


@dataclass
class TextContext:
    """One batch of prompts being searched.

    Attributes:
        tree: Where segments live; prompts are added by the caller.
        prompts: The prompt, by its handle.
        reward_model: Judges finished responses; opened once, so that it reads each prefix once.
        scores: Scores of the finished nodes, by handle.
        memory: What parts of the search remember of this batch alone, by the part's `id`.
    """

    tree: SegmentTree
    prompts: dict[int, Prompt]
    reward_model: RewardModel
    scores: dict[int, float] = field(default_factory=dict)
    memory: dict[int, Any] = field(default_factory=dict)
    _sessions: dict[int, ScoringSession] = field(default_factory=dict)

    @property
    def scored_tokens(self) -> int:
        """Tokens that reward models were given; those that do not count say nothing."""
        return sum(session.forward_tokens for session in self._sessions.values())

    def score(
        self,
        nodes: Sequence[int],
        *,
        reward_model: RewardModel | None = None,
        finished: Finished = True,
    ) -> Tensor:
        """Scores the text up to nodes.

        Args:
            nodes: R handles.
            reward_model: Whose scores; None asks the search's own.
            finished: Whether the text is closed by an end token, as if it were finished; of all,
                or of each.

        Returns:
            float32 [R].

        Raises:
            ValueError: If a score is not finite, or the reward model cannot read unfinished text.
        """
        asked = [self.prompts[self.tree.root(node)] for node in nodes]
        texts = [self.tree.response_text(node) for node in nodes]
        model = reward_model or self.reward_model
        try:
            scores = self._asked(model, asked, texts, finished)
        except UserCodeError as error:
            first = self.tree.describe(self.tree.root(nodes[0]))
            raise UserCodeError(f"{first} and those behind it: {error}") from error
        broken = (~scores.isfinite()).nonzero().flatten().tolist()
        if broken:
            row = broken[0]
            raise ValueError(
                f"{type(model).__name__} scored {scores[row].item()} for the response "
                f"{texts[row][:80]!r} to the prompt {str(asked[row])[:80]!r}; required: finite "
                "scores. Correct or train the reward model again"
            )
        return scores

    def judge(self, nodes: Sequence[int]) -> Tensor:
        """Scores finished nodes and remembers the scores, float32 [R].

        What was cut off at `max_new_tokens` is scored without an end token.
        """
        scores = self.score(nodes, finished=[not self.tree.cut(node) for node in nodes])
        self.scores.update(zip(nodes, scores.tolist(), strict=True))
        return scores

    def candidates(self, prompt: int) -> list[int]:
        """The finished nodes under a prompt, in the order they were found."""
        return [node for node in self.scores if self.tree.root(node) == prompt]

    def best_finished(self, prompt: int) -> int | None:
        """The finished node with the highest score under a prompt, the earliest of equals."""
        found = self.candidates(prompt)
        return max(found, key=lambda node: self.scores[node], default=None)

    def keep_prompts(self, prompts: Sequence[int]) -> None:
        """Lets reward models forget all other prompts."""
        texts = {self.prompts[prompt] for prompt in prompts}
        for session in self._sessions.values():
            session.keep(texts)

    def _asked(
        self,
        model: RewardModel,
        asked: Sequence[Prompt],
        texts: Sequence[str],
        finished: Finished,
    ) -> Tensor:
        """Scores of texts, by the model's session where it has one."""
        session = self._session(model)
        if session is not None:
            return session.score(asked, texts, finished=finished)
        if finished is not False:
            return score_replies(model, asked, texts, finished=finished)
        raise ValueError(
            f"{type(model).__name__} was asked about unfinished text; required: a reward model "
            "with session(), such as SequenceRewardModel. Ask as if the text were finished"
        )

    def _session(self, reward_model: RewardModel) -> ScoringSession | None:
        if not isinstance(reward_model, SessionRewardModel):
            return None
        if id(reward_model) not in self._sessions:
            self._sessions[id(reward_model)] = reward_model.session()
        return self._sessions[id(reward_model)]

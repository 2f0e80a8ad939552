"""Reward models over a tree of text: each opened once, so that it reads every prefix once."""

from collections.abc import Sequence
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


class TreeScorer:
    """Scores the text of a `SegmentTree` by reward models.

    Attributes:
        tree: The text.
        reward_model: Scores finished responses.
        memory: What parts of the search keep for this batch alone, by the part's `id`.
    """

    def __init__(self, tree: SegmentTree, reward_model: RewardModel) -> None:
        """Opens nothing yet."""
        self.tree = tree
        self.reward_model = reward_model
        self.memory: dict[int, Any] = {}
        self._sessions: dict[int, ScoringSession] = {}

    @property
    def scored_tokens(self) -> int:
        """Tokens given to reward models that count them."""
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
            reward_model: None takes the search's own.
            finished: Whether the text is closed by an end token, as if it were finished; of all,
                or of each.

        Returns:
            float32 [R].

        Raises:
            ValueError: If a score is not finite, or the reward model cannot read unfinished text.
        """
        prompts = [self.tree.prompt(node) for node in nodes]
        texts = [self.tree.response_text(node) for node in nodes]
        model = reward_model or self.reward_model
        try:
            scores = self._read(model, prompts, texts, finished)
        except UserCodeError as error:
            first = self.tree.describe(nodes[0])
            raise UserCodeError(f"{first} and those behind it: {error}") from error
        broken = (~scores.isfinite()).nonzero().flatten().tolist()
        if broken:
            row = broken[0]
            raise ValueError(
                f"{type(model).__name__} scored {scores[row].item()} for the response "
                f"{texts[row][:80]!r} to the prompt {str(prompts[row])[:80]!r}; required: finite "
                "scores. Correct or train the reward model again"
            )
        return scores

    def score_finished(self, nodes: Sequence[int]) -> Tensor:
        """Scores finished nodes and puts the scores on the tree, float32 [R].

        What was cut off at `max_new_tokens` is scored without an end token.
        """
        scores = self.score(nodes, finished=[not self.tree.cut(node) for node in nodes])
        self.tree.add_scores(nodes, scores.tolist())
        return scores

    def keep_prompts(self, roots: Sequence[int]) -> None:
        """Lets reward models forget all other prompts."""
        prompts = {self.tree.prompt(root) for root in roots}
        for session in self._sessions.values():
            session.keep(prompts)

    def _read(
        self,
        model: RewardModel,
        prompts: Sequence[Prompt],
        texts: Sequence[str],
        finished: Finished,
    ) -> Tensor:
        """Scores of texts, by the model's session where it has one."""
        if isinstance(model, SessionRewardModel):
            if id(model) not in self._sessions:
                self._sessions[id(model)] = model.session()
            return self._sessions[id(model)].score(prompts, texts, finished=finished)
        if finished is not False:
            return score_replies(model, prompts, texts, finished=finished)
        raise ValueError(
            f"{type(model).__name__} cannot score unfinished text; required: a reward model with "
            "session(), such as SequenceRewardModel. Score the text as if it were finished"
        )

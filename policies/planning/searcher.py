"""A policy that plans: prompts in, the best responses that a search found out.

Prompts are searched in batches that know nothing of each other: the result of a batch depends on
its prompts, their numbers and the seed, so batches may be dealt to processes or done another day.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.batch_search import BatchSearch
from policies.planning.leaf_values import LeafValue
from policies.planning.result import SearchResult
from policies.planning.segment_rewards import SegmentReward
from prefsearch.progress import track
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.text_rows import require_rows
from rewardmodel.interface import RewardModel
from rewardmodel.pretrained.tokenization import TextEncoder
from search import Planner

_logger = logging.getLogger(__name__)
Answer = Literal["best", "committed", "majority", "weighted"]


@dataclass(frozen=True)
class SearchPolicy:
    """Plans every response against a reward model.

    Attributes:
        policy: Proposes segments.
        reward_model: Judges finished responses.
        leaf_value: Values unfinished ones.
        planner: Any `search.Planner`.
        proposal: Where segments end and how they are sampled.
        num_slots: K, segments a node can hold; best-of-N needs N.
        segment_reward: What segments earn on the way; None for nothing.
        redraws: How often a segment that repeats a sibling is drawn again before it becomes that
            sibling; None lets siblings be equal.
        token_budget: The most tokens sampled for a prompt; None for no limit.
        replan: Whether to plan again after each committed segment, as a tree search does, until the
            committed line is finished. Beam search, which looks at whole responses in one plan,
            stops with the first plan that saw a finished one.
        answer: `"best"` answers with the highest score seen, `"committed"` with the line that the
            plans committed to, `"majority"` and `"weighted"` by a vote of all finished responses.
        answer_form: How a vote reads answers; see `rewardmodel.models.answers.extract_answer`.
        batch_size: Prompts searched side by side.
        max_rows: The most segments that are sampled side by side.

    Raises:
        ValueError: If the budget does not pay for one response.
    """

    policy: Policy
    reward_model: RewardModel
    leaf_value: LeafValue
    planner: Planner
    proposal: Proposal
    num_slots: int
    segment_reward: SegmentReward | None = None
    redraws: int | None = None
    token_budget: int | None = None
    replan: bool = True
    answer: Answer = "best"
    answer_form: str = "auto"
    batch_size: int = 64
    max_rows: int = 256

    def __post_init__(self) -> None:
        """Checks the budget."""
        longest = self.proposal.max_new_tokens
        if self.token_budget is not None and self.token_budget < longest:
            raise ValueError(
                f"token_budget: found {self.token_budget}; required: at least {longest}, the "
                "max_new_tokens of one response. Raise the budget or lower max_new_tokens"
            )
        theirs = getattr(self.reward_model, "encoder", None)
        mine = self.policy.encoder
        if isinstance(theirs, TextEncoder) and not theirs.shares_vocabulary(mine):
            _logger.warning(
                "the reward model has another vocabulary (%d tokens) than the policy (%d): "
                "responses are tokenized again from their text",
                len(theirs.tokenizer), len(mine.tokenizer),
            )  # fmt: skip

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        keep_trees: int = 0,
        save_trees: Path | None = None,
        progress: str | None = None,
    ) -> list[SearchResult]:
        """Searches a response to each prompt.

        Args:
            prompts: Prompts; a batch of them is searched at a time.
            seed: Of everything drawn.
            keep_trees: For how many of the first prompts to keep the search tree.
            save_trees: Folder for the trees of all prompts: one file for each decision of each
                batch, named by its first prompt; `prefsearch tree show` opens them.
            progress: Label of a progress bar, or None for none.

        Returns:
            One result a prompt, in order.

        Raises:
            ValueError: If a prompt is empty or too long for the policy's context, the search could
                need more memory than there is, or the reward model gives a score that is not
                finite.
        """
        batches = self.stream(prompts, seed=seed, keep_trees=keep_trees, save_trees=save_trees)
        if progress:
            count = -(-len(prompts) // self.batch_size)
            batches = track(batches, progress, total=count)
        return [result for _, results in batches for result in results]

    def stream(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        batches: Iterable[int] | None = None,
        keep_trees: int = 0,
        save_trees: Path | None = None,
    ) -> Iterator[tuple[int, list[SearchResult]]]:
        """Searches batch by batch; arguments and errors as `generate`.

        Args:
            prompts: All prompts.
            seed: Of everything drawn.
            batches: Which batches, batch i beginning with prompt i * `batch_size`; None does all.
            keep_trees: As `generate`.
            save_trees: As `generate`.

        Yields:
            The number of a batch's first prompt and the batch's results.
        """
        require_rows(prompts)
        size = self.batch_size
        for index in range(-(-len(prompts) // size)) if batches is None else batches:
            first = index * size
            batch = prompts[first : first + size]
            search = BatchSearch(self, batch, seed=seed, first=first, save_trees=save_trees)
            yield first, search.run(keep_trees=max(0, min(len(batch), keep_trees - first)))

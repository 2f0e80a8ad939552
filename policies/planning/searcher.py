"""A policy that plans: prompts in, the best responses that a search found out.

Batches of prompts are independent: a result depends on the batch's prompts, their numbers and the
seed, so batches may be distributed over processes or resumed later. One loop serves every planner:
plan from where each response stands, commit the chosen segment, plan again from there. Segments
sampled before stay in the tree and cost nothing the second time.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import ROLLOUT, SegmentTree
from policies.planning.leaf_values import LeafValue
from policies.planning.planning_model import TextPlanningModel
from policies.planning.result import Candidate, SearchResult, node_texts, tree_with_texts
from policies.planning.scoring import TreeScorer
from policies.planning.segment_rewards import SegmentReward
from policies.planning.voting import VoteRule, choose
from prefsearch.progress import track
from prefsearch.run.directory import step_seed
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.text_rows import require_rows
from rewardmodel.interface import RewardModel
from rewardmodel.prefix_cache.row_cache import available_memory
from rewardmodel.pretrained.tokenization import TextEncoder
from search import Planner, SearchOutput
from search.evaluation.divergence import segment_kl_bound
from search.viewer.file import save_tree

_logger = logging.getLogger(__name__)
Answer = Literal["best", "committed", "majority", "weighted"]


@dataclass(frozen=True)
class SearchPolicy:
    """Plans every response against a reward model.

    Attributes:
        policy: Proposes segments.
        reward_model: Scores finished responses.
        leaf_value: Values unfinished ones.
        planner: Any `search.Planner`.
        proposal: Where segments end and how they are sampled.
        num_proposals: K, the segments that a node can hold; best-of-N needs N.
        segment_reward: What segments earn on the way; None for nothing.
        resamples: How often a segment that equals a sibling is sampled again before it becomes
            that sibling; None lets siblings be equal.
        token_budget: The most tokens sampled for a prompt; None for no limit.
        replan: Whether to plan again after each committed segment, as a tree search does, until the
            committed line is finished. Beam search, whose one plan covers whole responses, stops
            with the first plan that found a finished one.
        answer: `"best"` is the highest score found, `"committed"` the line that the
            plans committed to, `"majority"` and `"weighted"` by a vote of all finished responses.
        answer_form: How a vote reads answers; see `rewardmodel.models.answers.extract_answer`.
        batch_size: Prompts searched together.
        max_rows: The most segments that are sampled together.

    Raises:
        ValueError: If the budget is less than one response.
    """

    policy: Policy
    reward_model: RewardModel
    leaf_value: LeafValue
    planner: Planner
    proposal: Proposal
    num_proposals: int
    segment_reward: SegmentReward | None = None
    resamples: int | None = None
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
            seed: Of all random numbers.
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
            seed: Of all random numbers.
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
            search = _BatchSearch(self, batch, seed=seed, first=first, save_trees=save_trees)
            yield first, search.run(keep_trees=max(0, min(len(batch), keep_trees - first)))


class _BatchSearch:
    """The search of one batch of prompts, from its first plan to its results."""

    def __init__(
        self,
        searcher: SearchPolicy,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        first: int,
        save_trees: Path | None,
    ) -> None:
        """Runs the policy over the prompts, which are numbered from `first`."""
        self.searcher = searcher
        self.prompts = prompts
        self.seed = seed
        self.first = first
        self.save_trees = save_trees
        self.began = time.perf_counter()
        policy = searcher.policy
        self.tree = SegmentTree(policy, searcher.proposal, seed=seed, max_rows=searcher.max_rows)
        numbers = range(first, first + len(prompts))
        try:
            self.roots = self.tree.add_prompts(prompts, numbers=numbers)
        except ValueError as error:
            raise ValueError(f"{error} (counted from prompt {first})") from error
        self._check_memory(max(len(self.tree.segment(root).ids) for root in self.roots))
        self.scorer = TreeScorer(self.tree, searcher.reward_model)
        self.model = TextPlanningModel(
            self.scorer,
            searcher.leaf_value,
            searcher.num_proposals,
            segment_reward=searcher.segment_reward,
            resamples=searcher.resamples,
            token_budget=searcher.token_budget,
        )
        self.standing = list(self.roots)  # the committed node of each prompt
        self.kept_trees: list[dict[str, Any] | None] = [None] * len(prompts)

    def run(self, *, keep_trees: int) -> list[SearchResult]:
        """Plans and commits until every prompt has its answer."""
        alive = list(range(len(self.roots)))
        decision = 0
        while alive:
            generator = torch.Generator()
            generator.manual_seed(step_seed(self.seed, f"batch-{self.first}-decision-{decision}"))
            output = self.searcher.planner.plan(
                self.model,
                torch.tensor([self.standing[row] for row in alive]),
                generator=generator,
            )
            if decision == 0 and output.tree is not None:
                for row in range(keep_trees):  # all rows are alive
                    self.kept_trees[row] = tree_with_texts(output.tree, row, self.tree)
            self._save(output, decision)
            self._finish_closed(alive)
            self._commit(output, alive)
            alive = self._unanswered(alive)
            self._release(output, alive)
            decision += 1
        seconds = (time.perf_counter() - self.began) / len(self.roots)
        return [self._result(row, seconds) for row in range(len(self.roots))]

    # ----------------------------------------------------------------------------------- internals

    def _check_memory(self, longest_prompt: int) -> None:
        """Raises if the keys and values of one decision could take more memory than there is."""
        searcher = self.searcher
        proposal = searcher.proposal
        segments = searcher.planner.num_simulations * proposal.segment_limit
        if searcher.token_budget is not None:
            segments = min(segments, searcher.token_budget)
        # What the last decision left below the committed node is at most as much again.
        kept = 2 * segments if searcher.replan else segments
        longest = longest_prompt + proposal.max_new_tokens
        rows = min(searcher.max_rows, len(self.prompts) * searcher.planner.num_simulations)
        tokens = len(self.prompts) * (longest + kept) + (0 if proposal.ranked else rows * longest)
        needed = tokens * self.tree.bytes_per_token()
        free = available_memory(searcher.policy.model.device)
        if needed > free:
            raise ValueError(
                f"the search could need {needed / 2**30:.1f} GiB for the keys and values of up to "
                f"{tokens} tokens ({len(self.prompts)} prompts); found {free / 2**30:.1f} GiB "
                "free. Lower the batch size, the budget, segment_tokens or max_new_tokens, or set "
                "a token budget"
            )

    def _finish_closed(self, alive: Sequence[int]) -> None:
        """Brings prompts to an end whose budget is spent before a response was finished."""
        for row in alive:
            root = self.roots[row]
            if root in self.model.closed and self.tree.best_finished(root) is None:
                # The budget was kept for the line sampled last; the longest costs no more.
                lines = self.tree.unfinished_below(self.standing[row])
                longest = max(lines, key=lambda node: self.tree.segment(node).length)
                self.scorer.score_finished(self.tree.extend([longest], [ROLLOUT]))

    def _commit(self, output: SearchOutput, alive: Sequence[int]) -> None:
        """Moves each prompt to the child that was chosen; where there is none yet, samples it."""
        chosen = dict(zip(alive, output.action.tolist(), strict=True))
        missing = []
        for line, row in enumerate(alive):
            children = self.tree.segment(self.standing[row]).children
            if chosen[row] in children:
                continue
            if self.roots[row] not in self.model.closed:
                missing.append((self.standing[row], chosen[row]))
            elif children:  # the budget did not pay for it: the best of those that were sampled
                weights = output.action_weights[line].tolist()
                chosen[row] = max(children, key=weights.__getitem__)
            else:
                del chosen[row]
        self.model.sample(missing)
        for row, action in chosen.items():
            self.standing[row] = self.tree.segment(self.standing[row]).children[action]

    def _unanswered(self, alive: Sequence[int]) -> list[int]:
        """The prompts to plan on for."""
        going = []
        for row in alive:
            root = self.roots[row]
            done = self.tree.finished(self.standing[row]) or root in self.model.closed
            if not done and (self.searcher.replan or self.tree.best_finished(root) is None):
                going.append(row)
        return going

    def _release(self, output: SearchOutput, alive: Sequence[int]) -> None:
        """Frees what no later decision needs: all but the last search below the line."""
        kept: set[int] = set()
        for row in alive:
            kept |= set(self.tree.unfinished_below(self.standing[row]))
        if output.tree is not None:
            searched = set(output.tree.embeddings["node"].flatten().tolist())
            kept &= searched | {self.standing[row] for row in alive}
        self.tree.keep(kept)
        self.scorer.keep_prompts([self.roots[row] for row in alive])

    def _save(self, output: SearchOutput, decision: int) -> None:
        if output.tree is None or self.save_trees is None:
            return
        last = self.first + len(self.prompts) - 1
        save_tree(
            output.tree,
            self.save_trees / f"prompt-{self.first}-decision-{decision}.safetensors",
            labels=[node_texts(output.tree, line, self.tree) for line in range(len(output.action))],
            title=f"Prompts {self.first} to {last}, decision {decision}",
            embeddings=False,  # handles, which mean nothing outside this process
        )

    def _result(self, row: int, seconds: float) -> SearchResult:
        tree, root = self.tree, self.roots[row]
        found = tree.candidates(root)
        candidates = tuple(
            Candidate(
                text=tree.response_text(node),
                score=tree.score(node),
                tokens=tree.segment(node).length,
                log_probability=tree.log_probability(node),
                finished=not tree.cut(node),
            )
            for node in found
        )
        node = self._answer(row, found, candidates)
        samples = self.searcher.num_proposals * (1 + (self.searcher.resamples or 0))
        ranked = self.searcher.proposal.ranked
        return SearchResult(
            prompt=self.prompts[row],
            response=tree.response_text(node),
            score=tree.score(node),
            tokens=tree.generated_tokens[root],
            forward_tokens=tree.forward_tokens(root),
            scored_tokens=self.scorer.scored_tokens / len(self.roots),
            seconds=seconds,
            num_candidates=len(found),
            segments=self.model.segments[root],
            log_probability=tree.log_probability(node),
            kl_bound=None if ranked else segment_kl_bound([samples] * len(tree.path(node))),
            response_finished=not tree.cut(node),
            candidates=candidates,
            tree=self.kept_trees[row],
        )

    def _answer(self, row: int, found: Sequence[int], candidates: Sequence[Candidate]) -> int:
        """The finished node that is the answer."""
        rule = self.searcher.answer
        if rule == "committed" and self.tree.finished(self.standing[row]):
            return self.standing[row]
        vote: VoteRule = "best" if rule == "committed" else rule
        texts = [candidate.text for candidate in candidates]
        scores = [candidate.score for candidate in candidates]
        finished = [candidate.finished for candidate in candidates]
        form = self.searcher.answer_form
        return found[choose(texts, scores, rule=vote, form=form, finished=finished)]

"""The search of one batch of prompts, from its first plan to its results.

One loop serves every planner: plan from where each response stands, commit the chosen segment, plan
again from there. Segments drawn before are remembered and cost nothing the second time.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from policies.generation.segment_tree import ROLLOUT, SegmentTree
from policies.planning.context import TextContext
from policies.planning.planning_model import TextPlanningModel
from policies.planning.result import Candidate, SearchResult
from policies.planning.tree_texts import node_texts, tree_with_texts
from policies.planning.voting import VoteRule, choose
from prefsearch.run.directory import step_seed
from rewardmodel.data.conversation import Prompt
from rewardmodel.prefix_cache.tree import available_memory
from search import SearchOutput
from search.evaluation.divergence import segment_kl_bound
from search.viewer.file import save_tree

if TYPE_CHECKING:
    from policies.planning.searcher import SearchPolicy


class BatchSearch:
    """Searches one batch; see `policies.planning.searcher.SearchPolicy` for what it is told."""

    def __init__(
        self,
        searcher: "SearchPolicy",
        prompts: Sequence[Prompt],
        *,
        seed: int,
        first: int,
        save_trees: Path | None,
    ) -> None:
        """Runs the policy over the prompts; numbers them from `first`."""
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
            self.roots = self.tree.ask(prompts, numbers=numbers)
        except ValueError as error:
            raise ValueError(f"{error} (counted from prompt {first})") from error
        self._check_memory(max(len(self.tree.segment(root).ids) for root in self.roots))
        self.context = TextContext(
            self.tree, dict(zip(self.roots, prompts, strict=True)), searcher.reward_model
        )
        self.model = TextPlanningModel(
            self.context,
            searcher.leaf_value,
            searcher.num_slots,
            segment_reward=searcher.segment_reward,
            redraws=searcher.redraws,
            token_budget=searcher.token_budget,
        )
        self.standing = list(self.roots)  # the committed node of each prompt
        self.drawn: list[dict[str, Any] | None] = [None] * len(prompts)

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
                    self.drawn[row] = tree_with_texts(output.tree, row, self.context)
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
            if root in self.model.closed and self.context.best_finished(root) is None:
                # The budget was kept for the line drawn last; the longest costs no more.
                lines = self.model.below(self.standing[row])
                longest = max(lines, key=lambda node: self.tree.segment(node).length)
                self.context.judge(self.tree.extend([longest], [ROLLOUT]))

    def _commit(self, output: SearchOutput, alive: Sequence[int]) -> None:
        """Moves each prompt to the child that was chosen; where there is none yet, draws it."""
        chosen = dict(zip(alive, output.action.tolist(), strict=True))
        missing = []
        for line, row in enumerate(alive):
            children = self.model.drawn(self.standing[row])
            if chosen[row] in children:
                continue
            if self.roots[row] not in self.model.closed:
                missing.append((self.standing[row], chosen[row]))
            elif children:  # the budget closed the slot: the best of those that were drawn
                weights = output.action_weights[line].tolist()
                chosen[row] = max(children, key=weights.__getitem__)
            else:
                del chosen[row]
        self.model.draw(missing)
        for row, slot in chosen.items():
            self.standing[row] = self.model.drawn(self.standing[row])[slot]

    def _unanswered(self, alive: Sequence[int]) -> list[int]:
        """The prompts to plan on for."""
        going = []
        for row in alive:
            root = self.roots[row]
            done = self.tree.finished(self.standing[row]) or root in self.model.closed
            if not done and (self.searcher.replan or self.context.best_finished(root) is None):
                going.append(row)
        return going

    def _release(self, output: SearchOutput, alive: Sequence[int]) -> None:
        """Frees what no later decision will ask for: all but the last search below the line."""
        kept: set[int] = set()
        for row in alive:
            kept |= set(self.model.below(self.standing[row]))
        if output.tree is not None:
            searched = set(output.tree.embeddings["node"].flatten().tolist())
            kept &= searched | {self.standing[row] for row in alive}
        self.model.forget_all_but(kept)
        self.tree.keep(kept)
        self.context.keep_prompts([self.roots[row] for row in alive])

    def _save(self, output: SearchOutput, decision: int) -> None:
        if output.tree is None or self.save_trees is None:
            return
        last = self.first + len(self.prompts) - 1
        save_tree(
            output.tree,
            self.save_trees / f"prompt-{self.first}-decision-{decision}.safetensors",
            labels=[
                node_texts(output.tree, line, self.context) for line in range(len(output.action))
            ],
            title=f"Prompts {self.first} to {last}, decision {decision}",
            embeddings=False,  # handles, which mean nothing outside this process
        )

    def _result(self, row: int, seconds: float) -> SearchResult:
        context, tree, root = self.context, self.tree, self.roots[row]
        found = context.candidates(root)
        candidates = tuple(
            Candidate(
                text=tree.response_text(node),
                score=context.scores[node],
                tokens=tree.segment(node).length,
                log_probability=tree.log_probability(node),
                finished=not tree.cut(node),
            )
            for node in found
        )
        node = self._answer(row, found, candidates)
        slots = self.searcher.num_slots * (1 + (self.searcher.redraws or 0))
        ranked = self.searcher.proposal.ranked
        return SearchResult(
            prompt=self.prompts[row],
            response=tree.response_text(node),
            score=context.scores[node],
            tokens=tree.generated_tokens[root],
            forward_tokens=tree.forward_tokens(root),
            scored_tokens=context.scored_tokens / len(self.roots),
            seconds=seconds,
            num_candidates=len(found),
            segments=self.model.segments[root],
            log_probability=tree.log_probability(node),
            kl_bound=None if ranked else segment_kl_bound([slots] * len(tree.path(node))),
            response_finished=not tree.cut(node),
            candidates=candidates,
            tree=self.drawn[row],
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

"""Cells of the text-search benchmark that sample whole responses: best-of-N, and unequal lengths.

The other sides are `generate` of transformers with plain scoring of full sequences, and the same
with each model's prompt run once and its cache repeated.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from benchmarks.harness.worker import Json
from benchmarks.text.models import CONTEXT, Subject
from benchmarks.text.run import Cell, Outcome, Side
from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from policies.planning.methods import build_searcher

TITLES = {
    "ours": "prefsearch, sample and score",
    "ours, search": "prefsearch, best-of-N as a search",
    "generate": "generate, then score full sequences",
    "prompt once": "the same, prompts run once (good user)",
    "ours, refill": "prefsearch, free rows refilled",
    "ours, batches": "prefsearch, fixed batches",
}


@dataclass(frozen=True)
class BestOf:
    """Makes sides that sample `count` responses of `new_tokens` each to one prompt and score them.

    Attributes:
        subject: The models.
        prompt: A text.
        count: N.
        new_tokens: Of each response; none ends before.
    """

    subject: Subject
    prompt: str
    count: int
    new_tokens: int

    def ours(self) -> Side:
        """Sampling through `SegmentTree`, scoring with a shared prompt."""
        subject = self.subject

        def run() -> Outcome:
            began = time.process_time()
            samples = sample_responses(
                subject.policy, [self.prompt], self.count, proposal=self._proposal(), seed=0
            )
            sampled = time.process_time()
            scores = subject.value_model.score(*samples.flat())
            return self._outcome(began, sampled, scores)

        return run

    def ours_as_search(self) -> Side:
        """`build_searcher`, which users call."""
        searcher = build_searcher(
            "best_of_n",
            self.count,
            policy=self.subject.policy,
            reward_model=self.subject.value_model,
            leaf_value=None,
            proposal=self._proposal(),
        )

        def run() -> Outcome:
            (found,) = searcher.generate([self.prompt], seed=0)
            return Outcome(counts={"responses": found.num_candidates, "tokens": found.tokens})

        return run

    def generated(self, *, prompt_once: bool) -> Side:
        """`generate` for N sequences, then full sequences through the classifier.

        Args:
            prompt_once: Whether each model's prompt is run once and its cache repeated.
        """
        policy, classifier = self.subject.policy, self.subject.value_model.model

        @torch.inference_mode()
        def run() -> Outcome:
            began = time.process_time()
            ids = torch.tensor([policy.encoder.prompt_ids(self.prompt)])
            options = sampling(self.new_tokens, ends=[policy.encoder.end_id])
            options["min_new_tokens"] = self.new_tokens
            if prompt_once:
                options["past_key_values"] = prompt_cache(policy.model, ids[:, :-1], self.count)
                ids = ids.expand(self.count, -1)
            else:
                options["num_return_sequences"] = self.count
            made = policy.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
            sampled = time.process_time()
            ends = torch.full((self.count, 1), policy.encoder.end_id)
            whole = torch.cat([made, ends], dim=1)
            if prompt_once:
                hidden = classifier.base_model(
                    input_ids=whole[:, ids.shape[1] :],
                    past_key_values=prompt_cache(classifier, ids[:1], self.count),
                    use_cache=True,
                ).last_hidden_state[:, -1]
                return self._outcome(began, sampled, classifier.score(hidden)[:, 0])
            scores = classifier(input_ids=whole, attention_mask=torch.ones_like(whole)).logits
            return self._outcome(began, sampled, scores[:, 0])

        return run

    def cell(self, name: str, title: str) -> Cell:
        """The cell of all sides."""
        sides = {
            "ours": self.ours(),
            "ours, search": self.ours_as_search(),
            "generate": self.generated(prompt_once=False),
            "prompt once": self.generated(prompt_once=True),
        }
        return Cell(name, title, sides, TITLES, (), prompts=1, work=self.count)

    def _proposal(self) -> Proposal:
        return Proposal(
            unit="response", max_new_tokens=self.new_tokens, min_new_tokens=self.new_tokens
        )

    def _outcome(self, began: float, sampled: float, scores: Tensor) -> Outcome:
        assert len(scores) == self.count
        assert scores.isfinite().all()
        parts = {"sampling": sampled - began, "scoring": time.process_time() - sampled}
        return Outcome(parts=parts, counts={"responses": self.count})


@dataclass(frozen=True)
class Unequal:
    """Makes sides that sample responses of very unequal lengths to one prompt.

    A response ends with any of `ends` tokens, so that lengths are nearly geometric.

    Attributes:
        subject: The models.
        prompt: A text.
        count: Responses.
        rows: Sampled side by side.
        new_tokens: The most of a response.
        ends: How many tokens of the vocabulary end a response.
    """

    subject: Subject
    prompt: str
    count: int
    rows: int
    new_tokens: int
    ends: int

    def ours(self, *, refill: bool) -> Side:
        """Sampling through the tree: rows refilled as they finish, or batch after batch."""
        base = self.subject.policy
        policy = Policy(base.model, base.encoder, CONTEXT)
        policy.end_ids = frozenset(self._end_ids())
        proposal = Proposal(unit="response", max_new_tokens=self.new_tokens)
        step = self.count if refill else self.rows

        def run() -> Outcome:
            tree = SegmentTree(policy, proposal, max_rows=self.rows)
            (root,) = tree.add_prompts([self.prompt])
            made: list[int] = []
            for at in range(0, self.count, step):
                numbers = range(at, min(at + step, self.count))
                made += tree.extend([root] * len(numbers), numbers)
            lengths = [tree.segment(node).length for node in made]
            counts = {"tokens": sum(lengths), "longest": max(lengths)}
            return Outcome([lengths], tree.padding_tokens, counts=counts)

        return run

    def generated(self) -> Side:
        """`generate` behind a repeated prompt cache, batch after batch, each to its longest."""
        policy = self.subject.policy

        @torch.inference_mode()
        def run() -> Outcome:
            ids = torch.tensor([policy.encoder.prompt_ids(self.prompt)])
            ends, tokens, longest = torch.tensor(self._end_ids()), 0, 0
            for at in range(0, self.count, self.rows):
                rows = min(self.rows, self.count - at)
                repeated = ids.expand(rows, -1)
                made = policy.model.generate(
                    repeated,
                    attention_mask=torch.ones_like(repeated),
                    past_key_values=prompt_cache(policy.model, ids[:, :-1], rows),
                    **sampling(self.new_tokens, ends=self._end_ids()),
                )[:, ids.shape[1] :]
                ended = torch.isin(made, ends)
                first = torch.where(ended.any(1), ended.int().argmax(1) + 1, made.shape[1])
                tokens += int(first.sum())
                longest = max(longest, int(first.max()))
            return Outcome(counts={"tokens": tokens, "longest": longest})

        return run

    def cell(self, name: str, title: str) -> Cell:
        """The cell of all sides."""
        sides = {
            "ours, refill": self.ours(refill=True),
            "ours, batches": self.ours(refill=False),
            "prompt once": self.generated(),
        }
        titles = {**TITLES, "prompt once": "generate, prompt once, fixed batches"}
        agree = (("ours, refill", "ours, batches"),)
        return Cell(name, title, sides, titles, agree, prompts=1, work=self.count)

    def _end_ids(self) -> list[int]:
        end = self.subject.policy.encoder.end_id
        return list(range(end, end + self.ends))


def sampling(new_tokens: int, *, ends: Sequence[int]) -> Json:
    """Options of `generate` for samples of the policy itself."""
    return {
        "do_sample": True,
        "top_k": 0,
        "top_p": 1.0,
        "temperature": 1.0,
        "max_new_tokens": new_tokens,
        "eos_token_id": list(ends),
    }


def prompt_cache(model: PreTrainedModel, ids: Tensor, rows: int) -> DynamicCache:
    """A prompt's [1, L] cache, repeated for so many rows."""
    cache = DynamicCache()
    model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    return cache

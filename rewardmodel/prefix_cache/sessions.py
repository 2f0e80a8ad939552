"""Shared prefixes in scoring: what responses to one prompt have in common is computed once.

Where a score is a linear head on the hidden state of the last token, and branches can share a cache
(`Backbone.shares`), a prompt is run once for all its responses of a call, and in a session every
prefix is run once for all texts that begin with it. Texts that `TextEncoder.pair` had to cut begin
inside their prompt, so they share only with texts cut at the same place.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.data.text_rows import pair_rows
from rewardmodel.interface import Finished, require_finite
from rewardmodel.prefix_cache.backbone import Backbone, plain_model
from rewardmodel.prefix_cache.tree import PrefixTree
from rewardmodel.pretrained.tokenization import TextEncoder

_logger = logging.getLogger(__name__)
_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
_ROUGH_TOLERANCE = 0.05  # half precision
_ENDLESS = 2**30
_SAVING = 0.1  # of a group's tokens, for which a pass of its own pays

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt and of its response."""


def head_of(
    model: PreTrainedModel, *, every_token: bool = False
) -> Callable[[Tensor], Tensor] | None:
    """The layer from last hidden states to scores, or None where a score is more than that.

    Args:
        model: Classifier of one or several labels, adapters included.
        every_token: Whether it is a token classifier, read at all tokens and not the last alone.
    """
    plain = plain_model(model)
    head = getattr(plain, "score", None) or getattr(plain, "classifier", None)
    if head is None:
        return None
    rows = plain.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(40, device=model.device) * 37 + 11).view(8, 5) % rows
    # Classifiers read the last token that is no padding.
    ids = torch.where(ids == (plain.config.pad_token_id or 0), (ids + 1) % rows, ids)
    try:
        with torch.inference_mode():
            expected = model(input_ids=ids).logits
            states = plain.base_model(input_ids=ids).last_hidden_state
            found = head(states if every_token else states[:, -1])
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return None
    if found.shape != expected.shape:
        return None
    tolerance = _TOLERANCES.get(model.dtype, _ROUGH_TOLERANCE)
    close = (found - expected).abs().max() <= tolerance * expected.abs().max()
    return head if close or not expected.isfinite().all() else None


class SharedPrefixScorer:
    """Scores token ids with a classifier whose branches share a cache."""

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[Tensor], Tensor],
        reduce: Callable[[Tensor], Tensor],
    ) -> None:
        """Takes a backbone that shares.

        Args:
            backbone: The classifier's.
            head: From its hidden states [M, d] to H outputs each (`head_of`).
            reduce: From float32 outputs [M, H] on the CPU to scores [M].
        """
        self.backbone = backbone
        self._head = head
        self._reduce = reduce

    @torch.inference_mode()
    def outputs(self, hidden: Tensor) -> Tensor:
        """The head's outputs for hidden states [M, d], float32 [M, H] on the CPU."""
        return self._head(hidden).float().cpu()

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of hidden states [M, d], float32 [M] on the CPU."""
        return self._reduce(self.outputs(hidden))

    def one_shot(self, pairs: Sequence[Pair], *, rows: int) -> tuple[Tensor, int]:
        """The head's outputs for pairs, each prompt run once; nothing is kept.

        Args:
            pairs: At least one, none with an empty prompt or response.
            rows: The most responses per forward pass.

        Returns:
            float32 [len(pairs), H] on the CPU, and the tokens given to the model.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (prompt, _) in enumerate(pairs):
            groups.setdefault(tuple(prompt), []).append(i)
        found: list[Tensor] = []
        order: list[int] = []
        tokens = 0
        waiting = list(groups)
        while waiting:  # as many prompts at a time as fill a forward pass
            batch = [waiting.pop()]
            while waiting and sum(len(groups[p]) for p in [*batch, waiting[-1]]) <= rows:
                batch.append(waiting.pop())
            tree = PrefixTree(self.backbone)
            handles = tree.add_prompts(batch)
            lines = [i for prompt in batch for i in groups[prompt]]
            parents = [h for prompt, h in zip(batch, handles, strict=True) for _ in groups[prompt]]
            states = tree.read(parents, [pairs[i][1] for i in lines], rows=rows)
            found.append(self.outputs(states.hidden))
            order += lines
            tokens += sum(tree.forward_tokens.values()) + tree.padding_tokens
        return torch.cat(found)[torch.tensor(order).argsort()], tokens


def open_scorer(
    model: PreTrainedModel,
    head: Callable[[Tensor], Tensor] | None,
    *,
    max_tokens: int | None,
    reduce: Callable[[Tensor], Tensor],
) -> SharedPrefixScorer | None:
    """A scorer that shares prefixes, or None where the classifier does not support it."""
    if head is None:
        _logger.warning(
            "%s does not score by one layer on its last token: every text is run from its "
            "beginning, however much of it was run before",
            type(model).__name__,
        )
        return None
    backbone = Backbone(model, max_tokens=max_tokens or _ENDLESS, language_head=False)
    return SharedPrefixScorer(backbone, head, reduce) if backbone.shares else None


def worth_sharing(pairs: Sequence[Pair]) -> list[int]:
    """The pairs whose prompt is shared and long enough to be run on its own."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, response) in enumerate(pairs):
        if prompt and response:
            groups.setdefault(tuple(prompt), []).append(i)
    found = []
    for prompt, lines in groups.items():
        saved = (len(lines) - 1) * len(prompt)
        whole = len(lines) * len(prompt) + sum(len(pairs[i][1]) for i in lines)
        if saved >= _SAVING * whole:
            found += lines
    return sorted(found)


@dataclass
class _Run:
    """Tokens behind the same prefix, with the scores of the texts that end at each.

    Attributes:
        ids: Not empty.
        scores: One per token, for a prompt its last alone; empty until computed.
        node: Handle of the last token in the tree; None until then.
        children: The runs that follow, by their first token.
    """

    ids: list[int]
    scores: list[float] = field(default_factory=list)
    node: int | None = None
    children: dict[int, "_Run"] = field(default_factory=dict)


class PrefixSession:
    """Scores texts, each token of every prefix run once; a `ScoringSession`."""

    def __init__(
        self,
        scorer: SharedPrefixScorer,
        encoder: TextEncoder,
        *,
        score_pairs: Callable[[Sequence[Pair]], tuple[Tensor, int]],
    ) -> None:
        """Starts with an empty cache.

        Args:
            scorer: The reward model's.
            encoder: Its tokenization.
            score_pairs: Scores pairs that do not begin with their whole prompt, and counts tokens.
        """
        self._scorer = scorer
        self._encoder = encoder
        self._score_pairs = score_pairs
        self._tree = PrefixTree(scorer.backbone)
        self._prompts: dict[Prompt, _Run] = {}
        self._cut_tokens = 0

    @property
    def forward_tokens(self) -> int:
        """Tokens given to the model so far, padding included."""
        tree = self._tree
        return sum(tree.forward_tokens.values()) + tree.padding_tokens + self._cut_tokens

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores responses, float32 [B]; see `ScoringSession`."""
        pairs = pair_rows(self._encoder, prompts, responses, finished=finished)
        known = {prompt: self._prompt_ids(prompt) for prompt in dict.fromkeys(prompts)}
        scores = torch.empty(len(pairs))
        whole: list[int] = []
        cut: list[int] = []
        for i, (prompt_ids, _) in enumerate(pairs):
            shares = prompt_ids and prompt_ids == known[prompts[i]]
            (whole if shares else cut).append(i)
        if cut:
            scores[torch.tensor(cut)], tokens = self._score_pairs([pairs[i] for i in cut])
            self._cut_tokens += tokens
        if whole:
            texts = [pairs[i][1] for i in whole]
            found = self._score_whole([prompts[i] for i in whole], known, texts)
            scores[torch.tensor(whole)] = torch.tensor(found)
        require_finite(scores, responses)
        return scores

    def keep(self, prompts: Collection[Prompt]) -> None:
        """Drops all other prompts."""
        self._prompts = {text: run for text, run in self._prompts.items() if text in prompts}
        nodes, waiting = [], list(self._prompts.values())
        while waiting:
            run = waiting.pop()
            if run.node is not None:
                nodes.append(run.node)
            waiting += run.children.values()
        self._tree.keep(nodes)

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        known = self._prompts.get(prompt)
        return self._encoder.prompt_ids(prompt) if known is None else known.ids

    def _score_whole(
        self, prompts: Sequence[Prompt], known: dict[Prompt, list[int]], texts: Sequence[list[int]]
    ) -> list[float]:
        """Scores of texts behind whole prompts."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prompts]
        if new:
            handles = self._tree.add_prompts([known[prompt] for prompt in new])
            scores = self._scorer.scores(self._tree.hidden(handles)).tolist()
            for prompt, handle, score in zip(new, handles, scores, strict=True):
                self._prompts[prompt] = _Run(known[prompt], [score], handle)
        # All texts are put in before any is run: one may divide the tokens of another.
        tops = [self._prompts[prompt] for prompt in prompts]
        ends = [self._insert(top, text) for top, text in zip(tops, texts, strict=True)]
        self._run(tops, texts)
        return [run.scores[-1] for run in ends]

    def _insert(self, top: _Run, ids: Sequence[int]) -> _Run:
        """Inserts a text behind its prompt and returns the run that ends with it."""
        run, at = top, 0
        while at < len(ids):
            child = run.children.get(ids[at])
            if child is None:
                child = run.children[ids[at]] = _Run(list(ids[at:]))
            shared = _common(child.ids, ids[at:])
            if shared < len(child.ids):
                child = self._divide(run, child, shared, len(top.ids) + at + shared)
            run, at = child, at + shared
        return run

    def _divide(self, parent: _Run, run: _Run, count: int, tokens: int) -> _Run:
        """Splits the first `count` tokens of a run off as a run of its own, which is returned.

        `tokens` are those from the beginning of the prompt to its end.
        """
        node = None if run.node is None else self._tree.ancestor(run.node, tokens)
        first = _Run(run.ids[:count], run.scores[:count], node, {run.ids[count]: run})
        run.ids, run.scores = run.ids[count:], run.scores[count:]
        parent.children[first.ids[0]] = first
        return first

    def _run(self, tops: Sequence[_Run], texts: Sequence[Sequence[int]]) -> None:
        """Feeds the model the tokens of texts that it has not read yet."""
        new: dict[int, int] = {}  # the place of a run among the new ones, by the run's id
        runs: list[_Run] = []
        parents: list[int] = []
        for top, ids in zip(tops, texts, strict=True):
            run, at, above = top, 0, top.node
            while at < len(ids):
                run = run.children[ids[at]]
                at += len(run.ids)
                if run.node is None and id(run) not in new:
                    assert above is not None
                    new[id(run)] = len(runs)
                    runs.append(run)
                    parents.append(above)
                above = ~new[id(run)] if run.node is None else run.node
        if not runs:
            return
        nodes, states = self._tree.feed(parents, [run.ids for run in runs])
        scores = iter(self._scorer.scores(states.hidden).tolist())
        for run, node in zip(runs, nodes, strict=True):
            run.node, run.scores = node, [next(scores) for _ in run.ids]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the common prefix of two texts."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count

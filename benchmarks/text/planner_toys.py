"""Enumerable text: prompts whose responses, scores and leaf values are tables.

A response is a path through a tree of segments. The score of a prompt's best response is known, so
a planner is measured by how far its answer is below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from search import Embedding, Planner, RootOutput, StepOutput

Reward = Literal["additive", "random", "mixed", "ties"]


@dataclass(frozen=True)
class Toy:
    """A distribution of enumerable prompts.

    Attributes:
        name: In tables.
        depth: Segments of the longest responses.
        candidates: Different segments at a place.
        reward: How responses are scored: `"additive"` sums what the segments are worth, `"random"`
            draws each response's score anew, `"mixed"` sums both, and `"ties"` gives one point to
            one segment in five, so that most responses score what many others do.
        drift: Mean worth of a segment; where it is not 0, leaf values, which are sums so far, rise
            on the way as scores of text so far do.
        value_noise: Standard deviation of what the leaf values add to the sum so far (to 0 where
            the reward is random); the segments' own standard deviation is 1.
        blind: Whether the leaf values are all 0 but for that noise.
        actions: K, the actions of a node; where there are more than `candidates`, several lead to
            the same segment.
        ends: Share of the unfinished texts that end early.
    """

    name: str
    depth: int
    candidates: int
    reward: Reward
    drift: float = 0.0
    value_noise: float = 0.0
    blind: bool = False
    actions: int | None = None
    ends: float = 0.0

    @property
    def num_actions(self) -> int:
        """K, the actions of a node."""
        return self.actions or self.candidates


class ToyTexts:
    """A `search.PlanningModel` of P enumerable prompts, all with K actions and a uniform prior.

    An observation is int64 `[B, 2]`: a prompt and the number of a text of it, 0 for no text yet.

    Attributes:
        score: `[P, N]`, of a finished text.
        value: `[P, N]`, leaf value of an unfinished one.
        finished: `[P, N]` bool.
        children: `[P, N, K]` int64, the text that an action leads to.
        optimum: `[P]`, the best score.
        average: `[P]`, the mean score of all finished texts.
        seen: `[P]`, the best score that was stepped into since `reset`.
    """

    def __init__(self, toys: Sequence[Toy], prompts: int, *, seed: int) -> None:
        """Draws the same number of prompts of every toy.

        Args:
            toys: All with the same number of actions.
            prompts: Prompts of each.
            seed: Of the draw; a toy's prompts do not depend on the other toys.
        """
        (self.num_actions,) = {toy.num_actions for toy in toys}
        tables = [_tables(toy, prompts, seed=seed) for toy in toys]
        size = max(table[0].shape[1] for table in tables)

        def stacked(which: int) -> Tensor:
            parts = []
            for table in tables:
                part = table[which]
                padded = part.new_zeros((part.shape[0], size, *part.shape[2:]))
                padded[:, : part.shape[1]] = part
                parts.append(padded)
            return torch.cat(parts)

        self.score, self.value, self.finished, self.children = map(stacked, range(4))
        self.optimum = torch.cat([_over_finished(table, "amax") for table in tables])
        self.average = torch.cat([_over_finished(table, "mean") for table in tables])
        self.seen = torch.full_like(self.optimum, -torch.inf)

    def reset(self) -> None:
        """Resets `seen`."""
        self.seen.fill_(-torch.inf)

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Unfinished texts to plan from; see `ToyTexts`."""
        prompt, text = observation.unbind(1)
        shape = (len(prompt), self.num_actions)
        return RootOutput(
            prior_logits=torch.zeros(shape),
            value=self.value[prompt, text],
            valid_actions=torch.ones(shape, dtype=torch.bool),
            embedding={"prompt": prompt, "text": text},
        )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Adds one segment; a finished text earns its score and ends."""
        prompt = embedding["prompt"]
        text = self.children[prompt, embedding["text"], action]
        over = self.finished[prompt, text]
        self.note(prompt[over], text[over])
        return StepOutput(
            prior_logits=torch.zeros((len(prompt), self.num_actions)),
            value=self.value[prompt, text].masked_fill(over, 0.0),
            valid_actions=(~over)[:, None].repeat(1, self.num_actions),
            embedding={"prompt": prompt, "text": text},
            reward=self.score[prompt, text].masked_fill(~over, 0.0),
            discount=(~over).float(),
        )

    def note(self, prompt: Tensor, text: Tensor) -> None:
        """Updates `seen` with finished texts."""
        self.seen.scatter_reduce_(0, prompt, self.score[prompt, text], "amax")


@dataclass(frozen=True)
class Outcome:
    """Results of a search of P prompts, `[P]` each: 0 is the optimum, 1 the mean of all responses.

    Attributes:
        answered: Regret of the best response seen in all plans, which is the answer of a search.
        committed: Regret of the response that the plans committed to, segment by segment.
    """

    answered: Tensor
    committed: Tensor


def search_toys(texts: ToyTexts, planner: Planner) -> Outcome:
    """Plans, commits to a segment and plans again until all responses are finished."""
    texts.reset()
    alive = torch.arange(len(texts.optimum))
    standing = torch.zeros_like(alive)
    while len(alive):
        here = standing[alive]
        output = planner.plan(texts, torch.stack([alive, here], dim=1))
        here = texts.children[alive, here, output.action]
        standing[alive] = here
        over = texts.finished[alive, here]
        texts.note(alive[over], here[over])
        alive = alive[~over]
    committed = texts.score[torch.arange(len(standing)), standing]
    span = texts.optimum - texts.average
    return Outcome((texts.optimum - texts.seen) / span, (texts.optimum - committed) / span)


_Tables = tuple[Tensor, Tensor, Tensor, Tensor]


def _tables(toy: Toy, prompts: int, *, seed: int) -> _Tables:
    """Scores, values and ends `[P, N]` and children `[P, N, K]`; text i is followed by iC + 1..."""
    generator = torch.Generator().manual_seed(seed)
    width = toy.candidates
    levels = [width**depth for depth in range(toy.depth + 1)]
    size = sum(levels)
    shape = (prompts, size)
    worth = toy.drift + torch.randn(shape, generator=generator)
    own = torch.randn(shape, generator=generator) * (
        1.0 if toy.reward == "random" else toy.depth**0.5
    )
    if toy.reward == "ties":
        worth = (worth > 0.84).float()
    total = torch.zeros(shape)
    begin = 1
    for count in levels[1:]:
        here = torch.arange(begin, begin + count)
        total[:, here] = total[:, (here - 1) // width] + worth[:, here]
        begin += count
    so_far = torch.zeros(shape) if toy.reward == "random" else total
    score = so_far + (own if toy.reward in ("random", "mixed") else 0.0)
    noise = toy.value_noise * torch.randn(shape, generator=generator)
    value = (torch.zeros(shape) if toy.blind else so_far) + noise
    finished = torch.rand(shape, generator=generator) < toy.ends
    finished[:, 0] = False
    finished[:, size - levels[-1] :] = True
    chosen = torch.arange(width).expand(*shape, width)
    if toy.num_actions != width:
        chosen = torch.randint(width, (*shape, toy.num_actions), generator=generator)
    following = torch.arange(size)[None, :, None] * width + 1 + chosen
    return score, value, finished, following.masked_fill(following >= size, 0)


def _over_finished(tables: _Tables, measure: Literal["amax", "mean"]) -> Tensor:
    """The best or mean score `[P]` of the finished texts that can be reached."""
    score, _, finished, children = tables
    reached = torch.zeros_like(finished)
    reached[:, 0] = True
    for text in range(reached.shape[1]):  # parents come before their children
        going = reached[:, text] & ~finished[:, text]
        for action in range(children.shape[2]):
            rows = going.nonzero().squeeze(1)
            reached[rows, children[rows, text, action]] = True
    ends = reached & finished
    if measure == "amax":
        return score.masked_fill(~ends, -torch.inf).amax(1)
    return score.masked_fill(~ends, 0.0).sum(1) / ends.sum(1)

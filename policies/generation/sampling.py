"""Sampling segments side by side: rows that are done give place to those that wait."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from policies.generation.random import uniforms
from policies.generation.stopping import SegmentEnds
from rewardmodel.prefix_cache.branches import Branches
from rewardmodel.prefix_cache.rerun import RerunBranches
from rewardmodel.prefix_cache.tree import pick

if TYPE_CHECKING:
    from policies.generation.segment_tree import Segment, SegmentTree


class Sampling:
    """Samples segments behind known prefixes, at most `max_rows` of them at a time."""

    def __init__(
        self, tree: "SegmentTree", made: Sequence["Segment"], ends: Sequence[SegmentEnds]
    ) -> None:
        """Takes empty segments, each with its parent and key, and what ends each."""
        self._tree = tree
        self._prefixes = tree.prefixes
        self._made = made
        self._ends = ends
        self._tails = [tree.tail_of(segment.parent) if end.reach else []
                       for segment, end in zip(made, ends, strict=True)]  # fmt: skip
        # The longest prefixes come first: a row that is given another one has room for it.
        order = sorted(range(len(made)), key=lambda i: -tree.path_tokens(made[i].parent))
        self._waiting = deque(order)

    @torch.inference_mode()
    def run(self) -> None:
        """Fills all segments; the unfinished ones get their place among the prefixes.

        Raises:
            ValueError: If the policy's logits are not finite, naming prompt and token.
        """
        count = min(len(self._waiting), self._tree.max_rows)
        rows: list[int | None] = [self._waiting.popleft() for _ in range(count)]
        parents = self._parents(rows)
        branches = self._prefixes.branches(parents, room=max(end.limit for end in self._ends))
        log_probabilities = self._prefixes.logits(parents).log_softmax(-1)  # [lines, V]
        tokens = torch.zeros(count, dtype=torch.long, device=log_probabilities.device)
        fresh = list(range(count))  # lines whose next token is to be drawn
        while True:
            closed: set[int] = set()
            while fresh:
                drawn, finished = self._draw(rows, fresh, log_probabilities, closed)
                tokens[torch.tensor(fresh, device=tokens.device)] = drawn
                for line in finished:
                    rows[line] = None
                fresh = self._refill(branches, rows, finished, log_probabilities)
            live = [line for line, row in enumerate(rows) if row is not None]
            if not live:
                return
            if 2 * len(live) <= len(rows):
                branches.keep(live)
                index = torch.tensor(live, device=tokens.device)
                tokens, log_probabilities = tokens[index], log_probabilities[index]
                rows = [rows[line] for line in live]
                closed = {at for at, line in enumerate(live) if line in closed}
                live = list(range(len(rows)))
            states = branches.feed(tokens, live=live)
            log_probabilities = self._prefixes.logits_of(states).log_softmax(-1)
            done = sorted(closed)
            if done:
                committed = branches.commit(done, pick(states, torch.tensor(done)))
                for line, prefix in zip(done, committed, strict=True):
                    row = rows[line]
                    assert row is not None
                    self._made[row].prefix = prefix
                    rows[line] = None
            going = [line for line in live if line not in closed]
            fresh = going + self._refill(branches, rows, done, log_probabilities)
            if not fresh:
                return

    def _draw(
        self,
        rows: Sequence[int | None],
        lines: Sequence[int],
        log_probabilities: torch.Tensor,
        closed: set[int],
    ) -> tuple[torch.Tensor, list[int]]:
        """Draws a token on each of some lines; returns tokens and the lines that finished."""
        segments = [self._made[rows[line]] for line in lines]  # type: ignore[index]
        ends = [self._ends[rows[line]] for line in lines]  # type: ignore[index]
        index = torch.tensor(lines, device=log_probabilities.device)
        policy = log_probabilities[index]
        allowed = ends[0].allowed(policy, [segment.length for segment in segments])
        levels = uniforms([s.key for s in segments], [len(s.ids) for s in segments])
        drawn = self._tree.proposal.draw(allowed, torch.from_numpy(levels))
        chosen = policy.gather(-1, drawn[:, None])[:, 0].tolist()
        # A row of NaN draws any token; no look at the device before this, which is needed anyway.
        self._tree.require_finite(segments, [[chance] for chance in chosen])
        finished = []
        for line, segment, end, token, chance in zip(
            lines, segments, ends, drawn.tolist(), chosen, strict=True
        ):
            self._tree.take(segment, token, chance)
            row = rows[line]
            assert row is not None
            end.finish(segment, self._tails[row])
            if segment.finished:
                finished.append(line)
            elif end.close(segment):
                closed.add(line)
        return drawn, finished

    def _refill(
        self,
        branches: Branches | RerunBranches,
        rows: list[int | None],
        lines: Sequence[int],
        log_probabilities: torch.Tensor,
    ) -> list[int]:
        """Gives free lines to segments that wait; returns the lines taken."""
        taken = list(lines[: len(self._waiting)])
        if not taken:
            return []
        for line in taken:
            rows[line] = self._waiting.popleft()
        parents = self._parents([rows[line] for line in taken])
        branches.restart(taken, parents)
        index = torch.tensor(taken, device=log_probabilities.device)
        log_probabilities[index] = self._prefixes.logits(parents).log_softmax(-1)
        return taken

    def _parents(self, rows: Sequence[int | None]) -> list[int]:
        """Handles, among the prefixes, of what rows' segments go on from."""
        nodes = [self._made[row].parent for row in rows if row is not None]
        return self._tree.prefixes_of(nodes)

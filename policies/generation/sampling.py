"""Sampling segments side by side: a row that is done takes the next segment that waits."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.generation.counter_rng import uniforms
from policies.generation.proposals import Proposal
from policies.generation.segment import Segment, SegmentEnds
from rewardmodel.prefix_cache.base import Prefixes
from rewardmodel.prefix_cache.states import pick


@dataclass(frozen=True)
class PendingSegment:
    """An empty segment that is to be sampled.

    Attributes:
        segment: With its parent and key.
        ends: What ends it.
        prefix: Handle, in the prefix cache, of what it goes on from.
        prefix_tokens: Tokens of that prefix, the prompt's included.
        tail: The last tokens before it, as far as stop strings reach.
    """

    segment: Segment
    ends: SegmentEnds
    prefix: int
    prefix_tokens: int
    tail: list[int]


class Sampling:
    """Samples pending segments, at most `max_rows` of them at a time."""

    def __init__(
        self,
        prefixes: Prefixes,
        proposal: Proposal,
        pending: Sequence[PendingSegment],
        *,
        max_rows: int,
        describe: Callable[[int], str],
    ) -> None:
        """Queues the segments; `describe` names a prompt, by its handle, in errors."""
        self._prefixes = prefixes
        self._proposal = proposal
        self._describe = describe
        # The longest prefixes come first: a row that is given another one has room for it.
        self._waiting = deque(sorted(pending, key=lambda one: -one.prefix_tokens))
        self._rows = min(len(pending), max_rows)
        self._limit = max(one.ends.limit for one in pending)

    @torch.inference_mode()
    def run(self) -> None:
        """Fills all segments; the unfinished ones get their handle in the prefix cache.

        Raises:
            ValueError: If the policy's logits are not finite, naming prompt and token.
        """
        rows: list[PendingSegment | None] = [self._waiting.popleft() for _ in range(self._rows)]
        parents = _prefixes_of(rows)
        branches = self._prefixes.branches(parents, room=self._limit)
        log_probabilities = self._prefixes.logits(parents).log_softmax(-1)  # [lines, V]
        tokens = torch.zeros(len(rows), dtype=torch.long, device=log_probabilities.device)
        fresh = list(range(len(rows)))  # lines whose next token is to be drawn

        def refill(lines: Sequence[int]) -> list[int]:
            """Gives free lines to waiting segments; returns the lines taken."""
            taken = list(lines[: len(self._waiting)])
            if taken:
                for line in taken:
                    rows[line] = self._waiting.popleft()
                parents = _prefixes_of([rows[line] for line in taken])
                branches.restart(taken, parents)
                index = torch.tensor(taken, device=log_probabilities.device)
                log_probabilities[index] = self._prefixes.logits(parents).log_softmax(-1)
            return taken

        while True:
            closed: set[int] = set()
            while fresh:
                drawn, finished = self._draw(rows, fresh, log_probabilities, closed)
                tokens[torch.tensor(fresh, device=tokens.device)] = drawn
                for line in finished:
                    rows[line] = None
                fresh = refill(finished)
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
                    _filled(rows[line]).segment.prefix = prefix
                    rows[line] = None
            fresh = [line for line in live if line not in closed] + refill(done)
            if not fresh:
                return

    def _draw(
        self,
        rows: Sequence[PendingSegment | None],
        lines: Sequence[int],
        log_probabilities: Tensor,
        closed: set[int],
    ) -> tuple[Tensor, list[int]]:
        """Draws a token on each of some lines; returns tokens and the lines that finished."""
        pending = [_filled(rows[line]) for line in lines]
        segments = [one.segment for one in pending]
        policy = log_probabilities[torch.tensor(lines, device=log_probabilities.device)]
        allowed = pending[0].ends.allowed(policy, [segment.length for segment in segments])
        levels = uniforms([s.key for s in segments], [len(s.ids) for s in segments])
        drawn = self._proposal.draw(allowed, torch.from_numpy(levels))
        chosen = policy.gather(-1, drawn[:, None])[:, 0].tolist()
        # A row of NaN draws any token; checked here, where the numbers are copied to the host.
        require_finite(segments, [[chance] for chance in chosen], self._describe)
        finished = []
        for line, one, token, chance in zip(lines, pending, drawn.tolist(), chosen, strict=True):
            one.segment.take(token, chance)
            one.ends.finish(one.segment, one.tail)
            if one.segment.finished:
                finished.append(line)
            elif one.ends.closes(one.segment):
                closed.add(line)
        return drawn, finished


def require_finite(
    segments: Sequence[Segment],
    log_probabilities: Sequence[Sequence[float]],
    describe: Callable[[int], str],
) -> None:
    """Refuses to go on from logits that are NaN or infinite.

    Either makes all log-probabilities of its row NaN; -inf alone forbids a token.

    Args:
        segments: R segments, as far as they are made.
        log_probabilities: Of some tokens that could follow each, on the host.
        describe: Names a prompt by its handle.

    Raises:
        ValueError: Naming the prompt and the token of the response.
    """
    for segment, chances in zip(segments, log_probabilities, strict=True):
        if any(map(math.isnan, chances)):
            raise ValueError(
                f"{describe(segment.root)}: the policy's logits for token {segment.length + 1} of "
                "the response are not finite; required: finite logits. The model diverged in "
                "training or overflows in its dtype: take another checkpoint, or another dtype"
            )


def _filled(row: PendingSegment | None) -> PendingSegment:
    assert row is not None, "a free line has no segment"
    return row


def _prefixes_of(rows: Sequence[PendingSegment | None]) -> list[int]:
    return [row.prefix for row in rows if row is not None]

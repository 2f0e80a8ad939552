"""Batches of whole texts without a cache: rows of similar length together.

Padding is on the right, and the end of a text is known from its length, never from its ids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowBatch:
    """One forward pass over B rows of at most T tokens.

    Attributes:
        rows: Indices of the rows, B numbers.
        ids: int64 [B, T].
        mask: int64 [B, T], 1 where there is a token.
        last: Index of each row's last token, int64 [B].
    """

    rows: list[int]
    ids: Tensor
    mask: Tensor
    last: Tensor

    def of_last(self, states: Tensor) -> Tensor:
        """The values of [B, T, ...] at each row's last token, [B, ...]."""
        lines = torch.arange(len(self.rows), device=states.device)
        return states[lines, self.last.to(states.device)]


def row_batches(
    rows: Sequence[Sequence[int]], *, batch_size: int, pad_id: int, device: torch.device
) -> Iterator[RowBatch]:
    """Pads rows of token ids, those of similar length together.

    Args:
        rows: Token ids.
        batch_size: Rows per forward pass.
        pad_id: Any id of the model; its outputs are never read.
        device: Of ids and mask.

    Raises:
        ValueError: If a row has no tokens.
    """
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    if by_length and not rows[by_length[0]]:
        raise ValueError(
            "a prompt and its unfinished response have no tokens; required: at least one. "
            "Score the response as finished, or give it a text"
        )
    for start in range(0, len(rows), batch_size):
        batch = by_length[start : start + batch_size]
        width = max(len(rows[i]) for i in batch)
        ids = torch.full((len(batch), width), pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for line, i in enumerate(batch):
            ids[line, : len(rows[i])] = torch.tensor(rows[i])
            mask[line, : len(rows[i])] = 1
        yield RowBatch(batch, ids.to(device), mask.to(device), mask.sum(1) - 1)

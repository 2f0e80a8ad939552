"""A cache view of rows behind prefixes in another cache, laid out one layer at a time.

Extending a prefix needs its keys and values contiguous with the new ones. Copying all layers would
take a copy of the prefix per row. Here a layer is laid out when the model reaches it, in a buffer
that the next layer reuses; only the new tokens are written back. So many rows behind one prompt
take the memory of one layer.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rewardmodel.prefix_cache.row_cache import RowCache

Places = tuple[Tensor, Tensor]


class PathCache(DynamicCache):
    """R rows of a prefix each, from a `RowCache`, followed by the tokens of one forward pass.

    Columns before `start` are the prefix, in the order of its positions and padded behind; the new
    tokens are the columns from `start` to `end`.

    Attributes:
        start: Length of the longest prefix.
        end: Columns that attention reads.
    """

    def __init__(
        self,
        source: RowCache,
        rows: Tensor,
        columns: Tensor,
        *,
        width: int,
        write: tuple[Places, Places] | None = None,
    ) -> None:
        """Takes what will be read and written.

        Args:
            source: The cache of the prefixes.
            rows: Row of each prefix there, int64 [R].
            columns: Columns of each prefix there, int64 [R, L], anything beyond its length.
            width: Columns of the forward pass.
            write: M new tokens to keep, or None: their rows and slots in the forward pass, and
                their rows and columns in `source`, int64 [M] each.
        """
        super().__init__()
        self.start = columns.shape[1]
        self.end = self.start + width
        self._source, self._rows, self._write = source, rows, write
        self._columns = torch.nn.functional.pad(columns, (0, width))  # [R, end]
        self._indices: dict[int, Tensor] = {}
        self._buffers: dict[tuple[int, ...], Tensor] = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before the new tokens."""
        return self.start

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Columns that attention reads, from the first on."""
        return self.end, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Lays one layer out, new tokens behind; called by the model."""
        layer = self._source.row_layers()[layer_idx]
        keys = self._laid_out(layer.keys, key_states, part=0)
        values = self._laid_out(layer.values, value_states, part=1)
        if self._write is not None:
            (lines, slots), (rows, columns) = self._write
            layer.keys[rows, :, columns] = key_states[lines, :, slots]
            layer.values[rows, :, columns] = value_states[lines, :, slots]
        return keys, values

    def _laid_out(self, held: Tensor, new: Tensor, *, part: int) -> Tensor:
        """Prefixes out of [S, heads, C, d] with new tokens [R, heads, W, d] behind them."""
        count, heads, room, wide = held.shape
        if heads * room not in self._indices:
            head = torch.arange(heads, device=held.device)[:, None]  # [heads, 1]
            index = (self._rows[:, None, None] * heads + head) * room + self._columns[:, None]
            self._indices[heads * room] = index.flatten()  # [R * heads * end]
        index = self._indices[heads * room]
        kind = (part, heads, wide)
        if kind not in self._buffers:
            self._buffers[kind] = held.new_empty(len(index), wide)
        flat = held.view(count * heads * room, wide)
        torch.index_select(flat, 0, index, out=self._buffers[kind])
        laid = self._buffers[kind].view(len(self._rows), heads, self.end, wide)
        laid[:, :, self.start :] = new
        return laid

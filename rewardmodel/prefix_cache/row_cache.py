"""A key/value cache with spare room: rows of unequal length, new tokens written in place.

The caches of transformers grow by concatenation, which copies every row for every token and needs
rows of equal length. Here each row has its own length and spare columns; `expect` determines where
the new tokens of a forward pass go. Keys are stored with their positions rotated in, so the order
of columns is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True)
class Writes:
    """Where the tokens of one forward pass go.

    Attributes:
        rows: Row of the cache and of the forward pass, int64 [M].
        columns: Column of the cache, int64 [M].
        slots: Column of the forward pass, int64 [M]; its other tokens are padding.
        start: The first column, where every row of the pass writes all its tokens from one column
            on, in order, so that one copy suffices; else None.
        end: Columns that attention reads: the longest row with its new tokens.
    """

    rows: Tensor
    columns: Tensor
    slots: Tensor
    start: int | None
    end: int


class RowLayer(DynamicLayer):
    """Keys and values [R, heads, C, d] of one layer, R rows of at most C tokens."""

    keys: Tensor
    values: Tensor

    def __init__(self, cache: "RowCache") -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates the rows, from the shape of the first tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        shape = (self._cache.num_rows, key_states.shape[1], self._cache.capacity)
        # Attention multiplies masked columns by 0, which keeps NaN.
        self.keys = key_states.new_zeros(*shape, key_states.shape[3])
        self.values = value_states.new_zeros(*shape, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes new tokens and returns all columns in use; called by the model."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        writes = self._cache.writes
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            if writes.start is not None:
                held[:, :, writes.start : writes.end] = new
            else:
                held[writes.rows, :, writes.columns] = new[writes.rows, :, writes.slots]
        return self.keys[:, :, : writes.end], self.values[:, :, : writes.end]

    def get_seq_length(self) -> int:
        """Columns in use before the current forward pass."""
        return self._cache.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that attention reads, from the first on."""
        return self._cache.writes.end, 0


class RowCache(DynamicCache):
    """One `RowLayer` per layer of the model, all with the same rows and columns.

    Attributes:
        num_rows: R.
        capacity: C, columns of each row.
        lengths: Columns in use, a list of R.
        writes: Of the current forward pass.
    """

    writes: Writes

    def __init__(self, num_rows: int, capacity: int) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.capacity = capacity
        self.lengths = [0] * num_rows

    @property
    def length(self) -> int:
        """The longest row."""
        return max(self.lengths, default=0)

    @property
    def end(self) -> int:
        """Columns that attention reads in the current forward pass."""
        return self.writes.end

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes one layer's new tokens; called by the model."""
        while len(self.layers) <= layer_idx:
            self.layers.append(RowLayer(self))
        return self.row_layers()[layer_idx].update(key_states, value_states)

    def expect(self, counts: Sequence[int], width: int, device: torch.device) -> None:
        """Sets where the next forward pass [R, width] writes: row r its first `counts[r]` tokens.

        The rows' lengths grow at once; `length` stays the past of the model until then.
        """
        ends = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        end = max(ends)
        assert end <= self.capacity, "capacity is reserved before tokens are fed"
        first = self.lengths[0]
        level = all(length == first for length in self.lengths) and set(counts) == {width}
        starts = torch.tensor(self.lengths)
        taken = torch.arange(width) < torch.tensor(counts)[:, None]  # [R, width]
        rows, slots = taken.nonzero(as_tuple=True)
        columns = starts[rows] + slots
        self.writes = Writes(
            rows=rows.to(device),
            columns=columns.to(device),
            slots=slots.to(device),
            start=first if level else None,
            end=end,
        )
        self.lengths = ends

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` columns; growth at least doubles."""
        if capacity <= self.capacity:
            return
        grown = max(capacity, 2 * self.capacity)
        for layer in self.row_layers():
            layer.keys = _widened(layer.keys, grown, used=self.length)
            layer.values = _widened(layer.values, grown, used=self.length)
        self.capacity = grown

    def select(
        self, rows: Tensor, columns: Tensor, *, capacity: int, lengths: Sequence[int]
    ) -> "RowCache":
        """Copies tokens into a new cache.

        Args:
            rows: Row of each new row's tokens, int64 [S] on the cache's device.
            columns: The columns that become each new row's, int64 [S, L], anything beyond its
                length.
            capacity: Columns of the new cache, at least L.
            lengths: Columns in use of each new row.
        """
        made = RowCache(len(rows), capacity)
        made.lengths = list(lengths)
        indices: dict[tuple[int, int], Tensor] = {}
        for old in self.row_layers():
            layer = RowLayer(made)
            count, heads, room, _ = old.keys.shape
            if (heads, room) not in indices:  # one gather a tensor, the spare columns included
                padded = torch.nn.functional.pad(columns, (0, capacity - columns.shape[1]))
                head = torch.arange(heads, device=columns.device)[:, None]  # [heads, 1]
                index = (rows[:, None, None] * heads + head) * room + padded[:, None]
                indices[heads, room] = index.flatten()
            index = indices[heads, room]
            layer.dtype, layer.device, layer.is_initialized = old.keys.dtype, old.keys.device, True
            shape = (len(rows), heads, capacity, -1)
            layer.keys = old.keys.view(count * heads * room, -1)[index].view(shape)
            layer.values = old.values.view(count * heads * room, -1)[index].view(shape)
            made.layers.append(layer)
        return made

    def joined(self, other: "RowCache") -> "RowCache":
        """The rows of this cache, followed by those of another of the same model."""
        if self.num_rows == 0:
            return other
        made = RowCache(self.num_rows + other.num_rows, max(self.capacity, other.capacity))
        made.lengths = self.lengths + other.lengths
        for mine, theirs in zip(self.row_layers(), other.row_layers(), strict=True):
            layer = RowLayer(made)
            layer.lazy_initialization(mine.keys, mine.values)
            for held, first, second in (
                (layer.keys, mine.keys, theirs.keys),
                (layer.values, mine.values, theirs.values),
            ):
                held[: self.num_rows, :, : first.shape[2]] = first
                held[self.num_rows :, :, : second.shape[2]] = second
            made.layers.append(layer)
        return made

    def copy_from(
        self, other: "RowCache", *, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]
    ) -> None:
        """Copies M tokens of another cache of the same model into this one.

        Args:
            other: The cache to read.
            source: Their rows and columns there, int64 [M] each.
            target: Their rows and columns here, int64 [M] each; the caller sets the lengths.
        """
        for mine, theirs in zip(self.row_layers(), other.row_layers(), strict=True):
            mine.keys[target[0], :, target[1]] = theirs.keys[source[0], :, source[1]]
            mine.values[target[0], :, target[1]] = theirs.values[source[0], :, source[1]]

    def bytes_per_token(self) -> int:
        """Bytes that one token takes over all layers; 0 before the first forward pass."""
        return sum(
            held.shape[1] * held.shape[3] * held.element_size()
            for layer in self.row_layers()
            for held in (layer.keys, layer.values)
        )

    def row_layers(self) -> list[RowLayer]:
        """The layers that have received tokens."""
        return self.layers  # type: ignore[return-value]


def _widened(held: Tensor, capacity: int, *, used: int) -> Tensor:
    """The same rows [R, heads, C, d] with more columns."""
    made = held.new_zeros(held.shape[0], held.shape[1], capacity, held.shape[3])
    made[:, :, :used] = held[:, :, :used]
    return made


def padded(rows: Sequence[Any], width: int) -> Tensor:
    """Rows of integers as int64 [R, width], padded with zeros."""
    made = np.zeros((len(rows), width), np.int64)
    for line, row in enumerate(rows):
        made[line, : len(row)] = row
    return torch.from_numpy(made)


def token_places(
    rows: Sequence[int], columns: Sequence[np.ndarray], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows and columns of runs of tokens, one entry a token, int64 [M] each."""
    owners = np.repeat(np.asarray(rows, np.int64), [len(run) for run in columns])
    places = np.concatenate(columns).astype(np.int64)
    return torch.from_numpy(owners).to(device), torch.from_numpy(places).to(device)


def available_memory(device: torch.device) -> int:
    """Free bytes of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available

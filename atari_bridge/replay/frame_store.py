"""Where a replay's frames lie: one ring of frames a lane, plain or packed.

Each lane's slots are written in order, around and around. Both stores answer the same calls with
the same numbers; the packed one keeps whole blocks of 8 slots as bytes and only the block under way
as it is. Images that leave a store are packed in either case. This file does not know rows,
episodes or files.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from atari_bridge.replay.frame_codec import FrameCodec, spread

BLOCK = 8  # frames; with 16, zlib of differences took 6 to 23% fewer bytes, but reads unpack more
_BLOCKS_A_TASK = 16


class FrameStore(Protocol):
    """Frames of `lanes` rings of `capacity` slots each."""

    def write(self, lanes: np.ndarray, slots: np.ndarray, frames: np.ndarray) -> None:
        """Keeps `frames` `[M, *shape]` of M different lanes at their next slots `[M]`."""
        ...

    def read(self, lanes: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """`[M, *shape]`, the frames at slots that were written, in any order, some twice."""
        ...

    def items(self, counts: np.ndarray) -> Iterator[bytes]:
        """All that is kept, as byte strings, given how many frames each lane ever got."""
        ...

    def load_items(self, counts: np.ndarray, items: Iterator[bytes]) -> None:
        """Takes back what `items` gave.

        Raises:
            ValueError: If the items are not those of this store.
        """
        ...


class PlainFrames:
    """Frames as they are. Memory that no frame was written to yet is not taken."""

    def __init__(self, lanes: int, capacity: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._frames = np.zeros((lanes * capacity, *shape), dtype)
        self._lanes, self._capacity = lanes, capacity
        self._codec = FrameCodec(shape, BLOCK) if len(shape) == 3 else None

    def write(self, lanes: np.ndarray, slots: np.ndarray, frames: np.ndarray) -> None:
        """See `FrameStore`."""
        self._frames[lanes * self._capacity + slots] = frames

    def read(self, lanes: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """See `FrameStore`."""
        return self._frames[lanes * self._capacity + slots]

    def items(self, counts: np.ndarray) -> Iterator[bytes]:
        """See `FrameStore`; an item is a block of frames, packed by several threads if images."""
        with ThreadPoolExecutor(_threads()) as pool:
            yield from pool.map(self._item, self._parts(counts))

    def _item(self, part: np.ndarray) -> bytes:
        if self._codec is None:
            return part.tobytes()
        padded = np.zeros((len(part), self._codec.words * 8), np.uint8)
        padded[:, : part[0].size] = part.reshape(len(part), -1)
        return self._codec.pack(padded)

    def load_items(self, counts: np.ndarray, items: Iterator[bytes]) -> None:
        """See `FrameStore`."""
        for part in self._parts(counts):
            data = next(items, b"")
            if self._codec is not None:
                padded = np.empty((len(part), self._codec.words * 8), np.uint8)
                self._codec.unpack(data, padded, length=len(part))
                part[:] = padded[:, : part[0].size].reshape(part.shape)
                continue
            if len(data) != part.nbytes:
                raise ValueError(
                    f"found a block of {len(data)} bytes of frames; required: {part.nbytes}"
                )
            part[:] = np.frombuffer(data, part.dtype).reshape(part.shape)

    def _parts(self, counts: np.ndarray) -> Iterator[np.ndarray]:
        for lane in range(self._lanes):
            start = lane * self._capacity
            stop = start + min(int(counts[lane]), self._capacity)
            for at in range(start, stop, BLOCK):
                yield self._frames[at : min(at + BLOCK, stop)]


class PackedFrames:
    """Images, packed in blocks of `BLOCK` slots; reading takes several threads where it pays.

    A block that is written over keeps its old bytes until the new ones are complete, since the
    slots ahead of the newest still hold remembered frames.

    Args:
        lanes: Number of rings.
        capacity: Slots of each.
        shape: Of one frame, `(C, H, W)` uint8.
        threads: That unpack; None: one for each processor, 8 at most.
    """

    def __init__(
        self, lanes: int, capacity: int, shape: tuple[int, ...], *, threads: int | None = None
    ) -> None:
        self._capacity, self._shape = capacity, shape
        self._codec = FrameCodec(shape, BLOCK)
        self._size = int(np.prod(shape))
        self._blocks = -(-capacity // BLOCK)  # of a lane
        self._packed: list[bytes | None] = [None] * (lanes * self._blocks)
        # The block under way of each lane; its padding stays 0.
        self._open = np.zeros((lanes, BLOCK, self._codec.words * 8), np.uint8)
        self._open_block = np.zeros(lanes, np.int64)
        self._open_length = np.zeros(lanes, np.int64)
        self._threads = threads or _threads()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all that is kept."""
        return self._open.nbytes + sum(len(data) for data in self._packed if data is not None)

    def _length(self, block: int) -> int:
        """Slots of a block of a lane: the last one may be short."""
        return min(BLOCK, self._capacity - block * BLOCK)

    def write(self, lanes: np.ndarray, slots: np.ndarray, frames: np.ndarray) -> None:
        """See `FrameStore`."""
        block, offset = np.divmod(slots, BLOCK)
        self._open[lanes, offset, : self._size] = frames.reshape(len(frames), self._size)
        self._open_block[lanes], self._open_length[lanes] = block, offset + 1
        ends = np.minimum(BLOCK, self._capacity - block * BLOCK)
        for i in np.flatnonzero(offset + 1 == ends):
            lane, length = int(lanes[i]), int(ends[i])
            at = lane * self._blocks + int(block[i])
            self._packed[at] = self._codec.pack(self._open[lane, :length])
            self._open_length[lane] = 0

    def read(self, lanes: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """See `FrameStore`."""
        out = np.empty((len(lanes), self._size), np.uint8)
        block, offset = np.divmod(slots, BLOCK)
        is_open = (block == self._open_block[lanes]) & (offset < self._open_length[lanes])
        rows = np.flatnonzero(is_open)
        out[rows] = self._open[lanes[rows], offset[rows], : self._size]
        rest = np.flatnonzero(~is_open)
        place = lanes[rest] * self._blocks + block[rest]
        order = np.argsort(place, kind="stable")
        rows, place = rest[order], place[order]
        starts = np.flatnonzero(np.diff(place, prepend=-1))
        bounds = np.append(starts, len(place))
        tasks = range(0, len(starts), _BLOCKS_A_TASK)

        def unpack(first: int) -> None:
            scratch = np.empty((BLOCK, self._codec.words * 8), np.uint8)
            for k in range(first, min(first + _BLOCKS_A_TASK, len(starts))):
                wanted = rows[bounds[k] : bounds[k + 1]]
                self._unpack(int(place[bounds[k]]), offset[wanted], wanted, scratch, out)

        if self._threads == 1 or len(tasks) < 2:
            for first in tasks:
                unpack(first)
        else:
            self._pool = self._pool or ThreadPoolExecutor(self._threads)
            list(self._pool.map(unpack, tasks))
        return out.reshape(len(lanes), *self._shape)

    def _unpack(
        self, place: int, chosen: np.ndarray, rows: np.ndarray, scratch: np.ndarray, out: np.ndarray
    ) -> None:
        """Writes the frames `chosen` of one block to `rows` of `out`; the arrays are `[M]`."""
        data = self._packed[place]
        assert data is not None, "a slot was read before it was written"
        length = self._length(place % self._blocks)
        frames = scratch[: int(chosen.max()) + 1]
        self._codec.unpack(data, frames, length=length)
        spread(frames, chosen, rows, out)

    def items(self, counts: np.ndarray) -> Iterator[bytes]:
        """See `FrameStore`; an item is a block, the one under way last of its lane's."""
        for lane, count in enumerate(counts.tolist()):
            done, open_length = self._done(count), int(self._open_length[lane])
            for data in self._packed[lane * self._blocks : lane * self._blocks + done]:
                assert data is not None
                yield data
            if open_length:
                yield self._codec.pack(self._open[lane, :open_length])

    def load_items(self, counts: np.ndarray, items: Iterator[bytes]) -> None:
        """See `FrameStore`."""
        self._packed = [None] * len(self._packed)
        self._open[:] = 0
        for lane, count in enumerate(counts.tolist()):
            done = self._done(count)
            for block in range(done):
                self._packed[lane * self._blocks + block] = next(items, b"")
            block, length = divmod(count % self._capacity, BLOCK)
            self._open_block[lane], self._open_length[lane] = block, length
            if length:
                self._codec.unpack(next(items, b""), self._open[lane, :length], length=length)

    def _done(self, count: int) -> int:
        """Whole blocks of a lane that got so many frames."""
        return self._blocks if count >= self._capacity else count // BLOCK


def _threads() -> int:
    return min(8, os.cpu_count() or 1)

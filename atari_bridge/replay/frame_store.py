"""Frames of a replay, one ring buffer for each environment, plain or compressed.

Both stores return the same frames; the compressed one keeps blocks of 8 frames as bytes, and only
the block being filled as it is. Images written to disk are compressed in either case.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from atari_bridge.replay.frame_codec import FrameCodec, spread

BLOCK = 8  # frames; 16 would take 6 to 23% fewer bytes, but reads unpack more
_BLOCKS_A_TASK = 16


class FrameStore(Protocol):
    """Ring buffers of frames, one for each environment."""

    def write(self, env_index: np.ndarray, positions: np.ndarray, frames: np.ndarray) -> None:
        """Stores `frames` `[M, *shape]` of M different environments at their next positions."""
        ...

    def read(self, env_index: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """`[M, *shape]`, the frames at positions `[M]`, in any order, some twice."""
        ...

    def items(self, counts: np.ndarray) -> Iterator[bytes]:
        """All frames as byte strings, given the number ever written `[L]`."""
        ...

    def load_items(self, counts: np.ndarray, items: Iterator[bytes]) -> None:
        """Loads what `items` returned.

        Raises:
            ValueError: If the items are not of such a store.
        """
        ...


class PlainFrames:
    """Uncompressed frames; memory is taken as it is written to."""

    def __init__(
        self, num_envs: int, capacity: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._frames = np.zeros((num_envs * capacity, *shape), dtype)
        self._num_envs, self._capacity = num_envs, capacity
        self._codec = FrameCodec(shape, BLOCK) if len(shape) == 3 else None

    def write(self, env_index: np.ndarray, positions: np.ndarray, frames: np.ndarray) -> None:
        """See `FrameStore`."""
        self._frames[env_index * self._capacity + positions] = frames

    def read(self, env_index: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """See `FrameStore`."""
        return self._frames[env_index * self._capacity + positions]

    def items(self, counts: np.ndarray) -> Iterator[bytes]:
        """See `FrameStore`; an item is a block of frames, compressed if images."""
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
        for env in range(self._num_envs):
            start = env * self._capacity
            stop = start + min(int(counts[env]), self._capacity)
            for at in range(start, stop, BLOCK):
                yield self._frames[at : min(at + BLOCK, stop)]


class PackedFrames:
    """Images, compressed in blocks of `BLOCK`; large reads use several threads.

    A block that is overwritten keeps its old bytes until the new ones are complete: positions past
    the newest hold the oldest frames.

    Args:
        num_envs: L.
        capacity: Frames of each environment.
        shape: Of one frame, `(C, H, W)` uint8.
        threads: For decompression; None: one for each processor, 8 at most.
    """

    def __init__(
        self, num_envs: int, capacity: int, shape: tuple[int, ...], *, threads: int | None = None
    ) -> None:
        self._capacity, self._shape = capacity, shape
        self._codec = FrameCodec(shape, BLOCK)
        self._size = int(np.prod(shape))
        self._blocks = -(-capacity // BLOCK)  # of an environment
        self._packed: list[bytes | None] = [None] * (num_envs * self._blocks)
        # The block being filled of each environment; its padding stays 0.
        self._open = np.zeros((num_envs, BLOCK, self._codec.words * 8), np.uint8)
        self._open_block = np.zeros(num_envs, np.int64)
        self._open_length = np.zeros(num_envs, np.int64)
        self._threads = threads or _threads()
        self._pool: ThreadPoolExecutor | None = None

    def _length(self, block: int) -> int:
        """Frames of a block: the last one of an environment may be short."""
        return min(BLOCK, self._capacity - block * BLOCK)

    def write(self, env_index: np.ndarray, positions: np.ndarray, frames: np.ndarray) -> None:
        """See `FrameStore`."""
        block, offset = np.divmod(positions, BLOCK)
        self._open[env_index, offset, : self._size] = frames.reshape(len(frames), self._size)
        self._open_block[env_index], self._open_length[env_index] = block, offset + 1
        ends = np.minimum(BLOCK, self._capacity - block * BLOCK)
        for i in np.flatnonzero(offset + 1 == ends):
            env, length = int(env_index[i]), int(ends[i])
            at = env * self._blocks + int(block[i])
            self._packed[at] = self._codec.pack(self._open[env, :length])
            self._open_length[env] = 0

    def read(self, env_index: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """See `FrameStore`."""
        out = np.empty((len(env_index), self._size), np.uint8)
        block, offset = np.divmod(positions, BLOCK)
        is_open = (block == self._open_block[env_index]) & (offset < self._open_length[env_index])
        rows = np.flatnonzero(is_open)
        out[rows] = self._open[env_index[rows], offset[rows], : self._size]
        rest = np.flatnonzero(~is_open)
        place = env_index[rest] * self._blocks + block[rest]
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
        return out.reshape(len(env_index), *self._shape)

    def _unpack(
        self, place: int, chosen: np.ndarray, rows: np.ndarray, scratch: np.ndarray, out: np.ndarray
    ) -> None:
        """Writes the frames `chosen` of one block to `rows` of `out`; the arrays are `[M]`."""
        data = self._packed[place]
        assert data is not None, "a frame was read before it was written"
        length = self._length(place % self._blocks)
        frames = scratch[: int(chosen.max()) + 1]
        self._codec.unpack(data, frames, length=length)
        spread(frames, chosen, rows, out)

    def items(self, counts: np.ndarray) -> Iterator[bytes]:
        """See `FrameStore`; an item is a block, the one being filled last."""
        for env, count in enumerate(counts.tolist()):
            done, open_length = self._done(count), int(self._open_length[env])
            for data in self._packed[env * self._blocks : env * self._blocks + done]:
                assert data is not None
                yield data
            if open_length:
                yield self._codec.pack(self._open[env, :open_length])

    def load_items(self, counts: np.ndarray, items: Iterator[bytes]) -> None:
        """See `FrameStore`."""
        self._packed = [None] * len(self._packed)
        self._open[:] = 0
        for env, count in enumerate(counts.tolist()):
            done = self._done(count)
            for block in range(done):
                self._packed[env * self._blocks + block] = next(items, b"")
            block, length = divmod(count % self._capacity, BLOCK)
            self._open_block[env], self._open_length[env] = block, length
            if length:
                self._codec.unpack(next(items, b""), self._open[env, :length], length=length)

    def _done(self, count: int) -> int:
        """Complete blocks after `count` frames."""
        return self._blocks if count >= self._capacity else count // BLOCK


def _threads() -> int:
    return min(8, os.cpu_count() or 1)

"""Reuse of the memory of a search: arrays are recycled once no tensor refers to them.

A finished tree's tensors share these arrays. Reference counts tell whether a tensor or a view is
still in use, so memory is never overwritten under a reader, and never copied to be safe.
"""

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Shapes = Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]
"""Name to shape and dtype."""

_RETAINED_BYTES = 256 * 2**20
_RETAINED_NUMBER = 8


class Memory:
    """Named arrays of one shape of search; `arrays` are uninitialized or hold an earlier search."""

    def __init__(self, shapes: Shapes) -> None:
        """Allocates the arrays."""
        self.arrays: dict[str, Array] = {
            name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()
        }

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in self.arrays.values())

    def is_read(self) -> bool:
        """Whether anything but this object refers to one of the arrays."""
        return self.max_refcount() > _UNREAD

    def max_refcount(self) -> int:
        """References to the array that has most, those of this object and this call included."""
        return max(map(sys.getrefcount, self.arrays.values()))


_UNREAD = Memory({"probe": ((1,), np.uint8)}).max_refcount()
"""`max_refcount` where nothing else refers to an array: measured, since releases of Python differ
in how many references a call takes (3.14 takes fewer than those before it)."""


class _FreeMemory(threading.local):
    """The free memory of a thread, least recently used first."""

    def __init__(self) -> None:
        self.memories: OrderedDict[int, tuple[Hashable, Memory]] = OrderedDict()


_free = _FreeMemory()


def acquire_buffers(key: Hashable, shapes: Callable[[], Shapes]) -> Memory:
    """Takes free memory of a key, or allocates it where there is none.

    Args:
        key: Stands for the shapes.
        shapes: Returns what to allocate where no memory of that key is free.
    """
    for number, (found, memory) in _free.memories.items():
        if found == key and not memory.is_read():
            del _free.memories[number]
            return memory
    return Memory(shapes())


def release_buffers(key: Hashable, memory: Memory) -> None:
    """Makes memory free for the next search of its shapes.

    The memory returned last is kept whatever its size; all others up to 256 MiB together.
    """
    free = _free.memories
    free[id(memory)] = (key, memory)
    others = sum(kept.num_bytes for _, kept in list(free.values())[:-1])
    while len(free) > 1 and (others > _RETAINED_BYTES or len(free) > _RETAINED_NUMBER):
        _, (_, oldest) = free.popitem(last=False)
        others -= oldest.num_bytes


def release_memory() -> None:
    """Releases the free memory of this thread; trees in use are not affected."""
    _free.memories.clear()

"""The order of an epoch: shuffled, with rows of similar length in one batch.

The order is a function of the seed and the epoch alone, so it is the same in every process and
after a restart.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

_BATCHES = 50  # as in transformers' sampler


class LengthGroupedOrder(Sampler[int]):
    """Rows in random order, sorted by length within chunks of several batches."""

    def __init__(self, lengths: Sequence[int], *, rows: int, seed: int, grouped: bool) -> None:
        """Prepares the first epoch.

        `rows` are those of one update, over all processes and accumulated steps; without `grouped`,
        the order is only random.
        """
        self._lengths = np.asarray(lengths)
        self._rows = rows
        self._seed = seed
        self._grouped = grouped
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration; accelerate's loaders call it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yields every row once."""
        draw = np.random.default_rng((self._seed, self.epoch))
        order = draw.permutation(len(self._lengths))
        if not self._grouped:
            return iter(order.tolist())
        stretch = self._rows * _BATCHES
        batches: list[np.ndarray] = []
        for start in range(0, len(order), stretch):
            part = order[start : start + stretch]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches += [part[i : i + self._rows] for i in range(0, len(part), self._rows)]
        # Batches in a random order, or lengths would decrease in every chunk. The longest comes
        # first, so that what does not fit into memory fails at once; the short rest stays last.
        rest = batches.pop() if len(batches) > 1 and len(batches[-1]) < self._rows else None
        longest = max(range(len(batches)), key=lambda b: int(self._lengths[batches[b]].max()))
        middle = [b for b in draw.permutation(len(batches)).tolist() if b != longest]
        shuffled = [batches[longest], *(batches[b] for b in middle)]
        return iter(np.concatenate([*shuffled, *([] if rest is None else [rest])]).tolist())

"""A binary tree of sums, to sample leaves in proportion to their values in logarithmic time.

Each node is computed from its two children, never updated by differences: the tree is a function of
its leaves, bit for bit, and rounding errors do not accumulate.
"""

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def _set_leaves(nodes, index, values):
    """Sets leaves and every sum above them; of repeated leaves the last value counts."""
    leaves = nodes.shape[0] // 2
    for i in range(index.shape[0]):
        at = leaves + index[i]
        nodes[at] = values[i]
        while at > 1:
            at //= 2
            nodes[at] = nodes[2 * at] + nodes[2 * at + 1]


@njit(**_OPTIONS)
def _find_leaves(nodes, targets, found):
    """The leaf at which the running sum of the leaves passes each target."""
    leaves = nodes.shape[0] // 2
    for i in range(targets.shape[0]):
        rest, at = targets[i], 1
        while at < leaves:
            at *= 2
            # Sums are rounded, so a target may lie past the last leaf above 0: subtrees of 0 are
            # never entered.
            if rest >= nodes[at] and nodes[at + 1] > 0:
                rest -= nodes[at]
                at += 1
        found[i] = at - leaves


class SumTree:
    """Values at least 0 of leaves 0 to `capacity - 1`, float64, all 0 at first.

    Args:
        capacity: Number of leaves.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # nodes[1] is the root, node i has the children 2i and 2i + 1, the leaves come last.
        self._nodes = np.zeros(2 << max(0, capacity - 1).bit_length())

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self._nodes[1])

    @property
    def values(self) -> np.ndarray:
        """`[capacity]` float64, the leaves: a view, not to be written to."""
        first = len(self._nodes) // 2
        return self._nodes[first : first + self._capacity]

    def set(self, index: np.ndarray, values: np.ndarray) -> None:
        """Sets the leaves `index` `[M]` int64 to `values` `[M]` float64."""
        _set_leaves(self._nodes, index, values)

    def set_all(self, values: np.ndarray) -> None:
        """Sets all leaves to `values` `[capacity]` float64."""
        size = len(self._nodes) // 2
        self._nodes[size:] = 0
        self._nodes[size : size + self._capacity] = values
        while size > 1:
            below = self._nodes[size : 2 * size]
            size //= 2
            self._nodes[size : 2 * size] = below[::2] + below[1::2]

    def find(self, targets: np.ndarray) -> np.ndarray:
        """`[M]` int64, the leaves at which the running sum of the leaves passes `targets` `[M]`.

        Targets from 0 to less than the total. A leaf of value 0 is never found unless all are 0.
        """
        found = np.empty(len(targets), np.int64)
        _find_leaves(self._nodes, targets, found)
        return found

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """`[count]` int64 leaves in proportion to their values, one from each equal share.

        Source: Schaul et al. 2016, section B.2.1 (stratified sampling).
        """
        shares = (np.arange(count) + generator.random(count)) / count
        return self.find(shares * self.total)

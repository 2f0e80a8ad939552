"""Counter-based random numbers, keyed by the place in a search.

The key of a segment is made of the search's seed, the prompt's number and the actions on the way to
its node; the counter is the token's place in the segment. So what an action leads to is the same in
any order, batch or process, as if all proposals had been sampled beforehand.

Source: the finalizer of SplitMix64, Steele, Lea and Flood 2014 ("Fast splittable pseudorandom
number generators").
"""

from collections.abc import Sequence

import numpy as np

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


def root_key(seed: int, number: int) -> int:
    """The key of a prompt, by the seed of the search and the prompt's number."""
    return _mix((_mix(seed & _MASK) + _STEP * (number + 1)) & _MASK)


def child_key(parent: int, action: int, attempt: int = 0) -> int:
    """The key of the segment that an action leads to; each attempt at it has its own."""
    return _mix((_mix((parent + _STEP * (action + 1)) & _MASK) + attempt) & _MASK)


def uniforms(keys: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """Numbers in [0, 1), float64 [R], for the tokens at R places of segments with R keys."""
    with np.errstate(over="ignore"):
        state = np.array(keys, np.uint64) + np.uint64(_STEP) * (np.array(places, np.uint64) + 1)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)

"""The sum tree: exact sums, and draws at their running sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atari_bridge.replay.sum_tree import SumTree

leaves = st.lists(st.integers(0, 50), min_size=1, max_size=40)


def tree_of(values: list[int]) -> SumTree:
    tree = SumTree(len(values))
    tree.set(np.arange(len(values)), np.array(values, np.float64))
    return tree


@settings(max_examples=60, deadline=None)
@given(leaves)
def test_each_target_finds_the_leaf_where_the_running_sum_passes_it(values: list[int]) -> None:
    # Whole numbers: every sum is exact, so numpy's running sum is the truth.
    tree = tree_of(values)
    assert tree.total == sum(values)
    targets = np.arange(0, sum(values), 0.5)
    expected = np.searchsorted(np.cumsum(values), targets, side="right")
    assert tree.find(targets).tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(leaves, st.integers(0, 2**32 - 1))
def test_a_tree_is_the_same_to_the_last_bit_however_its_leaves_were_set(
    values: list[int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    final = generator.random(len(values)) * 10.0 ** generator.integers(-8, 8, len(values))
    slow = tree_of(values)
    for index in generator.permutation(len(values)):
        slow.set(np.array([index]), generator.random(1))
        slow.set(np.array([index]), final[index : index + 1])
    fast = tree_of(values)
    fast.set_all(final)
    assert np.array_equal(slow._nodes, fast._nodes)
    assert slow.total == pytest.approx(final.sum(), rel=1e-12)


def test_of_a_leaf_that_is_set_twice_the_last_value_counts() -> None:
    tree = SumTree(5)
    tree.set(np.array([3, 1, 3]), np.array([9.0, 1.0, 2.0]))
    assert tree.values.tolist() == [0, 1, 0, 2, 0]
    assert tree.total == 3


def test_a_leaf_of_value_0_is_never_found_at_the_edges_of_rounding() -> None:
    tree = SumTree(7)
    tree.set(np.array([1, 2, 4]), np.array([0.1, 0.2, 0.3]))
    targets = np.array([0.0, 0.1, tree.total, np.nextafter(tree.total, 0), tree.total * 2])
    assert set(tree.find(targets).tolist()) <= {1, 2, 4}


def test_draws_take_one_leaf_from_each_equal_share_of_the_sum() -> None:
    tree = tree_of([1] * 8)
    for seed in range(5):
        drawn = tree.sample(8, np.random.default_rng(seed))
        assert drawn.tolist() == list(range(8))
    halves = tree_of([3, 1]).sample(4000, np.random.default_rng(0))
    assert (halves == 0).sum() == 3000  # shares split exactly there

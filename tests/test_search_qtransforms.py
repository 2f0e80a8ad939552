"""The Q-transforms, against numbers worked out by hand."""

from functools import partial

import pytest
import torch

from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from search.model import RootOutput
from search.tree import allocate_tree
from tests.search_reference import ReferenceSearch, TableModel, random_tables

ROOT = torch.tensor([0])


def tree_with_two_of_three_visited():
    """Prior .5, .25, .25; raw value 1, node value 2; Q 3 (2 visits), 0 (1 visit), unvisited."""
    root = RootOutput(
        prior_logits=torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log(),
        value=torch.tensor([1.0], dtype=torch.float64),
        valid_actions=torch.ones(1, 3, dtype=torch.bool),
        embedding={},
    )
    tree = allocate_tree(root, 3)
    tree.node_values[0, 0] = 2.0
    tree.children_visits[0, 0] = torch.tensor([2, 1, 0])
    tree.children_rewards[0, 0] = torch.tensor([1.0, 1.0, 0.0])
    tree.children_discounts[0, 0] = torch.tensor([0.5, -1.0, 0.0])
    tree.children_values[0, 0] = torch.tensor([4.0, 1.0, 0.0])
    return tree


MIXED = (1 + 3 * (2 / 3 * 3.0 + 1 / 3 * 0.0)) / 4  # = 1.75


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (partial(qtransform_by_min_max, min_value=-1.0, max_value=4.0), [0.8, 0.2, 0.0]),
        (qtransform_by_parent_and_siblings, [1.0, 0.0, 0.0]),
        (partial(qtransform_by_parent_and_siblings, epsilon=6.0), [0.5, 0.0, 0.0]),
        (qtransform_completed_by_mix_value, [5.2, 0.0, 5.2 * MIXED / 3]),
        (
            partial(qtransform_completed_by_mix_value, value_scale=1.0, maxvisit_init=0.0),
            [2.0, 0.0, 2 * MIXED / 3],
        ),
        (
            partial(qtransform_completed_by_mix_value, rescale_values=False),
            [5.2 * 3, 0.0, 5.2 * MIXED],
        ),
        (
            partial(qtransform_completed_by_mix_value, use_mixed_value=False),
            [5.2, 0.0, 5.2 / 3],
        ),
        (partial(qtransform_completed_by_mix_value, epsilon=6.0), [2.6, 0.0, 5.2 * MIXED / 6]),
    ],
)
def test_known_scores(transform, expected):
    assert transform(tree_with_two_of_three_visited(), ROOT)[0].tolist() == pytest.approx(expected)


def test_node_value_below_all_qvalues_is_the_lower_bound():
    tree = tree_with_two_of_three_visited()
    tree.node_values[0, 0] = -3.0
    scores = qtransform_by_parent_and_siblings(tree, ROOT)[0].tolist()
    assert scores == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("node_value", "expected"),
    [(5.0, [0.6, 0.0, 0.2]), (-3.0, [1.0, 0.5, 2 / 3]), (2.0, [1.0, 0.0, 1 / 3])],
)
def test_node_value_counts_where_every_action_is_visited(node_value, expected):
    tree = tree_with_two_of_three_visited()
    tree.node_values[0, 0] = node_value
    tree.children_visits[0, 0, 2] = 1
    tree.children_rewards[0, 0, 2] = 1.0
    scores = qtransform_by_parent_and_siblings(tree, ROOT)[0].tolist()
    assert scores == pytest.approx(expected)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_node_far_better_than_its_successors_explores_them(backend):
    """Beside the node's own value its successors' are alike, and priors share the visits.

    Without it they would be 0 and 1, and the better one would get nearly all.
    """
    model = TableModel(
        # State 0 is worth 100; both its actions lead to states that stay, worth 0 and 1.
        next_state=torch.tensor([[[1, 2], [1, 1], [2, 2]]]),
        reward=torch.zeros(1, 3, 2, dtype=torch.float64),
        discount=torch.ones(1, 3, 2, dtype=torch.float64),
        prior_logits=torch.zeros(1, 3, 2, dtype=torch.float64),
        valid_actions=torch.ones(1, 3, 2, dtype=torch.bool),
        value=torch.tensor([[100.0, 0.0, 1.0]], dtype=torch.float64),
    )
    planner = MuZeroPlanner(40, dirichlet_fraction=0, temperature=0, backend=backend)
    visits = planner.plan(model, torch.arange(1)).tree.children_visits[0, 0].tolist()
    reference = ReferenceSearch(model, 0, num_simulations=40)
    assert visits == [reference.root.visits(a) for a in range(2)] == [9, 31]


def test_unvisited_node_is_completed_by_its_raw_value():
    tree = tree_with_two_of_three_visited()
    tree.children_visits[0, 0] = 0
    scores = qtransform_completed_by_mix_value(tree, ROOT, rescale_values=False)
    assert scores[0].tolist() == pytest.approx([5.0, 5.0, 5.0])
    assert qtransform_completed_by_mix_value(tree, ROOT)[0].tolist() == [0.0, 0.0, 0.0]


def test_visited_action_of_no_probability_gives_no_nan():
    tree = tree_with_two_of_three_visited()
    tree.children_prior_logits[0, 0] = torch.tensor([-1e5, -1e5, 0.0])
    scores = qtransform_completed_by_mix_value(tree, ROOT, rescale_values=False)
    assert scores[0].tolist() == pytest.approx([15.6, 0.0, 5.2 * (1 + 3 * 1.5) / 4])


@pytest.mark.parametrize("planner", [MuZeroPlanner, GumbelMuZeroPlanner])
def test_planners_use_the_transform_they_are_given(planner):
    model = random_tables(1, num_tables=16)
    bounds = {"min_value": -0.1, "max_value": 0.1}
    steep = planner(30, qtransform=partial(qtransform_by_min_max, **bounds))
    first = steep.plan(model, torch.arange(16), generator=torch.Generator().manual_seed(0))
    second = planner(30).plan(model, torch.arange(16), generator=torch.Generator().manual_seed(0))
    assert not torch.equal(first.tree.children_visits[:, 0], second.tree.children_visits[:, 0])

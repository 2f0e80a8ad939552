"""Best-of-N against depth-one tree search and against the tables themselves."""

import pytest
import torch

from search import BestOfNPlanner, GumbelMuZeroPlanner
from tests.search_reference import random_tables

WORLD = {"num_tables": 8, "num_actions": 7, "invalid": 0.4, "terminal": 0.2, "dead": 0.1}


@pytest.mark.parametrize("discount", [0.9, -1.0])
def test_equals_depth_one_search_that_visits_every_action_once(discount):
    model, tables = random_tables(1, discount=discount, **WORLD), torch.arange(8)
    output = BestOfNPlanner(7).plan(model, tables)
    search = GumbelMuZeroPlanner(7, max_depth=1, gumbel_scale=0).plan(model, tables)
    valid = model.valid_actions[:, 0]
    qvalues = output.tree.summary().qvalues
    torch.testing.assert_close(qvalues, search.tree.summary().qvalues)
    best = qvalues.masked_fill(~valid, -torch.inf).max(dim=-1)
    assert torch.equal(output.action, best.indices)
    torch.testing.assert_close(output.value, best.values)


def test_one_step_call_of_the_first_valid_actions():
    model = random_tables(2, **WORLD)
    valid = model.valid_actions[:, 0]
    output = BestOfNPlanner(3).plan(model, torch.arange(8))
    tried = valid & (valid.cumsum(dim=-1) <= 3)
    assert model.step_rows == [int(tried.sum())]
    assert bool((valid.sum(dim=-1) > 3).any())
    assert torch.equal(output.tree.children_visits[:, 0] == 1, tried)
    assert torch.equal(output.tree.node_visits[:, 0], 1 + tried.sum(dim=-1))
    assert tried[torch.arange(8), output.action].all()


def test_tree_agrees_with_the_decision():
    model = random_tables(3, **WORLD)
    output = BestOfNPlanner(7).plan(model, torch.arange(8))
    assert torch.equal(output.tree.node_values[:, 0], output.value)
    for row in range(8):
        weights = [float(a == output.action[row]) for a in range(7)]
        assert output.action_weights[row].tolist() == weights
        assert output.tree.principal_variation(row) == [int(output.action[row])]
        root = output.tree.to_dict(row)
        columns = [child["node"] for child in root["children"]]
        assert columns == list(range(1, len(columns) + 1))
        for child in root["children"]:
            state = int(model.next_state[row, 0, child["action"]])
            assert child["value"] == float(model.value[row, state])
            assert child["visits"] == 1


def test_ties_go_to_the_lowest_index():
    model = random_tables(4, num_actions=4)
    model.reward.zero_()
    model.discount.zero_()
    model.valid_actions[:, 0, 0] = False
    assert BestOfNPlanner(4).plan(model, torch.arange(4)).action.tolist() == [1, 1, 1, 1]


def test_action_never_tried_is_not_taken_when_all_returns_are_negative():
    model = random_tables(5)
    model.reward.fill_(-5.0)
    output = BestOfNPlanner(2).plan(model, torch.arange(4))
    assert bool((output.action < 2).all())
    assert bool((output.value < 0).all())

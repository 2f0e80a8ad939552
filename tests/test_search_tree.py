"""What a tree says of itself, on a search small enough to follow by hand."""

import json

import pytest
import torch

from search import GumbelMuZeroPlanner, Tree
from search.model import RootOutput
from search.selection import masked_argmax
from search.tree import allocate_tree, mask_logits
from tests.search_reference import random_tables


def small_tree() -> Tree:
    """Three simulations on two actions: 0 (Q 1 + .5 * 2 = 2), 1 (Q 0), then 0 0 (Q 3 + .5)."""
    model = random_tables(1, num_tables=1, num_states=4, num_actions=2)
    model.prior_logits.zero_()
    model.next_state[0] = torch.tensor([[1, 2], [3, 3], [2, 2], [3, 3]])
    model.reward[0] = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    model.discount.fill_(0.5)
    model.value[0] = torch.tensor([0.0, 2.0, 0.0, 1.0])
    return GumbelMuZeroPlanner(3, gumbel_scale=0).plan(model, torch.arange(1)).tree


def test_summary_of_a_known_search():
    """Visits 2 and 1; node 1 averages 2 and 3.5; the root 0, 2, 0 and 1 + .5 * 3.5."""
    tree = small_tree()
    summary = tree.summary()
    assert summary.visit_counts.tolist() == [[2, 1]]
    assert summary.visit_probs.tolist() == [pytest.approx([2 / 3, 1 / 3])]
    assert summary.qvalues.tolist() == [[1 + 0.5 * (2 + 3.5) / 2, 0.0]]
    assert summary.value.tolist() == [(0 + 2 + 0 + 1 + 0.5 * 3.5) / 4]
    assert (tree.batch_size, tree.num_actions, tree.num_simulations) == (1, 2, 3)


def test_to_dict_is_nested_plain_python():
    root = json.loads(json.dumps(small_tree().to_dict(0)))
    assert (root["node"], root["visits"], root["action"], root["prior"]) == (0, 4, None, None)
    first, second = root["children"]
    assert (first["node"], first["action"], first["visits"]) == (1, 0, 2)
    assert (first["prior"], first["reward"], first["discount"]) == (0.5, 1.0, 0.5)
    assert (second["node"], second["action"], second["children"]) == (2, 1, [])
    (grandchild,) = first["children"]
    assert (grandchild["node"], grandchild["action"], grandchild["value"]) == (3, 0, 1.0)


def test_principal_line_follows_visits_then_value_then_index():
    tree = small_tree()
    assert tree.principal_variation(0) == [0, 0]
    with torch.inference_mode():
        tree.children_visits[0, 0] = torch.tensor([1, 2])
        assert tree.principal_variation(0) == [1]
        tree.children_visits[0, 0] = torch.tensor([1, 1])
        assert tree.principal_variation(0) == [0, 0]
        tree.children_rewards[0, 0] = torch.tensor([-9.0, 0.0])
        assert tree.principal_variation(0) == [1]
        tree.children_values[0, 0], tree.children_rewards[0, 0] = 0.0, 0.0
        assert tree.principal_variation(0) == [0, 0]


@pytest.mark.parametrize("row", [-1, 1])
def test_row_out_of_range_is_named(row):
    tree = small_tree()
    for export in (tree.to_dict, tree.principal_variation):
        with pytest.raises(ValueError, match=rf"found {row}; required 0 to 0"):
            export(row)


def test_fresh_tree_is_a_root_and_nothing_else():
    root = RootOutput(
        prior_logits=torch.tensor([[0.0, 1.0, 2.0]]),
        value=torch.tensor([0.5]),
        valid_actions=torch.tensor([[True, False, True]]),
        embedding={"id": torch.tensor([7]), "hidden": torch.ones(1, 2, 2, dtype=torch.bfloat16)},
    )
    tree = allocate_tree(root, 2)
    assert tree.node_visits.tolist() == [[1, 0, 0]]
    assert tree.node_values.tolist() == tree.raw_values.tolist() == [[0.5, 0, 0]]
    assert bool((tree.parents == -1).all())
    assert bool((tree.children_index == -1).all())
    assert tree.embeddings["id"].tolist() == [[7, 0, 0]]
    assert tree.embeddings["hidden"].shape == (1, 3, 2, 2)
    assert tree.embeddings["hidden"].dtype == torch.bfloat16
    assert tree.summary().visit_probs.tolist() == [[0.5, 0.0, 0.5]]
    assert tree.principal_variation(0) == []


def test_masked_logits_have_no_probability_and_never_nan():
    logits = torch.tensor([[1.0, float("nan"), 1.0], [1.0, 2.0, 3.0]])
    valid = torch.tensor([[True, False, True], [False, False, False]])
    probs = torch.softmax(mask_logits(logits, valid), dim=-1)
    assert probs[0].tolist() == [0.5, 0.0, 0.5]
    assert bool(torch.isfinite(probs).all())


def test_masked_argmax_takes_the_first_of_equals():
    scores = torch.tensor([[5.0, -1.0, -1.0, -2.0]])
    valid = torch.tensor([[False, True, True, True]])
    assert masked_argmax(scores, valid).tolist() == [1]

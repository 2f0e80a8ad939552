"""run_mcts against the recursive reference, node for node, and what it asks of a model."""

import pytest
import torch

from search import GumbelMuZeroPlanner, MuZeroPlanner, run_mcts
from search.qtransforms import qtransform_by_parent_and_siblings
from search.selection import PuctSelection
from tests.pairwise import pairwise
from tests.search_cases import BACKENDS, ROWS, WORLDS, quiet_planner
from tests.search_reference import ReferenceSearch, assert_same_tree, random_tables, to_dict

SIMULATIONS = 40
TOLERANCE = 1e-10  # float64: the reference sums returns, the search keeps running means
SELECT = PuctSelection(qtransform_by_parent_and_siblings)


@pairwise(
    ("all_at_once", "mctx", None, 8, "numba"),
    ("all_at_once", "efficientzero", 3, 3, "torch"),
    ("one_action", "efficientzero", 1, 8, "numba"),
    world=WORLDS,
    mode=["mctx", "efficientzero"],
    max_depth=[None, 1, 3],
    leaves=[1, 3, 8],
    backend=BACKENDS,
)
def test_muzero_tree_equals_recursive_reference(world, mode, max_depth, leaves, backend):
    model = random_tables(1, **WORLDS[world])
    options = {"max_depth": max_depth, "leaves_per_step": leaves}
    output = quiet_planner(mode, SIMULATIONS, backend=backend, **options).plan(model, ROWS)
    for table in range(4):
        reference = ReferenceSearch(
            model,
            table,
            num_simulations=SIMULATIONS,
            efficientzero=mode == "efficientzero",
            **options,
        )
        assert_same_tree(output.tree.to_dict(table), to_dict(reference.root), TOLERANCE)
        assert int(output.action[table]) == reference.decide()
        visits = [reference.root.visits(a) for a in range(model.num_actions)]
        assert output.action_weights[table].tolist() == pytest.approx(
            [count / SIMULATIONS for count in visits], abs=TOLERANCE
        )
        assert float(output.value[table]) == pytest.approx(reference.root.value, abs=TOLERANCE)


@pairwise(
    ("all_at_once", None, 16, 8, "numba"),
    ("all_at_once", 3, 3, 3, "torch"),
    ("one_action", 1, 1, 8, "numba"),
    world=WORLDS,
    max_depth=[None, 1, 3],
    considered=[1, 3, 16],
    leaves=[1, 3, 8],
    backend=BACKENDS,
)
def test_gumbel_tree_equals_recursive_reference(world, max_depth, considered, leaves, backend):
    model = random_tables(2, **WORLDS[world])
    options = {"max_depth": max_depth, "leaves_per_step": leaves}
    scale = {"gumbel_scale": 0.5, "max_num_considered_actions": considered}
    planner = GumbelMuZeroPlanner(SIMULATIONS, backend=backend, **scale, **options)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(4, model.num_actions, generator=generator, dtype=torch.float64)
    output = planner.plan(model, torch.arange(4), root_gumbel=noise)
    for table in range(4):
        reference = ReferenceSearch(
            model,
            table,
            num_simulations=SIMULATIONS,
            gumbel=(0.5 * noise[table]).tolist(),
            max_considered=considered,
            **options,
        )
        assert_same_tree(output.tree.to_dict(table), to_dict(reference.root), TOLERANCE)
        assert int(output.action[table]) == reference.decide()
        assert output.action_weights[table].tolist() == pytest.approx(
            reference.improved_policy(reference.root), abs=TOLERANCE
        )


def test_model_steps_only_rows_that_need_a_node():
    model = random_tables(4, num_tables=2, num_actions=1)
    model.discount[1] = 0.0  # table 1 ends with its first action
    output = MuZeroPlanner(5, dirichlet_fraction=0).plan(model, torch.arange(2))
    assert model.step_rows == [2, 1, 1, 1, 1]
    assert output.tree.node_visits[0].tolist() == [6, 5, 4, 3, 2, 1]
    assert output.tree.node_visits[1].tolist() == [6, 5, 0, 0, 0, 0]


def test_model_is_not_called_when_all_rows_are_done():
    model = random_tables(4, num_tables=2, num_actions=1, terminal=1.0)
    MuZeroPlanner(5, dirichlet_fraction=0).plan(model, torch.arange(2))
    assert model.step_rows == [2]


def test_embeddings_of_any_dtype_lie_at_their_nodes():
    model = random_tables(5, invalid=0.3)
    tree = MuZeroPlanner(30, dirichlet_fraction=0).plan(model, torch.arange(4)).tree
    assert tree.embeddings["trace"].dtype == torch.int32
    for row in range(4):
        for node in tree.node_visits[row].nonzero().flatten().tolist():
            path, at = [], node
            while at != 0:
                path.insert(0, int(tree.action_from_parent[row, at]))
                at = int(tree.parents[row, at])
            assert tree.embeddings["trace"][row, node].tolist() == ([-1] * 3 + path)[-3:]
            assert int(tree.embeddings["table"][row, node]) == row


def test_dtype_follows_the_model():
    model = random_tables(6, dtype=torch.float32)
    for planner in (MuZeroPlanner(4), GumbelMuZeroPlanner(4)):
        output = planner.plan(model, torch.arange(4))
        assert output.value.dtype == output.action_weights.dtype == torch.float32
        assert output.tree.node_values.dtype == torch.float32
        assert output.action.dtype == torch.int64


def test_depth_must_be_positive():
    model = random_tables(7)
    with pytest.raises(ValueError, match=r"max_depth: found 0 .*at least 1 or None"):
        run_mcts(
            model,
            model.root(torch.arange(4)),
            num_simulations=2,
            root_action_selection=SELECT,
            interior_action_selection=SELECT,
            max_depth=0,
        )

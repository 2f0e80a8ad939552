"""Properties every search must have, on worlds hypothesis makes up."""

from dataclasses import replace
from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import (
    BeamPlanner,
    BestOfNPlanner,
    ControlledDecodingPlanner,
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    RejectionPlanner,
)
from tests.search_cases import RANDOM_WORLDS, assert_consistent, assert_linked
from tests.search_reference import random_tables

# Searches by levels maximize for one player.
WORLDS = RANDOM_WORLDS.map(lambda world: world | {"discount": abs(world["discount"])})
BUDGETS = st.integers(1, 24)
DEPTHS = st.sampled_from([None, 1, 2])
TREE_SEARCHES = {"muzero": MuZeroPlanner, "gumbel": GumbelMuZeroPlanner}
LEVEL_SEARCHES = {
    "best_of_n": BestOfNPlanner,
    "beam": BeamPlanner,
    "dvts": partial(BeamPlanner, beam_width=1, num_groups=4, num_children=4),
    "rejection": RejectionPlanner,
    "controlled_decoding": ControlledDecodingPlanner,
}
KINDS = {**TREE_SEARCHES, **LEVEL_SEARCHES}
QUIET = {"muzero": {"dirichlet_fraction": 0, "temperature": 0}, "gumbel": {"gumbel_scale": 0}}
CHECKS = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def plan(planner, model, *, seed=0, tables=None):
    tables = torch.arange(model.value.shape[0]) if tables is None else tables
    return planner.plan(model, tables, generator=torch.Generator().manual_seed(seed))


@CHECKS
@given(st.sampled_from(list(KINDS)), WORLDS, BUDGETS)
def test_decision_is_valid_and_weights_are_a_distribution(kind, world, budget):
    model = random_tables(**world)
    output = plan(KINDS[kind](budget), model)
    valid = model.valid_actions[:, 0]
    assert valid.gather(1, output.action[:, None]).all()
    weights = output.action_weights
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(output.value))
    assert bool((weights[~valid] == 0).all())
    assert bool((weights >= 0).all())
    assert bool(torch.isfinite(output.value).all())


@CHECKS
@given(st.sampled_from(list(KINDS)), WORLDS, BUDGETS)
def test_tree_is_consistent_and_within_budget(kind, world, budget):
    model = random_tables(**world)
    tree = plan(KINDS[kind](budget), model).tree
    used = tree.node_visits > 0
    # Searches by level know what they spent before they allocate.
    num_nodes = int(used.sum(dim=-1).max()) if kind in LEVEL_SEARCHES else budget + 1
    assert tree.node_visits.shape == (model.value.shape[0], num_nodes)
    assert num_nodes <= budget + 1
    assert sum(model.step_rows) == int(used.sum()) - model.value.shape[0]
    visited = tree.children_index >= 0
    assert not bool(visited[tree.terminal].any())
    assert_linked(tree)
    below = tree.children_visits.sum(dim=-1)
    inner = used & visited.any(dim=-1)
    assert torch.equal(tree.node_visits[inner], 1 + below[inner])


@CHECKS
@given(st.sampled_from(list(TREE_SEARCHES)), WORLDS, BUDGETS, DEPTHS)
def test_every_simulation_is_counted_and_values_are_mean_returns(kind, world, budget, depth):
    output = plan(TREE_SEARCHES[kind](budget, max_depth=depth), random_tables(**world))
    assert_consistent(output.tree)
    visits = output.tree.children_visits[:, 0]
    assert bool((visits.sum(dim=-1) == budget).all())
    assert bool((output.tree.node_visits[:, 0] == budget + 1).all())
    if kind == "muzero":
        torch.testing.assert_close(output.action_weights, visits / budget, check_dtype=False)


@CHECKS
@given(st.sampled_from(list(KINDS)), WORLDS, BUDGETS)
def test_rows_of_a_batch_do_not_see_each_other(kind, world, budget):
    model, planner = random_tables(**world), KINDS[kind](budget, **QUIET.get(kind, {}))
    together = plan(planner, model)
    for tables in (torch.arange(model.value.shape[0]).flip(0), torch.tensor([0])):
        apart = plan(planner, model, tables=tables)
        assert torch.equal(apart.action, together.action[tables])
        size = apart.tree.num_nodes  # the others' need of columns may have made it larger
        for name in ("children_visits", "node_values"):
            found = getattr(together.tree, name)[tables]
            assert torch.equal(getattr(apart.tree, name), found[:, :size])
            assert not bool(found[:, size:].any())
        torch.testing.assert_close(apart.action_weights, together.action_weights[tables])


@CHECKS
@given(st.sampled_from(list(TREE_SEARCHES)), WORLDS, BUDGETS)
def test_seed_reproduces_the_search(kind, world, budget):
    model, planner = random_tables(**world), TREE_SEARCHES[kind](budget)
    first = plan(planner, model, seed=5)
    torch.rand(3)
    second = plan(planner, model, seed=5)
    assert torch.equal(first.action, second.action)
    assert torch.equal(first.tree.children_visits, second.tree.children_visits)


@CHECKS
@given(st.sampled_from(list(KINDS)), WORLDS, BUDGETS, st.floats(-5, 5))
def test_shifting_logits_changes_nothing_but_rounding(kind, world, budget, shift):
    model, planner = random_tables(**world), KINDS[kind](budget, **QUIET.get(kind, {}))
    shifted = replace(model, prior_logits=model.prior_logits + shift)
    first, second = plan(planner, model), plan(planner, shifted)
    assert torch.equal(first.action, second.action)
    torch.testing.assert_close(first.action_weights, second.action_weights)

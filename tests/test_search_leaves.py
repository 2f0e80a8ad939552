"""Several leaves a step: what the walks of one step see, and what the model is asked."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import (
    GumbelMuZeroPlanner,
    qtransform_by_parent_and_siblings,
)
from search.selection import PuctSelection
from tests.pairwise import pairwise
from tests.search_cases import (
    BACKENDS,
    MODES,
    RANDOM_WORLDS,
    ROWS,
    WORLDS,
    assert_consistent,
    assert_equal_trees,
    quiet_planner,
)
from tests.search_reference import TableModel, random_tables

SIMULATIONS = 24
SELECT = PuctSelection(qtransform_by_parent_and_siblings)
CHECKS = settings(max_examples=40, deadline=None, derandomize=True, database=None)


class LoggingModel:
    def __init__(self, tables: TableModel):
        self.tables, self.num_actions = tables, tables.num_actions
        self.steps = []

    def root(self, observation, *, generator=None):
        return self.tables.root(observation)

    def step(self, embedding, action, *, generator=None):
        rows = zip(
            embedding["table"].tolist(), embedding["state"].tolist(), action.tolist(), strict=True
        )
        self.steps.append(list(rows))
        return self.tables.step(embedding, action)


@pairwise(world=WORLDS, mode=MODES, backend=BACKENDS)
def test_one_leaf_a_step_is_the_sequential_search(world, mode, backend):
    model = LoggingModel(random_tables(1, **WORLDS[world]))
    default = quiet_planner(mode, SIMULATIONS, backend=backend).plan(model, ROWS)
    model.steps.clear()
    single = quiet_planner(mode, SIMULATIONS, backend=backend, leaves_per_step=1).plan(model, ROWS)
    assert_equal_trees(single.tree, default.tree)
    assert torch.equal(single.action, default.action)
    for step in model.steps:
        tables = [table for table, _, _ in step]
        assert len(set(tables)) == len(tables)


@pairwise(world=WORLDS, mode=MODES, leaves=[2, 3, 8, SIMULATIONS], max_depth=[None, 2])
def test_both_backends_grow_the_same_trees(world, mode, leaves, max_depth):
    models = {backend: LoggingModel(random_tables(2, **WORLDS[world])) for backend in BACKENDS}
    outputs = [
        quiet_planner(
            mode, SIMULATIONS, backend=backend, leaves_per_step=leaves, max_depth=max_depth
        ).plan(model, ROWS)
        for backend, model in models.items()
    ]
    assert_equal_trees(outputs[1].tree, outputs[0].tree, tolerance=1e-10)
    assert torch.equal(outputs[1].action, outputs[0].action)
    torch.testing.assert_close(outputs[1].action_weights, outputs[0].action_weights)
    assert models["torch"].steps == models["numba"].steps


@CHECKS
@given(
    RANDOM_WORLDS,
    st.sampled_from(MODES),
    st.sampled_from(BACKENDS),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from([None, 1, 2]),
)
def test_tree_is_consistent_and_the_model_is_asked_little(
    world, mode, backend, budget, leaves, depth
):
    leaves = min(leaves, budget)
    model = LoggingModel(random_tables(**world))
    rows = torch.arange(world["num_tables"])
    planner = quiet_planner(mode, budget, backend=backend, leaves_per_step=leaves, max_depth=depth)
    tree = planner.plan(model, rows).tree
    assert_consistent(tree)
    assert bool((tree.node_visits[:, 0] == budget + 1).all())
    assert bool((tree.children_visits[:, 0].sum(dim=-1) == budget).all())
    assert not bool(tree.children_visits[~tree.valid_actions].any())
    assert not bool(tree.children_visits[tree.terminal].any())
    assert len(model.steps) <= math.ceil(budget / leaves)
    assert all(0 < len(step) <= leaves * len(rows) for step in model.steps)
    assert sum(map(len, model.steps)) == int((tree.node_visits > 0).sum()) - len(rows)
    if len(model.steps) == math.ceil(budget / leaves):
        last = budget - leaves * (len(model.steps) - 1)
        assert len(model.steps[-1]) <= last * len(rows)
    # Inner nodes were visited once themselves, unless a walk of their first step ended there.
    own = tree.node_visits - tree.children_visits.sum(dim=-1)
    inner = (tree.children_visits.sum(dim=-1) > 0) & (tree.parents >= 0)
    assert bool((own[inner] <= leaves).all())
    assert bool((own[:, 0] == 1).all())


@CHECKS
@given(RANDOM_WORLDS, st.sampled_from(MODES), st.sampled_from(BACKENDS), st.integers(2, 12))
def test_rows_of_a_batch_do_not_see_each_other(world, mode, backend, leaves):
    model = random_tables(**world)
    planner = quiet_planner(mode, 20, backend=backend, leaves_per_step=leaves)
    rows = torch.arange(world["num_tables"])
    together = planner.plan(model, rows).tree
    for tables in (rows.flip(0), rows[:1], rows[-1:]):
        apart = planner.plan(model, tables).tree
        assert torch.equal(apart.children_index, together.children_index[tables])
        assert torch.equal(apart.children_visits, together.children_visits[tables])
        assert torch.equal(apart.node_values, together.node_values[tables])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("budget", "leaves"), [(8, 8), (24, 8), (23, 8), (9, 4)])
def test_calls_are_as_few_as_the_budget_allows(budget, leaves, backend):
    model = LoggingModel(random_tables(3, num_actions=40, num_states=50, uniform_prior=True))
    quiet_planner("mctx", budget, backend=backend, leaves_per_step=leaves).plan(model, ROWS)
    full, rest = divmod(budget, leaves)
    assert [len(step) for step in model.steps] == [4 * leaves] * full + [4 * rest] * (rest > 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_considered_actions_are_expanded_side_by_side(backend):
    """Eight considered, eight leaves: the first call steps eight different actions of each root."""
    model = LoggingModel(random_tables(4, num_actions=12))
    planner = GumbelMuZeroPlanner(
        24, max_num_considered_actions=8, gumbel_scale=0, leaves_per_step=8, backend=backend
    )
    tree = planner.plan(model, ROWS).tree
    first = model.steps[0]
    assert len(first) == 32
    for row in range(4):
        actions = [action for table, state, action in first if table == row]
        best = model.tables.prior_logits[row, 0].topk(8).indices
        assert sorted(actions) == sorted(best.tolist())
        assert {state for table, state, _ in first if table == row} == {0}
        assert tree.parents[row, 1:9].tolist() == [0] * 8
    for row in range(4):
        assert sorted(tree.children_visits[row, 0].tolist())[4:] == [1, 1, 1, 1, 3, 3, 7, 7]


@pytest.mark.parametrize("leaves", [1, 2, 8, 24])
@pytest.mark.parametrize("backend", BACKENDS)
def test_halving_gives_the_scheduled_visits_whatever_the_width(backend, leaves):
    """Rounds of 8, 4 and 2 actions end at 1, 3 and 7 visits."""
    planner = GumbelMuZeroPlanner(24, gumbel_scale=0, leaves_per_step=leaves, backend=backend)
    tree = planner.plan(random_tables(5, num_actions=8), ROWS).tree
    for row in range(4):
        assert sorted(tree.children_visits[row, 0].tolist()) == [1, 1, 1, 1, 3, 3, 7, 7]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_walks_that_can_only_go_one_way_end_at_the_same_leaf(backend, mode):
    model = LoggingModel(random_tables(6, num_actions=1))
    tree = quiet_planner(mode, 10, backend=backend, leaves_per_step=4).plan(model, ROWS).tree
    assert [len(step) for step in model.steps] == [4, 4, 4]
    for row in range(4):
        # Steps start at columns 1, 5 and 9; the last has two walks.
        assert tree.node_visits[row].tolist() == [11, 10, 0, 0, 0, 6, 0, 0, 0, 2, 0]
        assert tree.parents[row].tolist() == [-1, 0, -1, -1, -1, 1, -1, -1, -1, 5, -1]
    assert_consistent(tree)


@pytest.mark.parametrize("backend", BACKENDS)
def test_walk_sees_visits_at_once_and_values_after_the_step(backend):
    """Two equal arms, two leaves: the second walk takes the other arm, though no value is known.

    A leaf the model has not seen counts as worth what its parent is worth, 0 here; were it known
    to be worth 1, the second walk would take the first arm again.
    """
    model = random_tables(7, num_tables=1, num_actions=2, num_states=3, uniform_prior=True)
    model.next_state[0] = torch.tensor([[1, 2], [1, 1], [2, 2]])
    model.reward.zero_()
    model.value[0] = torch.tensor([0.0, 1.0, -1.0])
    visits = {}
    for leaves in (1, 2):
        planner = quiet_planner("mctx", 2, leaves_per_step=leaves, backend=backend)
        visits[leaves] = planner.plan(model, torch.arange(1)).tree.children_visits[0, 0].tolist()
    assert visits == {1: [2, 0], 2: [1, 1]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_value_counts_each_walk_that_ended_at_a_shared_leaf(backend):
    """Multiplicity: three walks to one leaf of value 3 make the mean of 0, 3, 3 and 3."""
    model = random_tables(8, num_tables=1, num_actions=1, num_states=2)
    model.next_state[0] = 1
    model.reward.zero_()
    model.discount.fill_(1.0)
    model.value[0] = torch.tensor([0.0, 3.0])
    tree = quiet_planner("mctx", 3, leaves_per_step=3, backend=backend).plan(model, ROWS[:1]).tree
    assert tree.node_visits[0].tolist() == [4, 3, 0, 0]
    assert tree.node_values[0].tolist() == [2.25, 3.0, 0.0, 0.0]
    assert float(tree.raw_values[0, 1]) == 3.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leaves", [1, 8])
def test_best_arm_of_a_bandit_is_found(leaves, backend):
    best = torch.tensor([3, 15, 0, 9])
    model = random_tables(9, num_actions=16, num_states=20, uniform_prior=True)
    model.reward.abs_().neg_().sub_(0.1)
    model.reward[ROWS, 0, best] = 1.0
    model.discount.zero_()
    model.value.zero_()
    planner = quiet_planner("gumbel", 64, leaves_per_step=leaves, backend=backend)
    output = planner.plan(model, ROWS)
    assert torch.equal(output.action, best)
    assert torch.equal(output.tree.summary().qvalues.argmax(dim=-1), best)


@pytest.mark.parametrize("mode", ["mctx", "efficientzero"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_best_arm_draws_most_visits_of_a_wide_search(backend, mode):
    model = random_tables(9, num_actions=4, uniform_prior=True)
    model.reward.zero_()
    model.reward[:, 0, 2] = 1.0
    model.discount.zero_()
    model.value.zero_()
    planner = quiet_planner(mode, 64, leaves_per_step=8, backend=backend)
    visits = planner.plan(model, ROWS).tree.children_visits[:, 0]
    assert bool((visits[:, 2] > 32).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_width_can_differ_from_search_to_search(backend):
    model = random_tables(10, terminal=0.2, invalid=0.3)
    expected = quiet_planner("mctx", 16, backend="torch").plan(model, ROWS).tree
    for leaves in (8, 1, 16, 1):
        planner = quiet_planner("mctx", 16, backend=backend, leaves_per_step=leaves)
        tree = planner.plan(model, ROWS).tree
        if leaves == 1:
            assert_equal_trees(tree, expected, tolerance=1e-10)


def test_whole_budget_in_one_step_is_allowed():
    assert quiet_planner("gumbel", 8, leaves_per_step=8).leaves_per_step == 8
    with pytest.raises(ValueError, match=r"leaves_per_step: found 8; required at most .* = 7"):
        replace(quiet_planner("gumbel", 8, leaves_per_step=8), num_simulations=7)

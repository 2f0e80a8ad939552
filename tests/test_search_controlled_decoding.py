"""The KL-regularized step against its formula, its objective, and the two planners at its ends."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import BestOfNPlanner, ControlledDecodingPlanner
from tests.search_reference import TableModel, hopeless_prior_table, random_tables

WORLD = {"num_tables": 8, "num_actions": 6, "invalid": 0.3, "terminal": 0.2, "dead": 0.1}
TABLES = torch.arange(8)
CHECKS = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def qvalue(model: TableModel, table: int, action: int) -> float:
    child = int(model.next_state[table, 0, action])
    rest = float(model.discount[table, 0, action]) * float(model.value[table, child])
    return float(model.reward[table, 0, action]) + rest


def priors(model: TableModel, table: int) -> dict[int, float]:
    valid = model.valid_actions[table, 0].nonzero().flatten().tolist()
    weights = {a: math.exp(float(model.prior_logits[table, 0, a])) for a in valid}
    return {a: weight / sum(weights.values()) for a, weight in weights.items()}


def likeliest(model: TableModel, table: int, count: int) -> list[int]:
    prior = priors(model, table)
    return sorted(prior, key=lambda a: (-prior[a], a))[:count]


def objective(model: TableModel, table: int, policy: dict[int, float], kl_weight: float) -> float:
    """E[Q] - kl_weight * KL(policy || prior)."""
    prior = priors(model, table)
    return sum(
        p * (qvalue(model, table, a) - kl_weight * math.log(p / prior[a]))
        for a, p in policy.items()
        if p > 0
    )


@CHECKS
@given(
    seed=st.integers(0, 10_000),
    num_actions=st.integers(1, 7),
    invalid=st.sampled_from([0.0, 0.5]),
    discount=st.sampled_from([1.0, 0.9, -1.0]),
    budget=st.integers(1, 9),
    kl_weight=st.sampled_from([0.02, 0.1, 1.0, 30.0]),
    uniform=st.booleans(),
)
def test_weights_and_value_follow_the_formula(
    seed, num_actions, invalid, discount, budget, kl_weight, uniform
):
    """Of the likeliest actions, weights are prior * exp(Q / b); the value is b * log of the sum."""
    model = random_tables(
        seed,
        num_tables=3,
        num_actions=num_actions,
        invalid=invalid,
        terminal=0.2,
        discount=discount,
        uniform_prior=uniform,
    )
    output = ControlledDecodingPlanner(budget, kl_weight=kl_weight).plan(model, torch.arange(3))
    num_tried = []
    for table in range(3):
        tried, prior = likeliest(model, table, budget), priors(model, table)
        tilted = {a: prior[a] * math.exp(qvalue(model, table, a) / kl_weight) for a in tried}
        total = sum(tilted.values())
        weights = [tilted.get(a, 0.0) / total for a in range(num_actions)]
        assert output.action_weights[table].tolist() == pytest.approx(weights, abs=1e-12)
        assert float(output.value[table]) == pytest.approx(kl_weight * math.log(total), abs=1e-11)
        assert int(output.action[table]) == weights.index(max(weights))
        num_tried.append(len(tried))
    assert model.step_rows == [sum(num_tried)]
    assert output.tree.num_nodes == 1 + max(num_tried)


@pytest.mark.parametrize("budget", [2, 6])
def test_weights_are_optimal_and_the_value_is_what_they_reach(budget):
    model = random_tables(1, **WORLD)
    output = ControlledDecodingPlanner(budget, kl_weight=0.5).plan(model, TABLES)
    for table in range(8):
        tried = likeliest(model, table, budget)
        policy = {a: float(output.action_weights[table, a]) for a in tried}
        best = objective(model, table, policy, 0.5)
        assert float(output.value[table]) == pytest.approx(best, abs=1e-12)
        for giver in tried:
            for taker in set(tried) - {giver}:
                share = 0.01 * policy[giver]
                moved = {giver: policy[giver] - share, taker: policy[taker] + share}
                assert objective(model, table, policy | moved, 0.5) < best


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kl_weight", [5e-324, 1e-9, 1e-6])
def test_weight_of_almost_0_is_best_of_n(kl_weight, dtype):
    model = random_tables(2, dtype=dtype, **WORLD)
    output = ControlledDecodingPlanner(6, kl_weight=kl_weight).plan(model, TABLES)
    best = BestOfNPlanner(6).plan(model, TABLES)
    assert torch.equal(output.action, best.action)
    torch.testing.assert_close(output.action_weights, best.action_weights)
    torch.testing.assert_close(output.value, best.value, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kl_weight", [1e9, 1e15, 1e300])
def test_huge_weight_is_the_prior(kl_weight):
    """The prior's argmax and weights; the value is the prior's mean of Q, digits not lost."""
    model = random_tables(3, **WORLD)
    output = ControlledDecodingPlanner(6, kl_weight=kl_weight).plan(model, TABLES)
    for table in range(8):
        prior = priors(model, table)
        assert int(output.action[table]) == likeliest(model, table, 1)[0]
        weights = [prior.get(a, 0.0) for a in range(6)]
        assert output.action_weights[table].tolist() == pytest.approx(weights, abs=1e-8)
        mean = sum(p * qvalue(model, table, a) for a, p in prior.items())
        assert float(output.value[table]) == pytest.approx(mean, abs=1e-8)


def test_value_grows_with_the_budget_up_to_the_greatest_q():
    model = random_tables(4, num_tables=8, num_actions=6)
    values = torch.stack(
        [ControlledDecodingPlanner(n, kl_weight=0.5).plan(model, TABLES).value for n in range(1, 8)]
    )
    assert bool((values[1:6] > values[:5]).all())
    assert torch.equal(values[6], values[5])
    assert bool((values[5] < BestOfNPlanner(6).plan(model, TABLES).value).all())


def test_ties_go_to_the_lowest_index():
    model = random_tables(5, num_actions=5, uniform_prior=True, discount=0.0)
    model.reward.zero_()
    model.valid_actions[:, 0, 1] = False
    output = ControlledDecodingPlanner(3).plan(model, torch.arange(4))
    assert output.action.tolist() == [0] * 4
    third = 1 / 3
    for row in output.action_weights.tolist():
        assert row == pytest.approx([third, 0.0, third, third, 0.0])
    torch.testing.assert_close(output.value, torch.full((4,), 0.1 * math.log(0.75)).double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_large_q_and_small_weight_stay_finite(size, dtype):
    model = random_tables(6, dtype=dtype, **WORLD)
    for table in (model.reward, model.value):
        table.mul_(size)
    output = ControlledDecodingPlanner(6, kl_weight=1e-6).plan(model, TABLES)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert (output.value.dtype, output.action_weights.dtype) == (expected, expected)
    assert bool(torch.isfinite(output.action_weights).all())
    torch.testing.assert_close(output.action_weights.sum(dim=-1), torch.ones(8, dtype=expected))
    best = BestOfNPlanner(6).plan(model, TABLES)
    torch.testing.assert_close(output.value, best.value.to(expected), rtol=1e-6, atol=1e-4)
    assert torch.equal(output.action, best.action)


def test_hopeless_prior_is_outweighed_or_not():
    """Action 1 is better by 200 and less likely by 200 nats: the price of a nat decides."""
    model = hopeless_prior_table()  # values 100 and, of state 1, 100: made -100 here
    model.value[0, 1] = -100.0
    for kl_weight, action, value in ((0.9, 1, 100.0 - 180.0), (1.1, 0, -100.0)):
        output = ControlledDecodingPlanner(2, kl_weight=kl_weight).plan(model, torch.arange(1))
        assert int(output.action) == action
        assert float(output.value) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_actions_are_sampled_by_sharpened_weights(temperature):
    """Frequencies of 20,000 draws within 0.015 (4 standard deviations); weights are not touched."""
    model = random_tables(7, num_tables=2, num_actions=5, invalid_at_root=0.3)
    rows = torch.arange(2).repeat_interleave(20_000)
    planner = ControlledDecodingPlanner(4, kl_weight=2.0, temperature=temperature)
    output = planner.plan(model, rows, generator=torch.Generator().manual_seed(0))
    still = ControlledDecodingPlanner(4, kl_weight=2.0).plan(model, torch.arange(2))
    torch.testing.assert_close(output.action_weights[::20_000], still.action_weights)
    sharpened = still.action_weights ** (1 / temperature)
    expected = sharpened / sharpened.sum(dim=-1, keepdim=True)
    for table in range(2):
        drawn = output.action[rows == table]
        found = torch.bincount(drawn, minlength=5) / 20_000
        torch.testing.assert_close(found.double(), expected[table], atol=0.015, rtol=0)
        assert bool((found[expected[table] == 0] == 0).all())


def test_generator_alone_decides_the_draw():
    model, rows = random_tables(8, num_actions=5), torch.arange(4).repeat(50)

    def actions(seed: int, temperature: float) -> torch.Tensor:
        planner = ControlledDecodingPlanner(5, kl_weight=5.0, temperature=temperature)
        torch.rand(3)
        return planner.plan(model, rows, generator=torch.Generator().manual_seed(seed)).action

    assert torch.equal(actions(1, 1.0), actions(1, 1.0))
    assert not torch.equal(actions(1, 1.0), actions(2, 1.0))
    assert torch.equal(actions(1, 0.0), actions(2, 0.0))


def test_tree_is_best_of_n_but_for_the_root_value():
    model = random_tables(9, **WORLD)
    output = ControlledDecodingPlanner(6).plan(model, TABLES)
    expected = BestOfNPlanner(6).plan(model, TABLES).tree
    num_nodes = output.tree.num_nodes
    assert torch.equal(output.tree.node_values[:, 0], output.value)
    for row in range(8):
        found, best = output.tree.to_dict(row), expected.to_dict(row)
        assert found.pop("value") < best.pop("value") + 1e-12
        assert found == best
    assert num_nodes == 1 + int(model.valid_actions[:, 0].sum(dim=-1).max())


def test_tried_actions_have_columns_in_action_order():
    model = random_tables(10, **WORLD)
    tree = ControlledDecodingPlanner(3).plan(model, TABLES).tree
    for row in range(8):
        children = tree.to_dict(row)["children"]
        assert [c["action"] for c in children] == sorted(likeliest(model, row, 3))
        assert [c["node"] for c in children] == list(range(1, 1 + len(children)))
        assert int(tree.node_visits[row, 0]) == 1 + len(children)

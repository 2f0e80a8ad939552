"""Equality with mctx's stochastic_muzero_policy (PyPI 0.0.7x), field by field, on random games.

Runs only where mctx is installed, as `test_search_mctx` does, and in the same way: each row of a
batch is a game of its own, both sides compute in float64, and mctx's tie-break noise is zeros.
mctx returns the columns of the actions, and so does `slice_actions` here; the columns of outcomes
are compared through `node_visits`, `parents` and `action_from_parent`.

Left out, as the two are known to differ there: edges of discount 0 (mctx searches on below) and
actions invalid below the root (mctx knows none).
"""

from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch

from search import (
    StochasticMuZeroPlanner,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from search.selection import slice_actions
from tests.stochastic_reference import StochasticTable, random_games

REASON = "needs mctx and jax, which are no dependencies of the project"
mctx = pytest.importorskip("mctx", reason=REASON)
jax = pytest.importorskip("jax", reason=REASON)

TABLES = 32
INTEGERS = ("node_visits", "parents", "action_from_parent", "children_index", "children_visits")
FLOATS = (
    "raw_values",
    "node_values",
    "children_rewards",
    "children_discounts",
    "children_values",
)
MIN_MAX = {"min_value": -3.0, "max_value": 4.0}
SIBLINGS, MIXED = qtransform_by_parent_and_siblings, qtransform_completed_by_mix_value
CASES = {
    "plain": {},
    "long": {"simulations": 200},
    "many_outcomes": {"outcomes": 24, "simulations": 80},
    "one_outcome": {"outcomes": 1},
    "many_actions": {"actions": 16},
    "impossible_outcomes": {"outcomes": 6, "invalid_outcomes": 0.5},
    "invalid_roots": {"invalid": 0.6},
    "max_depth_1": {"max_depth": 1, "invalid": 0.3},
    "max_depth_2": {"max_depth": 2},
    "max_depth_3": {"max_depth": 3, "simulations": 60},
    "two_players": {"discount": -1.0, "invalid": 0.3},
    "few_simulations": {"actions": 8, "simulations": 3},
    "one_simulation": {"simulations": 1},
    "puct": {"options": {"pb_c_init": 3.0, "pb_c_base": 11.0}},
    "min_max": {"qtransform": (qtransform_by_min_max, MIN_MAX)},
    "siblings_epsilon": {"qtransform": (SIBLINGS, {"epsilon": 2.5})},
    "mix": {"qtransform": (MIXED, {"value_scale": 0.01})},
}


@pytest.fixture(autouse=True)
def _float64_without_noise():
    """Double precision, and zeros in place of the tie-break noise (other draws are untouched)."""

    def zeros(key, shape=(), *args, **kwargs):
        return jax.numpy.zeros(shape)

    with jax.enable_x64(True), mock.patch("jax.random.uniform", zeros):
        yield


def run_mctx(model: StochasticTable, **options):
    """Runs the policy on the same games."""
    tables = {
        name: jax.numpy.asarray(getattr(model, name).numpy())
        for name in vars(model)
        if name != "calls"
    }
    # mctx has no mask of outcomes: those that cannot happen have probability 0.
    tables["chance_logits"] = jax.numpy.where(
        tables["valid_outcomes"], tables["chance_logits"], -jax.numpy.inf
    )

    def decide(params, key, action, embedding):
        table, state = embedding
        output = mctx.DecisionRecurrentFnOutput(
            chance_logits=params["chance_logits"][table, state, action],
            afterstate_value=params["afterstate_value"][table, state, action],
        )
        return output, (table, state, action)

    def happen(params, key, outcome, embedding):
        edge = (*embedding, outcome)
        table, child = embedding[0], params["next_state"][edge]
        output = mctx.ChanceRecurrentFnOutput(
            action_logits=params["prior_logits"][table, child],
            value=params["value"][table, child],
            reward=params["reward"][edge],
            discount=params["discount"][edge],
        )
        return output, (table, child)

    rows = jax.numpy.arange(TABLES)
    root = mctx.RootFnOutput(
        prior_logits=tables["prior_logits"][:, 0],
        value=tables["value"][:, 0],
        embedding=(rows, jax.numpy.zeros_like(rows)),
    )
    policy = partial(
        mctx.stochastic_muzero_policy,
        decision_recurrent_fn=decide,
        chance_recurrent_fn=happen,
        invalid_actions=jax.numpy.asarray(~model.valid_actions[:, 0].numpy()),
        **options,
    )
    return jax.jit(policy)(params=tables, rng_key=jax.random.PRNGKey(0), root=root)


@pytest.mark.parametrize("name", CASES)
def test_stochastic_muzero_equals_mctx(name):
    """Integers exactly, floats to 1e-9, and the action where the most visited one is unique."""
    case = CASES[name]
    model = random_games(
        21,
        num_tables=TABLES,
        num_actions=case.get("actions", 5),
        num_outcomes=case.get("outcomes", 4),
        discount=case.get("discount", 0.95),
        invalid_at_root=case.get("invalid", 0.0),
        invalid_outcomes=case.get("invalid_outcomes", 0.0),
    )
    options = {
        "num_simulations": case.get("simulations", 40),
        "max_depth": case.get("max_depth"),
        "dirichlet_fraction": 0.0,
        "temperature": 0.0,
        **case.get("options", {}),
    }
    ours, theirs = {}, {}
    if "qtransform" in case:
        function, numbers = case["qtransform"]
        ours["qtransform"] = partial(function, **numbers)
        theirs["qtransform"] = partial(getattr(mctx, function.__name__), **numbers)
    output = StochasticMuZeroPlanner(**options, **ours).plan(model, torch.arange(TABLES))
    expected = run_mctx(model, **options, **theirs)

    tree = slice_actions(output.tree, slice(0, model.num_actions))
    other = expected.search_tree
    for field in INTEGERS:
        np.testing.assert_array_equal(getattr(tree, field).numpy(), getattr(other, field), field)
    for field in FLOATS:
        found = getattr(tree, field).numpy()
        np.testing.assert_allclose(found, getattr(other, field), atol=1e-9, err_msg=field)
    decisions = output.tree.embeddings["is_decision"] & (tree.node_visits > 0)
    priors = torch.softmax(tree.children_prior_logits, dim=-1)[decisions]
    required = jax.nn.softmax(other.children_prior_logits)[decisions.numpy()]
    np.testing.assert_allclose(priors.numpy(), required, atol=1e-9)
    weights = output.action_weights
    np.testing.assert_allclose(weights.numpy(), expected.action_weights, atol=1e-9)
    summary = other.summary()
    np.testing.assert_allclose(output.value.numpy(), summary.value, atol=1e-9)
    unique = (weights == weights.amax(dim=-1, keepdim=True)).sum(dim=-1) == 1
    found, chosen = output.action[unique].numpy(), np.asarray(expected.action)[unique.numpy()]
    np.testing.assert_array_equal(found, chosen)  # mctx samples among ties

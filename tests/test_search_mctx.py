"""Equality with mctx (PyPI 0.0.7x), field by field, on random table models.

Runs only where mctx is installed (it needs jax, which the project does not):
`python3 -m venv V && V/bin/pip install mctx torch numba pytest && V/bin/python -m pytest` this
file. Each row of a batch is a model of its own. Both sides compute in float64 and mctx's tie-break
noise (1e-7 in muzero_action_selection) is replaced by zeros, so that every argmax must agree.
"""

from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch

from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from tests.search_reference import TableModel, random_tables

REASON = "needs mctx and jax, which are no dependencies of the project"
mctx = pytest.importorskip("mctx", reason=REASON)
jax = pytest.importorskip("jax", reason=REASON)

TABLES = 16
BACKENDS = ["torch", "numba"]
INTEGERS = (
    "node_visits",
    "parents",
    "action_from_parent",
    "children_index",
    "children_visits",
)
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
    "many_actions": {"actions": 20, "simulations": 64},
    "few_simulations": {"actions": 12, "simulations": 5},
    "invalid_roots": {"invalid": 0.6},
    "max_depth_1": {"max_depth": 1, "invalid": 0.3},
    "max_depth_3": {"max_depth": 3, "simulations": 50},
    "two_players": {"discount": -1.0, "invalid": 0.3},
    "uniform_prior": {"uniform_prior": True},
    "min_max": {"qtransform": (qtransform_by_min_max, MIN_MAX)},
    "siblings_epsilon": {"qtransform": (SIBLINGS, {"epsilon": 2.5})},
    "mix_scaled": {"qtransform": (MIXED, {"value_scale": 0.3, "maxvisit_init": 7.0})},
    "mix_raw": {"qtransform": (MIXED, {"use_mixed_value": False, "epsilon": 1.5})},
    "mix_unscaled": {"qtransform": (MIXED, {"rescale_values": False}), "invalid": 0.3},
}


@pytest.fixture(autouse=True)
def _float64_without_noise():
    """Double precision, and zeros in place of the tie-break noise (other draws are untouched)."""

    def zeros(key, shape=(), *args, **kwargs):
        return jax.numpy.zeros(shape)

    with jax.enable_x64(True), mock.patch("jax.random.uniform", zeros):
        yield


def make_model(name: str, seed: int) -> TableModel:
    """The tables of a case: no discount 0 and no invalid action below the root."""
    case = CASES[name]
    model = random_tables(
        seed,
        num_tables=TABLES,
        num_actions=case.get("actions", 6),
        discount=case.get("discount", 0.95),
        invalid_at_root=case.get("invalid", 0.0),
        uniform_prior=case.get("uniform_prior", False),
    )
    model.next_state.clamp_(min=1)  # the root's state, with its invalid actions, never recurs
    return model


def make_transforms(name: str):
    """A case's Q-transform, ours and mctx's, with the same options; Nones for the defaults."""
    if "qtransform" not in CASES[name]:
        return {}, {}
    function, options = CASES[name]["qtransform"]
    return (
        {"qtransform": partial(function, **options)},
        {"qtransform": partial(getattr(mctx, function.__name__), **options)},
    )


def run_mctx(policy, model: TableModel, **options):
    """Runs an mctx policy on the same tables."""
    tables = {
        name: jax.numpy.asarray(getattr(model, name).numpy())
        for name in ("next_state", "reward", "discount", "prior_logits", "value")
    }

    def recurrent_fn(params, key, action, embedding):
        table, state = embedding
        child = params["next_state"][table, state, action]
        output = mctx.RecurrentFnOutput(
            reward=params["reward"][table, state, action],
            discount=params["discount"][table, state, action],
            prior_logits=params["prior_logits"][table, child],
            value=params["value"][table, child],
        )
        return output, (table, child)

    rows = jax.numpy.arange(TABLES)
    root = mctx.RootFnOutput(
        prior_logits=tables["prior_logits"][:, 0],
        value=tables["value"][:, 0],
        embedding=(rows, jax.numpy.zeros_like(rows)),
    )
    invalid = jax.numpy.asarray(~model.valid_actions[:, 0].numpy())
    run = jax.jit(partial(policy, recurrent_fn=recurrent_fn, invalid_actions=invalid, **options))
    return run(params=tables, rng_key=jax.random.PRNGKey(0), root=root)


def assert_equal_search(output, expected) -> None:
    """Every field of every tree: integers exactly, floats to 1e-9, logits up to a constant."""
    tree, other = output.tree, expected.search_tree
    for name in INTEGERS:
        np.testing.assert_array_equal(getattr(tree, name).numpy(), getattr(other, name), name)
    for name in FLOATS:
        found = getattr(tree, name).numpy()
        np.testing.assert_allclose(found, getattr(other, name), atol=1e-9, err_msg=name)
    np.testing.assert_allclose(
        torch.softmax(tree.children_prior_logits, dim=-1).numpy(),
        jax.nn.softmax(other.children_prior_logits),
        atol=1e-9,
    )
    np.testing.assert_allclose(output.action_weights.numpy(), expected.action_weights, atol=1e-9)
    summary, other_summary = tree.summary(), other.summary()
    for name in ("visit_counts", "visit_probs", "value", "qvalues"):
        np.testing.assert_allclose(
            getattr(summary, name).numpy(), getattr(other_summary, name), atol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_muzero_equals_mctx(name, backend):
    """Trees, weights, and the action where the most visited one is unique."""
    model = make_model(name, seed=11)
    case, (ours, theirs) = CASES[name], make_transforms(name)
    options = {
        "num_simulations": case.get("simulations", 32),
        "max_depth": case.get("max_depth"),
        "dirichlet_fraction": 0.0,
        "temperature": 0.0,
    }
    output = MuZeroPlanner(**options, **ours, backend=backend).plan(model, torch.arange(TABLES))
    expected = run_mctx(mctx.muzero_policy, model, **options, **theirs)
    assert_equal_search(output, expected)
    weights = output.action_weights
    unique = (weights == weights.amax(dim=-1, keepdim=True)).sum(dim=-1) == 1
    found, required = output.action[unique].numpy(), np.asarray(expected.action)[unique.numpy()]
    np.testing.assert_array_equal(found, required)  # mctx samples among ties


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_gumbel_equals_mctx(name, backend):
    """Trees, weights and actions, with fewer considered actions than there are."""
    model = make_model(name, seed=12)
    case, (ours, theirs) = CASES[name], make_transforms(name)
    options = {
        "num_simulations": case.get("simulations", 32),
        "max_depth": case.get("max_depth"),
        "gumbel_scale": 0.0,
        "max_num_considered_actions": case.get("considered", 5),
    }
    output = GumbelMuZeroPlanner(**options, **ours, backend=backend).plan(
        model, torch.arange(TABLES)
    )
    expected = run_mctx(mctx.gumbel_muzero_policy, model, **options, **theirs)
    assert_equal_search(output, expected)
    np.testing.assert_array_equal(output.action.numpy(), expected.action)

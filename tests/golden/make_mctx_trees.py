"""Grows the golden trees with mctx: run it where mctx is installed, from the project's folder.

    python3 -m venv V && V/bin/pip install mctx==0.0.71 numpy
    V/bin/python -m tests.golden.make_mctx_trees

Every table is a model of its own. mctx adds random numbers below 1e-7 to MuZero's scores, which are
zeros here, so that ties go to the lowest index. Left out, since the two differ there by intention:
edges of discount 0 (mctx searches on below), and actions invalid below the root (mctx knows none).
A float32 table is taken only if mctx finds the same tree in float64: where it does not, its last
bits decide, and nobody is asked to share them.
"""

import json
import logging
from functools import cache, partial
from typing import Any
from unittest import mock

import jax
import mctx
import numpy as np

from tests.golden_trees import UNIT, Array, GoldenCase, complete_trees, save_cases

POLICIES = {
    "muzero": mctx.muzero_policy,
    "gumbel": mctx.gumbel_muzero_policy,
    "stochastic": mctx.stochastic_muzero_policy,
}
NUM_GROWN = 12
"""Tables grown of each case, whatever is kept of them: cases of one shape share compiled code."""
DEFAULTS: dict[str, Any] = {
    "dtype": "float64", "tables": 3, "states": 10, "actions": 6, "outcomes": 0, "simulations": 32,
    "max_depth": None, "considered": 5, "discount": 0.95, "invalid": 0.0, "invalid_outcomes": 0.0,
    "uniform_prior": False, "qtransform": None, "puct": {}, "kind": "random", "far": 0.0,
}  # fmt: skip
MIN_MAX = ("qtransform_by_min_max", {"min_value": -3.0, "max_value": 4.0})
SIBLINGS = ("qtransform_by_parent_and_siblings", {"epsilon": 2.5})
ORDINARY: dict[str, dict[str, Any]] = {
    "plain": {},
    "many_actions": {"actions": 20, "simulations": 64},
    "few_simulations": {"actions": 12, "simulations": 5},
    "invalid_roots": {"invalid": 0.6},
    "max_depth_1": {"max_depth": 1, "invalid": 0.3},
    "max_depth_3": {"max_depth": 3, "simulations": 50},
    "two_players": {"discount": -1.0, "invalid": 0.3},
    "uniform_prior": {"uniform_prior": True},
    "min_max": {"qtransform": MIN_MAX},
    "siblings_epsilon": {"qtransform": SIBLINGS},
    "mix_scaled": {
        "qtransform": (
            "qtransform_completed_by_mix_value", {"value_scale": 0.3, "maxvisit_init": 7.0}
        )
    },
    "mix_raw": {
        "qtransform": (
            "qtransform_completed_by_mix_value", {"use_mixed_value": False, "epsilon": 1.5}
        )
    },
    "mix_unscaled": {
        "qtransform": ("qtransform_completed_by_mix_value", {"rescale_values": False}),
        "invalid": 0.3,
    },
}  # fmt: skip
TWO: dict[str, Any] = {"actions": 2, "discount": 1.0}
FOUR: dict[str, Any] = {"actions": 4, "discount": 1.0, "simulations": 100}
DEGENERATE: dict[str, dict[str, Any]] = {
    "near": TWO | {"kind": "near", "discount": 0.95},
    "near_far_below": TWO | {"kind": "near", "far": 1.0},
    "near_two_players": TWO | {"kind": "near", "far": 2.0, "discount": -1.0},
    "equal": TWO | {"kind": "equal"},
    "equal_far_below": TWO | {"kind": "equal", "far": 1.0},
    "one_successor": TWO | {"kind": "one"},
    "one_successor_far_below": TWO | {"kind": "one", "far": 1.0},
    "four_near_far_below": FOUR | {"kind": "near", "far": 1.0},
    "four_equal": FOUR | {"kind": "equal"},
    "four_one_successor": FOUR | {"kind": "one", "far": 1.0, "uniform_prior": True},
    "four_invalid_roots": FOUR | {"kind": "near", "far": 1.0, "invalid": 0.4},
    "three_max_depth": {
        "kind": "near", "actions": 3, "far": 1.0, "max_depth": 2, "simulations": 16,
    },
}  # fmt: skip
CHANCE: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {"simulations": 100},
    "many_outcomes": {"outcomes": 16, "simulations": 64},
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
    "puct": {"puct": {"pb_c_init": 3.0, "pb_c_base": 11.0}},
    "min_max": {"qtransform": MIN_MAX},
    "siblings_epsilon": {"qtransform": SIBLINGS},
    "mix": {"qtransform": ("qtransform_completed_by_mix_value", {"value_scale": 0.01})},
    "near": {"kind": "near", "actions": 2},
    "equal": {"kind": "equal", "actions": 2, "discount": 1.0},
    "one_successor": {"kind": "one", "actions": 3, "discount": 1.0, "far": 1.0},
}


def list_cases() -> dict[str, dict[str, Any]]:
    """All cases by name, defaults filled in."""
    found: dict[str, dict[str, Any]] = {}
    for policy in ("muzero", "gumbel"):
        for name, case in ORDINARY.items():
            found[f"{policy}-{name}"] = {"policy": policy, **case}
        for name, case in DEGENERATE.items():
            for dtype in ("float32", "float64"):
                found[f"{policy}-{name}-{dtype}"] = {"policy": policy, "dtype": dtype, **case}
    found["gumbel-nearly_equal_children"] = {
        "policy": "gumbel", "dtype": "float32", "kind": "example", "actions": 3, "simulations": 26,
        "discount": 1.0, "tables": 1,
    }  # fmt: skip
    for name, case in CHANCE.items():
        chance = {"policy": "stochastic", "actions": 4, "outcomes": 4, "simulations": 40}
        found[f"stochastic-{name}"] = chance | case
    return {name: DEFAULTS | case for name, case in found.items()}


def make_tables(case: dict[str, Any], seed: int, number: int) -> dict[str, Array]:
    """Tables of a case, `number` of them; the root's state, with its invalid actions, never recurs.

    The kinds: `random` values and rewards; `near` or `equal` values of all states, and rewards that
    bring every successor's Q-value to within 3 units of each other, or to the same; `one`, the same
    with one successor for all actions. Every third state of these is worth `far` more than all its
    successors.
    """
    if case["kind"] == "example":
        return _example_tables()
    rng = np.random.default_rng(seed)
    states, actions, outcomes = case["states"], case["actions"], case["outcomes"]
    pairs = (number, states, actions)
    edges = (*pairs, outcomes) if outcomes else pairs

    def normal(scale: float, *shape: int) -> Array:
        return np.rint(scale * rng.standard_normal(shape) / UNIT) * UNIT

    def uniform(size: float, *shape: int) -> Array:
        return np.rint(size * (2 * rng.random(shape) - 1) / UNIT) * UNIT

    next_state = rng.integers(1, states, edges)
    value, reward = uniform(2.0, number, states), uniform(1.0, *edges)
    if case["kind"] != "random":
        if case["kind"] == "one":
            first = next_state[:, :, :1]
            next_state = np.broadcast_to(first, edges).copy()
        units = 0 if case["kind"] == "equal" else 4
        value = UNIT * rng.integers(0, max(1, units), (number, states))
        overrated = rng.random((number, states)) < 1 / 3
        value += case["far"] * overrated
        row = np.arange(number).reshape(-1, *[1] * (len(edges) - 1))
        # What a successor is rated too high is paid on the way to it, but for the discount.
        reward = -np.rint(case["discount"] * case["far"] / UNIT) * UNIT * overrated[row, next_state]
        if units:
            reward = reward + UNIT * rng.integers(0, 2, edges)
            if case["kind"] == "one":
                reward = np.broadcast_to(reward[:, :, :1], edges).copy()
    valid = rng.random((number, actions)) >= case["invalid"]
    valid[np.arange(number), rng.integers(0, actions, number)] = True
    logits = np.zeros(pairs) if case["uniform_prior"] else normal(2.0, *pairs)
    found = {"prior_logits": logits, "value": value, "reward": reward, "next_state": next_state}
    if outcomes:
        possible = rng.random(edges) >= case["invalid_outcomes"]
        np.put_along_axis(possible, rng.integers(0, outcomes, (*pairs, 1)), True, axis=-1)
        found["chance_logits"] = normal(1.5, *edges)
        found["valid_outcomes"] = possible
        found["afterstate_value"] = uniform(2.0, *pairs)
        if case["kind"] != "random":
            found["afterstate_value"] = UNIT * rng.integers(0, 3, pairs)
    return found | {"valid_roots": valid}


def _example_tables() -> dict[str, Array]:
    """A node of value 1 whose successors are worth 0, 1 and 2 units, below a root of one action."""
    logits = np.rint(np.log([0.09, 0.24, 0.67]) / UNIT) * UNIT
    next_state = np.tile(np.arange(5)[:, None], 3)  # all but two states lead to themselves
    next_state[0], next_state[1] = 1, (2, 3, 4)  # the root, and the node above its successors
    return {
        "prior_logits": np.tile(logits, (NUM_GROWN, 5, 1)),
        "value": np.tile([0.0, 1.0, 0.0, UNIT, 2 * UNIT], (NUM_GROWN, 1)),
        "reward": np.zeros((NUM_GROWN, 5, 3)),
        "next_state": np.tile(next_state, (NUM_GROWN, 1, 1)),
        "valid_roots": np.tile([True, False, False], (NUM_GROWN, 1)),
    }


def grow_trees(case: dict[str, Any], tables: dict[str, Array], dtype: str) -> Any:
    """What mctx's policy makes of the tables, in one dtype."""
    with jax.enable_x64(dtype == "float64"), mock.patch("jax.random.uniform", _zeros):
        known = {
            name: jax.numpy.asarray(table.astype(dtype) if table.dtype.kind == "f" else table)
            for name, table in tables.items()
        }
        known["discount"] = jax.numpy.full_like(known["reward"], case["discount"])
        if "chance_logits" in known:
            # mctx has no mask of outcomes: those that cannot happen have probability 0.
            known["chance_logits"] = jax.numpy.where(
                known["valid_outcomes"], known["chance_logits"], -jax.numpy.inf
            )
        run = _compile(case["policy"], json.dumps([planner_options(case), case["qtransform"]]))
        return jax.tree.map(np.asarray, run(known))


@cache
def _compile(kind: str, settings: str) -> Any:
    """A policy of mctx as a compiled function of tables: made once for all cases that share it."""
    options, qtransform = json.loads(settings)
    if qtransform is not None:
        name, keywords = qtransform
        options["qtransform"] = partial(getattr(mctx, name), **keywords)
    if kind == "stochastic":
        steps = {"decision_recurrent_fn": decide, "chance_recurrent_fn": happen}
    else:
        steps = {"recurrent_fn": step}

    def run(params: Any) -> Any:
        rows = jax.numpy.arange(len(params["value"]))
        root = mctx.RootFnOutput(
            prior_logits=params["prior_logits"][:, 0],
            value=params["value"][:, 0],
            embedding=(rows, jax.numpy.zeros_like(rows)),
        )
        key, invalid = jax.random.PRNGKey(0), ~params["valid_roots"]
        return POLICIES[kind](params, key, root, invalid_actions=invalid, **steps, **options)

    return jax.jit(run)


def planner_options(case: dict[str, Any]) -> dict[str, Any]:
    """What mctx's policies and our planners call by the same names."""
    options = {"num_simulations": case["simulations"], "max_depth": case["max_depth"]}
    if case["policy"] == "gumbel":
        return options | {
            "gumbel_scale": 0.0, "max_num_considered_actions": case["considered"]
        }  # fmt: skip
    return options | {"dirichlet_fraction": 0.0, "temperature": 0.0} | case["puct"]


def _zeros(key: Any, shape: tuple[int, ...] = (), dtype: Any = float, **_: Any) -> Any:
    return jax.numpy.zeros(shape, dtype)


def step(params: Any, key: Any, action: Any, embedding: Any) -> Any:
    """A transition of the tables, as mctx's recurrent function."""
    edge = (*embedding, action)
    table, child = embedding[0], params["next_state"][edge]
    output = mctx.RecurrentFnOutput(
        reward=params["reward"][edge],
        discount=params["discount"][edge],
        prior_logits=params["prior_logits"][table, child],
        value=params["value"][table, child],
    )
    return output, (table, child)


def decide(params: Any, key: Any, action: Any, embedding: Any) -> Any:
    """From a state to an afterstate."""
    edge = (*embedding, action)
    output = mctx.DecisionRecurrentFnOutput(
        chance_logits=params["chance_logits"][edge],
        afterstate_value=params["afterstate_value"][edge],
    )
    return output, edge


def happen(params: Any, key: Any, outcome: Any, embedding: Any) -> Any:
    """From an afterstate to a state."""
    output, child = step(params, key, outcome, embedding)
    output = mctx.ChanceRecurrentFnOutput(
        action_logits=output.prior_logits,
        value=output.value,
        reward=output.reward,
        discount=output.discount,
    )
    return output, child


def make_case(name: str, case: dict[str, Any], seed: int) -> GoldenCase:
    """Grows a case's trees, and checks that nothing of them is lost in what is kept."""
    dtype = case["dtype"]
    tables = make_tables(case, seed, NUM_GROWN)
    output = grow_trees(case, tables, dtype)
    kept = np.arange(case["tables"])
    if dtype == "float32":
        other = grow_trees(case, tables, "float64").search_tree
        same = (output.search_tree.parents == other.parents).all(axis=1)
        logging.info("%s: float32 as float64 on %d of %d tables", name, same.sum(), len(same))
        kept = np.flatnonzero(same)[: case["tables"]]
    tree = output.search_tree
    trees = {
        "parents": tree.parents,
        "action_from_parent": tree.action_from_parent,
        "node_visits": tree.node_visits,
        "node_values": tree.node_values,
        "action_weights": output.action_weights,
        "action": output.action,
    }
    golden = GoldenCase(
        name,
        {
            "policy": case["policy"],
            "dtype": dtype,
            "discount": case["discount"],
            "qtransform": case["qtransform"],
            "planner": planner_options(case),
        },
        {field: table[kept] for field, table in tables.items()},
        {field: found[kept] for field, found in trees.items()},
    )
    for field, found in complete_trees(golden).items():
        if hasattr(tree, field):
            np.testing.assert_allclose(found, getattr(tree, field)[kept], 1e-6, 1e-6, err_msg=name)
    return golden


def main() -> None:
    """Writes all cases."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of the work
    cases = []
    for seed, (name, case) in enumerate(list_cases().items()):
        cases.append(make_case(name, case, seed))
        logging.info("%s", name)
    save_cases(cases)


if __name__ == "__main__":
    main()

"""Equality with mctx 0.0.71, tree for tree, on the file of `tests.golden_trees`.

Both Gumbel MuZero and MuZero, and Stochastic MuZero; ordinary tables, and those where little tells
the actions apart. Where visits tie at the root, mctx draws MuZero's action and ours is of the
greater Q-value, so actions are compared where the most visited one is unique.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import search
from search import GumbelMuZeroPlanner, MuZeroPlanner, SearchOutput, StochasticMuZeroPlanner
from search.backends import numba_search as cpu
from search.selection import slice_actions
from tests.golden_trees import FILE, GoldenCase, complete_trees, load_cases
from tests.search_reference import TableModel
from tests.stochastic_reference import StochasticTable

CASES = load_cases()
PLANNERS: dict[str, Any] = {
    "muzero": MuZeroPlanner,
    "gumbel": GumbelMuZeroPlanner,
    "stochastic": StochasticMuZeroPlanner,
}
FORMS = ["torch", "serial", "parallel"]
TOLERANCES = {"float32": 2e-5, "float64": 1e-9}


def make_model(case: GoldenCase) -> TableModel | StochasticTable:
    dtype = getattr(torch, case.options["dtype"])
    tables = {
        name: torch.from_numpy(table).to(dtype if table.dtype.kind == "f" else torch.int64)
        for name, table in case.tables.items()
    }
    valid = torch.ones_like(tables["prior_logits"], dtype=torch.bool)
    valid[:, 0] = tables.pop("valid_roots").bool()
    tables["valid_actions"] = valid
    tables["discount"] = torch.full_like(tables["reward"], case.options["discount"])
    if case.options["policy"] == "stochastic":
        return StochasticTable(**tables | {"valid_outcomes": tables["valid_outcomes"].bool()})
    return TableModel(**tables)


def make_planner(case: GoldenCase, backend: str) -> Any:
    options = dict(case.options["planner"])
    if case.options["qtransform"] is not None:
        name, keywords = case.options["qtransform"]
        options["qtransform"] = partial(getattr(search, name), **keywords)
    return PLANNERS[case.options["policy"]](**options, backend=backend)


def assert_golden(case: GoldenCase, output: SearchOutput) -> None:
    num_actions = case.tables["prior_logits"].shape[2]
    assert output.tree is not None
    tree, tolerance = (
        slice_actions(output.tree, slice(0, num_actions)),
        TOLERANCES[case.options["dtype"]],
    )
    expected = complete_trees(case)
    is_decision = expected.pop("is_decision")
    for name, field in expected.items():
        found = getattr(tree, name).cpu().numpy()
        if field.dtype.kind == "f":
            np.testing.assert_allclose(found, field, atol=tolerance, rtol=0, err_msg=name)
        else:
            np.testing.assert_array_equal(found, field, name)
    if "is_decision" in tree.embeddings:
        used = expected["node_visits"] > 0
        found = tree.embeddings["is_decision"].cpu().numpy()
        np.testing.assert_array_equal(found[used], is_decision[used])
    weights = output.action_weights.cpu().numpy()
    np.testing.assert_allclose(
        weights, case.trees["action_weights"], atol=100 * tolerance, rtol=0
    )  # fmt: skip
    decided = np.ones(len(weights), bool)
    if case.options["policy"] != "gumbel":
        decided = (weights == weights.max(axis=1, keepdims=True)).sum(axis=1) == 1
    np.testing.assert_array_equal(
        output.action.cpu().numpy()[decided], case.trees["action"][decided]
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_trees_are_those_of_mctx(name, form, monkeypatch):
    if form == "parallel":
        monkeypatch.setattr(cpu, "_PARALLEL_WORK", 1)
        monkeypatch.setattr(cpu, "_start_threads", lambda: 2)
    case = CASES[name]
    planner = make_planner(case, "torch" if form == "torch" else "numba")
    rows = torch.arange(len(case.tables["value"]))
    assert_golden(case, planner.plan(make_model(case), rows))


def test_golden_file_holds_what_it_should():
    assert FILE.stat().st_size < 200_000
    options = [case.options for case in CASES.values()]
    assert {o["policy"] for o in options} == set(PLANNERS)
    assert {o["dtype"] for o in options} == {"float32", "float64"}
    assert {o["discount"] for o in options} >= {-1.0, 0.95, 1.0}
    assert any(o["planner"]["max_depth"] for o in options)
    for case in CASES.values():
        rows = len(case.tables["value"])
        assert rows == len(case.trees["parents"]) > 0
        sums = case.trees["action_weights"].sum(axis=1)
        np.testing.assert_allclose(sums, np.ones(rows), atol=1e-5)


def test_golden_example_concentrates_on_the_best_of_three_nearly_equal_successors():
    """The node of value 1 whose successors are worth far less: visits 1, 1, 23 below the root."""
    expected = complete_trees(CASES["gumbel-nearly_equal_children"])
    assert expected["children_visits"][0, 1].tolist() == [1, 1, 23]

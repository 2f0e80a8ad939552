"""The check that stands before the CUDA kernels, with other forms injected: no GPU is needed."""

import logging
import re
from dataclasses import replace
from functools import partial

import pytest
import torch

from search import MuZeroPlanner, mcts
from search.backends import dispatch
from search.backends.rules import Rules, encode_rules
from search.backends.verification import FormCheck, compare_forms, name_variant
from search.qtransforms import (
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from search.selection import (
    EfficientZeroSelection,
    HalvingSelection,
    ImprovedPolicySelection,
    PuctSelection,
    StochasticSelection,
)
from tests.search_reference import random_tables

CPU = torch.zeros(1)
ROOT = random_tables(1).root(torch.arange(4))
PUCT = PuctSelection(qtransform_by_parent_and_siblings)


def halving(**options):
    transform = partial(qtransform_completed_by_mix_value, **options)
    nothing = torch.zeros(1, 1)
    root = HalvingSelection(transform, gumbel=nothing, schedule=nothing.long())
    return encode_rules(root, ImprovedPolicySelection(transform))


def single(rule):
    return encode_rules(rule, rule)


RULES = {
    "puct": single(PUCT),
    "puct_mixed": single(PuctSelection(qtransform_completed_by_mix_value)),
    "puct_min_max": Rules(0, 0, {"min_value": 0.0, "max_value": 1.0}),
    "efficientzero": single(EfficientZeroSelection()),
    "stochastic": single(StochasticSelection(PUCT, 2)),
    "gumbel": halving(),
    "gumbel_raw": halving(use_mixed_value=False),
    "gumbel_unscaled": halving(rescale_values=False),
}


def form(name, *, change=None, log=None):
    """One of the CPU's backends as the check is given it; `change` is made to its trees."""

    def make(selections):
        _, search = dispatch.choose_search(name, ROOT, selections, plain=plain)

        def grow(*arguments, **options):
            if log is not None:
                log.append(options["leaves_per_step"])
            tree = search(*arguments, **options)
            return tree if change is None else change(tree)

        return grow

    return make


def plain(selections):
    return partial(mcts.search_in_torch, selections=selections)


def variant(name="puct", num_actions=6, dtype=torch.float32):
    rules = RULES[name]
    assert rules is not None
    return name_variant(rules, num_actions, like=CPU, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_actions", [3, 18])
@pytest.mark.parametrize("name", RULES)
def test_forms_that_agree_have_no_problem(name, num_actions, dtype):
    found = variant(name, num_actions, dtype)
    assert compare_forms(found, form("numba"), form("torch")) is None


def test_forms_that_agree_have_no_problem_where_nodes_are_wide():
    assert compare_forms(variant("gumbel", 700), form("numba"), form("torch")) is None


@pytest.mark.parametrize("name", RULES)
def test_fixed_problem_grows_trees_worth_comparing(name):
    trees = []

    def keep(tree):
        trees.append(tree)
        return tree

    compare_forms(variant(name), form("torch", change=keep), form("torch"))
    assert len(trees) == 2  # one leaf a step, and several
    for tree in trees:
        assert int((tree.children_visits[:, 0] > 0).sum(dim=-1).max()) > 1
        deeper = (tree.parents > 0).sum(dim=-1)
        assert bool((deeper >= 3).any())
        assert len({tuple(row) for row in tree.parents.tolist()}) > 1


def wrong_value(tree):
    values = tree.node_values.clone()
    values[1, 2] += 0.01
    return replace(tree, node_values=values)


def wrong_visit(tree):
    visits = tree.children_visits.clone()
    visits[0, 0, 0] += 1
    return replace(tree, children_visits=visits)


def wrong_embedding(tree):
    return replace(tree, embeddings={**tree.embeddings, "state": tree.embeddings["state"] + 1})


def not_a_number(tree):
    return replace(tree, node_values=tree.node_values * torch.nan)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (wrong_value, "different node_values"),
        (wrong_visit, "different children_visits"),
        (wrong_embedding, r"different embeddings\['state'\]"),
        (not_a_number, "different node_values"),
    ],
)
def test_form_that_differs_is_named_and_logged(change, problem, caplog):
    check = FormCheck()
    with caplog.at_level(logging.INFO, logger="search.backends.verification"):
        found = check.find_problem(variant(), form("numba", change=change), form("torch"))
    assert found is not None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert found in record.message
    assert "plain torch" in record.message
    assert re.fullmatch(problem, found)


def test_form_that_raises_is_a_problem(caplog):
    def broken(*arguments):
        raise RuntimeError("ptxas not found")

    problem = FormCheck().find_problem(variant(), broken, form("torch"))
    assert problem == "RuntimeError: ptxas not found"
    assert caplog.records[-1].levelno == logging.WARNING


def test_forms_are_compared_once_a_process_and_variant(caplog):
    check, calls = FormCheck(), []
    with caplog.at_level(logging.INFO, logger="search.backends.verification"):
        for _ in range(3):
            assert check.find_problem(variant(), form("numba", log=calls), form("torch")) is None
        assert len(calls) == 2
        check.find_problem(variant("gumbel"), form("numba", log=calls), form("torch"))
        assert len(calls) == 4
        for _ in range(2):
            differing = form("numba", change=wrong_visit, log=calls)
            assert check.find_problem(variant(num_actions=7), differing, form("torch"))
        assert len(calls) == 5
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.INFO, logging.INFO, logging.WARNING]
    assert "small fixed problem" in caplog.records[0].message


@pytest.fixture
def triton_of_numba(monkeypatch):
    """Runs "triton" by numba on the CPU, its trees changed by the test's function."""
    monkeypatch.setattr(dispatch, "_triton_check", FormCheck())
    monkeypatch.setattr(dispatch, "_choose_name", lambda backend, *rest: "triton")
    compiled, names = dispatch._compiled, []

    def logged(name, search, change=None):
        def grow(*arguments, **options):
            names.append(name)
            tree = search(*arguments, **options)
            return tree if change is None else change(tree)

        return grow

    def install(change):
        monkeypatch.setattr(
            dispatch,
            "_compiled",
            lambda name, rules: logged(name, compiled("numba", rules), change),
        )
        torch_form = logged("torch", mcts.search_in_torch)
        monkeypatch.setattr(mcts, "search_in_torch", torch_form)
        return names

    return install


def plan(backend="auto"):
    planner = MuZeroPlanner(8, dirichlet_fraction=0, temperature=0, backend=backend)
    return planner.plan(random_tables(1), torch.arange(4)).tree


def test_search_runs_in_the_compiled_form_where_it_agrees(triton_of_numba):
    forms = triton_of_numba(lambda tree: tree)
    plan()
    assert forms == ["torch", "triton", "torch", "triton", "triton"]
    plan("triton")
    assert forms[5:] == ["triton"]


def test_search_runs_in_torch_where_the_compiled_form_differs(triton_of_numba, caplog):
    forms = triton_of_numba(wrong_visit)
    trees = [plan(), plan()]
    assert forms == ["torch", "triton", "torch", "torch"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    expected = MuZeroPlanner(8, dirichlet_fraction=0, temperature=0, backend="torch")
    for tree in trees:
        assert torch.equal(
            tree.children_visits,
            expected.plan(random_tables(1), torch.arange(4)).tree.children_visits,
        )


def test_compiled_form_asked_for_by_name_is_refused_where_it_differs(triton_of_numba):
    triton_of_numba(wrong_value)
    with pytest.raises(
        ValueError, match=r"found 'triton', which does not grow .*node_values.*auto"
    ):
        plan("triton")

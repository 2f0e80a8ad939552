"""The search compiled for the CPU against its torch form: every rule, option and dtype."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from search.backends import numba_kernels as kernels
from search.backends import numba_search as cpu
from search.backends import rules
from search.tree import Tree
from tests.search_cases import assert_equal_trees
from tests.search_reference import TableModel, hopeless_prior_table, random_tables

ROOT = Path(__file__).resolve().parent.parent
SIBLINGS, MIXED = qtransform_by_parent_and_siblings, qtransform_completed_by_mix_value
TRANSFORMS = {
    "min_max": partial(qtransform_by_min_max, min_value=-3.0, max_value=4.0),
    "siblings": partial(SIBLINGS, epsilon=2.5),
    "mixed": partial(MIXED, value_scale=0.3, maxvisit_init=7.0),
    "raw": partial(MIXED, use_mixed_value=False, epsilon=1.5),
    "unscaled": partial(MIXED, rescale_values=False),
}
PLANNERS = {
    "muzero": partial(MuZeroPlanner, dirichlet_fraction=0, temperature=0),
    "gumbel": partial(GumbelMuZeroPlanner, gumbel_scale=0, max_num_considered_actions=4),
}
WORLD = {"num_tables": 6, "num_actions": 7, "invalid": 0.3, "terminal": 0.1, "dead": 0.1}


def assert_same_trees(found: Tree, expected: Tree) -> None:
    tolerance = 1e-5 if expected.raw_values.dtype == torch.float32 else 1e-9
    assert_equal_trees(found, expected, tolerance=tolerance)


def grow_both(kind: str, model: TableModel, budget: int, **options) -> tuple[Tree, Tree]:
    observation = torch.arange(len(model.value))
    compiled, plain = (
        PLANNERS[kind](budget, backend=backend, **options).plan(model, observation).tree
        for backend in ("numba", "torch")
    )
    return compiled, plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", PLANNERS)
def test_forms_agree_for_every_qtransform(kind, transform, dtype):
    model = random_tables(21, dtype=dtype, **WORLD)
    assert_same_trees(*grow_both(kind, model, 60, qtransform=TRANSFORMS[transform]))


@pytest.mark.parametrize("constants", [(1.25, 19652), (0.0, 19652), (3.0, 10.0)])
def test_forms_agree_for_any_weight_of_the_prior(constants):
    model = random_tables(22, **WORLD)
    c1, c2 = constants
    assert_same_trees(*grow_both("muzero", model, 60, pb_c_init=c1, pb_c_base=c2))


@pytest.mark.parametrize("delta", [0.01, 10.0])
def test_forms_agree_for_efficientzero(delta):
    model = random_tables(23, **WORLD)
    options = {"mode": "efficientzero", "value_delta_max": delta}
    assert_same_trees(*grow_both("muzero", model, 60, **options))


@pytest.mark.parametrize("kind", PLANNERS)
def test_forms_agree_where_trees_are_shared_out_to_threads(kind, monkeypatch):
    monkeypatch.setattr(cpu, "_PARALLEL_WORK", 1)
    monkeypatch.setattr(cpu, "_start_threads", lambda: 2)
    for num_tables in (2, 13):
        model = random_tables(24, **(WORLD | {"num_tables": num_tables}))
        assert_same_trees(*grow_both(kind, model, 40, leaves_per_step=3))


def test_forms_agree_where_a_prior_is_zero_in_floating_point():
    """Gumbel MuZero adds Q-values to logits: a tiny prior does not hide a far better Q-value."""
    model = hopeless_prior_table()
    found, expected = grow_both("gumbel", model, 24, qtransform=TRANSFORMS["unscaled"])
    assert int((expected.action_from_parent[0, 3:] == 1).sum()) > 1
    assert_same_trees(found, expected)


def test_many_actions_and_long_walks():
    wide = random_tables(25, num_actions=67, num_tables=2)
    assert_same_trees(*grow_both("gumbel", wide, 90))
    narrow = random_tables(26, num_actions=1, num_tables=2)
    found, expected = grow_both("muzero", narrow, 90)
    assert len(found.principal_variation(0)) == 90
    assert_same_trees(found, expected)


@pytest.mark.parametrize("num_tables", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16, torch.uint32, torch.bool])
def test_embeddings_that_torch_cannot_gather_lie_at_their_nodes(dtype, num_tables):
    class Typed(TableModel):
        def root(self, observation, *, generator=None):
            output = super().root(observation)
            return replace(output, embedding=self.add(output.embedding))

        def step(self, embedding, action, *, generator=None):
            output = super().step(embedding, action)
            return replace(output, embedding=self.add(output.embedding))

        def add(self, embedding):
            return dict(embedding) | {"typed": (embedding["state"] % 16).view(-1, 1).to(dtype)}

    model = Typed(**vars(random_tables(28, num_tables=num_tables)))
    planner = MuZeroPlanner(30, dirichlet_fraction=0, temperature=0, backend="numba")
    output = planner.plan(model, torch.arange(num_tables))
    used = output.tree.node_visits > 0
    assert output.tree.embeddings["typed"].dtype == dtype
    expected = (output.tree.embeddings["state"] % 16).unsqueeze(-1).to(dtype)
    as_integers = torch.float32 if dtype.is_floating_point else torch.int64
    found = output.tree.embeddings["typed"].to(as_integers)
    assert torch.equal(found[used], expected.to(as_integers)[used])


def test_rules_keep_the_numbers_kernels_are_stored_with():
    assert (rules.PUCT, rules.EFFICIENT, rules.HALVING, rules.IMPROVED) == (0, 1, 2, 3)
    assert (rules.MIN_MAX, rules.SIBLINGS, rules.MIXED) == (0, 1, 2)
    assert kernels.NODE_FIELDS == kernels.ACTION + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_priors_stand_for_their_logits_down_to_where_products_lose_digits(dtype, monkeypatch):
    """A product as small as the rounding error of the least prior is still a normal number."""
    found, advance = [], kernels.advance_serial

    def record(*arguments):
        found.append(arguments[7][[kernels.TINY, kernels.LEAST_PRIOR]])
        return advance(*arguments)

    monkeypatch.setattr(kernels, "advance_serial", record)
    grow_both("gumbel", random_tables(29, num_tables=1, dtype=dtype), 2)
    limits = torch.finfo(dtype)
    assert found[0].tolist() == pytest.approx(
        [limits.tiny, limits.tiny / limits.eps], rel=1e-6, abs=0
    )


SECOND_PROCESS = """
import torch
from search import MuZeroPlanner
from search.backends import numba_kernels as kernels
from tests.search_reference import random_tables
MuZeroPlanner(4, backend="numba").plan(random_tables(1), torch.arange(4))
hits = sum(kernels.advance_serial.stats.cache_hits.values())
print("hits", hits, "misses", sum(kernels.advance_serial.stats.cache_misses.values()))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", SECOND_PROCESS],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert said == [["hits", "0", "misses", "1"], ["hits", "1", "misses", "0"]]


def test_search_runs_in_torch_where_numba_is_missing(monkeypatch):
    from search.backends import dispatch

    monkeypatch.setattr(dispatch, "_is_installed", lambda package: False)
    monkeypatch.setattr(cpu, "search_on_cpu", None)
    model = random_tables(27)
    assert MuZeroPlanner(4).plan(model, torch.arange(4)).tree.num_simulations == 4
    with pytest.raises(ValueError, match="no package 'numba'"):
        MuZeroPlanner(4, backend="numba").plan(model, torch.arange(4))

"""The CUDA form of the search against the torch form: on the CPU by Triton's interpreter, on CUDA.

The interpreter is chosen before `triton` is first imported, so it has a process of its own: this
file once more, with TRITON_INTERPRET=1 (`test_kernels_run_in_the_interpreter`). On a machine with a
GPU: `CUDA_VISIBLE_DEVICES=0 pytest tests/test_search_cuda.py -m gpu`.
"""

import os
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    keep_subtree,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
    run_mcts,
)
from search.backends import dispatch
from search.backends.rules import encode_rules
from search.backends.verification import FormCheck
from search.selection import (
    EfficientZeroSelection,
    HalvingSelection,
    ImprovedPolicySelection,
    PuctSelection,
    StochasticSelection,
)
from search.tree import allocate_tree
from tests.golden_trees import GoldenCase
from tests.search_cases import MODES, WORLDS, assert_equal_trees
from tests.search_reference import (
    TableModel,
    degenerate_tables,
    hopeless_prior_table,
    random_tables,
)
from tests.test_search_golden import CASES as GOLDEN
from tests.test_search_golden import assert_golden, make_model
from tests.test_search_golden import make_planner as make_golden_planner

pytest.importorskip("triton", reason="triton is not installed; it comes with torch's CUDA builds")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
SIMULATIONS = 14
CHECK_TRITON = dispatch._check_triton
TOLERANCE = 1e-11  # float64: sums over actions may be rounded in another order
PUCT = PuctSelection(qtransform_by_parent_and_siblings)
SETTINGS: dict[str, Any] = {
    "max_depth": None,
    "leaves_per_step": 1,
    "kept": None,
    "generator": None,
}


def is_quick(case: GoldenCase) -> bool:
    """Whether the interpreter grows a case's trees in a second or two."""
    options = case.options
    is_small = options["planner"]["num_simulations"] <= 32 and case.tables["value"].shape[1] <= 12
    few = case.tables["prior_logits"].shape[2] <= 3
    return options["policy"] == "gumbel" and options["dtype"] == "float32" and is_small and few


class PlacedTable(TableModel):
    def root(self, observation: torch.Tensor, *, generator: Any = None) -> Any:
        with torch.device(self.value.device):
            return super().root(observation.to(self.value.device))


class AppendOnlyTable(PlacedTable):
    append_only = True


def place(model: TableModel, device: str, kind: type[TableModel] = PlacedTable) -> TableModel:
    tensors = {f.name: getattr(model, f.name) for f in fields(model) if f.name != "step_rows"}
    return kind(**{name: tensor.to(device) for name, tensor in tensors.items()})


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run; `backend="triton"` is let through on the CPU as well."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device; set CUDA_VISIBLE_DEVICES on a machine with one")
    choose = dispatch._choose_name
    monkeypatch.setattr(
        dispatch,
        "_choose_name",
        lambda backend, *rest: "triton" if backend == "triton" else choose(backend, *rest),
    )
    # Compared once in a test of its own: on a small problem, which is a long one to interpret.
    monkeypatch.setattr(dispatch, "_check_triton", lambda *arguments: "triton")
    return request.param


@pytest.mark.skipif(INTERPRETED, reason="this is the process it starts")
def test_kernels_run_in_the_interpreter() -> None:
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-5000:] + child.stderr[-2000:]
    assert " passed" in child.stdout


@pytest.mark.skipif(INTERPRETED, reason="it starts processes of its own")
@pytest.mark.parametrize(
    ("option", "code", "said"), [("--interpret", 0, "True"), (None, 2, "CUDA")]
)
def test_benchmark_compares_trees_and_says_what_it_lacks(option, code, said):
    command = [sys.executable, "benchmarks/core/planning_cuda.py", *([option] if option else [])]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "."}
    child = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == code, child.stdout + child.stderr
    assert said in child.stdout


def planner(kind: Any, backend: str, **options: Any) -> Any:
    options = {"max_depth": None, "backend": backend, **options}
    if kind == "gumbel":
        return GumbelMuZeroPlanner(SIMULATIONS, max_num_considered_actions=3, **options)
    return MuZeroPlanner(SIMULATIONS, dirichlet_fraction=0, temperature=0, mode=kind, **options)


def plan_both(
    kind: Any,
    tables: TableModel,
    device: str,
    *,
    model: TableModel | None = None,
    root_gumbel: torch.Tensor | None = None,
    tolerance: float | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """The outputs of both forms, whose trees are the same; `model` stands in for placed tables."""
    if tolerance is None:
        tolerance = TOLERANCE if tables.value.dtype == torch.float64 else 1e-5
    if kind == "gumbel" and root_gumbel is None:
        options["gumbel_scale"] = 0
    rows = torch.arange(len(tables.value))
    drawn = {} if root_gumbel is None else {"root_gumbel": root_gumbel}
    expected = planner(kind, "torch", **options).plan(tables, rows, **drawn)
    model = place(tables, device) if model is None else model
    drawn = {name: tensor.to(device) for name, tensor in drawn.items()}
    found = planner(kind, "triton", **options).plan(model, rows, **drawn)
    assert_equal_trees(found.tree, expected.tree, tolerance=tolerance)
    return found, expected


@pytest.mark.parametrize(("max_depth", "leaves"), [(None, 1), (3, 1), (None, 5)])
@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("world", WORLDS)
def test_tree_equals_torch_form(world, kind, max_depth, leaves, device):
    tables = random_tables(1, num_tables=2, **WORLDS[world])
    model = place(tables, device)
    options: dict[str, Any] = {"max_depth": max_depth, "leaves_per_step": leaves}
    if kind == "gumbel":
        noise = torch.randn(2, tables.num_actions, generator=torch.Generator().manual_seed(3))
        options["root_gumbel"] = noise.double()
    found, expected = plan_both(kind, tables, device, model=model, **options)
    assert found.action.tolist() == expected.action.tolist()
    # Every row is stepped at every step, so that nothing returns to the host.
    steps = -(-SIMULATIONS // leaves)
    assert len(model.step_rows) == steps
    assert sum(model.step_rows) == 2 * SIMULATIONS


@pytest.mark.parametrize(
    "qtransform",
    [
        partial(qtransform_by_min_max, min_value=-2.0, max_value=3.0),
        partial(qtransform_by_parent_and_siblings, epsilon=0.7),
        qtransform_completed_by_mix_value,
        partial(qtransform_completed_by_mix_value, rescale_values=False, value_scale=0.03),
        partial(qtransform_completed_by_mix_value, use_mixed_value=False, maxvisit_init=7.0),
    ],
)
@pytest.mark.parametrize("kind", ["mctx", "gumbel"])
def test_qtransforms_and_their_options_equal_torch_form(kind, qtransform, device):
    tables = random_tables(8, num_tables=2, invalid=0.3, terminal=0.1)
    plan_both(kind, tables, device, qtransform=qtransform)


@pytest.mark.parametrize("kind", MODES)
def test_float32_trees_make_the_same_visits(kind, device):
    tables = random_tables(9, num_tables=2, invalid=0.2, terminal=0.1, dtype=torch.float32)
    plan_both(kind, tables, device)


def test_model_may_answer_in_another_float(device):
    tables = random_tables(6, num_tables=2, dtype=torch.bfloat16)
    found, _ = plan_both("mctx", tables, device)
    assert found.tree.node_values.dtype == torch.float32


@pytest.mark.parametrize("kind", MODES)
def test_kept_trees_are_gone_on_from(kind, device):
    tables = random_tables(10, num_tables=2, invalid=0.3, terminal=0.1, discount=-1.0)
    options = {"gumbel_scale": 0} if kind == "gumbel" else {}
    trees = []
    for backend, model in (("torch", tables), ("triton", place(tables, device))):
        search = planner(kind, backend, **options)
        first = search.plan(model, torch.arange(2))
        kept = keep_subtree(first.tree, first.action)
        trees.append(search.plan(model, torch.arange(2), kept=kept).tree)
    assert trees[0].num_nodes > SIMULATIONS + 1
    assert_equal_trees(trees[1], trees[0], tolerance=TOLERANCE)


@pytest.mark.parametrize("leaves", [1, 4])
def test_chance_nodes_equal_torch_form(leaves, device):
    tables = random_tables(2, num_tables=2, num_actions=6, invalid=0.2, terminal=0.05)
    is_chance = torch.rand(2, 30, generator=torch.Generator().manual_seed(2)) < 0.5
    is_chance[:, 0] = False
    offered = (torch.arange(6) >= 3) == is_chance.unsqueeze(-1)  # [T, S, A]
    tables.valid_actions &= offered
    lost = ~tables.valid_actions.any(dim=-1, keepdim=True)
    tables.valid_actions |= offered & lost
    rule = StochasticSelection(PUCT, 3)
    options = {
        "num_simulations": SIMULATIONS,
        "root_action_selection": rule,
        "interior_action_selection": rule,
        "leaves_per_step": leaves,
    }
    expected = run_mcts(tables, tables.root(torch.arange(2)), backend="torch", **options)
    model = place(tables, device)
    found = run_mcts(model, model.root(torch.arange(2)), backend="triton", **options)
    assert bool((expected.children_visits[..., 3:] > 0).any())
    assert_equal_trees(found, expected, tolerance=TOLERANCE)


@pytest.mark.parametrize("leaves", [1, 4])
def test_append_only_model_is_never_asked_in_vain(leaves, device):
    tables = random_tables(4, num_tables=3, terminal=0.5, dead=0.2)
    model = place(tables, device, AppendOnlyTable)
    plan_both("mctx", tables, device, model=model, leaves_per_step=leaves)
    assert model.step_rows == tables.step_rows
    assert sum(model.step_rows) < 3 * SIMULATIONS


@pytest.mark.parametrize(
    "kind",
    ["mctx", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("efficientzero", "gumbel"))],
)
def test_form_agrees_with_torch_on_the_fixed_problem(kind, device, monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "_check_triton", CHECK_TRITON)
    monkeypatch.setattr(dispatch, "_triton_check", FormCheck())
    model = place(random_tables(1, num_tables=1), device)
    with caplog.at_level("INFO", logger="search.backends.verification"):
        planner(kind, "triton").plan(model, torch.arange(1))
    (record,) = caplog.records
    assert "grew the same trees" in record.message


@pytest.mark.parametrize("name", [n for n, c in GOLDEN.items() if is_quick(c)])
def test_trees_are_those_of_mctx(name, device):
    case = GOLDEN[name]
    tables = make_model(case)
    assert isinstance(tables, TableModel)
    planner = make_golden_planner(case, "triton")
    assert_golden(case, planner.plan(place(tables, device), torch.arange(len(tables.value))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_actions", [2, 3])
def test_degenerate_tables_equal_torch_form(num_actions, dtype, device):
    tables = degenerate_tables(5, num_tables=6, num_actions=num_actions, invalid=0.2, dtype=dtype)
    plan_both("gumbel", tables, device, leaves_per_step=2)


@pytest.mark.parametrize("kind", MODES)
def test_score_that_is_not_finite_ends_the_search(kind, device):
    tables = random_tables(1, num_tables=3, dtype=torch.float32)
    tables.value[2] *= 1.6e38
    with pytest.raises(ValueError, match=r"search, row 2: found a return or an action's score"):
        planner(kind, "triton").plan(place(tables, device), torch.arange(3))


def test_gumbel_noise_that_is_no_number_is_refused(device):
    tables = random_tables(1, num_tables=2, dtype=torch.float32)
    noise = torch.zeros(2, 5, device=device)
    noise[1, 3] = torch.nan
    with pytest.raises(ValueError, match=r"root_gumbel, row 1: found"):
        planner("gumbel", "triton").plan(place(tables, device), torch.arange(2), root_gumbel=noise)


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["reward", "discount", "value", "prior_logits"])
def test_number_that_is_not_finite_is_named_after_the_search(field, bad, leaves, device):
    """Field, row and simulation of the first fault; the search itself goes on."""
    tables = random_tables(11, num_tables=2, num_states=2000, invalid=0.3)
    expected = planner("mctx", "torch", leaves_per_step=leaves).plan(tables, torch.arange(2))
    used = expected.tree.node_visits[1].nonzero().flatten()
    states, node = expected.tree.embeddings["state"][1], int(used[5])
    assert len(states[used].unique()) == len(used)  # each node is a state of its own
    parent, action = expected.tree.parents[1, node], expected.tree.action_from_parent[1, node]
    is_edge = field in ("reward", "discount")
    where = (1, states[parent], action) if is_edge else (1, states[node])
    getattr(tables, field)[where] = bad
    subject = rf"StepOutput\.{field}, row 1 in simulation {node - 1} \(from 0\): found .*{bad}"
    with pytest.raises(ValueError, match=subject + r".*; required finite values.*weights"):
        planner("mctx", "triton", leaves_per_step=leaves).plan(
            place(tables, device), torch.arange(2)
        )


@pytest.mark.parametrize("field", ["value", "prior_logits", "valid_actions"])
def test_fault_of_a_root_is_named(field, device):
    from search.backends.triton_search import search_on_cuda

    rules = encode_rules(PUCT, PUCT)
    assert rules is not None
    model = place(random_tables(12), device)
    getattr(model, field)[2, 0] = False if field == "valid_actions" else float("nan")
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=rf"RootOutput\.{field}, row 2: found .*; required"),
    ):
        search_on_cuda(
            model,
            model.root(torch.arange(4)),
            rules,
            num_simulations=3,
            **SETTINGS,
        )


def test_logits_of_invalid_actions_may_be_anything(device):
    tables = random_tables(13, num_tables=2, invalid=0.4)
    marked = tables.prior_logits.masked_fill(~tables.valid_actions, -torch.inf)
    model = place(replace(tables, prior_logits=marked), device)
    plan_both("gumbel", tables, device, model=model)


def test_improved_policy_weighs_logits_before_it_exponentiates(device):
    qtransform = partial(qtransform_completed_by_mix_value, rescale_values=False)
    _, expected = plan_both("gumbel", hopeless_prior_table(), device, qtransform=qtransform)
    assert int((expected.tree.action_from_parent[0, 3:] == 1).sum()) > 1


def test_form_of_every_step_is_checked(device):
    class Wide(PlacedTable):
        def step(self, embedding: Any, action: Any, *, generator: Any = None) -> Any:
            step = super().step(embedding, action)
            return replace(step, reward=step.reward.unsqueeze(-1))

    model = place(random_tables(14), device, Wide)
    with pytest.raises(ValueError, match=r"StepOutput\.reward: found shape \[4, 1\]; required"):
        planner("mctx", "triton").plan(model, torch.arange(4))


def test_embeddings_keep_the_models_order_of_dimensions(device):
    class Images(PlacedTable):
        def root(self, observation: Any, *, generator: Any = None) -> Any:
            root = super().root(observation)
            image = torch.rand(len(observation), 3, 4, 5, device=root.value.device)
            image = image.to(memory_format=torch.channels_last)
            return replace(root, embedding={**root.embedding, "image": image})

        def step(self, embedding: Any, action: Any, *, generator: Any = None) -> Any:
            image = embedding["image"]
            assert image.is_contiguous(memory_format=torch.channels_last)
            step = super().step(embedding, action)
            return replace(step, embedding={**step.embedding, "image": image + 1})

    model = place(random_tables(15), device, Images)
    tree = planner("mctx", "triton").plan(model, torch.arange(4)).tree
    images = tree.embeddings["image"]
    assert images.shape == (4, tree.num_nodes, 3, 4, 5)
    for node in range(1, tree.num_nodes):
        parent = images[torch.arange(4), tree.parents[:, node].cpu()]
        assert torch.equal(images[:, node], parent + 1)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["puct", "efficientzero"])
def test_search_is_captured_in_a_cuda_graph(kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device; set CUDA_VISIBLE_DEVICES on a machine with one")
    from search.backends.triton_search import search_on_cuda

    rule = PUCT if kind == "puct" else EfficientZeroSelection()
    tables = random_tables(16, num_tables=8, invalid=0.3, terminal=0.1)
    model = place(tables, "cuda")
    search = partial(
        search_on_cuda,
        model,
        rules=encode_rules(rule, rule),
        num_simulations=SIMULATIONS,
        **SETTINGS,
    )
    with torch.inference_mode():
        root = model.root(torch.arange(8))
        search(root)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            tree = search(root)
        other = model.root(torch.arange(8).flip(0))
        for name in ("prior_logits", "value", "valid_actions"):
            getattr(root, name).copy_(getattr(other, name))
        for name, leaf in root.embedding.items():
            leaf.copy_(other.embedding[name])
        graph.replay()
    expected = run_mcts(
        tables,
        tables.root(torch.arange(8).flip(0)),
        num_simulations=SIMULATIONS,
        root_action_selection=rule,
        interior_action_selection=rule,
        backend="torch",
    )
    assert_equal_trees(tree, expected, tolerance=TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_actions", [18, 600])
def test_kernels_compile_without_a_gpu(num_actions, dtype, capability, monkeypatch, tmp_path):
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
    from triton.runtime.driver import driver  # pyright: ignore[reportMissingImports]

    from search.backends import triton_kernels as cuda_kernels
    from search.backends import triton_search as cuda_search

    class Absent:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return capability

        def get_current_stream(self, device: int) -> int:
            return 0

    class Compiled:
        def __getitem__(self, grid: tuple[int]) -> Any:
            return lambda *a, **k: built.append(kernel.warmup(*a, grid=grid, **k))

    kernel, built = cuda_kernels.advance, []
    monkeypatch.setattr(cuda_kernels, "advance", Compiled())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    root = random_tables(1, num_actions=num_actions, dtype=dtype).root(torch.arange(4))
    by_bounds = PuctSelection(partial(qtransform_by_min_max, min_value=0.0, max_value=1.0))
    mixed = PuctSelection(qtransform_completed_by_mix_value)
    halving = HalvingSelection(
        qtransform_completed_by_mix_value,
        gumbel=torch.zeros(4, num_actions, dtype=dtype),
        schedule=torch.zeros(4, 9, dtype=torch.int64),
    )
    interior = ImprovedPolicySelection(qtransform_completed_by_mix_value)
    chance = StochasticSelection(PUCT, num_actions - 2)
    pairs = [(rule, rule) for rule in (PUCT, by_bounds, mixed, EfficientZeroSelection(), chance)]
    monkeypatch.setattr(driver, "_active", Absent())  # `reset_active` would look for a real one
    for rules in (encode_rules(*pair) for pair in (*pairs, (halving, interior))):
        assert rules is not None
        tree = allocate_tree(root, 9)
        faults = torch.full((4,), -1)
        launch = cuda_search._Launch(tree, rules, faults, num_kept=1, max_depth=None)
        row = torch.zeros(4, dtype=torch.int64)
        outputs = cuda_search._as_outputs(root)
        launch(outputs, row.view(1, 4), row, row, previous=0, first=1, width=1)
    assert len(built) == 6
    for compiled in built:
        assert compiled.asm["cubin"]
        assert f".target sm_{capability}" in compiled.asm["ptx"]
        assert (".f64" in compiled.asm["ptx"]) == (dtype == torch.float64)

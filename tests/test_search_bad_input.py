"""Errors of users and models: every backend and planner names them alike."""

import re
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch

from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    build_planner,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
    run_mcts,
)
from search.selection import PuctSelection
from tests.pairwise import pairwise
from tests.search_reference import TableModel, random_tables

ROWS = torch.arange(4)
BACKENDS = ["torch", "numba"]
PLANNERS = {
    "muzero": partial(MuZeroPlanner, 9, dirichlet_fraction=0, temperature=0),
    "efficientzero": partial(
        MuZeroPlanner, 9, dirichlet_fraction=0, temperature=0, mode="efficientzero"
    ),
    "gumbel": partial(GumbelMuZeroPlanner, 9, gumbel_scale=0),
}
LEVEL_PLANNERS = {
    name: partial(build_planner, name, 9)
    for name in ("best_of_n", "beam", "dvts", "rejection", "controlled_decoding")
}
SELECT = PuctSelection(qtransform_by_parent_and_siblings)
NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}
REMEDY = r"Check the model's weights and inputs for this row; mark actions that cannot be taken in"


class FaultyModel:
    """A table model whose root, or one call of step, is changed; `calls` counts steps."""

    def __init__(self, change, *, call, tables=None):
        self.tables = random_tables(1) if tables is None else tables
        self.num_actions = self.tables.num_actions
        self.change, self.call, self.calls = change, call, 0

    def root(self, observation, *, generator=None):
        output = self.tables.root(observation)
        return replace(output, **self.change(output)) if self.call == 0 else output

    def step(self, embedding, action, *, generator=None):
        self.calls += 1
        output = self.tables.step(
            {name: embedding[name] for name in ("table", "state", "trace")}, action
        )
        return replace(output, **self.change(output)) if self.calls == self.call else output


def fail(change, *, call, planner, rows=4, tables=None, **options):
    """The one message with which all backends refuse a changed output."""
    messages = set()
    for backend in BACKENDS if planner in PLANNERS else [None]:
        if backend is not None:
            options["backend"] = backend
        model = FaultyModel(change, call=call, tables=tables)
        with pytest.raises(ValueError, match=r"found .*required ") as error:
            (PLANNERS | LEVEL_PLANNERS)[planner](**options).plan(model, torch.arange(rows))
        assert model.calls == call
        messages.add(str(error.value))
    assert len(messages) == 1, messages
    return messages.pop()


def with_item(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


# Numbers that are none.


@pairwise(
    place=[(0, "value"), *product((1, 4, 9), ("value", "reward", "discount"))],
    planner=PLANNERS,
    number=NUMBERS,
)
def test_number_that_is_not_finite_is_named(place, planner, number):
    call, field = place
    owner = "StepOutput" if call else "RootOutput"
    message = fail(
        lambda output: {field: with_item(getattr(output, field), 2, NUMBERS[number])},
        call=call,
        planner=planner,
    )
    expected = rf"{owner}.{field}, row 2: found {number}; required finite values\. {REMEDY}"
    assert re.match(expected, message), message


@pairwise(call=[0, 1, 4, 9], planner=PLANNERS, number=NUMBERS, rows=[1, 4])
def test_logits_that_are_not_finite_are_named(call, planner, number, rows):
    owner, row = ("StepOutput" if call else "RootOutput"), rows - 1
    message = fail(
        lambda output: {"prior_logits": with_item(output.prior_logits, (row, 3), NUMBERS[number])},
        call=call,
        planner=planner,
        rows=rows,
    )
    expected = (
        rf"{owner}.prior_logits, row {row}: found \[([-\d.e]+, ){{3}}{number}, [-\d.e]+\]; "
        rf"required finite values where valid_actions is True\. {REMEDY}"
    )
    assert re.match(expected, message), message


@pytest.mark.parametrize("planner", PLANNERS)
def test_first_row_and_field_are_named_where_several_are_bad(planner):
    def change(output):
        bad = torch.tensor([False, True, False, True])
        return {
            "discount": output.discount.masked_fill(~bad, float("nan")),
            "reward": output.reward.masked_fill(bad, float("inf")),
            "value": output.value.masked_fill(bad, float("nan")),
        }

    message = fail(change, call=3, planner=planner)
    assert message.startswith("StepOutput.value, row 1: found nan")


@pytest.mark.parametrize("planner", PLANNERS)
def test_row_is_that_of_the_observation_with_several_leaves(planner):
    rows = []

    def change(output):
        rows.append(output.reward.shape[0])
        return {"reward": with_item(output.reward, -1, float("nan"))}

    message = fail(change, call=1, planner=planner, leaves_per_step=3)
    assert rows[0] == rows[1] > 4
    assert message.startswith("StepOutput.reward, row 3: found nan")


@pytest.mark.parametrize("planner", PLANNERS)
def test_numbers_of_dead_ends_are_checked_too(planner):
    def dead_end(output):
        nothing = torch.zeros_like(output.valid_actions)
        return {"valid_actions": nothing, "prior_logits": output.prior_logits * float("nan")}

    for backend in BACKENDS:
        model = FaultyModel(dead_end, call=2)
        assert bool(
            torch.isfinite(PLANNERS[planner](backend=backend).plan(model, ROWS).value).all()
        )
    message = fail(
        lambda output: {**dead_end(output), "value": output.value * float("nan")},
        call=2,
        planner=planner,
    )
    assert message.startswith("StepOutput.value, row 0: found nan")


# Shapes and dtypes.


def leaf(name, change):
    """A fault of the embedding: one leaf changed or added."""
    return "embedding", lambda leaves: {**leaves, name: change(leaves.get(name))}


# Fields, change, what the message names of the first field, and the remedy.
SHARED = {
    "value_column": ("value", lambda x: x[:, None], r"shape \[4, 1\]; .*\[B\].*squeeze"),
    "value_scalar": ("value", lambda x: x[0], r"shape \[\]; required shape"),
    "value_empty": ("value", lambda x: x[:0], r"shape \[0\]; .*\[B\] with B at least 1"),
    "value_integer": ("value", lambda x: x.long(), r"dtype torch.int64; .*floating.*\.float"),
    "value_complex": (
        "value",
        lambda x: x.to(torch.complex64),
        "dtype torch.complex64; .*floating",
    ),
    "logits_wide": (
        "prior_logits",
        lambda x: torch.cat([x, x], dim=1),
        r"shape \[4, 10\]; .*\[4, 5\].*num_actions",
    ),
    "logits_narrow": ("prior_logits", lambda x: x[:, :4], r"shape \[4, 4\]; .*\[4, 5\]"),
    "logits_transposed": ("prior_logits", lambda x: x.T, r"shape \[5, 4\]; .*\[4, 5\]"),
    "logits_flat": ("prior_logits", lambda x: x[0], r"shape \[5\]; .*\[4, 5\]"),
    "logits_boolean": ("prior_logits", lambda x: x > 0, "dtype torch.bool; .*floating-point"),
    "mask_float": ("valid_actions", lambda x: x.float(), "dtype torch.float32; .*torch.bool"),
    "mask_bytes": ("valid_actions", lambda x: x.to(torch.uint8), "dtype torch.uint8; .*torch.bool"),
    "mask_narrow": ("valid_actions", lambda x: x[:, :4], r"shape \[4, 4\]; .*\[4, 5\]"),
}
ROOT = {
    "leaf_without_rows": (*leaf("extra", lambda _: torch.zeros(7)), r"shape \[7\].*\[4, ...\]"),
    "leaf_scalar": (*leaf("extra", lambda _: torch.tensor(1.0)), r"shape \[\].*\[4, ...\]"),
    "no_valid_action": (
        "valid_actions",
        lambda x: with_item(x, 3, False),
        "0 of 5 actions valid; required at least one.*drop such rows",
    ),
}
STEP = {
    "reward_column": ("reward", lambda x: x[:, None], r"shape \[4, 1\]; required shape \[4\]"),
    "reward_integer": ("reward", lambda x: x.long(), "dtype torch.int64; .*floating-point"),
    "discount_scalar": ("discount", lambda _: torch.tensor(0.9), r"shape \[\]; .*\[4\]"),
    "discount_boolean": ("discount", lambda x: x > 0, "dtype torch.bool; .*floating-point"),
    "too_few_rows": (
        "value prior_logits valid_actions reward discount",
        lambda x: x[:3],
        "3 rows; required 4 rows.*Read the batch size",
    ),
    "leaf_missing": (
        "embedding",
        lambda x: {"state": x["state"]},
        r"leaves \['state'\]; .*'table'",
    ),
    "leaf_extra": (*leaf("extra", lambda _: torch.zeros(4)), r"leaves \['extra', .*root's leaves"),
    "leaf_renamed": (
        "embedding",
        lambda x: {name.replace("t", "T"): leaf for name, leaf in x.items()},
        "leaves .*required the root's leaves .*same leaves",
    ),
    "leaf_of_other_shape": (
        *leaf("trace", lambda x: x[:, :2]),
        r"shape \[4, 2\] .*\[4, 3\] and torch.int32",
    ),
    "leaf_of_other_dtype": (
        *leaf("trace", lambda x: x.float()),
        "shape .*torch.float32; .*torch.int32",
    ),
    "leaf_of_too_few_rows": (*leaf("state", lambda x: x[:2]), r"shape \[2\] .*\[4, ...\]"),
}


def fail_by(fault, **options):
    """The message of one of the faults above, and what it must match."""
    fields, change, expected = (SHARED | ROOT | STEP)[fault]
    names = fields.split()
    message = fail(lambda output: {f: change(getattr(output, f)) for f in names}, **options)
    return message, rf'{names[0]}(\["\w+"\])?(, row 3)?: found {expected}'


@pairwise(fault=SHARED | ROOT, planner=[*PLANNERS, *LEVEL_PLANNERS])
def test_malformed_root_is_named(fault, planner):
    message, expected = fail_by(fault, call=0, planner=planner)
    assert re.match(f"RootOutput.{expected}", message), message


@pairwise(
    fault=[f for f in SHARED if f != "value_empty"] + list(STEP),
    planner=[*PLANNERS, *LEVEL_PLANNERS],
    call=[1, 5],
)
def test_malformed_step_is_named(fault, planner, call):
    by_levels = planner in LEVEL_PLANNERS
    message, expected = fail_by(fault, call=1 if by_levels else call, planner=planner)
    if by_levels:  # they step several edges of an observation
        expected = re.sub(r"\b[345]\b", r"\\d+", expected)
    assert re.match(f"StepOutput.{expected}", message), message


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("fault", ["leaf_of_other_shape", "leaf_of_other_dtype", "leaf_missing"])
def test_malformed_step_of_a_single_tree_is_named(fault, planner):
    message, expected = fail_by(fault, call=4, planner=planner, rows=1)
    assert re.match(f"StepOutput.{expected}".replace(r"\[4", r"\[1"), message), message


# Numbers and names that users pass.


def search(*, select=SELECT, **options):
    model = random_tables(3)
    options = {"num_simulations": 4} | options
    return run_mcts(
        model,
        model.root(ROWS),
        root_action_selection=select,
        interior_action_selection=select,
        **options,
    )


LOOP_NUMBERS = [
    ("num_simulations", 0, r"0 \(int\); .*at least 1"),
    ("num_simulations", -3, r"-3 \(int\); .*at least 1"),
    ("num_simulations", 2.0, r"2.0 \(float\); .*at least 1"),
    ("num_simulations", False, r"False \(bool\)"),
    ("num_simulations", "8", r"'8' \(str\); required an int of at least 1"),
    ("num_simulations", None, r"None \("),
    ("max_depth", 0, r"0 .*at least 1 or None \(no limit\)"),
    ("max_depth", 1.5, r"1.5 \(float\)"),
    ("leaves_per_step", 0, r"0 \(int\); required an int of at least 1"),
    ("leaves_per_step", "4", r"'4' \(str\); required an int of at least 1"),
    ("leaves_per_step", True, r"True \(bool\); required an int of at least 1"),
    ("leaves_per_step", 5, "5; required at most num_simulations = 4"),
    ("backend", "cuda", "'cuda'; required one of auto, torch, numba, triton. Correct the"),
    ("backend", 1, "1; required one of auto, torch, numba, triton"),
    ("backend", None, "None; required one of auto, torch, numba, triton"),
]


@pytest.mark.parametrize("build", [MuZeroPlanner, GumbelMuZeroPlanner, search])
@pytest.mark.parametrize(("name", "value", "message"), LOOP_NUMBERS)
def test_numbers_of_the_loop_are_checked_by_planners_and_run_mcts(build, name, value, message):
    owner = "run_mcts" if build is search else build.__name__
    with pytest.raises(ValueError, match=rf"{owner}.{name}: found {message}"):
        build(**{"num_simulations": 4, name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mode", None, "None; required one of mctx, efficientzero"),
        ("value_delta_max", 0, r"0 \(int\); required a finite number above 0.0"),
        ("value_delta_max", -1.0, r"-1.0 \(float\); required a finite number above 0.0"),
        ("value_delta_max", float("nan"), r"nan \(float\); required a finite number"),
        ("value_delta_max", "1e-2", r"'1e-2' \(str\); .*write 1.0e-3"),
    ],
)
def test_numbers_of_efficientzero_are_checked(name, value, message):
    with pytest.raises(ValueError, match=rf"MuZeroPlanner.{name}: found {message}"):
        MuZeroPlanner(50, **{name: value})


# Backends that cannot.


def own_qtransform(tree, node_index):
    return qtransform_by_parent_and_siblings(tree, node_index)


def own_selection(tree, node_index):
    return SELECT(tree, node_index)


UNCOMPILED = {
    "own_qtransform": MuZeroPlanner(4, qtransform=own_qtransform, temperature=0),
    "lambda": MuZeroPlanner(4, qtransform=lambda *arguments: own_qtransform(*arguments)),
    "partial_of_own": GumbelMuZeroPlanner(4, qtransform=partial(own_qtransform)),
    "gumbel_own": GumbelMuZeroPlanner(4, qtransform=own_qtransform),
}
REQUIRED = (
    r"required: rules of search.selection and search.qtransforms, the CPU with numba or CUDA "
    r"with triton\. Take backend='auto'"
)


@pytest.mark.parametrize("name", UNCOMPILED)
def test_rule_of_ones_own_has_no_compiled_form(name):
    planner, model = UNCOMPILED[name], random_tables(4)
    expected = rf"backend: found 'numba' with rules without a compiled form.*{REQUIRED}"
    with pytest.raises(ValueError, match=expected):
        replace(planner, backend="numba").plan(model, ROWS)
    trees = [
        replace(planner, backend=backend)
        .plan(model, ROWS, generator=torch.Generator().manual_seed(0))
        .tree
        for backend in ("auto", "torch")
    ]
    assert torch.equal(trees[0].node_values, trees[1].node_values)


def test_selection_of_ones_own_has_no_compiled_form():
    with pytest.raises(ValueError, match=rf"rules without a compiled form.*{REQUIRED}"):
        search(select=own_selection, backend="numba")
    for backend in ("auto", "torch"):
        own, known = search(select=own_selection, backend=backend), search(backend="torch")
        assert torch.equal(own.node_values, known.node_values)


@pytest.mark.parametrize("planner", PLANNERS)
def test_triton_is_refused_on_the_cpu(planner):
    model = random_tables(5)
    expected = rf"backend: found 'triton' with a model on cpu; {REQUIRED}"
    with pytest.raises(ValueError, match=expected):
        PLANNERS[planner](backend="triton").plan(model, ROWS)
    assert model.step_rows == []


def test_compiled_backend_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr("search.backends.dispatch._is_installed", lambda package: False)
    with pytest.raises(ValueError, match=rf"found 'numba' with no package 'numba'; {REQUIRED}"):
        search(backend="numba")
    assert torch.equal(search(backend="auto").node_values, search(backend="torch").node_values)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(
    ("kind", "qtransform", "named"),
    [
        ("muzero", qtransform_by_min_max, "min_value"),
        ("gumbel", partial(qtransform_completed_by_mix_value, value_scal=0.2), "value_scal"),
    ],
)
def test_missing_or_unknown_option_of_a_qtransform_is_named(kind, qtransform, named, backend):
    with pytest.raises(TypeError, match=named):
        PLANNERS[kind](qtransform=qtransform, backend=backend).plan(random_tables(6), ROWS)


@pytest.mark.parametrize(
    ("kind", "qtransform"),
    [
        ("muzero", partial(qtransform_by_min_max, min_value=-2.0, max_value=3.0)),
        ("muzero", partial(qtransform_by_parent_and_siblings, epsilon=0.5)),
        ("muzero", partial(partial(qtransform_completed_by_mix_value, value_scale=2.0))),
        (
            "gumbel",
            partial(
                qtransform_completed_by_mix_value,
                value_scale=0.3,
                maxvisit_init=5.0,
                rescale_values=False,
                use_mixed_value=False,
            ),
        ),
        ("gumbel", qtransform_by_parent_and_siblings),
        ("gumbel", partial(qtransform_by_min_max, min_value=-2, max_value=3)),
    ],
)
def test_known_qtransform_with_options_is_compiled(kind, qtransform):
    planner, model = PLANNERS[kind](qtransform=qtransform), random_tables(7, invalid=0.3)
    trees = [replace(planner, backend=b).plan(model, ROWS).tree for b in BACKENDS]
    assert torch.equal(trees[0].children_index, trees[1].children_index)
    torch.testing.assert_close(trees[0].node_values, trees[1].node_values)


def bandit(values: list[float]) -> TableModel:
    """One state, from which action a leads to a state of value a; nothing but values tell."""
    count = len(values)
    edges = (1, count + 1, count)
    next_state = torch.arange(count + 1).view(1, -1, 1).repeat(1, 1, count)
    next_state[0, 0] = torch.arange(1, count + 1)
    return TableModel(
        next_state=next_state,
        reward=torch.zeros(edges, dtype=torch.float64),
        discount=torch.ones(edges, dtype=torch.float64),
        prior_logits=torch.zeros(edges, dtype=torch.float64),
        valid_actions=torch.ones(edges, dtype=torch.bool),
        value=torch.tensor([[0.0, *values]], dtype=torch.float64),
    )


@pytest.mark.parametrize("scale", [1.0, 1e9, 1e12, 1e30])
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_of_any_size_are_told_apart_at_the_root(backend, scale):
    """No score is raised to a floor, under which all values would be alike."""
    raw = partial(qtransform_completed_by_mix_value, rescale_values=False)
    planner = GumbelMuZeroPlanner(12, gumbel_scale=0, qtransform=raw, backend=backend)
    found = planner.plan(bandit([-4 * scale, -3 * scale, -2 * scale]), torch.arange(1))
    assert found.action.tolist() == [2]
    assert found.tree.children_visits[0, 0].tolist() == [2, 5, 5]


@pytest.mark.parametrize("noise", [[-torch.inf] * 3, [0.0, torch.nan, 0.0], [0.0, torch.inf, 0.0]])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gumbel_noise_that_is_not_finite_is_named(backend, noise):
    model = bandit([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"root_gumbel, row 0: found \[.*required finite noise"):
        GumbelMuZeroPlanner(4, backend=backend).plan(
            model, torch.arange(1), root_gumbel=torch.tensor([noise])
        )
    assert model.step_rows == []


@pytest.mark.parametrize(
    "noise", [[-1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [float("nan"), 0.0, 1.0], [float("inf"), 1.0, 1.0]]
)
def test_dirichlet_noise_that_is_no_distribution_is_named(noise):
    with pytest.raises(ValueError, match=r"MuZeroPlanner.plan.dirichlet_noise, row 0: found \["):
        MuZeroPlanner(4).plan(
            bandit([0.0, 0.0, 1.0]), torch.arange(1), dirichlet_noise=torch.tensor([noise])
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_is_named_by_its_observation_where_other_trees_need_no_model(backend):
    """Nothing follows tree 0, whose walks end at known nodes: the model's rows are trees 1, 2."""
    model = random_tables(3, num_tables=3, num_states=6, num_actions=2)
    model.discount[0] = 0.0
    model.next_state[2, :3] = torch.tensor([[1, 2], [1, 3], [2, 3]])
    model.next_state[:2] = model.next_state[:2].clamp_max(2)
    model.value[2, 3:] = float("nan")
    planner = MuZeroPlanner(12, dirichlet_fraction=0, temperature=0, backend=backend)
    with pytest.raises(ValueError, match=r"StepOutput.value, row 2: found nan"):
        planner.plan(model, torch.arange(3))


@pytest.mark.parametrize("name", LEVEL_PLANNERS)
def test_planners_by_levels_name_the_observation(name):
    def change(output):
        return {"value": with_item(output.value, -1, float("nan"))}

    planner = build_planner(name, 8)
    with pytest.raises(ValueError, match=r"StepOutput.value, row 3: found nan"):
        planner.plan(FaultyModel(change, call=1), torch.arange(4))


def test_a_decision_whose_scores_overflow_at_the_end_is_refused():
    """The last back-up comes after the last rule: its numbers are met by the decision alone."""
    edge = (1, 2, 1)
    model = TableModel(
        next_state=torch.ones(edge, dtype=torch.long),
        reward=torch.zeros(edge),
        discount=torch.ones(edge),
        prior_logits=torch.zeros(edge),
        valid_actions=torch.ones(edge, dtype=torch.bool),
        value=torch.tensor([[0.0, 1.0]]),
    )
    overflowing = partial(qtransform_completed_by_mix_value, value_scale=1e38, maxvisit_init=0.0)
    planner = GumbelMuZeroPlanner(4, gumbel_scale=0, max_depth=1, qtransform=overflowing)
    with pytest.raises(ValueError, match="search, row 0: found a return or an action's score"):
        planner.plan(model, torch.arange(1))


@pytest.mark.parametrize("name", [*PLANNERS, *LEVEL_PLANNERS])
@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_of_invalid_actions_are_ignored_and_outputs_can_be_trained_on(name, backend):
    options = {"backend": backend} if name in PLANNERS else {}
    planner = (PLANNERS | LEVEL_PLANNERS)[name](**options)
    plain, outputs = random_tables(3, invalid=0.5), []
    for junk in (0.0, torch.inf, -torch.inf, torch.nan, 1e300):
        logits = plain.prior_logits.masked_fill(~plain.valid_actions, junk)
        outputs.append(planner.plan(replace(plain, prior_logits=logits), ROWS))
    for output in outputs[1:]:
        assert torch.equal(output.action, outputs[0].action)
        assert torch.equal(output.action_weights, outputs[0].action_weights)
        for field in ("children_index", "node_values", "children_prior_logits", "children_visits"):
            assert torch.equal(getattr(output.tree, field), getattr(outputs[0].tree, field)), field
    logits = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, output.action_weights)
    ((logits.sum(dim=-1) * output.value).sum() + loss).backward()
    assert logits.grad is not None
    assert output.tree.node_values.is_inference()

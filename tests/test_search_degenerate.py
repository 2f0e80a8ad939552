"""Tables in which little tells the actions apart, and numbers no search can compare.

All forms on the CPU against the recursive reference and each other; the CUDA form's are in
`test_search_cuda`.
"""

import math
from functools import partial

import pytest
import torch

from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    StochasticMuZeroPlanner,
    keep_subtree,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
    run_mcts,
)
from search.backends import numba_search as cpu
from search.qtransforms import mixed_value
from tests.search_cases import MODES, QUIET, quiet_planner
from tests.search_reference import (
    ReferenceSearch,
    TableModel,
    assert_same_tree,
    degenerate_tables,
    random_tables,
    to_dict,
)
from tests.stochastic_reference import random_games

MIXED = qtransform_completed_by_mix_value
FORMS = ["torch", "serial", "parallel"]


@pytest.fixture(params=FORMS)
def backend(request, monkeypatch):
    if request.param == "parallel":
        monkeypatch.setattr(cpu, "_PARALLEL_WORK", 1)
        monkeypatch.setattr(cpu, "_start_threads", lambda: 2)
    return "torch" if request.param == "torch" else "numba"


def below_a_root(priors, value, successors, *, num_invalid=0, dtype=torch.float32):
    """A root of one action, below it a node worth `value`, whose successors lead to themselves.

    `num_invalid` actions more stand at each node and cannot be taken.
    """
    num_valid = len(priors)
    num_actions, num_states = num_valid + num_invalid, num_valid + 2
    edges = (1, num_states, num_actions)
    following = torch.arange(num_states).unsqueeze(-1).repeat(1, num_actions)
    following[0] = 1
    following[1, :num_valid] = torch.arange(2, num_states)
    logits = torch.zeros(edges, dtype=dtype)
    logits[..., :num_valid] = torch.tensor(priors, dtype=dtype).log()
    valid = (torch.arange(num_actions) < num_valid).expand(edges).clone()
    valid[0, 0, 1:] = False
    return TableModel(
        next_state=following.unsqueeze(0),
        reward=torch.zeros(edges, dtype=dtype),
        discount=torch.ones(edges, dtype=dtype),
        prior_logits=logits,
        valid_actions=valid,
        value=torch.tensor([[0.0, value, *successors]], dtype=dtype),
    )


def visits_below(model, num_simulations, **options):
    planner = GumbelMuZeroPlanner(num_simulations, gumbel_scale=0, **options)
    return planner.plan(model, torch.arange(1)).tree.children_visits[0, 1].tolist()


# A node worth far more than its nearly equal successors.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_equal_successors_are_weighed_by_prior_and_value(backend, dtype):
    """Each is tried, then the best by both: a policy without weight took the first whatever."""
    model = below_a_root([0.09, 0.24, 0.67], 1.0, [0.0, 0.001, 0.002], dtype=dtype)
    assert visits_below(model, 25, backend=backend) == [1, 1, 22]


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("value", [1.0, -1.0, 1e6])
def test_nearly_equal_successors_at_any_scale(value, scale, backend):
    model = below_a_root([0.2, 0.3, 0.5], value, [0.001, 0.0, 0.002])
    transform = partial(MIXED, value_scale=scale)
    visits = visits_below(model, 25, backend=backend, qtransform=transform)
    assert visits[2] == max(visits) >= 20
    assert sum(visits) == 24


def test_value_of_actions_that_cannot_be_taken_does_not_weigh(backend):
    """Invalid actions are completed, too: far above all valid ones, they must not count."""
    model = below_a_root([0.2, 0.3, 0.5], 1.0, [0.001, 0.0, 0.002], num_invalid=2)
    # Beside a far value the three are nearly equal: the prior shares the visits out, until scores
    # are scaled so much that the little they differ decides.
    for scale, expected in ((0.1, [7, 8, 24]), (3.0, [1, 1, 37]), (30.0, [1, 1, 37])):
        transform = partial(MIXED, value_scale=scale)
        visits = visits_below(model, 40, backend=backend, qtransform=transform)
        assert visits == [*expected, 0, 0], scale


def test_equal_successors_share_visits_by_their_priors(backend):
    for value in (0.5, 1.0, -7.0):
        model = below_a_root([0.25, 0.25, 0.5], value, [value] * 3)
        assert visits_below(model, 41, backend=backend) == [10, 10, 20], value


@pytest.mark.parametrize("gap", [0.0, 2.0**-10])
@pytest.mark.parametrize("far", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_actions", [2, 4])
def test_forms_grow_the_same_trees_of_degenerate_tables(num_actions, dtype, far, gap):
    shared = 1.0 if num_actions == 2 else 0.3
    model = degenerate_tables(
        5, num_tables=64, num_actions=num_actions, gap=gap, far=far, shared=shared, dtype=dtype
    )
    model.value += 0.5  # where all values are 0, whatever is averaged is 0
    for leaves in (1, 4):
        trees = [
            quiet_planner("gumbel", 32, backend=backend, leaves_per_step=leaves)
            .plan(model, torch.arange(64))
            .tree
            for backend in ("torch", "numba")
        ]
        assert torch.equal(trees[0].children_visits, trees[1].children_visits)
        assert torch.equal(trees[0].parents, trees[1].parents)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_trees_of_degenerate_tables_equal_the_recursive_reference(seed, mode, backend):
    budget = (16, 100, 40, 64, 25, 32)[seed]
    leaves, max_depth = (1, 1, 3, 1, 5, 2)[seed], (None, None, None, 3, None, 2)[seed]
    model = degenerate_tables(
        seed,
        num_tables=4,
        num_actions=2 + seed % 3,
        gap=(2.0**-10, 0.0, 2.0**-16, 2.0**-10, 2.0**-4, 0.0)[seed],
        far=(1.0, 1.0, 16.0, 0.0, 2.0, 0.0)[seed],
        shared=(0.3, 1.0, 0.6, 0.3, 0.5, 0.5)[seed],
        invalid=(0.0, 0.0, 0.3, 0.3, 0.0, 0.3)[seed],
        terminal=(0.0, 0.0, 0.1, 0.0, 0.1, 0.1)[seed],
        discount=(1.0, 1.0, 1.0, -1.0, -1.0, 1.0)[seed],
    )
    planner = quiet_planner(
        mode, budget, backend=backend, leaves_per_step=leaves, max_depth=max_depth
    )
    output = planner.plan(model, torch.arange(4))
    for table in range(4):
        reference = ReferenceSearch(
            model,
            table,
            num_simulations=budget,
            max_depth=max_depth,
            gumbel=[0.0] * model.num_actions if mode == "gumbel" else None,
            efficientzero=mode == "efficientzero",
            leaves_per_step=leaves,
        )
        assert_same_tree(output.tree.to_dict(table), to_dict(reference.root), 1e-9)
        assert int(output.action[table]) == reference.decide()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forms_go_on_from_kept_degenerate_trees_alike(dtype):
    model = degenerate_tables(8, num_tables=16, far=1.0, dtype=dtype)
    trees = []
    for backend in ("torch", "numba"):
        planner = quiet_planner("gumbel", 30, backend=backend)
        first = planner.plan(model, torch.arange(16))
        kept = keep_subtree(first.tree, first.action)
        trees.append(planner.plan(model, torch.arange(16), kept=kept).tree)
    assert torch.equal(trees[0].children_visits, trees[1].children_visits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_of_equal_values_is_that_value(dtype):
    generator = torch.Generator().manual_seed(0)
    prior = torch.rand(2000, 5, generator=generator).to(dtype)
    visit_counts = torch.randint(4, (2000, 5), generator=generator)
    value = (4 * torch.rand(2000, generator=generator) - 2).to(dtype)
    qvalues = value.unsqueeze(-1).repeat(1, 5)
    mixed = mixed_value(value, qvalues, visit_counts=visit_counts, prior=prior)
    assert torch.equal(mixed, value)


# Logits far from 0, and priors that are next to nothing.


@pytest.mark.parametrize("transform", [MIXED, qtransform_by_parent_and_siblings])
@pytest.mark.parametrize("shift", [3e4, -3e4])
def test_values_count_whatever_all_logits_have_in_common(shift, transform, backend):
    """Logits are unnormalized: in float32 `logit + Q` alone would keep no digit of Q."""
    model = random_tables(3, num_tables=16, dtype=torch.float32)
    # Whole numbers, so that the shift itself loses nothing.
    model.prior_logits.round_()
    planner = quiet_planner("gumbel", 32, backend=backend, qtransform=transform)
    expected = planner.plan(model, torch.arange(16))
    model.prior_logits += shift
    found = planner.plan(model, torch.arange(16))
    assert torch.equal(found.tree.children_visits, expected.tree.children_visits)
    torch.testing.assert_close(found.action_weights, expected.action_weights)


@pytest.mark.parametrize("logit", [-80.0, -87.0, -95.0, -103.0, -3.4e38])
@pytest.mark.parametrize("scale", [1.0, 3.0, -3.0])
def test_forms_agree_where_priors_are_next_to_nothing(logit, scale):
    model = random_tables(6, num_tables=16, num_actions=3, dtype=torch.float32)
    model.prior_logits[..., 1] = logit
    transform = partial(MIXED, value_scale=scale)
    trees = [
        quiet_planner("gumbel", 32, backend=backend, qtransform=transform)
        .plan(model, torch.arange(16))
        .tree
        for backend in ("torch", "numba")
    ]
    assert torch.equal(trees[0].children_visits, trees[1].children_visits)


@pytest.mark.parametrize(("qvalue", "third"), [(-0.4, 2), (-0.15, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_least_weight_in_the_mixed_value(dtype, qvalue, third, backend):
    """Priors 0 and 4 times the least positive number: 1 to 4, with values -1 and `qvalue`.

    The mixed value of the third action lies between them, but with any other least weight.
    """
    tiny = torch.finfo(dtype).tiny
    model = below_a_root([1.0, 1.0, 1.0], 0.0, [-1.0, qvalue, 0.0], dtype=dtype)
    model.prior_logits[0, 1] = torch.tensor([-2000.0, math.log(4 * tiny), 0.0])
    planner = MuZeroPlanner(
        4,
        **QUIET,
        max_depth=2,
        qtransform=partial(MIXED, rescale_values=False),
        pb_c_init=0,  # with c2 so large the prior has no bonus
        pb_c_base=1e30,
        backend=backend,
    )
    tree = planner.plan(model, torch.arange(1)).tree
    assert tree.children_visits[0, 1].tolist() == [1, 1 + (third == 1), third == 2]


@pytest.mark.parametrize(
    ("dtype", "logits"),
    [
        (torch.float32, (-103.4, -103.0)),
        (torch.float64, (-744.6, -744.2)),
        (torch.float32, (-200.0, -199.0)),
        (torch.float64, (-2000.0, -1999.0)),
    ],
)
def test_logits_stand_for_priors_without_digits(dtype, logits, backend):
    """Both priors round to the same number, or to 0; their logits still order the actions."""
    model = below_a_root([1.0, 1.0, 1.0], 0.0, [-1e4, 0.0, 0.0], dtype=dtype)
    model.prior_logits[0, 1] = torch.tensor([0.0, *logits])
    unscaled = partial(MIXED, rescale_values=False)
    assert visits_below(model, 3, backend=backend, qtransform=unscaled) == [1, 0, 1]


# Scores that are not numbers end a search.


RULES = {
    "puct": partial(MuZeroPlanner, **QUIET),
    "puct_mixed": partial(MuZeroPlanner, **QUIET, qtransform=MIXED),
    "puct_min_max": partial(
        MuZeroPlanner,
        **QUIET,
        qtransform=partial(qtransform_by_min_max, min_value=-1e-3, max_value=1e-3),
    ),
    "efficientzero": partial(MuZeroPlanner, **QUIET, mode="efficientzero"),
    "gumbel": partial(GumbelMuZeroPlanner, gumbel_scale=0),
    "gumbel_unscaled": partial(
        GumbelMuZeroPlanner, gumbel_scale=0, qtransform=partial(MIXED, rescale_values=False)
    ),
    "gumbel_siblings": partial(
        GumbelMuZeroPlanner, gumbel_scale=0, qtransform=qtransform_by_parent_and_siblings
    ),
}
MESSAGE = (
    r"search, row 2: found a return or an action's score that is no finite torch.float32; "
    r"required .* can hold. Scale rewards .* torch.float64"
)


@pytest.mark.parametrize("leaves", [1, 3])
@pytest.mark.parametrize("rule", RULES)
def test_values_beyond_the_dtype_end_the_search(rule, leaves, backend):
    model = random_tables(1, dtype=torch.float32)
    model.value[2] *= 1.6e38  # up to 3.2e38, of either sign
    planner = RULES[rule](32, backend=backend, leaves_per_step=leaves)
    with pytest.raises(ValueError, match=MESSAGE):
        planner.plan(model, torch.arange(4))
    # In float64 the same numbers are nothing out of the ordinary.
    wide = random_tables(1, dtype=torch.float64)
    wide.value[2] *= 1.6e38
    output = planner.plan(wide, torch.arange(4))
    assert bool(torch.isfinite(output.value).all())


@pytest.mark.parametrize("rule", RULES)
def test_return_beyond_the_dtype_ends_the_search_after_the_last_simulation(rule, backend):
    model = random_tables(1, dtype=torch.float32)
    model.reward[2], model.value[2] = 3e38, 3e38
    with pytest.raises(ValueError, match=MESSAGE):
        RULES[rule](1, backend=backend).plan(model, torch.arange(4))


@pytest.mark.parametrize("rule", ["puct", "puct_mixed", "efficientzero"])
def test_weight_of_the_prior_beyond_the_dtype_ends_the_search(rule, backend):
    model = random_tables(1, dtype=torch.float32)
    planner = RULES[rule](8, backend=backend, pb_c_init=1e39)
    with pytest.raises(ValueError, match=r"no finite torch\.float32"):
        planner.plan(model, torch.arange(4))


def test_chance_beside_values_beyond_the_dtype_ends_the_search(backend):
    model = random_games(1, dtype=torch.float32)
    model.value[2] *= 1.6e38
    model.afterstate_value[2] *= 1.6e38
    planner = StochasticMuZeroPlanner(40, dirichlet_fraction=0, temperature=0, backend=backend)
    with pytest.raises(ValueError, match=MESSAGE):
        planner.plan(model, torch.arange(4))


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, -2.0), (float("nan"), 1.0)])
def test_bounds_out_of_order_are_refused(bounds):
    transform = partial(qtransform_by_min_max, min_value=bounds[0], max_value=bounds[1])
    planner = MuZeroPlanner(4, qtransform=transform)
    with pytest.raises(ValueError, match="required a min_value below max_value"):
        planner.plan(random_tables(1), torch.arange(4))


@pytest.mark.parametrize("epsilon", [0.0, 1e-60])
@pytest.mark.parametrize("transform", [qtransform_by_parent_and_siblings, MIXED])
def test_no_epsilon_divides_nothing_by_nothing(transform, epsilon, backend):
    model = below_a_root([0.25, 0.25, 0.5], 0.5, [0.5] * 3)
    planner = GumbelMuZeroPlanner(
        41, gumbel_scale=0, qtransform=partial(transform, epsilon=epsilon), backend=backend
    )
    output = planner.plan(model, torch.arange(1))
    assert output.tree.children_visits[0, 1, 2] == 20
    assert bool(torch.isfinite(output.action_weights).all())


def test_rule_of_ones_own_that_finds_no_action_ends_the_search():
    def none(tree, node_index):
        return torch.full_like(node_index, -1)

    model = random_tables(1, dtype=torch.float32)
    with pytest.raises(ValueError, match="search, row 0: found a return or an action's score"):
        run_mcts(
            model,
            model.root(torch.arange(4)),
            num_simulations=3,
            root_action_selection=none,
            interior_action_selection=none,
        )
    assert model.step_rows == []

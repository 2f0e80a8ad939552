"""PlannerConfig: what it builds and what it refuses."""

from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from search import (
    BeamPlanner,
    BestOfNPlanner,
    DiverseBeamPlanner,
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    PlannerConfig,
    RegularisedPlanner,
    RejectionPlanner,
    build_planner,
    qtransform_completed_by_mix_value,
)
from tests.search_reference import random_tables

SETTINGS = {
    "num_simulations": 7,
    "max_depth": 3,
    "dirichlet_fraction": 0.1,
    "dirichlet_alpha": 0.5,
    "pb_c_init": 2.0,
    "pb_c_base": 100.0,
    "temperature": 0.5,
    "max_num_considered_actions": 4,
    "gumbel_scale": 0.25,
    "value_scale": 0.02,
    "maxvisit_init": 100.0,
    "beam_width": 2,
    "num_subtrees": 3,
    "subtree_width": 5,
    "num_lines": 6,
    "keep": 0.25,
    "kl_weight": 0.75,
}
KINDS = {
    "muzero": MuZeroPlanner,
    "gumbel": GumbelMuZeroPlanner,
    "best_of_n": BestOfNPlanner,
    "beam": BeamPlanner,
    "dvts": DiverseBeamPlanner,
    "rejection": RejectionPlanner,
    "regularized": RegularisedPlanner,
}
# A configuration has one temperature, with MuZero's default.
OTHER_DEFAULTS = {"regularized": {"temperature": 1.0}}
BAD = [
    ("planner", "alphazero", "required one of muzero, gumbel, best_of_n, beam, dvts, rej"),
    ("num_simulations", -5, "required an int of at least 1"),
    ("num_simulations", "50", "required an int of at least 1"),
    ("num_simulations", True, "required an int of at least 1"),
    ("max_depth", 0, r"required an int of at least 1 or None \(no limit\)"),
    ("dirichlet_fraction", 1.5, "of at least 0.0 and at most 1.0"),
    ("dirichlet_alpha", 0.0, "required a finite number above 0.0"),
    ("pb_c_init", "1e-3", r"\(str\); required a finite number .* write 1.0e-3"),
    ("pb_c_init", -1, "of at least 0.0"),
    ("pb_c_base", 0, "above 0.0"),
    ("temperature", float("nan"), "required a finite number"),
    ("temperature", None, r"None \(NoneType\)"),
    ("max_num_considered_actions", 0, "required an int of at least 1"),
    ("gumbel_scale", float("inf"), "required a finite number"),
    ("gumbel_scale", False, r"False \(bool\)"),
    ("value_scale", -0.1, "of at least 0.0"),
    ("maxvisit_init", "50", r"\(str\); required a finite number"),
    ("beam_width", 2.0, "required an int of at least 1"),
    ("num_subtrees", 0, "required an int of at least 1"),
    ("subtree_width", "4", "required an int of at least 1"),
    ("num_lines", 0, "required an int of at least 1"),
    ("keep", 0.0, "above 0.0 and at most 1.0"),
    ("keep", 1.5, "above 0.0 and at most 1.0"),
    ("kl_weight", 0, r"0 \(int\); required a finite number above 0.0"),
    ("kl_weight", "1e-3", r"\(str\); required a finite number .* write 1.0e-3"),
]


@pytest.mark.parametrize("name", KINDS)
def test_built_planner_has_every_setting_it_knows(name):
    """Each field of the planner that the configuration names holds the configured value."""
    planner = build_planner(PlannerConfig(planner=name, **SETTINGS))
    assert type(planner) is KINDS[name]
    known = {f.name for f in fields(planner)} & SETTINGS.keys()
    assert {key: getattr(planner, key) for key in known} == {key: SETTINGS[key] for key in known}
    count = {"muzero": 7, "gumbel": 4, "best_of_n": 1, "beam": 3, "dvts": 4}
    assert len(known) == {**count, "rejection": 3, "regularized": 3}[name]


def test_gumbel_scales_qvalues_by_the_configured_numbers():
    """Both numbers reach the transform that the planner scores actions with."""
    transform = build_planner(PlannerConfig(planner="gumbel", **SETTINGS)).qtransform
    tree = GumbelMuZeroPlanner(8).plan(random_tables(3), torch.arange(4)).tree
    expected = qtransform_completed_by_mix_value(
        tree, tree.roots, value_scale=0.02, maxvisit_init=100.0
    )
    torch.testing.assert_close(transform(tree, tree.roots), expected)


@pytest.mark.parametrize("name", KINDS)
def test_defaults_are_the_planners_own(name):
    """A configuration that only names planner and budget builds the planner's defaults."""
    expected = KINDS[name](9, **OTHER_DEFAULTS.get(name, {}))
    assert build_planner(PlannerConfig(planner=name, num_simulations=9)) == expected


@pytest.mark.parametrize(("name", "value", "required"), BAD)
def test_bad_value_is_refused(name, value, required):
    """The message names the field, what was found and what is required."""
    with pytest.raises(ValueError, match=rf"PlannerConfig.{name}: found .*{required}"):
        PlannerConfig(**{name: value})


@pytest.mark.parametrize("name", ["planner", "mode", "num_simulations", "pb_c_init", "keep"])
def test_an_integer_too_long_to_be_shown_is_refused_by_name(name):
    """Python does not write out integers of more than some thousand digits."""
    with pytest.raises(ValueError, match=rf"PlannerConfig.{name}: found an integer of 16,610 bits"):
        PlannerConfig(**{name: -(10**5000)})
    with pytest.raises(ValueError, match=rf"{name}: found an integer of 16,610 bits"):
        PlannerConfig(**{name: 10**5000})
    with pytest.raises(ValueError, match=r"leaves_per_step: found an integer of 16,610 bits"):
        PlannerConfig(leaves_per_step=10**5000)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_planners_refuse_the_same_values(kind):
    """What the configuration refuses, a planner built by hand refuses too."""
    known = {field.name for field in fields(kind)}
    for name, value, required in BAD:
        if name in known:
            settings = {"num_simulations": 5, name: value}
            with pytest.raises(ValueError, match=rf"{kind.__name__}.{name}: found .*{required}"):
                kind(settings.pop("num_simulations"), **settings)


def test_help_says_which_planners_read_a_number():
    """Every field but planner, budget and depth names the planners it is for, and only those."""
    for known in fields(PlannerConfig):
        text = known.metadata["help"]
        if known.name in ("planner", "num_simulations", "max_depth", "value_delta_max"):
            continue
        readers = {name for name, kind in KINDS.items() if known.name in vars(kind(5))}
        if known.name in ("value_scale", "maxvisit_init"):  # of the transform it was built with
            readers = {"gumbel"}
        assert set(text.split(":")[0].split(", ")) == readers, known.name


def test_config_is_frozen():
    """A run's configuration cannot drift."""
    with pytest.raises(FrozenInstanceError):
        PlannerConfig().num_simulations = 3


@pytest.mark.parametrize("name", KINDS)
def test_built_planner_plans(name):
    """The loop every door runs: build, plan, read action, weights and value."""
    planner = build_planner(PlannerConfig(planner=name, num_simulations=6))
    output = planner.plan(random_tables(1), torch.arange(4), generator=torch.Generator())
    assert planner.num_simulations == 6
    assert (output.action.shape, output.value.shape) == ((4,), (4,))
    torch.testing.assert_close(output.action_weights.sum(dim=-1), torch.ones(4).double())

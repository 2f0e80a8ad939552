"""Planners by name: what each name builds, and what is refused."""

from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from search import (
    PLANNER_NAMES,
    BeamPlanner,
    BestOfNPlanner,
    ControlledDecodingPlanner,
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    RejectionPlanner,
    build_planner,
    planner_name,
    planner_settings,
)
from tests.search_reference import random_tables

DEFAULTS = {
    "best_of_n": BestOfNPlanner(7),
    "beam": BeamPlanner(7),
    "dvts": BeamPlanner(7, beam_width=1, num_groups=4, num_children=4),
    "rejection": RejectionPlanner(7),
    "controlled_decoding": ControlledDecodingPlanner(7),
    "muzero": MuZeroPlanner(7),
    "efficientzero": MuZeroPlanner(7, mode="efficientzero"),
    "gumbel_muzero": GumbelMuZeroPlanner(7),
}
SETTINGS = {
    "max_depth": 3,
    "dirichlet_fraction": 0.1,
    "dirichlet_alpha": 0.5,
    "pb_c_init": 2.0,
    "pb_c_base": 100.0,
    "temperature": 0.5,
    "mode": "efficientzero",
    "value_delta_max": 0.5,
    "max_num_considered_actions": 4,
    "gumbel_scale": 0.25,
    "beam_width": 2,
    "num_groups": 3,
    "num_children": 5,
    "num_lines": 6,
    "keep": 0.25,
    "kl_weight": 0.75,
    "leaves_per_step": 3,
    "backend": "torch",
}
BAD = [
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
    ("mode", "alphazero", "required one of mctx, efficientzero"),
    ("max_num_considered_actions", 0, "required an int of at least 1"),
    ("gumbel_scale", float("inf"), "required a finite number"),
    ("gumbel_scale", False, r"False \(bool\)"),
    ("beam_width", 2.0, "required an int of at least 1"),
    ("num_groups", 0, "required an int of at least 1"),
    ("num_children", "4", "required an int of at least 1"),
    ("num_lines", 0, "required an int of at least 1"),
    ("keep", 0.0, "above 0.0 and at most 1.0"),
    ("keep", 1.5, "above 0.0 and at most 1.0"),
    ("kl_weight", 0, r"0 \(int\); required a finite number above 0.0"),
    ("kl_weight", -0.1, r"-0.1 \(float\); required a finite number above 0.0"),
    ("kl_weight", float("inf"), r"inf \(float\); required a finite number above 0.0"),
    ("temperature", -1.0, r"-1.0 \(float\); required a finite number of at least 0.0"),
    ("temperature", True, r"True \(bool\); required a finite number of at least 0.0"),
    ("num_simulations", 2.0, r"2.0 \(float\); required an int of at least 1"),
    ("kl_weight", "1e-3", r"\(str\); required a finite number .* write 1.0e-3"),
]


def test_every_name_is_known_here():
    assert tuple(DEFAULTS) == PLANNER_NAMES
    assert planner_name("gumbel") == "gumbel_muzero"


@pytest.mark.parametrize("name", PLANNER_NAMES)
def test_settings_and_their_defaults_are_the_planners_fields(name):
    planner = DEFAULTS[name]
    assert build_planner(name, 7) == planner
    expected = {field.name: getattr(planner, field.name) for field in fields(planner)}
    assert planner_settings(name) == {k: v for k, v in expected.items() if k != "num_simulations"}
    chosen = {key: SETTINGS[key] for key in SETTINGS.keys() & planner_settings(name).keys()}
    built = build_planner(name, 9, **chosen)
    assert type(built) is type(planner)
    assert {key: getattr(built, key) for key in chosen} == chosen
    assert built.num_simulations == 9


def test_every_setting_is_tried_here():
    known = set().union(*map(planner_settings, PLANNER_NAMES))
    assert known - SETTINGS.keys() == {"qtransform"}


@pytest.mark.parametrize("name", ["alphazero", "", None, True])
def test_an_unknown_planner_is_refused(name):
    with pytest.raises(ValueError, match=r"planner: found .*; required: one of best_of_n, beam"):
        build_planner(name, 5)


def test_a_setting_of_another_planner_is_refused():
    with pytest.raises(ValueError, match=r"beam.keep: found .*required: one of beam_width, num"):
        build_planner("beam", 5, keep=0.5)
    with pytest.raises(ValueError, match=r"best_of_n.max_depth: found .*required: none"):
        build_planner("best_of_n", 5, max_depth=2)


@pytest.mark.parametrize(("name", "value", "required"), BAD)
def test_planners_refuse_bad_values_by_name(name, value, required):
    kinds = [n for n in PLANNER_NAMES if name in {"num_simulations", *planner_settings(n)}]
    assert kinds
    for kind in kinds:
        settings = {"num_simulations": 5, name: value}
        owner = type(DEFAULTS[kind]).__name__
        with pytest.raises(ValueError, match=rf"{owner}.{name}: found .*{required}"):
            build_planner(kind, settings.pop("num_simulations"), **settings)


@pytest.mark.parametrize("name", ["num_simulations", "mode", "pb_c_init", "leaves_per_step"])
def test_an_integer_too_long_to_be_shown_is_refused_by_name(name):
    """Python does not write out integers of more than some thousand digits."""
    settings = {"num_simulations": 5, name: -(10**5000)}
    with pytest.raises(ValueError, match=rf"MuZeroPlanner.{name}: found an integer of 16,610 bits"):
        build_planner("muzero", settings.pop("num_simulations"), **settings)


def test_several_groups_need_a_number_of_children():
    with pytest.raises(ValueError, match=r"BeamPlanner.num_children: found None with num_groups"):
        BeamPlanner(5, num_groups=2)


@pytest.mark.parametrize("name", PLANNER_NAMES)
def test_built_planner_is_frozen_and_plans(name):
    planner = build_planner(name, 6)
    with pytest.raises(FrozenInstanceError):
        planner.num_simulations = 3
    output = planner.plan(random_tables(1), torch.arange(4), generator=torch.Generator())
    assert (output.action.shape, output.value.shape) == ((4,), (4,))
    torch.testing.assert_close(output.action_weights.sum(dim=-1), torch.ones(4).double())


def test_names_are_known_without_torch():
    import subprocess
    import sys

    code = "import sys, search.planners.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

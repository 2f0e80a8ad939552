"""Planners by name, for YAML files and command lines.

A new planner is one file and one entry here. The fields of its dataclass are its settings, with
their defaults. Planner modules are imported when a planner is looked up, so names are known without
importing torch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from prefsearch.config.checks import shown

if TYPE_CHECKING:
    from search.planners.base import Planner

_PLANNERS: dict[str, tuple[str, Mapping[str, object]]] = {
    "best_of_n": ("search.planners.best_of_n:BestOfNPlanner", {}),
    "beam": ("search.planners.beam:BeamPlanner", {}),
    "dvts": (
        "search.planners.beam:BeamPlanner",
        {"beam_width": 1, "num_groups": 4, "num_children": 4},
    ),
    "rejection": ("search.planners.rejection:RejectionPlanner", {}),
    "controlled_decoding": ("search.planners.controlled_decoding:ControlledDecodingPlanner", {}),
    "muzero": ("search.planners.muzero:MuZeroPlanner", {}),
    "efficientzero": ("search.planners.muzero:MuZeroPlanner", {"mode": "efficientzero"}),
    "gumbel_muzero": ("search.planners.gumbel:GumbelMuZeroPlanner", {}),
}
"""Name to class, and the defaults that differ from the class's own."""

PLANNER_NAMES = tuple(_PLANNERS)
ALIASES = {"gumbel": "gumbel_muzero"}


def planner_name(name: str, *, setting: str = "planner") -> str:
    """The name of a planner, aliases resolved (`gumbel` is `gumbel_muzero`).

    Args:
        name: A name or an alias.
        setting: What errors call it.

    Raises:
        ValueError: If there is no such planner.
    """
    found = ALIASES.get(name, name)
    if found not in _PLANNERS:
        known = ", ".join(PLANNER_NAMES)
        raise ValueError(f"{setting}: found {shown(name)}; required: one of {known}")
    return found


def planner_settings(name: str) -> dict[str, object]:
    """The settings of a planner beside its budget, with their defaults.

    Raises:
        ValueError: If there is no such planner.
    """
    kind, preset = _find(name)
    fields = dataclasses.fields(cast(Any, kind))
    defaults = {field.name: field.default for field in fields if field.name != "num_simulations"}
    return defaults | dict(preset)


def build_planner(name: str, num_simulations: int, **settings: object) -> "Planner":
    """Builds the planner of a name.

    Args:
        name: One of `PLANNER_NAMES`, or an alias.
        num_simulations: The budget: model steps per root.
        settings: Some of `planner_settings(name)`.

    Raises:
        ValueError: If there is no such planner or setting, or a value is out of its range.
    """
    known = planner_settings(name)
    for setting in settings.keys() - known.keys():
        has = f"one of {', '.join(known)}" if known else "none"
        raise ValueError(f"{name}.{setting}: found a setting that {name} lacks; required: {has}")
    kind, preset = _find(name)
    return kind(num_simulations, **{**preset, **settings})


def _find(name: str) -> "tuple[Callable[..., Planner], Mapping[str, object]]":
    path, preset = _PLANNERS[planner_name(name)]
    return resolve_name(path), preset

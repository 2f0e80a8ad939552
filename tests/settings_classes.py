"""All dataclasses that hold settings, with values that each needs, and odd values to try."""

import dataclasses
import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from hypothesis import strategies as st

from prefsearch.cli.commands import COMMANDS
from prefsearch.config.settings import settings_of_class

PACKAGES = ("search", "rewardmodel", "policies", "atari_bridge", "prefsearch")
NOT_IMPORTED = {
    "search.backends.triton_kernels",
    "search.backends.triton_search",
}  # they need triton
NEEDED: dict[str, Any] = {
    "model": "m",
    "file": "f",
    "dataset": "d",
    "policy": "p",
    "reward_model": "r",
    "responses": "r",
    "checkpoint": "c",
    "out": "o.jsonl",
    "models": ["a", "b"],
    "runs": ["a", "b"],
}


def _checks(kind: type) -> bool:
    """Whether a class or one of its bases calls `check_types`."""
    made = (base.__dict__.get("__post_init__") for base in kind.__mro__)
    return any("check_types" in inspect.getsource(one) for one in made if inspect.isfunction(one))


@cache
def settings_classes() -> tuple[type, ...]:
    """Every dataclass of ours that checks its types."""
    found: dict[str, type] = {}
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for name in (module.name for module in pkgutil.walk_packages(path, f"{package}.")):
            if name in NOT_IMPORTED or name.endswith("__main__"):
                continue
            for kind in vars(importlib.import_module(name)).values():
                own = isinstance(kind, type) and kind.__module__ == name
                if own and dataclasses.is_dataclass(kind) and _checks(kind):
                    found[f"{name}.{kind.__name__}"] = kind
    return tuple(found.values())


@cache
def commands() -> dict[str, type]:
    """`reward train` and all others, each with its dataclass."""
    return {
        f"{name} {subcommand}".strip(): command.load_args()
        for name, group in COMMANDS.items()
        for subcommand, command in group.subcommands.items()
    }


def needed(kind: type) -> dict[str, Any]:
    """Values that a settings class cannot do without."""
    defaults = {name: one.default for name, one in settings_of_class(kind).items()}
    of_text = (str, type(None), list)
    return {n: v for n, v in NEEDED.items() if isinstance(defaults.get(n, 0), of_text)}


HUGE = (1e300, -1e300, 10**30, -(10**30), 10**5000, 10**18, 2**63, 2**32, 5e-324)
SCALARS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from(HUGE),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["\ud800", "a\0b", "nan", "1e-3", "null", "--out", "", "-5"]),
    st.booleans(),
    st.none(),
    st.binary(max_size=3),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.text(max_size=2), SCALARS, max_size=2),
)

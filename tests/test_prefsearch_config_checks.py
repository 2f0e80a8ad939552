"""Settings have bounds, and a wrong value of any kind is refused by its name."""

import contextlib
import dataclasses
import math
import re
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atari_bridge.learning.config import LearningConfig
from atari_bridge.training.config import AgentSettings
from policies.generation.proposals import Proposal
from policies.generation.tiny_model import TinyModel
from policies.planning.options import SearchOptions
from prefsearch.config import checks
from prefsearch.config.bounds import Seed, Within
from prefsearch.config.checks import (
    bounds_of,
    check_types,
    check_value,
    describe_bounds,
    holds_numbers,
    nearest,
    setting_hint,
    shown,
)
from prefsearch.config.settings import build, settings_of_class
from rewardmodel.data.formats.format import ConvertOptions
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig
from tests.settings_classes import HUGE, VALUES, needed, settings_classes

KNOWN = (
    *(OptimConfig, LossConfig, Proposal, SearchOptions, TinyModel, AgentSettings),
    *(SimulatedHuman, LearningConfig, ConvertOptions),
)


@dataclasses.dataclass
class Example:
    """Settings of every kind.

    Attributes:
        rate: A rate.
    """

    rate: Annotated[float, Within(gt=0, le=10)] = 1.0
    seed: Seed = 0
    steps: Annotated[int, Within(ge=8, le=99, unit="tokens")] | None = None
    sizes: list[Annotated[int, Within(ge=1, le=5)]] | None = None
    share: Annotated[float, Within(ge=0, lt=0.5)] = 0.0
    free: float = 0.0
    kind: Literal["x", "y"] = "x"
    name: str = "n"

    def __post_init__(self) -> None:
        check_types(self)


def test_every_known_settings_class_is_found() -> None:
    assert set(KNOWN) <= set(settings_classes())
    assert len(settings_classes()) > 35


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__qualname__)
def test_every_number_declares_a_lower_and_an_upper_bound(kind: type) -> None:
    for name in settings_of_class(kind):
        hint = setting_hint(kind, name)
        if holds_numbers(hint):
            bounds = bounds_of(hint)
            assert bounds, f"{kind.__name__}.{name} has no bounds; see prefsearch/config/bounds.py"
            assert all(bound.closed for bound in bounds), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__qualname__)
def test_no_number_may_be_huge_or_other_than_a_finite_number(kind: type) -> None:
    for name in settings_of_class(kind):
        hint = setting_hint(kind, name)
        if not holds_numbers(hint):
            continue
        bad = [math.nan, math.inf, -math.inf, 1e300, -1e300, 10**30, 10**5000, True, "1", {}]
        for value in bad:
            for given_value in (value, [value]):
                with pytest.raises(ValueError, match=rf"{name}: found "):
                    check_value(kind, name, given_value)


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__qualname__)
def test_defaults_lie_within_their_bounds(kind: type) -> None:
    build(kind, **needed(kind))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0}, "rate: found 0; required: more than 0 (at most 10)"),
        ({"rate": math.nan}, "rate: found nan; required: more than 0 (at most 10)"),
        ({"rate": 11}, "rate: found 11; required: more than 0 (at most 10)"),
        ({"rate": 10**5000}, "rate: found an integer of 16,610 bits; required: more than 0"),
        ({"rate": [1.0]}, "rate: found [1.0] (list); required: float. Correct it"),
        ({"rate": "1e-3"}, "rate: found '1e-3' (str); required: float"),
        ({"rate": None}, "rate: found None (NoneType); required: float"),
        ({"seed": -1}, "seed: found -1; required: 0 or more (at most 4,294,967,295)"),
        ({"seed": 2**32}, "seed: found 4294967296; required: 0 or more"),
        ({"seed": 1.0}, "seed: found 1.0 (float); required: int"),
        ({"steps": 7}, "steps: found 7; required: at least 8 tokens, or null (at most 99)"),
        ({"steps": True}, "steps: found True (bool); required: int or null"),
        ({"sizes": [1, 9]}, "sizes: found [1, 9]; required: each at least 1, or null (at most 5)"),
        ({"sizes": [1, "2"]}, "sizes: found [1, '2'] (list); required: a list of int or null"),
        ({"sizes": 3}, "sizes: found 3 (int); required: a list of int or null"),
        ({"share": 0.5}, "share: found 0.5; required: in [0, 0.5)"),
        ({"free": -math.inf}, "free: found -inf; required: finite numbers"),
        ({"kind": "z"}, "kind: found 'z' (str); required: one of 'x', 'y'"),
        ({"name": "a\0"}, r"name: found 'a\x00'; required: text without NUL and lone surrogates"),
        ({"name": "\ud800"}, r"name: found '\ud800'; required: text without NUL"),
    ],
)
def test_a_message_names_the_setting_the_value_and_the_bounds(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Example(**values)


@given(
    value=st.one_of(st.integers(), st.floats(), st.sampled_from(HUGE)),
    low=st.integers(-5, 5),
    high=st.integers(6, 20),
    open_low=st.booleans(),
    open_high=st.booleans(),
)
def test_bounds_hold_what_they_say(
    value: float, low: int, high: int, open_low: bool, open_high: bool
) -> None:
    lower = {"gt": low} if open_low else {"ge": low}
    upper = {"lt": high} if open_high else {"le": high}
    bounds = Within(**lower, **upper)  # type: ignore[arg-type]
    above = value > low if open_low else value >= low
    beneath = value < high if open_high else value <= high
    assert bounds.holds(value) == (above and beneath)
    assert bounds.closed


def test_bounds_are_described_in_words() -> None:
    assert describe_bounds(setting_hint(Example, "steps")) == (
        "at least 8 tokens, or null (at most 99)"
    )
    assert Within(gt=0, lt=1).describe() == "in (0, 1)"
    assert Within(ge=0, le=1).describe("null") == "in [0, 1], or null"
    assert Within(le=3).describe() == "a finite number (at most 3)"
    assert describe_bounds(str) == ""


def test_a_long_value_is_cut_in_messages() -> None:
    assert len(shown("x" * 10_000)) <= checks._SHOWN
    assert shown([10**5000]) == "a list"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list"


def test_the_nearest_word_is_found_by_its_beginning_too() -> None:
    known = ["dataset", "model", "max-depth"]
    assert nearest("dataset_name", known) == "did you mean dataset? "
    assert nearest("max_dept", known) == "did you mean max-depth? "
    assert nearest("da", known) == "did you mean dataset? "
    assert nearest("zzz", known) == ""


def check_one(kind: type, name: str, value: object) -> None:
    """One value for one setting: the settings are made, or a `ValueError` names what is wrong."""
    allowed = {name}
    with contextlib.suppress(ValueError):
        check_value(kind, name, value)
        # What is right by itself may not go with the others, which the message names then.
        allowed = {*settings_of_class(kind), "budget", "answers"}
    message = None
    try:
        build(kind, **{**needed(kind), name: value})
    except ValueError as error:
        message = str(error)
    if message is None:
        assert len(allowed) > 1, f"{kind.__name__} takes {name}={shown(value)}"
    else:
        named = message.partition(":")[0].replace(" ", "_")
        assert named in allowed
        assert len(message) < 600


CASES = st.sampled_from(
    [(kind, name) for kind in settings_classes() for name in settings_of_class(kind)]
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(case=CASES, value=VALUES)
def test_a_value_of_any_kind_is_taken_or_refused_by_name(
    case: tuple[type, str], value: object
) -> None:
    check_one(*case, value)


@pytest.mark.slow
@settings(
    max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(case=CASES, value=VALUES)
def test_values_of_any_kind_are_taken_or_refused_by_name_at_length(
    case: tuple[type, str], value: object
) -> None:
    check_one(*case, value)

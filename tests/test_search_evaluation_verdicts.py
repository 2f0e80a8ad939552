"""Verdicts, many of them at once, and how many seeds would decide."""

import numpy as np
import pytest

from search.evaluation.intervals import SeedInterval, interval_over_seeds
from search.evaluation.metrics import Interval
from search.evaluation.verdicts import (
    count_verdicts,
    describe_need,
    holm,
    power,
    seeds_needed,
    verdict,
)


def over(*means: float) -> SeedInterval:
    return interval_over_seeds([[mean] for mean in means])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 0.2, "gains"),
        (-0.2, -0.1, "loses"),
        (-0.1, 0.1, "is undecided"),
        (0.0, 0.2, "is undecided"),
        (-0.2, 0.0, "is undecided"),
    ],
)
def test_an_interval_that_holds_zero_decides_nothing(low: float, high: float, word: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high)) == word
    assert verdict(None) is None


def test_holm_compares_the_smallest_with_all_and_stops_at_the_first_that_fails() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.04]) == [True]
    assert holm([0.026, 0.026]) == [False, False]
    # 0.04 alone would pass, but 0.03 before it does not.
    assert holm([0.03, 0.04]) == [False, False]
    assert holm([]) == []


def test_a_table_says_how_many_comparisons_it_makes_and_what_stands() -> None:
    found = count_verdicts(
        {
            "beam, 4": over(1.0, 1.001, 0.999),
            "beam, 8": over(0.5, 0.6, 0.65),
            "MCTS, 4": over(0.1, -0.1, 0.2),
            "DVTS, 4": over(-0.5, -0.6, -0.62),
            "guided, 4": None,
        }
    )
    assert found.startswith("4 comparisons, each at 95 %: 2 gain, 1 lose, 1 undecided.")
    assert found.endswith("these stand: beam, 4, beam, 8, DVTS, 4.")
    weak = {f"method {i}": over(0.2, 0.5, 0.6) for i in range(3)}
    assert all(value.p_value > 0.05 / 3 for value in weak.values())
    assert count_verdicts(weak).endswith("these stand: none.")
    assert count_verdicts({}) == "Nothing was compared."


@pytest.mark.parametrize(("seeds", "difference"), [(3, 0.5), (5, 0.8), (8, 0.3), (20, 0.1)])
def test_power_is_how_often_the_interval_excludes_zero(seeds: int, difference: float) -> None:
    generator = np.random.default_rng(seeds)
    means = difference + 0.4 * generator.normal(size=(20_000, seeds))
    error = means.std(axis=1, ddof=1) / seeds**0.5
    half = (interval_over_seeds([[0.0], [1.0]] + [[0.5]] * (seeds - 2)).high - 0.5) / (
        interval_over_seeds([[0.0], [1.0]] + [[0.5]] * (seeds - 2)).standard_error
    )
    share = (abs(means.mean(axis=1)) > half * error).mean()
    assert power(seeds, deviation=0.4, difference=difference) == pytest.approx(share, abs=0.012)


def test_without_a_difference_the_power_is_the_level() -> None:
    assert power(5, deviation=1.0, difference=0.0) == pytest.approx(0.05)
    assert power(5, deviation=1.0, difference=0.0, confidence=0.9) == pytest.approx(0.1)


def test_the_number_of_seeds_is_the_first_that_has_the_power() -> None:
    # A textbook case: two-sided 5 %, 80 % power, a difference of one standard deviation: 10.
    pilot = [0.0, 1.0, -1.0]
    assert seeds_needed(pilot, difference=1.0) == 10
    assert seeds_needed(pilot, difference=-1.0) == 10
    assert seeds_needed(pilot, difference=0.5) == 34
    for difference in (0.2, 0.7, 2.0):
        found = seeds_needed(pilot, difference=difference)
        assert power(found, deviation=1.0, difference=difference) >= 0.8
        assert power(found - 1, deviation=1.0, difference=difference) < 0.8
    assert seeds_needed([1.0, 1.0], difference=0.1) == 2
    assert seeds_needed([1.0, -1.0], difference=1e-5) == 10_000
    assert seeds_needed(pilot, difference=1e9) == 2


@pytest.mark.parametrize(
    ("pilot", "options", "message"),
    [
        ([1.0], {"difference": 1.0}, "required at least 2"),
        ([1.0, 2.0], {"difference": 0.0}, "difference is 0"),
        ([1.0, 2.0], {"difference": 1.0, "chance": 80}, "chance is 80"),
    ],
)
def test_what_says_nothing_of_power_is_refused(
    pilot: list[float], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        seeds_needed(pilot, **options)  # pyright: ignore


def test_undecided_comparisons_say_how_many_seeds_would_decide() -> None:
    found = describe_need(
        {"a": over(1.0, 0.0, -1.0), "b": over(0.0, 0.01, -0.01), "c": over(5.0, 5.1, 5.2)},
        difference=1.0,
    )
    assert "2 to 10 seeds would decide a true difference of 1 " in found
    assert describe_need({"c": over(5.0, 5.1, 5.2), "d": None}, difference=1.0) == ""
    one = interval_over_seeds([[1.0, -1.0]])
    assert describe_need({"one seed": one}, difference=1.0) == ""

"""Verdicts, many of them at once, and how many seeds would decide."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from prefsearch.statistics.intervals import Interval
from prefsearch.statistics.seed_intervals import (
    SeedInterval,
    interval_over_seeds,
    seed_interval_from,
)
from prefsearch.statistics.significance import (
    count_verdicts,
    describe_required_seeds,
    holm,
    power,
    seeds_needed,
    upper_deviation,
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
    # The second of two is compared with the whole level, the second of three with half of it.
    assert holm([0.001, 0.04]) == [True, True]
    assert holm([0.001, 0.02, 0.9]) == [True, True, False]
    assert holm([0.001, 0.03, 0.9]) == [True, False, False]


def test_what_does_not_vary_decides_nothing_and_never_stands() -> None:
    equal = {
        "seeds": over(1.0, 1.0, 1.0),
        "seeds but for rounding": interval_over_seeds([[0.1] * 7, [0.1] * 10]),
        "seeds of right answers": interval_over_seeds([[1.0] * 30] * 2),
        "seeds that share prompts": interval_over_seeds([[5.0, 6.0]] * 2, clusters=["ab"] * 2),
        "scores": interval_over_seeds([[2.5, 2.5, 2.5]]),
        "too few": interval_over_seeds([[1.0, 1.0, 1.0]]),
    }
    for name, value in equal.items():
        assert verdict(value) == "is undecided", name
        assert value.p_value == 1.0, name
    assert count_verdicts(equal).endswith("at 5 %: none.")
    sure = interval_over_seeds([[1.0] * 8])
    assert verdict(sure) == "gains"
    assert sure.p_value == pytest.approx(2 * 0.5**8), "eight of eight are no chance"


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
    assert found.endswith("at 5 %: beam, 4, beam, 8, DVTS, 4.")
    weak = {f"method {i}": over(0.2, 0.5, 0.6) for i in range(3)}
    assert all(value.p_value > 0.05 / 3 for value in weak.values())
    assert count_verdicts(weak).endswith("at 5 %: none.")
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


def test_power_with_shared_prompts_is_how_often_the_interval_excludes_zero() -> None:
    generator = np.random.default_rng(0)
    labels = [list(range(30))] * 4
    found = []
    for _ in range(1500):
        own = 0.2 * generator.normal(size=(4, 1)) + 0.3 * generator.normal(size=(4, 30))
        interval = interval_over_seeds(list(0.4 + generator.normal(size=30) / 2 + own),
                                       clusters=labels)  # fmt: skip
        found.append(interval.low > 0 or interval.high < 0)
    expected = power(
        4,
        deviation=(0.2**2 + 0.3**2 / 30) ** 0.5,
        difference=0.4,
        shared_error=0.5 / 30**0.5,
        shared_degrees=29,
    )
    assert np.mean(found) == pytest.approx(expected, abs=0.03)


def test_the_power_does_not_jump_where_it_is_computed_otherwise() -> None:
    found = [power(n, deviation=1.0, difference=0.2) for n in range(195, 206)]
    assert np.diff(found) == pytest.approx([0.0019] * 10, abs=2e-4)
    small = power(20, deviation=1.0, difference=0.5, shared_error=1e-6, shared_degrees=9)
    assert small == pytest.approx(power(20, deviation=1.0, difference=0.5), abs=1e-3)
    assert power(np.inf, deviation=1.0, difference=0.1) == 1.0
    assert power(np.inf, deviation=1.0, difference=0.0) == pytest.approx(0.05)
    limit = power(np.inf, deviation=1.0, difference=0.1, shared_error=0.1, shared_degrees=99)
    assert 0.1 < limit < 0.3, "more seeds on the same prompts do not lessen their part"


def test_the_number_of_seeds_is_the_first_that_has_the_power() -> None:
    pilot = [0.0, 1.0, -1.0]
    # With this assurance the bound is the deviation itself. A textbook case: two-sided 5 %, 80 %
    # power, a difference of one standard deviation: 10.
    at_the_deviation = {"assurance": float(stats.chi2.sf(2.0, 2))}
    assert seeds_needed(pilot, difference=1.0, **at_the_deviation) == 10
    assert seeds_needed(pilot, difference=-1.0, **at_the_deviation) == 10
    assert seeds_needed(pilot, difference=0.5, **at_the_deviation) == 34
    for difference in (0.2, 0.7, 2.0):
        found = seeds_needed(pilot, difference=difference)
        assert found is not None
        deviation = upper_deviation(1.0, 2)
        assert power(found, deviation=deviation, difference=difference) >= 0.8
        assert power(found - 1, deviation=deviation, difference=difference) < 0.8
    assert seeds_needed([1.0, -1.0], difference=1e-5) == 10_000
    assert seeds_needed(pilot, difference=1e9) == 2
    assert seeds_needed(pilot, difference=1.0, shared_error=1.0, shared_degrees=9) is None


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_most_pilots_lead_to_numbers_that_have_the_promised_power(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    reached = []
    for _ in range(200):
        found = seeds_needed(generator.normal(0.1, 0.3, size=seeds), difference=0.3)
        assert found is not None
        reached.append(power(found, deviation=0.3, difference=0.3) >= 0.8)
    assert np.mean(reached) >= 0.8 - 2 * (0.8 * 0.2 / 200) ** 0.5


@pytest.mark.parametrize(
    ("pilot", "options", "message"),
    [
        ([1.0], {"difference": 1.0}, "required at least 2"),
        ([1.0, 2.0], {"difference": 0.0}, "difference is 0"),
        ([1.0, 2.0], {"difference": 1.0, "chance": 80}, "chance is 80"),
        ([1.0, 2.0], {"difference": 1.0, "confidence": 1.5}, "confidence is 1.5"),
        ([1.0, 2.0], {"difference": 1.0, "assurance": 0.0}, "assurance is 0"),
        ([0.3, 0.3], {"difference": 1.0}, "2 seeds that are all 0.3, required at least two"),
    ],
)
def test_what_says_nothing_of_power_is_refused(
    pilot: list[float], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        seeds_needed(pilot, **options)  # pyright: ignore


def test_undecided_comparisons_say_how_many_seeds_would_decide() -> None:
    found = describe_required_seeds(
        {
            "a": over(1.0, 0.0, -1.0),
            "b": over(0.0, 0.01, -0.01),
            "c": over(5.0, 5.1, 5.2),
            "d": over(0.6, 0.0, -0.6),
        },
        difference=1.0,
    )
    # "b" would need two; three were run.
    assert "3 to 38 seeds would decide a true difference of 1 " in found
    assert found.endswith("(median 15).")
    assert describe_required_seeds({"c": over(5.0, 5.1, 5.2), "d": None}, difference=1.0) == ""
    one = interval_over_seeds([[1.0, -1.0]])
    assert describe_required_seeds({"one seed": one}, difference=1.0) == ""


def test_where_shared_prompts_are_too_few_no_number_of_seeds_is_named() -> None:
    generator = np.random.default_rng(0)
    prompts = generator.normal(0.05, 1.0, size=50)
    seeds = [prompts + 0.05 * generator.normal(size=50) for _ in range(3)]
    shared = interval_over_seeds(seeds, clusters=[list(range(50))] * 3)
    assert verdict(shared) == "is undecided"
    found = describe_required_seeds({"x": shared}, difference=0.2)
    assert "for 1 comparison no number of seeds on the same prompts would decide" in found
    assert "more prompts are needed" in found
    assert "four of five" not in found
    # A difference that these prompts can show.
    found = describe_required_seeds({"x": shared}, difference=1.0)
    assert " 3 seeds would decide a true difference of 1 " in found
    # The older form, in which the parts of the error are not named.
    row = asdict(shared)
    for name in ("between_error", "shared_error", "exact_p"):
        del row[name]
    read = seed_interval_from(json.loads(json.dumps(row)))
    assert read.shared_error == pytest.approx(shared.shared_error)
    assert "more prompts are needed" in describe_required_seeds({"x": read}, difference=0.2)


def test_seeds_that_do_not_differ_leave_the_number_unknown() -> None:
    found = describe_required_seeds({"x": over(0.0, 0.0), "y": over(2.0, 2.0)}, difference=0.2)
    assert found.startswith("Undecided: for 2 comparisons the number of seeds needed is unknown")

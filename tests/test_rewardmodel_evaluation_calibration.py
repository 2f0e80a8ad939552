"""Calibration: a known temperature is recovered, and what is calibrated is said to be."""

import numpy as np
import pytest
from scipy.special import expit

from rewardmodel.evaluation.calibration import (
    adaptive_ece,
    both_orders_ece,
    calibrate,
    fit_temperature,
    reliability_bins,
)


def simulate(count: int, *, temperature: float, seed: int = 0):
    """Margins whose pairs come out with probability sigmoid(margin / temperature)."""
    generator = np.random.default_rng(seed)
    margins = generator.normal(scale=2.0, size=count) * temperature
    outcomes = generator.random(count) < expit(margins / temperature)
    # As datasets hold them: the better reply first.
    return np.where(outcomes, margins, -margins), np.ones(count), np.arange(count)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_known_temperature_is_recovered_and_lies_in_its_interval(temperature):
    margins, labels, groups = simulate(4000, temperature=temperature)
    found = calibrate(margins, labels, groups, seed=0)
    assert found.temperature.estimate == pytest.approx(temperature, rel=0.1)
    assert found.temperature.low < temperature < found.temperature.high
    assert found.identified
    assert len(found.fold_temperatures) == 5
    assert found.ece_after < 0.03
    assert found.adaptive_ece_after < 0.03


def test_calibrated_margins_have_almost_no_error_and_overconfident_ones_are_mended_out_of_fold():
    margins, labels, groups = simulate(20000, temperature=1.0)
    assert both_orders_ece(margins, labels) < 0.01
    assert adaptive_ece(margins, labels) < 0.01
    found = calibrate(4 * margins[:3000], labels[:3000], groups[:3000], seed=0)
    assert found.ece_before > 0.1
    assert found.ece_after < 0.03
    assert found.log_loss_change.high < 0
    assert found.log_loss_change.estimate == pytest.approx(
        found.log_loss_after.estimate - found.log_loss_before.estimate
    )


def test_soft_labels_have_their_own_temperature():
    margins = np.random.default_rng(0).normal(size=500)
    assert fit_temperature(margins, expit(margins / 2.5)) == pytest.approx(2.5, rel=1e-4)


def test_temperature_of_margins_that_say_nothing_or_everything_is_at_its_bound():
    generator = np.random.default_rng(0)
    groups = np.arange(50)
    wrong = -np.abs(generator.normal(size=50))
    assert not calibrate(wrong, np.ones(50), groups, seed=0).identified
    assert not calibrate(-wrong, np.ones(50), groups, seed=0).identified


def test_temperature_does_not_depend_on_the_order_of_a_pair():
    margins, _, groups = simulate(300, temperature=2.0)
    flip = np.arange(300) % 2 == 0
    one = calibrate(margins, np.ones(300), groups, seed=0)
    other = calibrate(np.where(flip, -margins, margins), np.where(flip, 0.0, 1.0), groups, seed=0)
    assert other.temperature.estimate == pytest.approx(one.temperature.estimate, rel=1e-6)
    assert other.ece_before == pytest.approx(one.ece_before)
    assert other.reliability_after[0].pairs == one.reliability_after[0].pairs


def test_reliability_bins_agree_with_a_count_by_hand():
    # Probabilities .88 and .27 of the better reply; in the other order .12 and .73.
    margins = np.array([2.0, -1.0])
    bins = reliability_bins(margins, np.ones(2), np.arange(2))
    assert [(b.low, b.pairs, b.observed.estimate) for b in bins] == [
        (0.1, 1, 0.0),
        (0.2, 1, 1.0),
        (0.7, 1, 0.0),
        (0.8, 1, 1.0),
    ]
    assert bins[3].stated == pytest.approx(expit(2.0))
    assert all(b.observed.low <= b.observed.estimate <= b.observed.high for b in bins)


def test_adaptive_bins_do_not_depend_on_the_order_of_equal_probabilities():
    margins = np.repeat([0.0, 1.0], 50)
    labels = np.random.default_rng(0).random(100).round()
    order = np.random.default_rng(1).permutation(100)
    assert adaptive_ece(margins[order], labels[order]) == pytest.approx(
        adaptive_ece(margins, labels)
    )


def test_margins_that_are_all_zero_are_refused():
    with pytest.raises(ValueError, match="all 4 margins are 0"):
        fit_temperature(np.zeros(4), np.ones(4))
    with pytest.raises(ValueError, match=r"margins\[1\] is nan"):
        fit_temperature(np.array([1.0, np.nan]), np.ones(2))

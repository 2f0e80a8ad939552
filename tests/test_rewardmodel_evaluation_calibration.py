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
from rewardmodel.evaluation.clustered import prompt_folds


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


def test_each_fold_is_tempered_by_what_was_fitted_to_the_others():
    # Three pairs a prompt, so that a pair's own prompt would give it away.
    margins, labels, _ = simulate(120, temperature=2.0, seed=3)
    groups = np.repeat(np.arange(40), 3)
    found = calibrate(margins, labels, groups, seed=7)
    folds = prompt_folds(groups, 5, seed=7)
    assert all(len(set(folds[groups == prompt])) == 1 for prompt in range(40))
    tempered = np.empty(120)
    for fold, temperature in zip(range(5), found.fold_temperatures, strict=True):
        rest = folds != fold
        # An own search for the least log loss, to the third digit.
        grid = np.geomspace(0.2, 20, 20_000)[:, None]
        losses = np.logaddexp(0, -margins[rest] / grid) * labels[rest]
        losses += np.logaddexp(0, margins[rest] / grid) * (1 - labels[rest])
        best = float(grid[losses.sum(axis=1).argmin(), 0])
        assert temperature == pytest.approx(best, rel=1e-3)
        tempered[~rest] = margins[~rest] / temperature
    assert len({round(t, 6) for t in found.fold_temperatures}) == 5
    after = np.logaddexp(0, -tempered) * labels + np.logaddexp(0, tempered) * (1 - labels)
    assert found.log_loss_after.estimate == pytest.approx(after.mean())
    assert found.ece_after == pytest.approx(both_orders_ece(tempered, labels))
    assert found.adaptive_ece_after == pytest.approx(adaptive_ece(tempered, labels))


def test_a_temperature_out_of_fold_does_not_flatter():
    # With few pairs a temperature fitted to all of them lies below the loss that it would have on
    # others; out of fold it may not.
    gains = []
    for seed in range(20):
        margins, labels, groups = simulate(30, temperature=1.0, seed=seed)
        best = fit_temperature(margins, labels)
        inside = np.logaddexp(0, -margins / best) * labels
        inside += np.logaddexp(0, margins / best) * (1 - labels)
        gains.append(calibrate(margins, labels, groups, seed=0).log_loss_after.estimate
                     - inside.mean())  # fmt: skip
    assert min(gains) > 0


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

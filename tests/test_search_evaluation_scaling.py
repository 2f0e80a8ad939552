"""Fits recover the laws that made the data, and refuse what the data cannot say."""

import math

import numpy as np
import pytest

from prefsearch.statistics.best_of_n import best_of_n_kl
from search.evaluation.scaling import (
    FitRefusedError,
    best_of_n_coefficients,
    best_of_n_from_kl,
    fit_best_of_n,
    fit_log_linear,
)

KL = np.array([best_of_n_kl(n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)])
DISTANCE = np.sqrt(KL)


@pytest.mark.parametrize("offset", [0.0, -3.0])
def test_fit_recovers_known_coefficients_whatever_the_offset(offset: float) -> None:
    fit = fit_best_of_n(KL, offset + DISTANCE * (1.2 - 0.5 * DISTANCE))
    assert (fit.alpha, fit.beta, fit.offset) == pytest.approx((1.2, 0.5, offset))
    assert fit.r_squared == pytest.approx(1.0)
    peak = fit.peak()
    assert peak.distance == pytest.approx(1.2)
    assert peak.gain == pytest.approx(0.72)
    assert best_of_n_kl(10) < 1.2**2 < best_of_n_kl(12)
    assert 10 < peak.best_of_n < 12
    assert not peak.extrapolated
    fine = np.linspace(0, 2, 10_001) ** 2
    assert fine[np.argmax(fit.predict(fine))] == pytest.approx(peak.distance**2, rel=1e-3)


def test_fit_has_no_intercept_and_ignores_the_order_of_points() -> None:
    noisy = 0.3 + DISTANCE * (1.0 - 0.2 * DISTANCE) + np.random.default_rng(0).normal(0, 0.05, 9)
    fit, backwards = fit_best_of_n(KL, noisy), fit_best_of_n(KL[::-1], noisy[::-1])
    assert fit.alpha == pytest.approx(backwards.alpha)
    assert fit.predict(0.0) == pytest.approx(noisy[0])
    # The normal equations hold: the residual is orthogonal to d and to d^2.
    residual = (noisy - fit.predict(KL))[1:]
    assert residual @ DISTANCE[1:] == pytest.approx(0, abs=1e-12)
    assert residual @ KL[1:] == pytest.approx(0, abs=1e-12)


def test_peak_is_refused_without_overoptimization_and_flagged_beyond_the_data() -> None:
    rising = fit_best_of_n(KL, DISTANCE * (1.0 + 0.1 * DISTANCE))
    with pytest.raises(FitRefusedError, match="no over-optimization"):
        rising.peak()
    falling = fit_best_of_n(KL, DISTANCE * (-0.5 - 0.1 * DISTANCE))
    with pytest.raises(FitRefusedError, match="falls from the start"):
        falling.peak()
    late = fit_best_of_n(KL, DISTANCE * (1.0 - 0.1 * DISTANCE)).peak()
    assert late.distance == pytest.approx(5.0)
    assert late.extrapolated


def test_fit_refuses_too_few_points_and_a_missing_start() -> None:
    with pytest.raises(FitRefusedError, match="found 2 distinct"):
        fit_best_of_n(KL[:3], np.zeros(3))
    with pytest.raises(FitRefusedError, match="found 1 distinct"):
        fit_best_of_n([0.0, 1.0, 1.0, 1.0], np.zeros(4))
    with pytest.raises(ValueError, match="include 0"):
        fit_best_of_n(KL[1:], np.zeros(8))
    with pytest.raises(ValueError, match="not finite"):
        fit_best_of_n(KL, np.full(9, math.nan))
    with pytest.raises(ValueError, match=r"required \[L\]"):
        fit_best_of_n(KL, np.zeros((2, 9)))


def test_coefficients_of_prompts_have_the_fit_of_the_mean_curve_as_their_mean() -> None:
    generator = np.random.default_rng(1)
    alphas = generator.normal(1.0, 0.3, size=(100, 1))
    scores = 2.0 + DISTANCE * (alphas - 0.3 * DISTANCE) + generator.normal(0, 0.05, (100, 9))
    fit = fit_best_of_n(KL, scores.mean(axis=0))
    alpha, beta = best_of_n_coefficients(KL, scores)
    assert alpha.mean() == pytest.approx(fit.alpha)
    assert beta.mean() == pytest.approx(fit.beta)
    assert alpha.mean() == pytest.approx(alphas.mean(), abs=0.06)
    assert beta.mean() == pytest.approx(0.3, abs=0.03)
    assert alpha.std() == pytest.approx(0.3, rel=0.4)  # mostly the prompts' own


@pytest.mark.parametrize("n", [1, 2, 3, 16, 1000, 10**9])
def test_best_of_n_from_kl_inverts_the_formula(n: int) -> None:
    assert best_of_n_from_kl(best_of_n_kl(n)) == pytest.approx(n, rel=1e-6)


def test_best_of_n_from_kl_at_its_edges() -> None:
    # For small x = ln n the KL is x^2 / 2.
    assert best_of_n_from_kl(1e-10) - 1 == pytest.approx(math.sqrt(2e-10), rel=1e-3)
    assert best_of_n_from_kl(1e4) == math.inf
    with pytest.raises(ValueError, match="at least 0"):
        best_of_n_from_kl(-0.1)


def test_log_linear_fit_matches_least_squares() -> None:
    cost = np.array([10.0, 30.0, 100.0, 1000.0])
    exact = fit_log_linear(cost, 0.5 + 0.2 * np.log(cost))
    assert (exact.intercept, exact.slope, exact.r_squared) == pytest.approx((0.5, 0.2, 1.0))
    noisy = np.array([1.0, 0.0, 3.0, 2.5])
    fit = fit_log_linear(cost, noisy)
    slope, intercept = np.polyfit(np.log(cost), noisy, 1)
    assert (fit.slope, fit.intercept) == pytest.approx((slope, intercept))
    assert fit.r_squared == pytest.approx(np.corrcoef(np.log(cost), noisy)[0, 1] ** 2)
    assert (fit.lowest, fit.highest) == (10.0, 1000.0)


def test_log_linear_fit_refuses_two_costs() -> None:
    with pytest.raises(FitRefusedError, match="at least 3"):
        fit_log_linear([1.0, 2.0, 2.0], [0.0, 1.0, 1.1])
    with pytest.raises(ValueError, match="positive"):
        fit_log_linear([0.0, 1.0, 2.0], [0.0, 1.0, 1.1])

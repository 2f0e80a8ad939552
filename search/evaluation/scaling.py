"""Scaling laws fitted to measured curves: over-optimization in KL, gains in log compute.

A fit carries the range of its points, so that reports can mark extrapolation. L is points of a
curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class FitRefusedError(ValueError):
    """The data do not support a fit; the message names what would."""


@dataclass(frozen=True)
class Peak:
    """Where a fitted gain is largest.

    Attributes:
        distance: d* = alpha / (2 beta), the root of a KL in nats.
        gain: R* = alpha^2 / (4 beta), in the score's unit, over the score at KL 0.
        best_of_n: the n whose KL is d*^2, as a real number; infinite beyond float range.
        extrapolated: True where d* is beyond the last fitted point: report it as an extrapolation.
    """

    distance: float
    gain: float
    best_of_n: float
    extrapolated: bool


@dataclass(frozen=True)
class BestOfNFit:
    """Gain against distance, R(d) = d (alpha - beta d), with d the root of the KL in nats.

    Attributes:
        alpha: initial slope, score per root-nat.
        beta: how fast over-optimization sets in, score per nat.
        offset: score at KL 0, subtracted before the fit.
        r_squared: share of the recentered gains' sum of squares that the fit explains (about zero,
            as the fit has no intercept); NaN where all gains are 0.
        farthest: largest fitted distance d.
    """

    alpha: float
    beta: float
    offset: float
    r_squared: float
    farthest: float

    def predict(self, kl: ArrayLike) -> Array:
        """Return the score (offset included) at each KL in nats, any shape."""
        distance = np.sqrt(np.asarray(kl, dtype=np.float64))
        return self.offset + distance * (self.alpha - self.beta * distance)

    def peak(self) -> Peak:
        """Return the peak of the fitted gain.

        Raises:
            FitRefusedError: beta <= 0, so the curve never turns down, or alpha <= 0, so it never
                rises.
        """
        if self.beta <= 0:
            raise FitRefusedError(
                f"beta is {self.beta:.3g}: within d <= {self.farthest:.3g} no over-optimization "
                "shows, so there is no peak to report; raise n until the score falls"
            )
        if self.alpha <= 0:
            raise FitRefusedError(
                f"alpha is {self.alpha:.3g}: the score falls from the start, so its peak is no "
                "search at all; check that the reward model predicts this score"
            )
        distance = self.alpha / (2 * self.beta)
        return Peak(
            distance=distance,
            gain=self.alpha**2 / (4 * self.beta),
            best_of_n=best_of_n_from_kl(distance**2),
            extrapolated=distance > self.farthest,
        )


@dataclass(frozen=True)
class LogLinearFit:
    """A score that grows with log cost, s = intercept + slope * ln(x).

    Attributes:
        intercept: score at x = 1, usually far outside the fitted range.
        slope: score per e-fold of cost; times ln 2 it is the gain of a doubling.
        r_squared: share of the scores' variance explained; NaN where all scores are equal.
        lowest: smallest fitted cost.
        highest: largest fitted cost.
    """

    intercept: float
    slope: float
    r_squared: float
    lowest: float
    highest: float


def fit_best_of_n(kl: ArrayLike, score: ArrayLike) -> BestOfNFit:
    """Fit the best-of-n over-optimization law to one curve.

    The gain is recentered on the score measured at KL 0 (n = 1), so that R(0) = 0, and alpha and
    beta come from least squares without an intercept on [d, -d^2].

    Args:
        kl: [L] in nats, one of them 0, such as `best_of_n_kl(n)` for several n.
        score: [L] mean score at each KL, gold or proxy.

    Raises:
        ValueError: the shapes differ, a value is not finite, a KL is negative, or none is 0.
        FitRefusedError: fewer than three distinct KLs above 0.

    Source: Gao et al. 2022, the best-of-n form R = d (alpha - beta d).
    """
    distance, gain, offset = _recentered(kl, score)
    if gain.ndim != 1:
        raise ValueError(
            f"score has {gain.ndim} axes, required [L]: fit the mean over prompts, and see "
            "best_of_n_coefficients for prompts"
        )
    coefficients, *_ = np.linalg.lstsq(_design(distance), gain, rcond=None)
    alpha, beta = (float(c) for c in coefficients)
    residual = gain - _design(distance) @ coefficients
    return BestOfNFit(
        alpha=alpha,
        beta=beta,
        offset=float(offset),
        r_squared=_explained(residual, gain),
        farthest=float(distance.max()),
    )


def best_of_n_coefficients(kl: ArrayLike, scores: ArrayLike) -> Array:
    """Each prompt's own alpha and beta, [2, P]; their mean is the fit of the mean curve.

    Args:
        kl: [L] in nats, one of them 0.
        scores: [P, L] each prompt's score at each KL.

    Raises:
        ValueError: as `fit_best_of_n`.
        FitRefusedError: fewer than three distinct KLs above 0.
    """
    distance, gains, _ = _recentered(kl, scores)
    if gains.ndim != 2:
        raise ValueError(f"scores has shape {list(gains.shape)}, required [P, L]")
    coefficients, *_ = np.linalg.lstsq(_design(distance), gains.T, rcond=None)
    return np.asarray(coefficients, dtype=np.float64)


def best_of_n_from_kl(kl: float) -> float:
    """Return the real n >= 1 with `ln n - (n - 1) / n` equal to a KL in nats.

    Raises:
        ValueError: the KL is negative or not finite.
    """
    if not (math.isfinite(kl) and kl >= 0):
        raise ValueError(f"kl is {kl}, required finite and at least 0")
    if kl == 0:
        return 1.0
    # With x = ln n solve x + exp(-x) - 1 = kl. The left side is convex and increasing, and above kl
    # at x = kl + 1, so Newton's method comes down to the root from there without overshooting.
    log_n = kl + 1.0
    for _ in range(100):
        step = (log_n + math.expm1(-log_n) - kl) / -math.expm1(-log_n)
        log_n -= step
        if step <= 1e-13 * log_n:
            break
    return math.exp(log_n) if log_n < 700 else math.inf


def fit_log_linear(cost: ArrayLike, score: ArrayLike) -> LogLinearFit:
    """Fit s = a + b ln x by least squares.

    Args:
        cost: [L] positive, such as generated tokens.
        score: [L] mean score at each cost.

    Raises:
        ValueError: the shapes differ, a value is not finite, or a cost is not positive.
        FitRefusedError: fewer than three distinct costs; through two points any line fits.
    """
    x, y = _pair(cost, score)
    if (x <= 0).any():
        raise ValueError(f"cost is {x.tolist()}, required positive")
    distinct = np.unique(x).size
    if distinct < 3:
        raise FitRefusedError(f"found {distinct} distinct cost(s), required at least 3: run more")
    log_cost = np.log(x)
    centered = log_cost - log_cost.mean()
    slope = float(centered @ (y - y.mean()) / (centered @ centered))
    intercept = float(y.mean() - slope * log_cost.mean())
    residual = y - (intercept + slope * log_cost)
    return LogLinearFit(
        intercept=intercept,
        slope=slope,
        r_squared=_explained(residual, y - y.mean()),
        lowest=float(x.min()),
        highest=float(x.max()),
    )


def _design(distance: Array) -> Array:
    """Columns d and -d^2 of the best-of-n law, [L, 2]."""
    return np.stack([distance, -(distance**2)], axis=1)


def _explained(residual: Array, target: Array) -> float:
    total = float(target @ target)
    return 1.0 - float(residual @ residual) / total if total > 0 else math.nan


def _recentered(kl: ArrayLike, score: ArrayLike) -> tuple[Array, Array, Array]:
    """Check a curve and return its distances [L'], gains [..., L'] and offset [...] at KL 0."""
    x, y = _pair(kl, score)
    if (x < 0).any():
        raise ValueError(f"kl is {x.tolist()}, required at least 0")
    start = x == 0
    if not start.any():
        raise ValueError(
            f"kl is {x.tolist()}, required to include 0: add the score at n = 1, on which the "
            "gain is centered"
        )
    distinct = np.unique(x[~start]).size
    if distinct < 3:
        raise FitRefusedError(
            f"found {distinct} distinct KL(s) above 0, required at least 3 for two coefficients: "
            "add values of n"
        )
    offset = y[..., start].mean(axis=-1)
    return np.sqrt(x[~start]), y[..., ~start] - offset[..., None], offset


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Convert [L] and [..., L], refusing other shapes and values that are not finite."""
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or second.ndim < 1 or second.shape[-1] != first.shape[0]:
        raise ValueError(
            f"found shapes {list(first.shape)} and {list(second.shape)}, required [L] and [L]"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("found a value that is not finite: drop the failed points before fitting")
    return first, second

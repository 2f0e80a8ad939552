"""Intervals of means and proportions over prompts.

The unit of sampling is the prompt, since responses to one prompt are not independent; intervals
over training seeds are in `seed_intervals`. P is prompts, S seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Resampled means are made in blocks of this many drawn values, to bound memory at 32 MB.
_BLOCK_VALUES = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, all three in the estimate's unit."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format as `estimate [low, high]`, to two digits of the interval's width."""
        width = self.high - self.low
        if not (math.isfinite(width) and width > 0):
            return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"
        decimals = min(12, max(0, 1 - math.floor(math.log10(width))))
        values = (self.estimate, self.low, self.high)
        # Adding zero turns a rounded -0.0 into 0.0.
        estimate, low, high = (f"{round(v, decimals) + 0.0:.{decimals}f}" for v in values)
        return f"{estimate} [{low}, {high}]"


def bootstrap_interval(
    values: ArrayLike, *, seed: int, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap of the mean over prompts.

    With seeds, every resample holds each seed equally often (stratified), and a drawn prompt
    brings its values under all seeds. Drawing prompts apart for each seed would treat the same
    prompt's values as independent and give intervals that are too narrow. The interval is over
    prompts, given these seeds: for other seeds use
    `intervals.interval_over_seeds`.

    Args:
        values: [P], or [S, P] with column p the same prompt under each seed.
        seed: of the resampling.
        confidence: coverage aimed at, in (0, 1).
        resamples: number of bootstrap means.

    Raises:
        ValueError: fewer than two prompts, a value that is not finite, or an argument out of range.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile interval).
    """
    array = finite(values, "values")
    if array.ndim not in (1, 2):
        raise ValueError(f"values has shape {list(array.shape)}, required [P] or [S, P]")
    prompts = array.shape[-1]
    if prompts < 2 or not array.size:
        raise ValueError(
            f"values has shape {list(array.shape)}: an interval over prompts needs at least 2 "
            "prompts under at least one seed; evaluate more"
        )
    per_prompt: Array = array if array.ndim == 1 else array.mean(axis=0)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, required at least 1")
    tail = _tail(confidence)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_VALUES // prompts)
    means = np.concatenate(
        [
            per_prompt[
                generator.integers(prompts, size=(min(block, resamples - done), prompts))
            ].mean(axis=1)
            for done in range(0, resamples, block)
        ]
    )
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(per_prompt.mean()), float(low), float(high))


def wilson_interval(successes: float, total: float, *, confidence: float = 0.95) -> Interval:
    """A proportion with its Wilson score interval, sound for small samples and near 0 and 1.

    `successes` may be fractional where a tie counts half; the interval is then slightly wide.
    `total` may be where samples are clustered: their effective number.

    Raises:
        ValueError: `total` is below 1 or `successes` is outside [0, total].

    Source: Wilson 1927.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(
            f"found {successes} successes of {total}, required total >= 1 and 0 <= successes <= "
            "total"
        )
    z = NormalDist().inv_cdf(1 - _tail(confidence))
    rate = min(1.0, successes / total)
    scale = 1.0 + z * z / total
    center = (rate + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    # At 0 and at `total` the bound equals the rate; rounding must not put it on the wrong side.
    return Interval(rate, max(0.0, min(rate, center - half)), min(1.0, max(rate, center + half)))


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, required inside (0, 1), such as 0.95")
    return (1.0 - confidence) / 2.0


def finite(
    values: ArrayLike,
    name: str,
    *,
    remedy: str = "drop or repair the failed entries before averaging",
) -> Array:
    """Convert to float64; raises on NaN and infinities."""
    array = np.asarray(values, dtype=np.float64)
    known = np.isfinite(array)
    if not known.all():
        where = np.unravel_index(int(np.argmin(known)), array.shape)
        raise ValueError(
            f"{name}{[int(i) for i in where] if where else ''} is {array[where]}, required finite: "
            f"{remedy}"
        )
    return array

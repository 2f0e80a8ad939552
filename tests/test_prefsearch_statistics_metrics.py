"""Metrics against enumeration, closed forms and repeated sampling."""

import itertools
import math

import numpy as np
import pytest
import torch

from prefsearch.statistics.best_of_n import best_of_n_expectation, best_of_n_kl, pass_at_k
from prefsearch.statistics.intervals import Interval, bootstrap_interval, wilson_interval
from rewardmodel.evaluation.calibration import expected_calibration_error
from rewardmodel.evaluation.clustered import clustered_accuracy


def enumerate_best_of_n(proxy: list[float], metric: list[float], n: int) -> float:
    """Average over every subset of n the mean metric of its proxy-best members."""
    outcomes: list[float] = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        outcomes.append(float(np.mean([metric[i] for i in subset if proxy[i] == best])))
    return float(np.mean(outcomes))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize(
    "proxy",
    [[0.3, -1.0, 2.0, 0.7, 1.1, -0.2, 5.0], [1.0, 1.0, 0.0, 2.0, 2.0, 2.0, 0.0], [4.0] * 7],
    ids=["distinct", "tied", "all_tied"],
)
def test_best_of_n_equals_the_mean_over_all_subsets(proxy: list[float], n: int) -> None:
    metric = [0.5, 2.0, -3.0, 1.0, 7.0, 0.25, -1.0]
    other = metric[::-1]
    found = best_of_n_expectation([proxy, proxy], [metric, other], n)
    wanted = [enumerate_best_of_n(proxy, m, n) for m in (metric, other)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_best_of_n_treats_prompts_with_equal_edge_scores_apart() -> None:
    # The best of the first prompt and the worst of the second tie in value, not in pool.
    found = best_of_n_expectation([[0.0, 1.0], [1.0, 2.0]], [[5.0, 10.0], [20.0, 40.0]], 2)
    np.testing.assert_allclose(found, [10.0, 40.0])


def test_best_of_n_stays_accurate_in_large_pools() -> None:
    pool = 20_000
    ranks = np.arange(1, pool + 1, dtype=float)[None]
    # The largest of n without replacement from 1..N has mean n (N + 1) / (n + 1).
    for n in (1, 10, 1000, pool):
        expected = n * (pool + 1) / (n + 1)
        assert best_of_n_expectation(ranks, ranks, n)[0] == pytest.approx(expected, rel=1e-9)


def test_best_of_n_accepts_tensors_and_refuses_bad_pools() -> None:
    pools = torch.tensor([[0.0, 1.0]])
    assert best_of_n_expectation(pools, pools, 2).tolist() == [1.0]
    with pytest.raises(ValueError, match="1 <= n <= 2"):
        best_of_n_expectation(pools, pools, 3)
    with pytest.raises(ValueError, match="same"):
        best_of_n_expectation(pools, pools[:, :1], 1)
    with pytest.raises(ValueError, match=r"proxy\[0, 1\] is nan"):
        best_of_n_expectation([[0.0, math.nan]], [[0.0, 1.0]], 1)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_pass_at_k_equals_the_share_of_subsets_that_pass(k: int) -> None:
    pools = [[int(i < right) for i in range(6)] for right in range(7)]
    wanted = [np.mean([max(s) for s in itertools.combinations(pool, k)]) for pool in pools]
    np.testing.assert_allclose(pass_at_k(pools, k), wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(pass_at_k(range(7), k, total=6), pass_at_k(pools, k))
    # A verifier's best of k is correct just when one of them is.
    np.testing.assert_allclose(pass_at_k(pools, k), best_of_n_expectation(pools, pools, k))


def test_pass_at_k_is_unbiased_and_stable_in_large_pools() -> None:
    generator = np.random.default_rng(7)
    right = generator.uniform(size=(20_000, 12)) < 0.2
    assert pass_at_k(right, 5).mean() == pytest.approx(1 - 0.8**5, abs=0.005)
    # One correct of N is among k with probability k / N, whatever the size.
    for total, k in ((10_000, 3), (1_000_000, 500_000)):
        assert pass_at_k([1], k, total=total)[0] == pytest.approx(k / total, rel=1e-9)
        assert pass_at_k([0, total], k, total=total).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("correct", "options", "message"),
    [
        ([[0, 1]], {"k": 3}, "1 <= k <= 2; draw more"),
        ([[0, 1]], {"k": 0}, "1 <= k <= 2"),
        ([3], {"k": 4, "total": 3}, "1 <= k <= 3"),
        ([1, 0], {"k": 1}, r"required \[P, N\]"),
        ([[1, 0]], {"k": 1, "total": 2}, r"required \[P, N\]"),
        ([[0.0, 0.5]], {"k": 1}, r"correct\[0, 1\] is 0.5, required 0 or 1"),
        ([[0, 2]], {"k": 1}, r"correct\[0, 1\] is 2"),
        ([1, 4], {"k": 1, "total": 3}, r"correct\[1\] is 4, required .* \[0, 3\]"),
    ],
)
def test_pass_at_k_refuses(correct: object, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(correct, **options)  # pyright: ignore


def test_best_of_n_kl_equals_its_integral() -> None:
    # Under the base policy the score's quantile u is uniform; best-of-n has density n u^(n-1).
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    for n in (1, 2, 8, 64):
        log_density = math.log(n) + (n - 1) * np.log(u)
        integral = float(np.mean(np.exp(log_density) * log_density))
        assert best_of_n_kl(n) == pytest.approx(integral, abs=1e-5)
    with pytest.raises(ValueError, match="at least 1"):
        best_of_n_kl(0)


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    trials = 400
    covered = 0
    for trial in range(trials):
        sample = generator.exponential(size=60)
        interval = bootstrap_interval(sample, seed=trial, confidence=0.9, resamples=300)
        covered += interval.low <= 1.0 <= interval.high
    # Percentile intervals run a little low on skewed data; the Monte Carlo error is 0.015.
    assert 0.82 < covered / trials < 0.94


def test_bootstrap_width_matches_the_standard_error_and_the_seed_repeats_it() -> None:
    sample = np.random.default_rng(1).normal(3.0, 2.0, size=500)
    first = bootstrap_interval(sample, seed=5)
    assert first == bootstrap_interval(sample, seed=5)
    assert first != bootstrap_interval(sample, seed=6)
    assert first.estimate == pytest.approx(sample.mean())
    expected = 2 * 1.96 * sample.std() / math.sqrt(500)
    assert first.high - first.low == pytest.approx(expected, rel=0.1)


def test_bootstrap_over_seeds_keeps_a_prompt_together() -> None:
    # Every seed sees the same hard and easy prompts: more seeds tell nothing about other prompts.
    prompts = np.random.default_rng(2).normal(size=50)
    one, four = (bootstrap_interval(np.tile(prompts, (s, 1)), seed=0) for s in (1, 4))
    assert four == one == bootstrap_interval(prompts, seed=0)
    # A constant offset of a seed is a stratum's, not noise.
    shifted = bootstrap_interval(np.stack([prompts, prompts + 100]), seed=0)
    assert shifted.high - shifted.low == pytest.approx(one.high - one.low)


def test_bootstrap_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.random.default_rng(3).normal(size=30)
    whole = bootstrap_interval(sample, seed=0, resamples=101)
    monkeypatch.setattr("prefsearch.statistics.intervals._BLOCK_VALUES", 300)
    assert bootstrap_interval(sample, seed=0, resamples=101) == whole


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1.0], {}, "at least 2"),
        (np.zeros((0, 5)), {}, "at least 2"),
        (np.zeros((2, 2, 2)), {}, r"\[S, P\]"),
        ([1.0, math.inf], {}, r"values\[1\] is inf"),
        ([1.0, 2.0], {"confidence": 95}, r"inside \(0, 1\)"),
        ([1.0, 2.0], {"resamples": 0}, "at least 1"),
    ],
)
def test_bootstrap_refuses(values: object, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, seed=0, **options)  # pyright: ignore


def test_wilson_matches_published_values_and_stays_inside_bounds() -> None:
    # Newcombe 1998, table I, method 3.
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611)}
    for (successes, total), (low, high) in published.items():
        found = wilson_interval(successes, total)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    for total in (1, 3, 10, 977):
        assert wilson_interval(0, total).low == 0.0
        assert wilson_interval(total, total).high == 1.0
    with pytest.raises(ValueError, match="0 <= successes"):
        wilson_interval(3, 2)


def test_accuracy_counts_ties_half() -> None:
    def accuracy(margins: list[float]) -> float:
        return clustered_accuracy(np.array(margins), np.arange(len(margins))).estimate

    assert accuracy([1.0, 0.0, 0.0, -2.0, 3.0]) == pytest.approx(0.6)
    assert accuracy([0.0] * 10) == 0.5
    with pytest.raises(ValueError, match="margins"):
        accuracy([])


def test_calibration_error_by_hand_and_for_a_calibrated_model() -> None:
    # Bin [0.2, 0.3): stated 0.2 and 0.25, seen 1 and 0. Bin [0.9, 1]: stated 1.0, seen 1.
    assert expected_calibration_error([0.2, 0.25, 1.0], [1, 0, 1]) == pytest.approx(0.55 / 3)
    generator = np.random.default_rng(6)
    stated = generator.uniform(size=100_000)
    outcomes = generator.uniform(size=stated.size) < stated
    assert expected_calibration_error(stated, outcomes) < 0.01
    assert expected_calibration_error(stated, ~outcomes) > 0.4
    with pytest.raises(ValueError, match="sigmoid"):
        expected_calibration_error([2.0], [1])


def test_interval_prints_to_the_digits_it_supports() -> None:
    assert str(Interval(0.42314, 0.31234, 0.53412)) == "0.42 [0.31, 0.53]"
    assert str(Interval(-0.001, -0.0312, 0.0312)) == "-0.001 [-0.031, 0.031]"
    assert str(Interval(1234.5, 1100.2, 1400.9)) == "1234 [1100, 1401]"
    assert str(Interval(1.0, 1.0, 1.0)) == "1 [1, 1]"

"""Bounds on divergences against exact enumeration and simulated searches with a known KL."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefsearch.statistics.best_of_n import best_of_n_kl
from prefsearch.statistics.intervals import bootstrap_interval
from search.evaluation.divergence import (
    _cell_edges,
    best_of_n_kl_bound,
    best_of_n_kl_estimate,
    kl_lower_bound_from_ranks,
    kl_lower_bound_values,
    segment_kl_bound,
)


def kl(q: np.ndarray, p: np.ndarray) -> float:
    inside = q > 0
    return float((q[inside] * np.log(q[inside] / p[inside])).sum())


def enumerate_best_of_n(p: list[float], scores: list[float], n: int) -> np.ndarray:
    """What best-of-n answers, from all sequences of n draws; ties are broken at random."""
    q = np.zeros(len(p))
    for drawn in itertools.product(range(len(p)), repeat=n):
        weight = math.prod(p[i] for i in drawn)
        best = max(scores[i] for i in drawn)
        winners = [i for i in drawn if scores[i] == best]
        for winner in winners:
            q[winner] += weight / len(winners)
    return q


def best_of_n_in_order(p: np.ndarray, n: int) -> np.ndarray:
    """What best-of-n answers where the last response is the best and none tie."""
    upto = np.append(np.cumsum(p)[:-1], 1.0)
    return np.diff(np.concatenate([[0.0], upto]) ** n)


# ---------------------------------------------------------------------------------- upper bounds


@pytest.mark.parametrize("slots", [[2], [3], [2, 2], [3, 2], [2, 3]])
def test_no_search_over_segments_exceeds_its_bound(slots: list[int]) -> None:
    # Two segments of three tokens; every slot is drawn, then the line of the best score answers.
    # All draws are enumerated, for a likelihood and scores that make the unlikely lines best.
    token = [0.7, 0.2, 0.1]
    lines = list(itertools.product(range(3), repeat=len(slots)))
    p = np.array([math.prod(token[t] for t in line) for line in lines])
    rank = {line: score for score, line in enumerate(sorted(lines, key=sum))}
    q = dict.fromkeys(lines, 0.0)
    nodes = [math.prod(slots[: depth + 1]) for depth in range(len(slots))]
    for drawn in itertools.product(range(3), repeat=sum(nodes)):
        first = drawn[: nodes[0]]
        below = drawn[nodes[0] :]
        if len(slots) == 1:
            found = [(t,) for t in first]
        else:
            found = [(first[i // slots[1]], t) for i, t in enumerate(below)]
        q[max(found, key=lambda line: rank[line])] += math.prod(token[t] for t in drawn)
    answered = np.array([q[line] for line in lines])
    assert answered.sum() == pytest.approx(1)
    assert 0 < kl(answered, p) <= segment_kl_bound(slots)
    # The pointwise claim behind the bound, and that no smaller factor would do for two slots.
    ratio = (answered / p).max()
    assert ratio <= math.prod(slots)
    assert ratio > 0.7 * math.prod(slots)


def test_segment_bound_adds_logs_and_refuses_what_is_no_count() -> None:
    assert segment_kl_bound([]) == 0
    assert segment_kl_bound([1, 1]) == 0
    assert segment_kl_bound([4, 2]) == pytest.approx(math.log(8))
    for n in (2, 16):
        assert segment_kl_bound([n]) - best_of_n_kl(n) == pytest.approx((n - 1) / n)
    for wrong in ([2, 0], [2, 1.5], [2, math.nan]):
        with pytest.raises(ValueError, match=r"candidates_per_segment\[1\]"):
            segment_kl_bound(wrong)
    with pytest.raises(ValueError, match=r"required \[M\]"):
        segment_kl_bound(4)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "scores", [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 1, 2], [1, 0, 0, 1], [1, 1, 1, 1]], ids=str
)
def test_best_of_n_bounds_hold_on_every_enumerated_draw(scores: list[float], n: int) -> None:
    p = np.array([0.5, 0.25, 0.15, 0.1])
    q = enumerate_best_of_n(p.tolist(), scores, n)
    exact = kl(q, p)
    bound = float(q @ best_of_n_kl_bound(np.log(p), n))
    estimate = float(q @ best_of_n_kl_estimate(np.log(p), n))
    assert exact <= bound + 1e-12
    assert bound <= min(estimate, best_of_n_kl(n)) + 1e-12


@settings(deadline=None, max_examples=300)
@given(
    weights=st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=12),
    n=st.integers(1, 300),
)
def test_best_of_n_bounds_hold_for_any_distribution(weights: list[float], n: int) -> None:
    p = np.array(weights) / sum(weights)
    q = best_of_n_in_order(p, n)
    exact = kl(q, p)
    logs = np.minimum(np.log(p), 0.0)
    each = best_of_n_kl_bound(logs, n)
    assert ((each >= 0) & (each <= best_of_n_kl(n))).all()
    bound = float(q @ each)
    assert exact <= bound + 1e-7
    assert bound <= min(float(q @ best_of_n_kl_estimate(logs, n)), best_of_n_kl(n)) + 1e-7


def test_how_close_the_best_of_n_estimates_come() -> None:
    # (equally likely responses, n): exact, Beirami's estimate, our bound.
    measured = {
        (2, 2): (0.131, 0.352, 0.174),
        (2, 4): (0.459, 0.629, 0.490),
        (10, 4): (0.629, 0.842, 0.632),
        (10, 16): (1.733, 2.049, 1.738),
        (10, 64): (2.293, 2.302, 2.294),
        (1000, 16): (1.835, 1.850, 1.835),
    }
    for (size, n), wanted in measured.items():
        p = np.full(size, 1 / size)
        q = best_of_n_in_order(p, n)
        found = (
            kl(q, p),
            float(q @ best_of_n_kl_estimate(np.log(p), n)),
            float(q @ best_of_n_kl_bound(np.log(p), n)),
        )
        assert found == pytest.approx(wanted, abs=6e-4)


def test_best_of_n_estimates_reach_their_limits_without_underflow() -> None:
    for n in (1, 2, 64, 10_000):
        for estimate in (best_of_n_kl_estimate, best_of_n_kl_bound):
            # Certain responses cost nothing, impossible ones the free bound; nothing jumps.
            assert estimate([0.0], n)[0] == pytest.approx(0, abs=1e-12)
            np.testing.assert_allclose(estimate([-30, -59, -61, -800], n), best_of_n_kl(n), 1e-6)
            assert estimate(-1.0, n).shape == ()
    with pytest.raises(ValueError, match=r"log_probabilities\[1\] is 0.5"):
        best_of_n_kl_estimate([-1.0, 0.5], 2)
    with pytest.raises(ValueError, match="is nan"):
        best_of_n_kl_bound([math.nan], 2)
    with pytest.raises(ValueError, match="n is 0"):
        best_of_n_kl_bound([-1.0], 0)


# ---------------------------------------------------------------------------------- lower bound


def simulate(n: int, trials: int, *, prompts: int = 200, pool: int = 64) -> np.ndarray:
    """Estimates for best-of-n on continuous scores."""
    found = []
    for trial in range(trials):
        generator = np.random.default_rng([n, trial])
        scores = generator.normal(size=(prompts, pool))
        chosen = generator.normal(size=(prompts, n)).max(1)
        found.append(kl_lower_bound_from_ranks(scores, chosen, seed=0, resamples=1).estimate)
    return np.array(found)


@pytest.mark.parametrize(
    ("n", "bias"), [(1, 0.001), (2, -0.022), (4, -0.037), (16, -0.118), (64, -0.420)]
)
def test_rank_bound_of_best_of_n_is_as_far_below_the_truth_as_documented(
    n: int, bias: float
) -> None:
    found = simulate(n, 300)
    error = found.std() / math.sqrt(found.size)
    assert error < 0.005
    assert found.mean() - best_of_n_kl(n) == pytest.approx(bias, abs=4 * error + 5e-4)


def test_rank_bound_of_the_policy_itself_is_zero_whatever_ties() -> None:
    generator = np.random.default_rng(0)
    for levels in (1, 2, 5, 1000):
        found = []
        for trial in range(150):
            drawn = generator.integers(levels, size=(100, 33))
            interval = kl_lower_bound_from_ranks(drawn[:, :32], drawn[:, 32], seed=trial)
            found.append(interval.estimate)
        # The uncorrected histogram of 100 prompts in 9 cells would claim 0.04 without ties.
        assert np.mean(found) == pytest.approx(0, abs=0.006)


def test_rank_bound_interval_covers_its_own_target() -> None:
    n, prompts, pool, covered, trials = 4, 150, 32, 0, 200
    # The target is what the estimate tends to with many prompts, in the cells of 150 prompts.
    generator = np.random.default_rng(1)
    many = 200_000
    halvings = 5
    uniform = generator.uniform(size=many) ** (1 / n)
    ranks = generator.binomial(pool, uniform)
    pools = np.tile(np.arange(pool, dtype=float), (many, 1))
    target = kl_lower_bound_from_ranks(
        pools, ranks - 0.5, seed=0, resamples=1, halvings=halvings
    ).estimate
    for trial in range(trials):
        scores = generator.normal(size=(prompts, pool))
        chosen = generator.normal(size=(prompts, n)).max(1)
        interval = kl_lower_bound_from_ranks(
            scores, chosen, seed=trial, confidence=0.9, resamples=300, halvings=halvings
        )
        assert interval.low < interval.estimate < interval.high
        covered += interval.low <= target <= interval.high
    # Nominal 0.9; the Monte Carlo error is 0.02.
    assert 0.83 <= covered / trials <= 0.97


def test_rank_bound_by_hand() -> None:
    # One sample each makes two cells of one rank each. Nine of ten rank first.
    pool = np.zeros((10, 1))
    chosen = np.array([1.0] * 9 + [-1.0])
    wanted = 0.9 * math.log(1.8) + 0.1 * math.log(0.2) - 1 / 20
    found = kl_lower_bound_from_ranks(pool, chosen, seed=0)
    assert found.estimate == pytest.approx(wanted)
    # Of ten resampled prompts 10 and 7 rank first at the quantiles 97.5 % and 2.5 %.
    above = math.log(2) - (wanted + 1 / 20)
    below = 0.7 * math.log(1.4) + 0.3 * math.log(0.6) - 1 / 20 - (wanted + 1 / 20)
    assert (found.low, found.high) == pytest.approx((wanted - above, wanted - below))
    assert found == kl_lower_bound_from_ranks(pool, chosen, seed=0)
    other = kl_lower_bound_from_ranks(pool, chosen, seed=1, resamples=5)
    assert other != kl_lower_bound_from_ranks(pool, chosen, seed=0, resamples=5)
    # A tie is half a rank above and half below, without noise: nothing to correct.
    tied = kl_lower_bound_from_ranks(pool, np.zeros(10), seed=0)
    assert (tied.estimate, tied.low, tied.high) == pytest.approx((0, 0, 0))


def test_rank_cells_end_on_whole_ranks_and_stop_at_one_rank_or_four_prompts() -> None:
    # Private, since only the cells' number and edges are documented, and no bound shows them.
    for places, prompts, cells in ((65, 200, 11), (65, 10**6, 12), (2, 200, 2), (65, 2, 3)):
        edges = _cell_edges(places, prompts, None) * places
        assert len(edges) - 1 == cells
        np.testing.assert_allclose(edges, np.round(edges), atol=1e-9)


def test_rank_bound_resamples_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    scores, chosen = generator.normal(size=(30, 8)), generator.normal(1.0, size=30)
    whole = kl_lower_bound_from_ranks(scores, chosen, seed=0, resamples=101)
    monkeypatch.setattr("search.evaluation.divergence._BLOCK_VALUES", 300)
    assert kl_lower_bound_from_ranks(scores, chosen, seed=0, resamples=101) == whole


@pytest.mark.parametrize(
    ("pool", "chosen", "options", "message"),
    [
        (np.zeros((3, 2)), np.zeros(4), {}, "same P"),
        (np.zeros((1, 2)), np.zeros(1), {}, "P >= 2"),
        (np.zeros((3, 0)), np.zeros(3), {}, "N >= 1"),
        (np.zeros(3), np.zeros(3), {}, r"\[P, N\]"),
        (np.zeros((2, 2)), [0.0, math.nan], {}, r"chosen_scores\[1\] is nan"),
        (np.zeros((2, 2)), np.zeros(2), {"confidence": 95}, r"inside \(0, 1\)"),
        (np.zeros((2, 2)), np.zeros(2), {"resamples": 0}, "at least 1"),
        (np.zeros((2, 2)), np.zeros(2), {"halvings": 0}, "1 to 50"),
    ],
)
def test_rank_bound_refuses(
    pool: object, chosen: object, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kl_lower_bound_from_ranks(pool, chosen, seed=0, **options)  # pyright: ignore


def test_estimates_of_a_simulated_best_of_n_bracket_the_exact_divergence() -> None:
    # What a report does: sampled answers, the rank bound below and the likelihood bound above.
    generator = np.random.default_rng(3)
    p = np.array([0.3, 0.25, 0.2, 0.12, 0.08, 0.05])
    n, prompts = 6, 400
    exact = kl(best_of_n_in_order(p, n), p)
    chosen = generator.choice(6, size=(prompts, n), p=p).max(1)
    pool = generator.choice(6, size=(prompts, 48), p=p)
    below = kl_lower_bound_from_ranks(pool, chosen, seed=0)
    above = bootstrap_interval(best_of_n_kl_bound(np.log(p)[chosen], n), seed=0)
    assert below.low < exact < above.high < segment_kl_bound([n])
    assert exact - 0.25 < below.estimate < exact < above.estimate < exact + 0.1


@pytest.mark.parametrize("n", [1, 4])
def test_the_values_of_the_lower_bound_have_its_mean_and_the_bootstraps_spread(n: int) -> None:
    generator = np.random.default_rng(n)
    pool, chosen = generator.normal(size=(200, 64)), generator.normal(size=(200, n)).max(1)
    whole = kl_lower_bound_from_ranks(pool, chosen, seed=0)
    values = kl_lower_bound_values(pool, chosen)
    assert values.shape == (200,)
    assert values.mean() == pytest.approx(whole.estimate)
    half = 1.97 * values.std(ddof=1) / 200**0.5
    assert half == pytest.approx((whole.high - whole.low) / 2, rel=0.25)
    with pytest.raises(ValueError, match="for the same P >= 2 prompts"):
        kl_lower_bound_values(pool, chosen[:3])

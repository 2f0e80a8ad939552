"""Intervals over seeds cover as often as they claim, and name what they are over."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from prefsearch.statistics.binary_outcomes import effective_clusters
from prefsearch.statistics.intervals import bootstrap_interval, wilson_interval
from prefsearch.statistics.seed_intervals import (
    SeedInterval,
    interval_over_seeds,
    jackknife_values,
    seed_interval_from,
)
from search.evaluation.equal_cost import gain_at_equal_cost

Array = NDArray[np.float64]
SIMULATIONS = 1500  # of 95 %, the share covered has a standard error of 0.0056


def coverage(found: Iterator[SeedInterval], truth: float = 0.0) -> float:
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("between", [0.0, 0.1, 0.3, 1.0, 5.0])
def test_the_interval_covers_as_often_as_it_claims(seeds: int, between: float) -> None:
    generator = np.random.default_rng([seeds, int(10 * between)])

    def intervals() -> Iterator[SeedInterval]:
        for _ in range(SIMULATIONS):
            own = between * generator.normal(size=(seeds, 1))
            yield interval_over_seeds(list(own + generator.normal(size=(seeds, 24))))

    assert 0.93 <= coverage(intervals()) <= 0.97


def test_pooling_the_prompts_of_all_seeds_does_not_cover() -> None:
    # Seeds differ by half of what prompts do, three seeds of 48 prompts: what used to be reported.
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        values = 0.5 * generator.normal(size=(3, 1)) + generator.normal(size=(3, 48))
        pooled = bootstrap_interval(values.ravel(), seed=0, resamples=200)
        hits.append(pooled.low <= 0 <= pooled.high)
    assert np.mean(hits) < 0.6


@pytest.mark.parametrize("seeds", [3, 8])
def test_seeds_with_unlike_numbers_of_prompts_are_covered(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    counts = [12, 48, 24, 96, 30, 18, 60, 40][:seeds]

    def intervals() -> Iterator[SeedInterval]:
        for _ in range(SIMULATIONS):
            own = 0.3 * generator.normal(size=seeds)
            yield interval_over_seeds(
                [a + generator.normal(size=n) for a, n in zip(own, counts, strict=True)]
            )

    assert 0.93 <= coverage(intervals()) <= 0.97


@pytest.mark.parametrize(("seeds", "size"), [(1, 2), (1, 4), (3, 3), (8, 3)])
def test_prompts_that_reword_one_another_count_once(seeds: int, size: int) -> None:
    generator = np.random.default_rng([seeds, size])
    groups = 24
    labels = [[(s, p // size) for p in range(groups * size)] for s in range(seeds)]

    def draws() -> Iterator[list[Array]]:
        for _ in range(SIMULATIONS):
            shared = np.repeat(generator.normal(size=(seeds, groups)), size, axis=1)
            # Of one seed, its own level is what is estimated.
            own = 0.0 if seeds == 1 else 0.3 * generator.normal(size=(seeds, 1))
            yield list(own + shared + 0.3 * generator.normal(size=shared.shape))

    assert 0.93 <= coverage(interval_over_seeds(v, clusters=labels) for v in draws()) <= 0.97
    if seeds == 1:
        blind = coverage(interval_over_seeds(values) for values in itertools.islice(draws(), 500))
        assert blind < 0.9, "without their clusters prompts are taken for independent"


@pytest.mark.parametrize("seeds", [2, 3, 8])
@pytest.mark.parametrize("between", [0.0, 0.3, 1.0])
def test_seeds_on_the_same_prompts_are_covered_too(seeds: int, between: float) -> None:
    # What prompts have in common over seeds is not seen between the seeds' means.
    generator = np.random.default_rng([seeds, int(10 * between), 1])
    labels = [list(range(24))] * seeds

    def draws() -> Iterator[list[Array]]:
        for _ in range(600):
            values = between * generator.normal(size=(seeds, 1)) + generator.normal(size=24)
            yield list(values + 0.5 * generator.normal(size=(seeds, 24)))

    found = coverage(interval_over_seeds(values, clusters=labels) for values in draws())
    assert 0.93 <= found <= 0.995, "Howe's sum errs towards the wide side with two or three seeds"
    if seeds == 8 and between < 1:
        assert coverage(interval_over_seeds(values) for values in draws()) < 0.93


def test_two_seeds_or_more_are_students_t_over_their_means() -> None:
    values = [[1.0, 3.0], [2.0, 2.0, 5.0], [6.0]]
    found = interval_over_seeds(values)
    half = stats.t.ppf(0.975, 2) * np.std([2, 3, 6], ddof=1) / 3**0.5
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (11 / 3, 11 / 3 - half, 11 / 3 + half)
    )
    assert (found.by_seed, found.degrees) == ((2.0, 3.0, 6.0), 2)
    assert (found.prompts, found.clusters) == ((2, 3, 1), (2, 3, 1))
    assert (found.unit, found.scope) == ("seeds", "over 3 seeds of 1 to 3 prompts")
    t = stats.ttest_1samp([2, 3, 6], 0)
    assert found.p_value == pytest.approx(t.pvalue)
    assert found.standard_error == pytest.approx(np.std([2, 3, 6], ddof=1) / 3**0.5)
    wide = interval_over_seeds(values, confidence=0.99)
    assert wide.high - wide.estimate == pytest.approx(half * stats.t.ppf(0.995, 2) / 4.302652730)


def test_one_seed_says_that_nothing_is_known_of_others() -> None:
    found = interval_over_seeds([[0.0, 1.0, 2.0]], item="games")
    half = stats.t.ppf(0.975, 2) / 3**0.5
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half))
    assert found.unit == "games"
    assert found.scope == "over 3 games of one seed; nothing is known of other seeds"
    labels = [["a", "a", "b", "c"]]
    grouped = interval_over_seeds([[0.0, 0.0, 3.0, 1.0]], clusters=labels)
    assert grouped.unit == "clusters of prompts"
    assert "4 prompts in 3 clusters of one seed" in grouped.scope
    # Deviations by cluster: -2, 2 and 0, of four prompts; three clusters.
    assert grouped.standard_error == pytest.approx((3 / 2 * 8 / 16) ** 0.5)
    assert grouped.degrees == 2


def test_clusters_within_a_seed_change_nothing_between_seeds() -> None:
    values = [[1.0, 3.0, 2.0], [2.0, 2.0, 5.0]]
    own = interval_over_seeds(values, clusters=[["a", "a", "b"], ["c", "d", "d"]])
    plain = interval_over_seeds(values)
    assert (own.low, own.high) == (plain.low, plain.high)
    assert own.scope == "over 2 seeds of 3 prompts in 2 clusters"
    same = interval_over_seeds(values, clusters=[["a", "b", "c"]] * 2)
    assert (same.shared, same.scope) == (3, "over 2 seeds of 3 prompts, 3 prompts in several seeds")


def test_shared_prompts_widen_by_the_covariance_they_bring() -> None:
    values = np.array([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]])
    found = interval_over_seeds(list(values), clusters=[list("abc")] * 2)
    # Means 2 and 3; deviations of both seeds are -2, 0, 2: Cov of the means is their variance / 3.
    between, common = 0.5 / 2, 4.0 / 3
    assert found.standard_error == pytest.approx((between + common) ** 0.5)
    half = np.hypot(stats.t.ppf(0.975, 1) * between**0.5, stats.t.ppf(0.975, 2) * common**0.5)
    assert found.high - found.estimate == pytest.approx(half)
    assert stats.t.ppf(0.975, found.degrees) * found.standard_error == pytest.approx(half)


def test_the_parts_of_the_error_are_kept_apart() -> None:
    values = np.array([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]])
    found = interval_over_seeds(list(values), clusters=[list("abc")] * 2)
    assert found.between_error == pytest.approx((0.5 / 2) ** 0.5)
    assert found.shared_error == pytest.approx((4.0 / 3) ** 0.5)
    assert interval_over_seeds(list(values)).shared_error == 0
    older = {k: v for k, v in asdict(found).items() if not k.endswith(("_error", "exact_p"))}
    read = seed_interval_from({**older, "standard_error": found.standard_error})
    assert (read.between_error, read.shared_error) == pytest.approx(
        (found.between_error, found.shared_error)
    )


RARE = [(7, 0.3), (10, 0.1), (20, 0.05), (20, 0.9), (48, 0.02), (200, 0.01)]


@pytest.mark.parametrize(("prompts", "share"), RARE)
def test_rare_right_answers_are_covered(prompts: int, share: float) -> None:
    generator = np.random.default_rng(prompts)
    draws = [(generator.random(prompts) < share).astype(float) for _ in range(500)]
    shares = [interval_over_seeds([values], kind="share") for values in draws]
    assert coverage(iter(shares), share) >= 0.9, "Wilson's, which is right on average over shares"
    assert all(0 <= found.low < found.high <= 1 for found in shares)
    assert coverage((interval_over_seeds([values]) for values in draws), share) >= 0.93


@pytest.mark.parametrize(
    ("prompts", "better", "worse"),
    [(7, 0.5, 0.2), (10, 0.3, 0.0), (20, 0.025, 0.025), (20, 0.9, 0.02), (48, 0.015, 0.015),
     (50, 0.2, 0.05), (200, 0.1, 0.1)],
)  # fmt: skip
def test_differences_of_right_and_wrong_are_covered(
    prompts: int, better: float, worse: float
) -> None:
    generator = np.random.default_rng(prompts)

    def intervals() -> Iterator[SeedInterval]:
        for _ in range(500):
            level = generator.random(prompts)
            up, down = level < better, level > 1 - worse
            yield interval_over_seeds([up.astype(float) - down])

    found = list(intervals())
    assert coverage(iter(found), better - worse) >= 0.93
    assert not any(one.unknown for one in found)
    if better == worse:
        assert np.mean([one.p_value <= 0.05 for one in found]) <= 0.05


def test_prompts_of_a_cluster_that_are_right_together_count_once() -> None:
    generator = np.random.default_rng(0)
    labels = [[p // 4 for p in range(80)]]
    draws = [np.repeat(generator.random(20) < 0.1, 4).astype(float) for _ in range(500)]
    found = [interval_over_seeds([v], clusters=labels, kind="share") for v in draws]
    assert coverage(iter(found), 0.1) >= 0.92
    blind = coverage((interval_over_seeds([v], kind="share") for v in draws), 0.1)
    assert blind < 0.85
    assert effective_clusters([0, 0, 1, 1, 2, 2]) == pytest.approx(3)
    assert effective_clusters([0, 0, 0, 1]) == pytest.approx(16 / 10)


def test_a_share_of_one_seed_has_wilsons_interval() -> None:
    found = interval_over_seeds([[1.0, 1.0, 1.0, 0.0]], kind="share")
    wilson = wilson_interval(3, 4)
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
    assert str(interval_over_seeds([[1.0] * 3], kind="share")) == "1.00 [0.44, 1.00]"
    # Where the values may be differences, the other end reaches farther.
    either = interval_over_seeds([[1.0, 0.0, 0.0, 0.0]])
    assert either.high == pytest.approx(wilson_interval(1, 4).high)
    assert either.low < 0
    half = stats.t.ppf(0.975, 3) * 0.25
    score = interval_over_seeds([[1.0, 0.0, 0.0, 0.0]], kind="score")
    assert (score.low, score.high) == pytest.approx((0.25 - half, 0.25 + half))


def test_the_interval_of_a_difference_agrees_with_the_sign_test() -> None:
    for above, below in ((5, 0), (6, 0), (8, 1), (7, 2), (0, 6)):
        values = [[1.0] * above + [-1.0] * below + [0.0] * 3]
        found = interval_over_seeds(values)
        exact = stats.binomtest(above, above + below).pvalue
        assert found.p_value == pytest.approx(exact)
        assert (found.low <= 0 <= found.high) == (exact > 0.05)


def test_what_does_not_vary_has_an_unknown_interval() -> None:
    for values in ([[2.0, 2.0]], [[2.0], [2.0]], [[0.1] * 7, [0.1] * 10]):
        found = interval_over_seeds(values)
        assert found.unknown
        assert "all values are equal, so the interval is unknown" in found.scope
        assert str(found).endswith(" [unknown]")
    # Equal seeds are worth one of them, whose prompts do vary.
    one, two = interval_over_seeds([[1.0, 3.0]]), interval_over_seeds([[1.0, 3.0]] * 2)
    assert (two.low, two.high) == (one.low, one.high)
    assert two.scope.endswith("the seeds do not differ, and nothing is known of others")
    assert two.p_value == 1.0
    assert interval_over_seeds([[0.0] * 3], kind="score").unknown


def test_prompts_that_pull_two_seeds_apart_do_not_narrow_the_interval() -> None:
    values = [[0.0, 2.0, 4.0], [5.0, 3.0, 1.0]]
    shared, apart = (interval_over_seeds(values, clusters=c) for c in ([list("abc")] * 2, None))
    assert shared.standard_error == apart.standard_error == pytest.approx(0.5)
    assert (shared.low, shared.high, shared.degrees) == (apart.low, apart.high, 1)
    assert shared.p_value == apart.p_value


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "at least one seed"),
        ([[1.0, 2.0], []], {}, r"found \[2, 0\] prompts by seed"),
        ([[1.0]], {}, "at least 2 independent prompts, or at least 2 seeds"),
        ([[1.0, 2.0]], {"clusters": [["a", "a"]]}, "2 prompts in 1 cluster"),
        ([[1.0, 2.0]], {"clusters": [["a"]]}, r"\[1\] labels by seed and values \[2\]"),
        ([[1.0, float("nan")], [1.0, 2.0]], {}, r"values\[0\]\[1\] is nan"),
        ([[1.0, 2.0]], {"confidence": 95}, "confidence is 95"),
    ],
)
def test_what_has_no_interval_is_refused(values: list[Array], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval_over_seeds(values, **options)


def test_intervals_go_through_json() -> None:
    found = interval_over_seeds([[1.0, 3.0], [2.0, 5.0]])
    row = json.loads(json.dumps(asdict(found)))
    assert seed_interval_from({**row, "human_normalized": 0.5}) == found
    assert str(found) == "3 [-7, 12]"


def test_a_ratio_has_the_spread_of_the_delta_method() -> None:
    generator = np.random.default_rng(0)
    columns = generator.normal(loc=(4.0, 2.0), scale=(1.0, 0.3), size=(200, 2))
    values = jackknife_values(lambda means: means[..., 0] / means[..., 1], columns)
    top, bottom = columns.mean(axis=0)
    assert values.mean() == pytest.approx(top / bottom)
    influence = columns[:, 0] / bottom - columns[:, 1] * top / bottom**2
    assert values.std() == pytest.approx(influence.std(), rel=0.01)
    mean = jackknife_values(lambda means: means[..., 0], columns)
    assert mean == pytest.approx(columns[:, 0])


def test_a_gain_at_equal_cost_moves_with_the_costs() -> None:
    generator = np.random.default_rng(1)

    def draw(prompts: int) -> tuple[Array, Array, Array, Array]:
        length = generator.normal(100, 30, size=prompts)
        spent = 2.5 * generator.normal(100, 30, size=prompts)
        curve = np.stack([length * n for n in (1, 2, 4, 8)], axis=1)
        scores = np.tile([0.0, 3.0, 6.0, 9.0], (prompts, 1))
        return spent, np.full(prompts, 4.0), curve, scores

    # The curve climbs 3 a doubling, so at 250 of 100 it stands at 3.97. Scores never vary: all of
    # the chance is in the costs.
    truth = 4.0 - 3 * np.log2(2.5)
    found = []
    for _ in range(SIMULATIONS):
        values = gain_at_equal_cost(*draw(40))
        assert values is not None
        found.append(interval_over_seeds([values]))
    assert 0.93 <= coverage(iter(found), truth) <= 0.97


def test_a_gain_is_not_read_beyond_the_curve() -> None:
    curve, scores = np.array([[1.0, 2.0]] * 3), np.array([[0.0, 1.0]] * 3)
    at = [gain_at_equal_cost([cost] * 3, [1.0] * 3, curve, scores) for cost in (0.9, 1.0, 2.0, 2.1)]
    assert at[0] is None
    assert at[3] is None
    assert at[1] == pytest.approx([1.0] * 3)
    assert at[2] == pytest.approx([0.0] * 3)
    turned = gain_at_equal_cost([2.0] * 3, [1.0] * 3, curve[:, ::-1], scores[:, ::-1])
    assert turned == pytest.approx([0.0] * 3)
    with pytest.raises(ValueError, match="the same prompts"):
        gain_at_equal_cost([1.0] * 2, [1.0] * 2, curve, scores)
    with pytest.raises(ValueError, match="strictly increasing"):
        gain_at_equal_cost([1.0] * 3, [1.0] * 3, np.ones((3, 2)), scores)

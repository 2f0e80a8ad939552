"""Soft labels, ties, and accuracy told apart by subset, confidence and certainty."""

import math

import numpy as np
import pytest
from datasets import Dataset

from prefsearch.statistics.intervals import wilson_interval
from rewardmodel.data.labels import chosen_probabilities, label_entropy, log_losses
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.strata import by_quantile, by_value, risk_coverage
from rewardmodel.evaluation.ties import best_tie_threshold, evaluate_ties
from tests.fakes import NumberReader


def labeled(margins, labels, **columns) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt": [f"p{index}" for index in range(len(margins))],
            "chosen": [f"a {margin}" for margin in margins],
            "rejected": ["a 0"] * len(margins),
            "chosen_probability": labels,
            **columns,
        }
    )


def evaluate(pairs: Dataset, **options):
    return evaluate_reward_model(NumberReader(), pairs, seed=0, **options)


def test_tied_labels_are_left_out_of_accuracy_and_kept_in_log_loss():
    found = evaluate(labeled([1.0, -2.0, 3.0, 0.0], [1.0, 1.0, 0.5, 0.75]))
    assert (found.pairs, found.tied_labels, found.tied_scores) == (4, 1, 1)
    assert found.accuracy == wilson_interval(1.5, 3)
    q = [1 / (1 + math.exp(-margin)) for margin in (1.0, -2.0, 3.0, 0.0)]
    p = [1.0, 1.0, 0.5, 0.75]
    losses = [
        -(label * math.log(stated) + (1 - label) * math.log(1 - stated))
        for label, stated in zip(p, q, strict=True)
    ]
    entropy = math.log(2) - (0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.log_loss.estimate == pytest.approx(sum(losses) / 4)
    assert found.excess_log_loss.estimate == pytest.approx((sum(losses) - entropy) / 4)
    assert found.brier.estimate == pytest.approx(
        sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / 4
    )


def test_a_label_below_one_half_names_the_other_reply():
    found = evaluate(labeled([-1.0, -1.0], [0.2, 0.9]))
    assert found.accuracy.estimate == 0.5
    assert found.mean_margin.estimate == pytest.approx(0.0)


def test_excess_log_loss_is_zero_where_the_model_states_the_labels():
    labels = np.array([0.5, 0.7, 1.0 - 1e-9])
    margins = np.log(labels / (1 - labels))
    assert log_losses(margins, labels) == pytest.approx(label_entropy(labels), abs=1e-9)
    assert label_entropy(np.array([0.0, 1.0, 0.5])).tolist() == [0, 0, pytest.approx(math.log(2))]


@pytest.mark.parametrize(("label", "shown"), [(1.5, "1.5"), (-0.1, "-0.1"), (None, "nan")])
def test_label_outside_its_range_names_its_row(label, shown):
    pairs = labeled([1.0, 1.0], [1.0, label])
    with pytest.raises(ValueError, match=f"row 1: chosen_probability is {shown}"):
        evaluate(pairs)
    assert chosen_probabilities(pairs.remove_columns("chosen_probability")).tolist() == [1, 1]


def test_pairs_that_are_all_ties_are_refused():
    with pytest.raises(ValueError, match="all 3 pairs are ties"):
        evaluate(labeled([1.0, 2.0, 3.0], [0.5] * 3))


def test_tie_threshold_is_the_one_that_calls_most_pairs_rightly():
    margins = np.array([0.1, -0.2, 0.3, 2.0, -3.0, 0.25])
    signs = np.array([0.0, 0.0, 0.0, 1.0, -1.0, 1.0])
    # At 0.2 two ties and three decided pairs are right, as many as at 0.3, and it is smaller.
    assert best_tie_threshold(margins, signs) == 0.2
    brute = {
        t: float((np.where(np.abs(margins) <= t, 0, np.sign(margins)) == signs).sum())
        for t in [0.0, *np.abs(margins)]
    }
    assert brute[best_tie_threshold(margins, signs)] == max(brute.values())
    assert best_tie_threshold(np.array([1.0, -1.0]), np.array([1.0, -1.0])) == 0.0


def test_tie_threshold_agrees_with_trying_each_one():
    generator = np.random.default_rng(0)
    for _ in range(20):
        margins = generator.normal(size=30).round(1)
        signs = generator.integers(-1, 2, size=30).astype(float)
        right = {
            t: (np.where(np.abs(margins) <= t, 0, np.sign(margins)) == signs).sum()
            for t in [0.0, *np.abs(margins)]
        }
        found = best_tie_threshold(margins, signs)
        assert right[found] == max(right.values())


def test_a_model_that_knows_ties_separates_them_and_gains_from_the_threshold():
    generator = np.random.default_rng(0)
    tied = generator.random(600) < 0.4
    margins = np.where(tied, 0.1, 2.0) * generator.normal(size=600) + np.where(tied, 0, 1)
    found = evaluate_ties(margins, np.where(tied, 0.0, 1.0), np.arange(600), seed=0)
    assert found.separation > 0.9
    assert found.accuracy.low > found.accuracy_without.high
    assert found.median_size_tied < found.median_size_decided
    blind = evaluate_ties(
        generator.normal(size=600), np.where(tied, 0.0, 1.0), np.arange(600), seed=0
    )
    assert blind.separation == pytest.approx(0.5, abs=0.06)
    # Chosen on itself the threshold would flatter; chosen on the other half it cannot help much.
    assert blind.accuracy.estimate < 0.5


def test_separation_is_the_share_of_pairs_of_pairs_by_hand():
    margins, signs = np.array([0.5, -2.0, 1.0, 0.5]), np.array([0.0, 1.0, -1.0, 1.0])
    found = evaluate_ties(margins, signs, np.arange(4), seed=0)
    assert found.separation == pytest.approx((1 + 1 + 0.5) / 3)
    assert evaluate_ties(margins, np.ones(4), np.arange(4), seed=0) is None
    assert evaluate_ties(margins, np.zeros(4), np.arange(4), seed=0) is None


def test_accuracy_by_subset_and_confidence():
    pairs = labeled(
        [1.0, -1.0, 2.0, 3.0, 1.0],
        [1.0, 1.0, 1.0, 1.0, 0.5],
        subset=["b", "a", "b", None, "a"],
        confidence=[1.0, 9.0, 9.0, None, 1.0],
    )
    found = evaluate(pairs)
    assert [(s.name, s.pairs, s.accuracy.estimate) for s in found.by_subset] == [
        ("b", 2, 1.0),
        ("a", 1, 0.0),
        ("(no subset)", 1, 1.0),
    ]
    assert [(s.name, s.pairs, s.accuracy.estimate) for s in found.by_confidence] == [
        ("1", 1, 1.0),
        ("9", 2, 0.5),
    ]
    assert found.by_subset[0].accuracy == wilson_interval(2, 2)


def test_accuracy_by_the_labels_own_certainty_where_there_is_no_confidence():
    found = evaluate(labeled([1.0, -1.0, -1.0], [1.0, 0.6, 0.4]))
    assert [(s.name, s.pairs, s.accuracy.estimate) for s in found.by_confidence] == [
        ("0.6", 2, 0.5),
        ("1", 1, 1.0),
    ]
    assert evaluate(labeled([1.0, -1.0], [1.0, 1.0])).by_confidence == ()


def test_bins_of_equal_counts_hold_every_pair_once_and_equal_values_together():
    values = np.repeat([1.0, 2.0, 3.0], [50, 7, 43])
    oriented = np.ones(100)
    bins = by_quantile(values, oriented, np.arange(100))
    assert sum(b.pairs for b in bins) == 100
    assert [b.pairs for b in bins] == [50, 50]
    many = by_value(np.arange(100.0), oriented, np.arange(100))
    assert [b.pairs for b in many] == [20] * 5
    assert many[0].middle == pytest.approx(9.5)


def test_risk_and_coverage_of_a_certainty_that_knows_and_one_that_does_not():
    oriented = np.array([4.0, 3.0, 2.0, 1.0, -1.0, -1.5, 0.5, 0.25, -0.1, 0.2])
    knowing = risk_coverage(oriented, (oriented > 0) + 0.0, np.arange(10))
    assert knowing.points[0].accuracy.estimate == 1.0
    assert knowing.points[-1].accuracy.estimate == pytest.approx(0.7)
    assert knowing.points[-1].coverage == 1.0
    # Errors 0 for seven, then 1/8, 2/9, 3/10.
    assert knowing.area == pytest.approx((1 / 8 + 2 / 9 + 3 / 10) / 10)
    blind = risk_coverage(oriented, np.zeros(10), np.arange(10))
    assert blind.area == pytest.approx(0.3)
    assert len(blind.points) == 1

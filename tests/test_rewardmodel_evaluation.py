"""Evaluation of reward models: exact over pairs, whatever the batches, beside its baselines."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor

from prefsearch.statistics.intervals import wilson_interval
from rewardmodel.data.preferences import load_preferences, split_by_prompt
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.baselines import bag_of_words_accuracy, longer_reply_accuracy
from rewardmodel.evaluation.clustered import clustered_share
from rewardmodel.evaluation.scoring import preference_margins
from tests.fakes import NumberReader
from tests.sample_data import HH


def make_pairs(scores: Sequence[tuple[float, float]], prompts: Sequence[str] = ()) -> Dataset:
    names = prompts or [f"p{index}" for index in range(len(scores))]
    return Dataset.from_dict(
        {
            "prompt": list(names),
            "chosen": [f"x {chosen}" for chosen, _ in scores],
            "rejected": [f"x {rejected}" for _, rejected in scores],
        }
    )


def random_pairs(count: int, *, seed: int = 0) -> Dataset:
    generator = np.random.default_rng(seed)
    return make_pairs([tuple(pair) for pair in generator.normal(size=(count, 2)).round(3)])


def test_numbers_agree_with_their_definitions():
    pairs = make_pairs([(2.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
    found = evaluate_reward_model(NumberReader(), pairs, seed=0)
    p = [1 / (1 + math.exp(-margin)) for margin in (2.0, -1.0, 0.0)]
    assert (found.pairs, found.prompts) == (3, 3)
    assert found.accuracy == wilson_interval(1.5, 3)  # the tie counts half
    assert found.log_loss.estimate == pytest.approx(-sum(map(math.log, p)) / 3)
    assert found.brier.estimate == pytest.approx(sum((1 - q) ** 2 for q in p) / 3)
    assert found.mean_margin.estimate == pytest.approx(1 / 3)
    # Each pair in its own bin, in both orders: |1 - .88|, |1 - .27|, and nothing for the tie.
    assert found.ece == pytest.approx((1 - p[0] + 1 - p[1]) / 3)
    assert found.accuracy.low < found.accuracy.estimate < found.accuracy.high
    assert found.mean_margin.low < found.mean_margin.estimate < found.mean_margin.high


@pytest.mark.parametrize("batch_pairs", [1, 5, 16, 32, 1000])
def test_result_does_not_depend_on_the_batch_size_and_no_pair_is_lost(batch_pairs):
    pairs = random_pairs(32)
    expected = [
        float(np.float32(c.split()[-1])) - float(np.float32(r.split()[-1]))
        for c, r in zip(pairs["chosen"], pairs["rejected"], strict=True)
    ]
    found = preference_margins(NumberReader(), pairs, batch_pairs=batch_pairs)
    assert found.tolist() == expected
    one = evaluate_reward_model(NumberReader(), pairs, seed=3, batch_pairs=batch_pairs)
    other = evaluate_reward_model(NumberReader(), pairs, seed=3, batch_pairs=7)
    assert {**vars(one), "seconds": 0} == {**vars(other), "seconds": 0}


def test_both_replies_are_scored_side_by_side_under_their_prompt():
    model = NumberReader()
    preference_margins(model, make_pairs([(1, 2), (3, 4), (5, 6)]), batch_pairs=2)
    assert model.calls == [
        (["p0", "p0", "p1", "p1"], ["x 1", "x 2", "x 3", "x 4"]),
        (["p2", "p2"], ["x 5", "x 6"]),
    ]


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_score_that_is_not_finite_names_its_row(bad):
    pairs = make_pairs([(0, 1)] * 18 + [(0, float(bad))])
    with pytest.raises(ValueError, match=rf"row 18: the score of the rejected reply is {bad}"):
        evaluate_reward_model(NumberReader(), pairs, seed=0)


def test_scores_of_the_wrong_shape_and_empty_data_are_refused():
    class Column:
        def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
            return torch.zeros(len(responses), 1)

    with pytest.raises(ValueError, match=r"shape \[4, 1\] for 4 responses"):
        evaluate_reward_model(Column(), random_pairs(2), seed=0)
    empty = make_pairs([])
    with pytest.raises(ValueError, match="found 0 pairs"):
        evaluate_reward_model(NumberReader(), empty, seed=0)
    with pytest.raises(ValueError, match="at least one"):
        longer_reply_accuracy(empty)


@pytest.mark.parametrize("labels", [[1.0, 1.0, 1.0], [1.0, 0.5, 0.5]])
def test_pairs_of_one_prompt_are_refused_before_they_are_scored(labels):
    prompts = ["a", "a", "a" if labels[1] == 1 else "b"]
    pairs = make_pairs([(1, 0)] * 3, prompts).add_column("chosen_probability", labels)
    model = NumberReader()
    with pytest.raises(ValueError, match=r"with a better reply, of 1 prompt; an interval"):
        evaluate_reward_model(model, pairs, seed=0)
    assert model.calls == []


def test_baselines_take_the_labels_word_for_which_reply_is_better():
    pairs = Dataset.from_dict(
        {
            "prompt": ["a", "b", "c", "d"],
            "chosen": ["brief", "a long one", "a long one", "a long one"],
            "rejected": ["a long one", "brief", "brief", "brief"],
            "chosen_probability": [1.0, 0.0, 0.2, 0.5],
        }
    )
    assert longer_reply_accuracy(pairs) == wilson_interval(0, 3)
    train, test = word_pairs(40, seed=0), word_pairs(30, seed=1)
    plain = bag_of_words_accuracy(train, test)
    swapped, tied = (
        Dataset.from_dict(
            {
                "prompt": train["prompt"],
                "chosen": train["rejected"],
                "rejected": train["chosen"],
                "chosen_probability": [label] * 40,
            }
        )
        for label in (0.0, 0.5)
    )
    certain = train.add_column("chosen_probability", [1.0] * 40)
    for other in (swapped, concatenate_datasets([certain, tied])):
        assert bag_of_words_accuracy(other, test).margins == pytest.approx(plain.margins)
    flipped = test.add_column("chosen_probability", [0.0] * 15 + [0.5] * 15)
    assert bag_of_words_accuracy(train, flipped).accuracy == wilson_interval(0, 15)
    with pytest.raises(ValueError, match="0 test pairs with a better reply"):
        bag_of_words_accuracy(train, tied)


def test_accuracy_is_told_apart_by_which_reply_is_longer():
    pairs = Dataset.from_dict(
        {
            "prompt": ["a", "b", "c", "d"],
            "chosen": ["a long one 1", "short 1", "short 0", "same 1"],
            "rejected": ["brief 0", "a longer one 0", "a longer one 1", "same 0"],
        }
    )
    found = evaluate_reward_model(NumberReader(), pairs, seed=0)
    assert found.accuracy_where_longer_chosen == wilson_interval(1, 1)
    assert found.accuracy_where_shorter_chosen == wilson_interval(1, 2)
    assert found.longer_reply_accuracy == longer_reply_accuracy(pairs) == wilson_interval(1.5, 4)
    same = evaluate_reward_model(NumberReader(), make_pairs([(1, 0)] * 2), seed=0)
    assert same.accuracy_where_longer_chosen is None


def test_repeated_prompts_widen_the_intervals_and_leave_the_estimates():
    scores = [(1, 0) if index % 3 else (0, 1) for index in range(60)]
    apart = evaluate_reward_model(NumberReader(), make_pairs(scores), seed=0)
    # Ten copies of each of 60 pairs say no more than the 60.
    copies = make_pairs(scores * 10, [f"p{index}" for index in range(60)] * 10)
    together = evaluate_reward_model(NumberReader(), copies, seed=0)
    assert together.pairs == 600
    assert together.prompts == 60
    for name in ("accuracy", "log_loss", "mean_margin"):
        one, many = getattr(apart, name), getattr(together, name)
        assert many.estimate == pytest.approx(one.estimate)
        assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.05)
    perfect = make_pairs([(1, 0)] * 600, [f"p{index}" for index in range(60)] * 10)
    found = evaluate_reward_model(NumberReader(), perfect, seed=0)
    assert found.accuracy == wilson_interval(60, 60)


def test_a_share_over_repeated_prompts_counts_the_pairs_that_their_variance_is_worth():
    # Shares of four prompts, five pairs each: 1, 1, .6 and .2; mean .7.
    right = np.repeat([1, 1, 1, 0, 1, 0], [5, 5, 3, 2, 1, 4]).astype(float)
    groups = np.repeat(np.arange(4), 5)
    # Variance of a mean of four: their own, with 3 degrees of freedom, over four.
    variance = np.var([1.0, 1.0, 0.6, 0.2], ddof=1) / 4
    independent = int(0.7 * 0.3 / variance)
    assert independent == 5, "and 7 if it were divided by four instead of three"
    assert clustered_share(right, groups) == wilson_interval(0.7 * 5, 5)
    # Prompts that agree more than chance are worth no more than their pairs.
    even = np.tile([1.0, 0.0], 10)
    assert clustered_share(even, groups[: len(even)] * 0 + np.repeat(np.arange(10), 2)) == (
        wilson_interval(10, 20)
    )
    # All right: the prompts are what was seen.
    assert clustered_share(np.ones(20), groups) == wilson_interval(4, 4)
    assert clustered_share(right, np.arange(20)) == wilson_interval(14, 20)


def test_estimates_stay_means_over_pairs_where_prompts_have_unlike_numbers_of_pairs():
    pairs = make_pairs([(1, 0), (1, 0), (1, 0), (0, 1)], ["a", "a", "a", "b"])
    found = evaluate_reward_model(NumberReader(), pairs, seed=0)
    assert found.accuracy.estimate == pytest.approx(0.75, abs=0.01)
    assert found.mean_margin.estimate == pytest.approx(0.5)


def word_pairs(count: int, *, seed: int) -> Dataset:
    """Pairs in which "please" was liked and "never" disliked, among words without meaning."""
    generator = np.random.default_rng(seed)
    noise = generator.choice(["red", "blue", "green", "tall"], size=(count, 2, 4))
    return Dataset.from_dict(
        {
            "prompt": [f"{seed}-{index}" for index in range(count)],
            "chosen": [
                " ".join(words) + (" Please" if index % 2 else " please")
                for index, words in enumerate(noise[:, 0])
            ],
            "rejected": [" ".join(words) + " never" for words in noise[:, 1]],
        }
    )


def test_bag_of_words_learns_words_and_not_noise():
    learnt = bag_of_words_accuracy(word_pairs(40, seed=0), word_pairs(30, seed=1))
    assert learnt.accuracy == wilson_interval(30, 30)
    assert learnt.margins.shape == (30,)
    assert learnt.vocabulary == 6
    shuffled = word_pairs(400, seed=2)
    flip = np.random.default_rng(0).random(400) < 0.5

    def swap(row: dict, index: int) -> dict:
        keys = ("rejected", "chosen") if flip[index] else ("chosen", "rejected")
        return {"prompt": row["prompt"], "chosen": row[keys[0]], "rejected": row[keys[1]]}

    chance = bag_of_words_accuracy(shuffled.map(swap, with_indices=True), word_pairs(400, seed=3))
    flipped_test = word_pairs(400, seed=3).map(swap, with_indices=True)
    coin = bag_of_words_accuracy(shuffled.map(swap, with_indices=True), flipped_test)
    assert coin.accuracy.estimate < 0.62
    assert chance.l2 > learnt.l2  # cross validation shrinks what does not generalize


def test_bag_of_words_margin_changes_sign_with_the_pair_and_repeats_with_the_seed():
    train, test = word_pairs(40, seed=0), word_pairs(10, seed=1)
    swapped = Dataset.from_dict(
        {"prompt": test["prompt"], "chosen": test["rejected"], "rejected": test["chosen"]}
    )
    margins = bag_of_words_accuracy(train, test).margins
    assert bag_of_words_accuracy(train, swapped).margins == pytest.approx(-margins)
    assert bag_of_words_accuracy(train, test).margins.tolist() == margins.tolist()


def test_bag_of_words_needs_prompts_to_cross_validate_over():
    with pytest.raises(ValueError, match="found 1 training prompts and 3 test pairs"):
        bag_of_words_accuracy(word_pairs(1, seed=0), word_pairs(3, seed=1))


@pytest.mark.parametrize("sample", HH)
def test_baselines_on_the_hh_sample_length_misleads_and_words_help(sample):
    train, test = split_by_prompt(load_preferences(sample), holdout=0.2, seed=0)
    words = bag_of_words_accuracy(train, test)
    longer = longer_reply_accuracy(test)
    assert longer.high < 0.5 < words.accuracy.low

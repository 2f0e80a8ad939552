"""Members of an ensemble beside each other, and scores that do not depend on their batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from prefsearch.statistics.intervals import wilson_interval
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.agreement import evaluate_agreement, member_margins
from rewardmodel.evaluation.batch_invariance import (
    measure_batch_invariance,
)
from rewardmodel.evaluation.scoring import preference_margins, score_texts
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer


class Columns:
    """An ensemble whose members read the numbers of a response; its score is their mean."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def member_scores(self, prompts, responses):
        self.asked += zip(prompts, responses, strict=True)
        return torch.tensor([[float(n) for n in response.split()] for response in responses]).T

    def score(self, prompts, responses):
        return self.member_scores(prompts, responses).mean(0)


def pairs_of(members) -> Dataset:
    """Pairs of given margins [M, P] of the members."""
    return Dataset.from_dict(
        {
            "prompt": [f"p{index}" for index in range(len(members[0]))],
            "chosen": [" ".join(map(str, column)) for column in zip(*members, strict=True)],
            "rejected": [" ".join("0" for _ in members)] * len(members[0]),
        }
    )


def test_agreement_and_kappa_by_hand():
    members = [[1.0, 1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, 0.0]]
    found = evaluate_agreement(Columns(), pairs_of(members))
    assert (found.members, found.pairs) == (3, 4)
    assert [a.estimate for a in found.accuracies] == [0.75, 0.5, 0.625]
    first = found.between[0]
    assert (first.first, first.second) == (0, 1)
    assert first.agreement == wilson_interval(3, 4)
    # Both right on two and both wrong on one of four; by chance 3/4 x 1/2 + 1/4 x 1/2.
    assert first.kappa == pytest.approx((0.75 - 0.5) / (1 - 0.5))
    assert found.between[1].agreement == wilson_interval(2.5, 4)
    assert found.mean_agreement == pytest.approx((0.75 + 0.625 + 0.375) / 3)
    # Means 1, 1/3, 1/3, -2/3.
    assert found.ensemble_accuracy == wilson_interval(3, 4)


def test_members_that_err_independently_have_no_kappa_and_disagree_where_they_err():
    generator = np.random.default_rng(0)
    difficulty = generator.exponential(1.0, size=1500)
    members = (1.0 + generator.normal(size=(4, 1500)) * difficulty).round(4)
    found = evaluate_agreement(Columns(), pairs_of(members.tolist()))
    disagreed = [stratum.accuracy.estimate for stratum in found.by_disagreement]
    assert disagreed[0] > disagreed[-1] + 0.1
    assert found.selective.points[0].accuracy.low > found.ensemble_accuracy.high
    coins = generator.choice([-1.0, 1.0], p=[0.3, 0.7], size=(2, 1500))
    coin = evaluate_agreement(Columns(), pairs_of(coins.tolist()))
    assert coin.between[0].kappa == pytest.approx(0.0, abs=0.08)
    same = evaluate_agreement(Columns(), pairs_of([coins[0].tolist()] * 2))
    assert same.between[0].kappa == pytest.approx(1.0)
    assert same.mean_agreement == 1.0


def test_members_are_told_which_replies_are_finished() -> None:
    class Halved(Columns):
        def member_scores(self, prompts, responses, *, finished=True):
            scale = torch.tensor([1.0 if told else 0.5 for told in finished])
            return super().member_scores(prompts, responses) * scale

    pairs = pairs_of([[2.0, 1.0], [4.0, 3.0]])
    told = pairs.add_column("chosen_finished", [False, True])
    np.testing.assert_allclose(member_margins(Halved(), told), [[1.0, 1.0], [2.0, 3.0]])


def test_members_that_are_always_right_have_no_kappa():
    found = evaluate_agreement(Columns(), pairs_of([[1.0, 1.0], [1.0, -1.0]]))
    assert found.between[0].kappa is None


def test_ensemble_of_one_and_members_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="the ensemble has 1 member"):
        evaluate_agreement(Columns(), pairs_of([[1.0, 2.0]]))
    broken = pairs_of([[1.0, 2.0], [1.0, float("nan")]])
    with pytest.raises(ValueError, match="row 1: the score of the chosen reply by member 1 is nan"):
        evaluate_agreement(Columns(), broken)


def test_each_distinct_text_is_scored_once_with_its_prompts_others():
    class Mean(Columns):
        def score(self, prompts, responses):
            return super().score(prompts, responses)

    model = Mean()
    prompts = ["a", "b", "a", "b", "a"]
    replies = ["1", "2", "3", "2", "1"]
    found = score_texts(model, prompts, replies, batch_size=2)
    assert found.tolist() == [1, 2, 3, 2, 1]
    assert model.asked == [("a", "1"), ("a", "3"), ("b", "2")]


@pytest.mark.parametrize("batch_pairs", [1, 5, 16, 1000])
def test_rankings_as_pairs_give_the_same_numbers_at_any_batch_size(batch_pairs):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(12, 4)).round(3)
    rows = [
        {"prompt": f"p{q}", "chosen": f"{values[q, i]}", "rejected": f"{values[q, j]}"}
        for i in range(4)
        for j in range(i)
        for q in range(12)  # a prompt's pairs lie far apart
    ]
    pairs = Dataset.from_list(rows)
    model = Columns()
    found = preference_margins(model, pairs, batch_pairs=batch_pairs)
    expected = [np.float32(row["chosen"]) - np.float64(np.float32(row["rejected"])) for row in rows]
    assert found.tolist() == expected
    assert len(model.asked) == len(set(model.asked)) == 48
    one, other = (
        evaluate_reward_model(Columns(), pairs, seed=1, batch_pairs=size)
        for size in (batch_pairs, 7)
    )
    assert {**vars(one), "seconds": 0} == {**vars(other), "seconds": 0}
    assert one.prompts == 12


class PaddedMean:
    """The fault to be found: a score that counts the padding of its batch."""

    def score(self, prompts, responses):
        width = max(len(response) for response in responses)
        return torch.tensor([len(response) / width for response in responses])


def test_score_that_depends_on_its_batch_is_found_by_row():
    texts = ["a", "abc", "abcdef"]
    found = measure_batch_invariance(PaddedMean(), ["p"] * 3, texts)
    assert found.alone == 1.0
    assert found.row == 0
    assert found.company == "beside a long text"
    assert found.together == pytest.approx(1 / 20)
    assert found.max_difference == pytest.approx(0.95)
    assert found.rows == 3


def test_score_that_depends_on_its_place_is_found_in_the_shuffle():
    class FirstIsBest:
        def score(self, prompts, responses):
            scores = torch.tensor([float(len(response)) for response in responses])
            scores[0] = 9.0  # alone every text is the first
            return scores

    found = measure_batch_invariance(FirstIsBest(), ["p"] * 4, ["a", "bb", "ccc", "dddd"])
    assert found.max_difference == pytest.approx(8.0)
    with pytest.raises(ValueError, match="and at least 2"):
        measure_batch_invariance(FirstIsBest(), ["p"], ["a"])


def test_sequence_reward_model_scores_alike_alone_and_in_any_batch(policy_folder: Path):
    torch.manual_seed(0)
    tokenizer = load_tokenizer(str(policy_folder))
    model = AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    reward_model = SequenceRewardModel(model, TextEncoder(tokenizer, 128), batch_size=4)
    prompts = ["Write a poem about the sea. " * 3, "Say hello.", "Say hello."] * 3
    replies = [f"word {'and more ' * index}." for index in range(9)]
    found = measure_batch_invariance(reward_model, prompts, replies)
    assert found.max_difference <= 1e-5
    assert found.spread > 100 * found.max_difference

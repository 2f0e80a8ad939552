"""RewardBench, both versions: aggregates against numbers worked out by hand."""

import math

import numpy as np
import pytest
from datasets import Dataset

from rewardmodel.evaluation.benchmarks.reward_bench2 import (
    best_of_share,
    evaluate_reward_bench2,
    reward_bench2_score,
    ties_score,
)
from rewardmodel.evaluation.benchmarks.rewardbench import (
    PRIOR_SETS,
    SECTIONS,
    evaluate_reward_bench,
    reward_bench_score,
)
from tests.fakes import NumberReader


def test_published_counts_sum_to_those_of_the_paper():
    counts = [sum(section.values()) for section in SECTIONS.values()]
    assert counts == [358, 456, 740, 1968]
    # Mathematics weighs as much as the six programming languages.
    reasoning = SECTIONS["Reasoning"]
    assert reasoning["math-prm"] == sum(reasoning.values()) - reasoning["math-prm"] == 984
    # The set has 2,985 pairs; of mathematics it holds 447.
    assert sum(counts) - 984 + 447 == 2985


def test_sections_weigh_their_subsets_and_the_score_is_their_mean():
    subsets, margins = [], []
    for section in SECTIONS.values():
        for name in section:
            subsets += [name, name]
            margins += [1.0, 1.0 if name in ("math-prm", "alpacaeval-easy") else -1.0]
    found = reward_bench_score(subsets, np.array(margins))
    assert found.missing == ()
    assert found.sections["Reasoning"] == pytest.approx(0.5 * 1.0 + 0.5 * 0.5)
    assert found.sections["Chat"] == pytest.approx((100 * 1.0 + 258 * 0.5) / 358)
    assert found.sections["Safety"] == found.sections["Chat Hard"] == pytest.approx(0.5)
    assert found.score == pytest.approx(sum(found.sections.values()) / 4)
    assert found.prior_sets is None
    with_prior = reward_bench_score([*subsets, *PRIOR_SETS], np.array([*margins, 1, 1, 1, -1]))
    assert with_prior.prior_sets == 0.75
    assert with_prior.score == pytest.approx((4 * found.score + 0.5 * 0.75) / 4.5)


def test_a_tie_of_scores_is_wrong_and_missing_subsets_leave_no_score():
    pairs = Dataset.from_dict(
        {
            "prompt": ["a", "b", "c"],
            "chosen": ["x 1", "x 1", "x 1"],
            "rejected": ["x 1", "x 0", "x 0"],
            "subset": ["hep-cpp", "hep-cpp", "hep-go"],
        }
    )
    found = evaluate_reward_bench(NumberReader(), pairs)
    assert found.sections == {"Reasoning": pytest.approx(0.75)}
    assert found.tied_scores == 1
    assert found.score is None
    assert len(found.missing) == 23 - 2
    assert [(s.subset, s.rows) for s in found.subsets] == [("hep-cpp", 2), ("hep-go", 1)]
    with pytest.raises(ValueError, match="subsets \\['z'"):
        evaluate_reward_bench(
            NumberReader(),
            pairs.remove_columns("subset").add_column("subset", ["z"] * 3),
        )


@pytest.mark.parametrize(
    ("chosen", "rejected", "share"),
    [([2], [1, 0, 1], 1.0), ([2], [2, 0, 2], 1 / 3), ([1], [2, 0, 0], 0.0), ([0], [0] * 3, 0.25)],
)
def test_best_of_four_shares_the_first_place(chosen, rejected, share):
    assert best_of_share(chosen, rejected) == pytest.approx(share)


def test_ties_by_hand():
    rows = {
        # Question 1: spread 1, tied gap 3, ref gap 0.5: preferred, but not by the harder test.
        "tied:1": ([5.0, 4.0], [1.0, 0.0]),
        "ref:1": ([1.5], [1.0]),
        # Question 2: spread 4, tied gap -1: wrong; ref gap 2.
        "tied:2": ([5.0, 1.0], [2.0]),
        "ref:2": ([3.0], [1.0]),
        # A question in one kind only counts in that accuracy alone.
        "ref:3": ([0.0], [1.0]),
    }
    found = ties_score(rows)
    assert found.tied_accuracy == 0.5
    assert found.ref_accuracy == pytest.approx(2 / 3)
    assert (found.preferred, found.preferred_hard, found.questions) == (0.5, 0.0, 2)
    closeness = (math.tanh(0.5 / 1 - 1) + math.tanh(-1 / 4 - 1)) / 2
    assert found.closeness == pytest.approx(closeness)
    assert found.score == pytest.approx(
        0.3 * 0.5 + 0.3 * 2 / 3 + 0.2 * 0.5 + 0.2 * 0.0 + 0.01 * closeness
    )


def test_ties_without_spread_have_a_closeness_of_one_and_without_gap_too_of_zero():
    equal = {"tied:1": ([2.0, 2.0], [1.0]), "ref:1": ([2.0], [1.0])}
    assert ties_score(equal).closeness == 1.0
    flat = {"tied:1": ([1.0, 1.0], [1.0]), "ref:1": ([1.0], [1.0])}
    assert ties_score(flat).closeness == 0.0
    assert ties_score(flat).score == 0.0


def bench2() -> Dataset:
    rows = [
        ("1", "q1", ["x 2"], ["x 1", "x 0", "x 0.5"], "Math"),
        ("2", "q2", ["x 2"], ["x 2", "x 2", "y 2"], "Math"),
        ("3", "q3", ["x 1"], ["x 3", "x 2", "x 0"], "Focus"),
        ("tied:0", "q4", ["x 5", "x 4.5"], ["x 1", "x 0"], "Ties"),
        ("ref:0", "q4", ["x 5"], ["x 1", "x 0", "y 1"], "Ties"),
    ]
    names = ("id", "prompt", "chosen", "rejected", "subset")
    return Dataset.from_dict(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rows_of_many_replies_are_scored_whatever_the_batches(batch_size):
    found = evaluate_reward_bench2(NumberReader(), bench2(), batch_size=batch_size)
    figures = {s.subset: (s.rows, s.accuracy.estimate) for s in found.subsets}
    assert figures == {"Math": (2, pytest.approx((1 + 1 / 4) / 2)), "Focus": (1, 0.0)}
    # Spread 0.5, gaps 3.5 and 4.
    assert found.ties.score == pytest.approx(
        0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(3.5 / 0.5 - 1)
    )
    assert found.score is None
    assert found.missing == ("Factuality", "Precise IF", "Safety")


def test_score_is_the_mean_of_six_subsets():
    names = ["Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties", "Ties"]
    ids = ["1", "2", "3", "4", "5", "ref:7", "tied:7"]
    answers = [([1.0], [0.0])] * 3 + [([0.0], [1.0])] * 2 + [([1.0], [0.0]), ([1.0, 1.0], [0.0])]
    found = reward_bench2_score(ids, names, answers)
    assert found.ties.score == pytest.approx(1.01)
    assert found.score == pytest.approx((3 + 0 + 1.01) / 6)


def test_rows_that_cannot_be_scored_are_named():
    rows = bench2().to_list()
    rows[2]["chosen"] = ["x 1", "x 2"]
    with pytest.raises(ValueError, match=r"row 2 \(subset 'Focus'\): found 2 chosen and 3"):
        evaluate_reward_bench2(NumberReader(), Dataset.from_list(rows))
    with pytest.raises(ValueError, match="has the id 'three'"):
        ties_score({"three": ([1.0], [0.0])})
    with pytest.raises(ValueError, match="no question in both"):
        ties_score({"ref:1": ([1.0], [0.0]), "tied:2": ([1.0, 1.0], [0.0])})
    rows = bench2().to_list()
    rows[1]["rejected"] = ["x 2", "x nan", "x 2"]
    with pytest.raises(ValueError, match="row 1: the score of a reply is nan"):
        evaluate_reward_bench2(NumberReader(), Dataset.from_list(rows))
    with pytest.raises(ValueError, match="required are at least one row and id, prompt"):
        evaluate_reward_bench2(NumberReader(), Dataset.from_list(rows).remove_columns("id"))

"""Rankings of several replies, and the pairs they stand for."""

import json
import logging
from itertools import combinations

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardmodel.data.formats.ranked import ranks_of_scores
from rewardmodel.data.preferences import load_preferences
from rewardmodel.data.rankings import load_rankings, pairs_from_rankings, ranked_pairs
from rewardmodel.data.rows import PreferenceDataError
from tests.preference_rows import write

RANKED = {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]}
SCORED = {"prompt": "p", "responses": ["a", "b", "c"], "scores": [0.5, 2, 0.5], "subset": "s"}


def test_ranks_and_scores_are_read_alike(tmp_path):
    ranked, scored = write(tmp_path, RANKED), tmp_path / "s.jsonl"
    scored.write_text(json.dumps(SCORED), encoding="utf-8")
    assert load_rankings(ranked).to_list() == [RANKED]
    assert load_rankings(scored).to_list() == [{**RANKED, "subset": "s"}]
    assert load_rankings(scored).features["ranks"].feature.dtype == "int64"
    load_rankings(scored).to_parquet(tmp_path / "r.parquet")
    assert load_rankings(tmp_path / "r.parquet").to_list() == [{**RANKED, "subset": "s"}]
    assert load_rankings(scored, format="plain").to_list() == load_rankings(scored).to_list()


def test_ultrafeedback_completions_are_a_ranking(tmp_path):
    completions = [{"response": text, "overall_score": s} for text, s in (("a", 3), ("b", 9))]
    path = write(tmp_path, {"instruction": "q", "completions": completions})
    assert load_rankings(path).to_list() == [
        {"prompt": "q", "responses": ["a", "b"], "ranks": [2, 1]}
    ]


def test_repeated_replies_are_kept_once_and_counted(tmp_path, caplog):
    row = {"prompt": "p", "responses": ["a", "b", "a", "c"], "scores": [1, 2, 5, 2.5]}
    with caplog.at_level(logging.WARNING):
        found = load_rankings(write(tmp_path, row)).to_list()
    # The copies of "a" have the mean score of 3, which is the highest.
    assert found == [{"prompt": "p", "responses": ["a", "b", "c"], "ranks": [1, 3, 2]}]
    assert "left out 1 and kept 1 (1 x repeated reply of a ranking)" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": [1, 2]}, "'ranks' holds list .*a list of 3 finite numbers"),
        ({"ranks": [1, 2, 1.5]}, "'ranks' holds list .*whole numbers, 1 for the best"),
        ({"ranks": [0, 1, 2]}, "whole numbers, 1 for the best"),
        ({"ranks": [1, 2, True]}, "a list of 3 finite numbers"),
        ({"ranks": None}, "'ranks' holds NoneType"),
        ({"responses": ["a"], "ranks": [1]}, "found 1 replies of which 1 differ"),
        ({"responses": [], "ranks": []}, "found 0 replies"),
        ({"responses": ["a", "a"], "ranks": [1, 1]}, "found 2 replies of which 1 differ"),
        ({"responses": ["a", "a", "b"]}, "'a' occurs with the ranks 2 and 1"),
        ({"responses": ["a", "", "b"]}, "none of them empty"),
        ({"responses": ["a", None, "b"]}, "'responses' holds list"),
        ({"prompt": ""}, "column 'prompt' is an empty str"),
    ],
)
def test_bad_ranking_is_named_and_counted(change, message, tmp_path, caplog):
    path = write(tmp_path, RANKED, {**RANKED, **change})
    with pytest.raises(PreferenceDataError, match=rf"p\.jsonl:2: .*{message}"):
        load_rankings(path)
    with caplog.at_level(logging.WARNING):
        assert load_rankings(path, on_bad_row="skip").to_list() == [RANKED]
    assert "skipped 1 bad rows and kept 1" in caplog.text


@pytest.mark.parametrize("score", [None, "high", True])
def test_score_that_is_no_finite_number_is_a_bad_row(score, tmp_path):
    path = write(tmp_path, {**SCORED, "scores": [1, 2, score]})
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:1: 'scores' holds list .*3 finite"):
        load_rankings(path)


def test_pairs_are_no_rankings_and_say_so(tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 2, "score_rejected": 1}
    with pytest.raises(PreferenceDataError, match=r"found rows of pairs .*load_preferences"):
        load_rankings(write(tmp_path, row))
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:1: 'responses' is missing"):
        load_rankings(write(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"}))


def test_all_pairs_of_a_ranking():
    dataset = Dataset.from_list([{**RANKED, "subset": "s"}])
    pairs = pairs_from_rankings(dataset)
    assert [(p["chosen"], p["rejected"], p["chosen_probability"]) for p in pairs.to_list()] == [
        ("b", "a", 1.0),
        ("b", "c", 1.0),
        ("a", "c", 0.5),
    ]
    assert pairs.column_names == ["prompt", "chosen", "rejected", "chosen_probability", "subset"]


def test_pairs_by_loading_are_the_pairs_of_the_loaded_rankings(tmp_path):
    path = write(tmp_path, SCORED, {**SCORED, "prompt": "q", "scores": [3, 1, 2]})
    loaded = load_preferences(path).to_list()
    assert loaded == pairs_from_rankings(load_rankings(path)).to_list()
    assert load_preferences(path, margins=True)["margin"] == [1.5, 1.5, 0.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"responses": ["a", "b"], "ranks": [1]}, "2 responses and 1 ranks"),
        ({"responses": ["a"], "ranks": [1]}, "1 responses of which 1 differ"),
        ({"responses": ["a", "a"], "ranks": [1, 2]}, "2 responses of which 1 differ"),
        ({"responses": ["a", "b"], "ranks": [1.0, 2.5]}, r"the ranks \[1.0, 2.5\]"),
        ({"responses": ["a", "b"], "ranks": [0, 1]}, r"the ranks \[0, 1\]"),
        ({"responses": "ab", "ranks": [0, 1]}, "str as responses"),
    ],
)
def test_bad_row_of_rankings_is_refused(row, message):
    with pytest.raises(ValueError, match=rf"row 0: found {message}"):
        pairs_from_rankings(Dataset.from_list([{"prompt": "p", **row}]))


def test_what_gives_no_pairs_is_refused():
    tied = Dataset.from_list([{**RANKED, "ranks": [1, 1, 1]}])
    assert len(pairs_from_rankings(tied)) == 3
    with pytest.raises(ValueError, match="0 rankings gave no pair"):
        pairs_from_rankings(tied.select([]))
    with pytest.raises(ValueError, match=r"has no ranks, responses; found \['prompt'\]"):
        pairs_from_rankings(Dataset.from_list([{"prompt": "p"}]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=7))
def test_pairs_agree_with_the_scores(scores):
    ranks = ranks_of_scores(scores)
    pairs = list(ranked_pairs(ranks))
    assert {frozenset(pair[:2]) for pair in pairs} == {
        frozenset(both) for both in combinations(range(len(scores)), 2)
    }
    for better, worse, probability in pairs:
        assert scores[better] >= scores[worse]
        assert probability == (0.5 if scores[better] == scores[worse] else 1.0)

"""The report on preference data: what is counted, and what is written."""

import json
import math

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from prefsearch.statistics.intervals import wilson_interval
from rewardmodel.data.preferences import load_preferences
from rewardmodel.data.report import (
    examine_preferences,
    length_correlation,
)
from rewardmodel.data.report_page import report_rows, write_data_report
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer
from tests.fakes import Words
from tests.sample_data import HH, QA_FEEDBACK, is_small


def pairs_of(*rows: tuple) -> Dataset:
    """Pairs of (prompt, chosen, rejected, chosen_probability)."""
    names = ("prompt", "chosen", "rejected", "chosen_probability")
    return Dataset.from_list([dict(zip(names, row, strict=True)) for row in rows])


MIXED = pairs_of(
    ("p", "aaa", "b", 1.0),
    ("p", "b", "aaa", 0.8),  # contradicts the first
    ("p", "c", "dd", 0.5),
    ("p", "dd", "c", 0.5),  # the same tie, the other way round
    ("q", "eeee", "ff", 1.0),
    ("q", "ee", " ", 1.0),
)


def test_ties_and_soft_labels_are_counted_apart():
    report = examine_preferences(MIXED)
    assert (report.pairs, report.prompts) == (6, 2)
    assert (report.ties, report.soft_labels) == (2, 1)
    assert report.duplicate_pairs == 1
    assert report.contradictory_pairs == 1
    assert report.identical_pairs == 0
    assert report.blank_replies == 1
    assert report.longer_chosen == wilson_interval(3, 4)
    assert report.characters["chosen"]["p100"] == 4
    assert (report.tokens, report.limits) == (None, None)
    assert (report.confidences, report.subsets) == ({}, {})


def test_data_of_ties_alone_have_no_length_bias_and_the_report_says_so(tmp_path):
    report = examine_preferences(pairs_of(("p", "aaa", "b", 0.5), ("p", "cc", "d", 0.5)))
    assert report.ties == report.pairs == 2
    assert report.longer_chosen is None
    assert report.length_correlation is None
    page = write_data_report(report, tmp_path)
    assert "All pairs are ties" in page.read_text(encoding="utf-8")


def test_subsets_and_confidences_are_counted_nulls_too():
    rows = [
        {"prompt": "p", "chosen": f"c{i}", "rejected": "r", "confidence": c, "subset": s}
        for i, (c, s) in enumerate([(9.0, "x"), (1.0, "y"), (None, "y"), (9.0, None)])
    ]
    report = examine_preferences(Dataset.from_list(rows))
    assert report.confidences == {"1": 1, "9": 2, "none": 1}
    assert list(report.confidences) == ["1", "9", "none"]
    assert report.subsets == {"y": 2, "x": 1, "none": 1}


def test_tokens_and_what_a_limit_cuts_agree_with_the_encoder():
    # Words counts words; a begin token stands before the prompt, an end token after a response.
    dataset = Dataset.from_list(
        [
            {"prompt": "3 4", "chosen": "5", "rejected": "6"},  # 3 + 2
            {"prompt": "3 4 5 6", "chosen": "5", "rejected": "6 7 8"},  # 5 + 2, 5 + 4
            {"prompt": "3", "chosen": "5 6 7 8 9 3 4", "rejected": "6"},  # 2 + 8, 2 + 2
        ]
    )
    report = examine_preferences(dataset, encoder=TextEncoder(Words(), 8))
    assert report.tokens is not None
    assert report.tokens["longest"]["p100"] == 10
    assert report.tokens["prompt"] == {"p5": 2, "p25": 2, "p50": 3, "p75": 4, "p95": 4, "p100": 5}
    limits = report.limits
    assert limits is not None
    assert (limits.max_length, limits.cut_pairs, limits.dropped_by_trl) == (8, 2, 2)
    assert (limits.cut_responses, limits.cut_response_pairs) == (1, 1)
    encoder = TextEncoder(Words(), 8)
    lost = sum(
        max(0, sum(map(len, encoder.whole(row["prompt"], row[c]))) - 8)
        for row in dataset
        for c in ("chosen", "rejected")
    )  # pyright: ignore[reportArgumentType]
    assert limits.lost_tokens_share == pytest.approx(lost / (5 + 5 + 7 + 9 + 10 + 4))
    assert report.histogram.unit == "tokens"
    assert sum(report.histogram.chosen) == sum(report.histogram.rejected) == 3
    over = examine_preferences(dataset, encoder=TextEncoder(Words(), 9)).limits
    assert over is not None
    assert (over.max_length, over.cut_pairs) == (9, 1)
    assert examine_preferences(dataset, encoder=TextEncoder(Words())).limits is None


def test_pairs_are_needed():
    with pytest.raises(ValueError, match=r"found no pairs"):
        examine_preferences(MIXED.select([]))
    for value in (1.5, math.nan, None):
        with pytest.raises(ValueError, match=r"row 1: chosen_probability is"):
            examine_preferences(pairs_of(("p", "a", "b", 1.0), ("p", "a", "b", value)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-50, 50), st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0])),
        min_size=1,
        max_size=20,
    )
)
def test_length_correlation_is_pearsons_over_both_orders(pairs):
    difference, probability = np.array(pairs, dtype=float).T
    found = length_correlation(difference, probability)
    both = np.concatenate([difference, -difference])
    labels = np.concatenate([probability, 1 - probability])
    if found is None:
        assert np.ptp(both) == 0 or np.ptp(labels) == 0
    else:
        assert found == pytest.approx(np.corrcoef(both, labels)[0, 1], abs=1e-9)
        # Which of the two replies is named first does not matter.
        flipped = length_correlation(-difference, 1 - probability)
        assert flipped == pytest.approx(found, abs=1e-12)


def test_length_correlation_is_one_where_length_decides():
    rows = np.array([3.0, 3.0, 3.0]), np.ones(3)
    assert length_correlation(*rows) == 1
    assert length_correlation(-rows[0], rows[1]) == -1


def test_report_is_written_as_json_and_as_a_page(policy_folder, tmp_path):
    dataset = MIXED.add_column("subset", [*"xxxyy", "<b>"])  # pyright: ignore[reportCallIssue]
    encoder = TextEncoder(load_tokenizer(str(policy_folder)), 4)
    report = examine_preferences(dataset, encoder=encoder)
    page = write_data_report(report, tmp_path / "new" / "report")
    assert page == tmp_path / "new" / "report" / "data_report.html"
    text = page.read_text(encoding="utf-8")
    for row in report_rows(report):
        assert str(row["finding"]) in text
    assert "pairs TRL would have dropped" in text
    assert "&lt;b&gt;" in text
    assert "<svg" in text
    saved = json.loads((page.parent / "data_report.json").read_text(encoding="utf-8"))
    assert saved["ties"] == 2
    assert saved["limits"]["max_length"] == 4
    assert saved["longer_chosen"]["estimate"] == 0.75
    assert saved["subsets"] == {"x": 3, "y": 2, "<b>": 1}


@pytest.mark.parametrize("sample", QA_FEEDBACK)
def test_report_of_the_qa_feedback_sample(sample):
    report = examine_preferences(load_preferences(sample))
    expected = (60, 10, 17, 0) if is_small(sample) else (3000, 500, 384, 0)
    assert (report.pairs, report.prompts, report.ties, report.soft_labels) == expected
    assert report.duplicate_pairs == report.contradictory_pairs == report.blank_replies == 0
    assert report.longer_chosen is not None
    # Longer answers are not clearly preferred.
    assert report.longer_chosen.low < 0.5 < report.longer_chosen.high
    assert report.longer_chosen.estimate == pytest.approx(
        19 / 43 if is_small(sample) else 0.512, abs=5e-4
    )


@pytest.mark.parametrize("sample", HH)
def test_report_of_the_hh_sample_finds_that_shorter_replies_are_preferred(sample, tmp_path):
    report = examine_preferences(load_preferences(sample))
    expected = (60 if is_small(sample) else 1800, 0, 2)
    assert (report.pairs, report.ties, report.blank_replies) == expected
    assert report.longer_chosen is not None
    assert report.longer_chosen.high < 0.5
    assert report.length_correlation is not None
    assert report.length_correlation < 0
    text = write_data_report(report, tmp_path).read_text(encoding="utf-8")
    assert "The shorter reply is preferred more often than not" in text

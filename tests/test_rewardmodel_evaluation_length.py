"""Length: a scorer that only counts characters is found out, one that does not is not accused."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import expit

from prefsearch.statistics.intervals import wilson_interval
from rewardmodel.data.preferences import load_preferences
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.clustered import clustered_correlation
from rewardmodel.evaluation.length.control import control_for_length
from rewardmodel.evaluation.length.edits import edit_accuracy, load_edits
from rewardmodel.evaluation.length.probes import cut_sentence, truncation_probe
from tests.sample_data import QA_FEEDBACK, is_small


class Scorer:
    """Scores by a function of the response."""

    def __init__(self, function) -> None:
        self.function = function

    def score(self, prompts, responses):
        return torch.tensor([float(self.function(response)) for response in responses])


def quality(response: str) -> int:
    return response.count("good")


def pairs_of_quality_and_length(count: int, *, longer: float, seed: int = 0) -> Dataset:
    """The better reply has more goods; it is the longer one in a share of the pairs."""
    generator = np.random.default_rng(seed)
    rows = {"prompt": [], "chosen": [], "rejected": []}
    for index in range(count):
        short, extra = generator.integers(5, 20), generator.integers(5, 20)
        sizes = [short + extra, short] if generator.random() < longer else [short, short + extra]
        rows["prompt"].append(f"p{index}")
        rows["chosen"].append("good good " + "x " * sizes[0])
        rows["rejected"].append("good then " + "x " * sizes[1])
    return Dataset.from_dict(rows)


def evaluate(function, pairs: Dataset):
    return evaluate_reward_model(Scorer(function), pairs, seed=0)


@pytest.mark.parametrize("function", [len, lambda text: len(text) ** 0.5, lambda text: -len(text)])
def test_a_pure_length_scorer_has_half_the_balanced_accuracy_and_no_gain(function):
    found = evaluate(function, pairs_of_quality_and_length(400, longer=0.75))
    assert abs(found.accuracy.estimate - 0.5) > 0.2  # it looks right, or wrong, by length alone
    control = found.length_control
    assert control.balanced_accuracy.estimate == pytest.approx(0.5, abs=1e-9)
    assert abs(control.margin_gain.estimate) < 0.01
    assert abs(found.length_bias.rank_margin.estimate) > 0.97
    assert found.length_bias.rank_within_prompts.low > 0.99 or function("aa") < 0


def test_a_scorer_of_quality_keeps_its_accuracy_at_equal_length_and_shows_no_bias():
    found = evaluate(quality, pairs_of_quality_and_length(400, longer=0.5))
    control = found.length_control
    assert control.balanced_accuracy.estimate == 1.0
    assert control.margin_gain.low > 0.5
    assert control.margin_weight > max(map(abs, control.length_weights))
    assert found.length_bias.margin.low < 0 < found.length_bias.margin.high
    assert found.longer_reply_accuracy.estimate == pytest.approx(0.5, abs=0.06)


def test_length_control_on_a_few_pairs_by_hand():
    pairs = Dataset.from_dict(
        {
            "prompt": ["a", "b", "c", "d"],
            "chosen": ["good" + "x" * 20, "good x", "none x", "good" + "x" * 20],
            "rejected": ["x", "x" * 30, "good" + "x" * 40, "x" * 24],
        }
    )
    control = evaluate(quality, pairs).length_control
    # Longer and right; shorter: one right, one wrong; equal length: in neither half.
    assert control.balanced_accuracy.estimate == pytest.approx((1 + 1 / 2) / 2)
    assert control.matched_pairs == 1
    assert control.matched_accuracy == wilson_interval(1, 1)
    assert sum(stratum.pairs for stratum in control.by_length_ratio) == 4


def regression(seed: int, *, weights: tuple[float, float], count: int = 1200):
    """Labels drawn from a log length ratio and a difference that have nothing to do together."""
    generator = np.random.default_rng(seed)
    ratios, differences, noise = generator.normal(size=(3, count))
    chance = expit(weights[0] * ratios + weights[1] * differences)
    labels = (generator.random(count) < chance).astype(float)
    return noise, labels, ratios, 100 * differences, np.arange(count)


@pytest.mark.parametrize("weights", [(1.5, 0.0), (0.0, 1.5), (1.5, -1.5)])
def test_both_measures_of_length_are_controlled_for(weights):
    noise, labels, ratios, differences, groups = regression(0, weights=weights)
    found = control_for_length(noise, labels, ratios, differences, groups, seed=0)
    # The loss of the chances that drew the labels is what a regression on both can reach.
    logits = weights[0] * ratios + weights[1] * differences / 100
    reached = np.logaddexp(0, -logits) * labels + np.logaddexp(0, logits) * (1 - labels)
    assert found.length_log_loss.estimate == pytest.approx(reached.mean(), abs=0.02)
    assert found.length_weights == pytest.approx(weights, abs=0.3)
    # A margin of noise adds nothing to both lengths, and would to neither alone.
    assert found.margin_gain.estimate == pytest.approx(0, abs=0.01)
    # A margin that repeats a length knows nothing beside it.
    for copy in (ratios, differences):
        again = control_for_length(copy, labels, ratios, differences, groups, seed=0)
        assert again.margin_gain.estimate == pytest.approx(0, abs=0.01)


def test_length_is_controlled_for_on_prompts_that_the_regression_did_not_see():
    # Labels drawn by a coin: whatever is fitted to them has a loss above log 2 elsewhere, and below
    # it where it was fitted.
    losses, gains = [], []
    for seed in range(20):
        noise, labels, ratios, differences, _ = regression(seed, weights=(0.0, 0.0), count=60)
        # Each prompt three times, with its label and lengths: its copies would give it away.
        rows = [np.repeat(row[:20], 3) for row in (noise, labels, ratios, differences)]
        found = control_for_length(*rows, np.repeat(np.arange(20), 3), seed=seed)
        losses.append(found.length_log_loss.estimate)
        gains.append(found.margin_gain.estimate)
    assert np.mean(losses) > np.log(2) + 0.05
    assert np.mean(gains) < -0.02


def test_balanced_accuracy_needs_both_kinds_of_pairs():
    found = evaluate(quality, pairs_of_quality_and_length(20, longer=1.0))
    assert found.length_control.balanced_accuracy is None
    assert found.accuracy_where_shorter_chosen is None


def test_human_preference_for_length_is_reported_beside_the_models():
    liked = evaluate(len, pairs_of_quality_and_length(200, longer=0.9)).length_bias
    disliked = evaluate(len, pairs_of_quality_and_length(200, longer=0.1)).length_bias
    assert liked.human.low > 0.3
    assert disliked.human.high < -0.3
    assert evaluate(lambda _: 1.0, pairs_of_quality_and_length(5, longer=1)).length_bias.margin is (
        None
    )


def test_correlation_about_zero_agrees_with_its_formula_and_covers_the_truth():
    generator = np.random.default_rng(0)
    x = generator.normal(size=2000)
    y = 0.6 * x + 0.8 * generator.normal(size=2000)
    found = clustered_correlation(x, y, np.arange(2000), seed=0)
    assert found.estimate == pytest.approx((x @ y) / np.sqrt((x @ x) * (y @ y)))
    assert found.low < 0.6 < found.high
    # Ten copies of each pair under one prompt say no more than the pairs.
    copies = clustered_correlation(
        np.repeat(x, 10), np.repeat(y, 10), np.repeat(np.arange(2000), 10), seed=0
    )
    assert copies.high - copies.low == pytest.approx(found.high - found.low, rel=0.15)


def test_edits_are_counted_by_whether_they_shorten():
    edits = Dataset.from_dict(
        {
            "prompt": ["a", "b", "c", "d"],
            "original": ["long and wrong", "short", "same ", "wordy text"],
            "edited": ["good", "short but good", "same", "text"],
        }
    )
    found = edit_accuracy(Scorer(quality), edits, seed=0)
    assert (found.edits, found.unchanged, found.shorter, found.longer) == (3, 1, 2, 1)
    assert found.accuracy == wilson_interval(2.5, 3)
    assert found.accuracy_where_shorter == wilson_interval(1.5, 2)
    assert found.accuracy_where_longer == wilson_interval(1, 1)
    greedy = edit_accuracy(Scorer(len), edits, seed=0)
    assert greedy.accuracy_where_shorter.estimate == 0.0
    assert greedy.accuracy_where_longer.estimate == 1.0


def test_edits_that_cannot_be_used_are_refused():
    same = Dataset.from_dict({"prompt": ["a"], "original": ["x"], "edited": ["x"]})
    with pytest.raises(ValueError, match="none of the 1 edits changes its reply"):
        edit_accuracy(Scorer(len), same, seed=0)
    with pytest.raises(ValueError, match="required are prompt, original and edited"):
        edit_accuracy(Scorer(len), same.rename_column("edited", "fix"), seed=0)
    one = Dataset.from_dict({"prompt": ["a"], "original": ["x"], "edited": ["xx"]})
    with pytest.raises(ValueError, match=r"found 1 pair\(s\) with a better reply, of 1 prompt"):
        edit_accuracy(Scorer(len), one, seed=0)


def test_edits_are_loaded_from_plain_rows_and_bad_ones_named(tmp_path):
    file = tmp_path / "edits.jsonl"
    row = {"prompt": "p", "original": "a b", "edited": "a"}
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "edited": None}) + "\n")
    with pytest.raises(ValueError, match=r"edits.jsonl:2.*column 'edited' holds None"):
        load_edits(str(file))
    assert load_edits(str(file), on_bad_row="skip").to_list() == [row]


@pytest.mark.parametrize("sample", QA_FEEDBACK)
def test_human_corrections_of_qa_feedback_keep_the_prompts_of_the_pairs(sample):
    edits = load_edits(str(sample))
    pairs = load_preferences(str(sample), limit=60)
    # One correction of 10, or 13 of 500, delete everything.
    assert len(edits) == (9 if is_small(sample) else 487)
    assert pairs["prompt"][0] == edits["prompt"][0]
    assert len(set(pairs["prompt"]) & set(edits["prompt"])) >= 8
    found = edit_accuracy(Scorer(len), edits, seed=0)
    # Most real corrections shorten, so whoever likes length prefers few of them.
    assert found.shorter > found.longer > (0 if is_small(sample) else 100)
    assert found.accuracy_where_shorter.estimate == 0.0
    assert found.accuracy.high < 0.5


@pytest.mark.parametrize(
    ("reply", "cut"),
    [
        ("One. Two. Three.", "One. Two."),
        ('He said "no!" Then left.', 'He said "no!"'),
        ("A line\nanother line", "A line"),
        ("  Only one.  ", None),
        ("", None),
    ],
)
def test_last_sentence_is_cut(reply, cut):
    assert cut_sentence(reply) == cut


def test_probe_tells_a_length_scorer_from_one_that_counts_distinct_words():
    pairs = Dataset.from_dict(
        {
            "prompt": [f"p{index}" for index in range(8)],
            "chosen": [f"Word{index} is here. And more of{index}." for index in range(7)] + ["No"],
            "rejected": ["x"] * 8,
        }
    )
    by_length = truncation_probe(Scorer(len), pairs, seed=0)
    assert (by_length.replies, by_length.left_out) == (7, 1)
    assert by_length.cut_falls == by_length.filler_rises == wilson_interval(7, 7)
    assert by_length.cut_change.estimate == -len(" And more of0.")
    assert by_length.filler_change.estimate == len(" And more of0.")
    distinct = truncation_probe(Scorer(lambda text: len(set(text.split()))), pairs, seed=0)
    assert distinct.cut_falls.estimate == 1.0
    assert distinct.filler_rises == wilson_interval(3.5, 7)  # no change counts half
    assert distinct.filler_change.estimate == 0.0


def test_probe_refuses_replies_too_short_to_cut():
    short = Dataset.from_dict({"prompt": ["a", "b"], "chosen": ["One.", "Two."]})
    with pytest.raises(ValueError, match="found 0 replies of more than 1 sentences"):
        truncation_probe(Scorer(len), short, seed=0)
    with pytest.raises(ValueError, match="required are prompt and chosen"):
        truncation_probe(Scorer(len), short.rename_column("chosen", "reply"), seed=0)

"""Votes against a reference in plain Python, and expectations against all subsets."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.planning.voting import VoteRule, VoteWeight, choose, vote_expectation
from prefsearch.statistics.best_of_n import best_of_n_expectation, pass_at_k
from rewardmodel.models.verifiers import extract_answer, normalize_answer


def choose_slowly(
    answers: Sequence[str | None],
    scores: Sequence[float],
    rule: VoteRule,
    weight: VoteWeight = "softmax",
    temperature: float = 1.0,
) -> int:
    """The rules of `choose`, one sentence a line."""
    places = range(len(answers))
    if rule == "best" or all(answer is None for answer in answers):
        return max(places, key=lambda i: scores[i])
    votes: dict[str, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            soft = math.exp(score / temperature)
            vote = 1.0 if rule == "majority" else score if weight == "score" else soft
            key = normalize_answer(answer)
            votes[key] = votes.get(key, 0.0) + vote
    most = max(votes.values())
    winners = {key for key, vote in votes.items() if math.isclose(vote, most, rel_tol=1e-12)}
    stated = [i for i in places if (a := answers[i]) is not None and normalize_answer(a) in winners]
    return max(stated, key=lambda i: scores[i])


TEXTS = st.sampled_from(["#### 1", "so it is 1.0", "#### 2", "answer: 4/2", "none", "no idea", "7"])
SCORES = st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0, 2.5])


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.tuples(TEXTS, SCORES), min_size=1, max_size=9),
    st.sampled_from(["best", "majority", "weighted"]),
    st.sampled_from(["softmax", "score"]),
    st.sampled_from([0.2, 1.0, 30.0]),
)
def test_choice_equals_the_reference(
    rows: list[tuple[str, float]], rule: VoteRule, weight: VoteWeight, temperature: float
) -> None:
    texts, scores = [text for text, _ in rows], [score for _, score in rows]
    found = choose(texts, scores, rule=rule, weight=weight, temperature=temperature)
    answers = [extract_answer(text) for text in texts]
    assert found == choose_slowly(answers, scores, rule, weight, temperature)


def test_each_rule_chooses_as_it_says() -> None:
    texts = ["#### 3", "#### 2.0", "#### 2", "#### 1", "no idea"]
    scores = [2.0, 0.5, 0.7, 1.0, 9.0]
    assert choose(texts, scores, rule="best") == 4
    assert choose(texts, scores, rule="majority") == 2
    # e^2 = 7.4 against e^0.5 + e^0.7 = 3.7; hot weights are a majority vote, cold ones best-of-n.
    assert choose(texts, scores, rule="weighted") == 0
    assert choose(texts, scores, temperature=100, rule="weighted") == 2
    assert choose(texts, scores, temperature=1e-4, rule="weighted") == 0
    # As they are: 2 against 1.2, then 2 against 2.1.
    assert choose(texts, scores, weight="score", rule="weighted") == 0
    assert choose(texts, [2.0, 1.0, 1.1, 1.0, 9.0], weight="score", rule="weighted") == 2
    assert choose(texts, scores, form="boxed", rule="majority") == 4  # nobody has an answer


def test_votes_do_not_depend_on_the_origin_of_the_scores() -> None:
    texts = ["#### 1", "#### 2", "#### 2", "#### 3"]
    scores = np.array([0.6, 0.2, 0.1, 0.5])
    for origin in (-1e4, 0.0, 1e4):
        assert choose(texts, list(scores + origin), rule="weighted") == 1
    # A response without an answer far above the rest takes nothing from their votes.
    assert choose([*texts, "?"], [*scores, 1e5], rule="weighted") == 1


def test_ties_go_to_the_answer_with_the_better_response() -> None:
    texts = ["#### 1", "#### 2", "#### 2", "#### 1"]
    assert choose(texts, [0.0, 0.5, 0.1, 0.2], rule="majority") == 1
    assert choose(texts, [0.0, 0.5, 0.1, 0.7], rule="majority") == 3
    assert choose(texts, [0.5, 0.5, 0.1, 0.2], rule="majority") == 0
    # 0.1 + 0.2 and 0.3 are one number but for rounding.
    assert (
        choose(["#### 1", "#### 1", "#### 2"], [0.1, 0.2, 0.3], weight="score", rule="weighted")
        == 2
    )
    # Weights that are all zero are a tie between answers, which no answer does not join.
    assert choose(["?", "#### 1", "#### 2"], [0.0, 0.0, 0.0], weight="score", rule="weighted") == 1


@pytest.mark.parametrize(
    ("texts", "scores", "options", "message"),
    [
        ([], [], {"rule": "best"}, "at least one response"),
        (["1"], [1.0, 2.0], {"rule": "best"}, "found 1 responses and scores of shape"),
        (["1"], [math.nan], {"rule": "majority"}, r"scores\[0\] is nan"),
        (["1"], [1.0], {"rule": "median"}, "rule: found 'median'"),
        (["1"], [1.0], {"rule": "weighted", "weight": "log"}, "weight: found 'log'"),
        (["1"], [1.0], {"rule": "weighted", "temperature": 0.0}, "temperature: found 0.0"),
        (["1"], [-1.0], {"rule": "weighted", "weight": "score"}, 'Use weight="softmax"'),
        (["1"], [1.0], {"rule": "majority", "form": "box"}, "answer form: found 'box'"),
    ],
)
def test_choose_refuses(texts: list, scores: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(texts, scores, **options)


# ---------------------------------------------------------------------------------- expectations


def make_pools(prompts: int, pool: int, *, seed: int) -> tuple[list, np.ndarray, np.ndarray]:
    """Answers of which "4" is right, scores a little higher for it, and which are right."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, 6, size=(prompts, pool))
    answers = [[None if a == 0 else str(a) for a in row] for row in numbers.tolist()]
    right = (numbers == 4).astype(float)
    return answers, np.round(generator.normal(size=numbers.shape) + right, 1), right


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("rule", ["majority", "weighted"])
def test_expectation_is_the_mean_over_all_subsets(rule: VoteRule, n: int) -> None:
    answers, scores, right = make_pools(3, 8, seed=0)
    found = vote_expectation(answers, scores, right, n, rule=rule, temperature=0.5, seed=0)
    for prompt in range(3):
        outcomes = []
        for subset in itertools.combinations(range(8), n):
            voted = [answers[prompt][i] for i in subset]
            voters = [scores[prompt, i] for i in subset]
            place = choose_slowly(voted, voters, rule, temperature=0.5)
            outcomes.append(right[prompt, subset[place]])
        assert found[prompt] == pytest.approx(np.mean(outcomes), abs=1e-12)


def test_expectation_of_one_voter_is_the_mean_and_of_all_the_choice() -> None:
    answers, scores, right = make_pools(4, 12, seed=1)
    for rule in ("best", "majority", "weighted"):
        one = vote_expectation(answers, scores, right, 1, rule=rule, seed=0)
        np.testing.assert_allclose(one, right.mean(1))
        found = vote_expectation(answers, scores, scores, 12, rule=rule, seed=0)
        for row, value in enumerate(found):
            place = choose_slowly(answers[row], scores[row], rule)
            assert value == pytest.approx(scores[row, place])
    best = vote_expectation(answers, scores, right, 3, rule="best", seed=0)
    np.testing.assert_array_equal(best, best_of_n_expectation(scores, right, 3))
    # No vote can be right more often than some voter is.
    vote = vote_expectation(answers, scores, right, 5, rule="majority", seed=0)
    assert (vote <= pass_at_k(right, 5) + 1e-12).all()


def test_random_subsets_agree_with_all_of_them() -> None:
    answers, scores, right = make_pools(40, 14, seed=2)
    exact = vote_expectation(answers, scores, right, 7, rule="weighted", draws=4000, seed=0)
    drawn = vote_expectation(answers, scores, right, 7, rule="weighted", draws=3000, seed=0)
    assert math.comb(14, 7) == 3432
    # Each has a standard error of at most 0.5 / sqrt(3000) = 0.009; the mean over 40 of 0.0015.
    assert 0 < np.abs(drawn - exact).max() < 0.04
    assert abs((drawn - exact).mean()) < 0.006


def test_random_subsets_are_keyed_by_seed_and_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, scores, right = make_pools(3, 30, seed=3)
    options = {"rule": "majority", "draws": 50, "seed": 7}
    first = vote_expectation(answers, scores, right, 9, **options)
    np.testing.assert_array_equal(vote_expectation(answers, scores, right, 9, **options), first)
    fewer = vote_expectation(answers[:2], scores[:2], right[:2], 9, **options)
    np.testing.assert_array_equal(fewer, first[:2])
    other = vote_expectation(answers, scores, right, 9, **{**options, "seed": 8})
    assert (other != first).any()
    monkeypatch.setattr("policies.planning.voting._BLOCK_VALUES", 100)
    np.testing.assert_allclose(vote_expectation(answers, scores, right, 9, **options), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "1 <= n <= 4"),
        ({"n": 5}, "1 <= n <= 4"),
        ({"draws": 0}, "at least 1 subset"),
        ({"metric": np.zeros((2, 3))}, r"the same \[P, N\]"),
        ({"answers": [["1"] * 4]}, "answers to 1 prompts"),
        ({"answers": [["1"] * 4, ["1"] * 3]}, r"pools of \[3, 4\] answers"),
        ({"scores": np.full((2, 4), math.inf)}, r"scores\[0, 0\] is inf"),
        ({"weight": "score", "scores": np.full((2, 4), -1.0)}, "no negative score"),
    ],
)
def test_expectation_refuses(change: dict, message: str) -> None:
    wanted = {
        "answers": [["1"] * 4] * 2,
        "scores": np.zeros((2, 4)),
        "metric": np.zeros((2, 4)),
        "n": 2,
        "rule": "weighted",
        "seed": 0,
    }
    with pytest.raises(ValueError, match=message):
        vote_expectation(**{**wanted, **change})


def test_a_single_subset_is_enough_to_be_drawn() -> None:
    answers = [["a", "a", "b", "c"]]
    gold = np.array([[1.0, 2.0, 3.0, 4.0]])
    found = {
        float(vote_expectation(answers, gold, gold, 2, rule="majority", draws=1, seed=seed)[0])
        for seed in range(40)
    }
    assert found == {2.0, 3.0, 4.0}, "the better of two, one subset at a time"

"""Gold scorers by name, and the check of what they return."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policies.evaluation.gold_scorer import gold_scores, load_gold_scorer
from rewardmodel.synthetic.human import SimulatedHuman

PROMPT = "Write a short story about the baker, the bell and the lake.\n"
TEXTS = ["At last the baker went home with the bell and slept in peace.", "That was all.", ""]


def test_no_name_is_no_scorer_and_the_simulated_human_is_its_utility() -> None:
    assert load_gold_scorer(None) is None
    scorer = load_gold_scorer("simulated")
    human = SimulatedHuman()
    expected = [human.utility(PROMPT, text) for text in TEXTS]
    assert scorer([PROMPT] * 3, TEXTS) == expected
    assert expected[0] > expected[1]


def test_answers_are_matched_in_the_form_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"prompt": "How many?", "answer": "12"}\n')
    responses = ["the answer is 12", "\\boxed{12}", "12 and 3"]
    found = {}
    for form in ("number", "boxed"):
        scorer = load_gold_scorer(f"answers:{path}", answer_form=form)
        found[form] = gold_scores(scorer, ["How many?"] * 3, responses, rows=[0, 0, 0])
    assert found == {"number": [1.0, 1.0, 0.0], "boxed": [0.0, 1.0, 0.0]}


def test_a_function_beside_the_user_is_found_and_the_path_grows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def length(prompts, responses):\n    return [len(text) for text in responses]\n"
    (tmp_path / "judge_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for _ in range(2):
        scorer = load_gold_scorer("judge_of_mine:length")
        assert scorer(["p"], ["four"]) == [4]
    assert sys.path.count("") == 1
    assert sys.path[0] == "", "the user's file wins over a package of its name"


@pytest.mark.parametrize(
    "scores",
    [
        [0.5, True, 2],
        (0.5, 1.0, 2.0),
        np.array([0.5, 1.0, 2.0], dtype=np.float32),
        [np.float64(0.5), np.array(1.0), 2.0],
        torch.tensor([0.5, 1.0, 2.0]),
    ],
)
def test_scores_of_any_kind_of_number_are_floats(scores: Any) -> None:
    found = gold_scores(lambda p, r: scores, ["p"] * 3, ["a", "b", "c"], rows=[0, 1, 2])
    assert found == [0.5, 1.0, 2.0]
    assert {type(score) for score in found} == {float}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        *(
            ([0.0] * count, f"returned {count} scores for 3 responses .they part at row {row}.")
            for count, row in [(0, 7), (1, 8), (2, 9), (4, 9), (9, 9)]
        ),
        ([0.0, math.nan, -math.inf], r"scored row 8 as nan \(2 of 3 .*Response: 'bad'"),
        ([1.0, math.inf, 0.0], r"scored row 8 as inf \(1 of 3"),
        ([1.0, "x", 0.0], "required: one number a response"),
        (None, "returned NoneType"),
    ],
)
def test_the_first_row_without_a_finite_score_is_named(scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gold_scores(lambda p, r: scores, ["p"] * 3, ["good", "bad", "worse"], rows=[7, 8, 9])

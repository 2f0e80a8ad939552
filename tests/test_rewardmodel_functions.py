import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardmodel.functions import FunctionRewardModel
from rewardmodel.interface import RewardModel
from rewardmodel.verifiers import ExactMatch


def by_length(prompts: list[str], responses: list[str]) -> list[int]:
    return [len(r) - len(p) for p, r in zip(prompts, responses, strict=True)]


def of_trl(completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
    return [float(c == a) for c, a in zip(completions, answer, strict=True)]


def of_trl_by_name(*, prompts: list[str], completions: list[str]) -> torch.Tensor:
    return torch.tensor([len(text) / 2 for text in completions])


def test_a_function_of_prompts_and_responses_scores() -> None:
    model = FunctionRewardModel(by_length)
    assert isinstance(model, RewardModel)
    scores = model.score(["a", "b"], ["abc", ""])
    assert scores.dtype == torch.float32
    assert scores.tolist() == [2, -1]
    assert model.score([], []).shape == (0,)


def test_reward_functions_of_trl_score() -> None:
    model = FunctionRewardModel(of_trl, columns={"answer": {"1?": "one", "2?": "two"}})
    assert model.score(["2?", "1?", "1?"], ["two", "two", "one"]).tolist() == [1, 0, 1]
    assert FunctionRewardModel(of_trl_by_name).score(["p"], ["abc"]).tolist() == [1.5]
    assert FunctionRewardModel(lambda **kw: [len(c) for c in kw["completions"]]).score(
        ["p"], ["abc"]
    ).tolist() == [3]
    with pytest.raises(ValueError, match=r"needs 'answer' for the prompt '3\?', which has none"):
        model.score(["3?"], ["three"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, r: [1.0], "gave 1 scores for 2 responses; required: one each"),
        (lambda p, r: 1.0, "gave float; required: 2 numbers"),
        (lambda p, r: [1.0, None], "scored row 1 as None; required: a number. Response: 'y'"),
        (lambda p, r: [1.0, "high"], "scored row 1 as 'high'; required: a number"),
        (lambda p, r: [float("nan"), 1.0], r"scored row 0 as nan \(1 of 2 rows.*'x'. Correct the"),
        (lambda p, r: [1.0, float("inf")], "scored row 1 as inf"),
    ],
)
def test_what_is_no_score_is_named_by_row(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FunctionRewardModel(function, name="mine").score(["p", "p"], ["x", "y"])


def test_functions_that_cannot_be_called_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of_trl needs answer beside prompts and completions"):
        FunctionRewardModel(of_trl)
    with pytest.raises(ValueError, match=r"of_trl_by_name takes no answer; leave it out"):
        FunctionRewardModel(of_trl_by_name, columns={"answer": {}})
    with pytest.raises(ValueError, match=r"cannot be called .*required: f\(prompts, responses\)"):
        FunctionRewardModel(lambda only: [0.0])
    with pytest.raises(ValueError, match="found 1 prompts and 2 responses"):
        FunctionRewardModel(by_length).score(["a"], ["b", "c"])


def test_functions_are_imported_by_name(tmp_path: Path) -> None:
    model = FunctionRewardModel.load(f"{__name__}:by_length")
    assert model.score([""], ["four"]).tolist() == [4]
    file = tmp_path / "mine.py"
    file.write_text("def f(prompts, responses):\n    return [7.0 for _ in responses]\n")
    assert FunctionRewardModel.load(f"{file}:f").score([""], ["a"]).tolist() == [7]
    # A dataclass looks for its module, and a file called json does not take the place of json.
    (tmp_path / "json.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Kept:\n    score: int = 5\n"
        "def f(prompts, responses):\n    return [Kept().score for _ in responses]\n"
    )
    assert FunctionRewardModel.load(f"{tmp_path}/json.py:f").score([""], ["a"]).tolist() == [5]
    assert sys.modules["json"] is json
    for reference, message in {
        "json": "found 'json'; required: package.module:name",
        "nowhere.at.all:f": "No module named 'nowhere'; required: a module that can be imported",
        "json:nothing": "json has no nothing; name a function that it has",
        f"{tmp_path}/other.py:f": "there is no file",
    }.items():
        with pytest.raises(ValueError, match=message):
            FunctionRewardModel.load(reference)


def test_exact_match_is_letter_for_letter() -> None:
    model = ExactMatch({"Capital?": "Paris "})
    assert model.score(["Capital?"] * 3, [" Paris", "paris", "Paris."]).tolist() == [1, 0, 0]
    lax = ExactMatch({"Capital?": "Paris"}, ignore_case=True)
    assert lax(["Capital?"] * 2, ["PARIS\n", "Lyon"]) == [1, 0]
    with pytest.raises(ValueError, match=r"no reference answer to the prompt 'Where.'"):
        model.score(["Where?"], ["Paris"])

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prefsearch.cli.command_line import as_flags
from rewardmodel.cli.model_args import ScoreArgs
from rewardmodel.interface import RewardModel
from rewardmodel.models.functions import FunctionRewardModel
from rewardmodel.models.loading import load_reward_model
from rewardmodel.models.verifiers import ExactMatch


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
        f"{file}": "a Python file; required: the name of a function in it, too, python:.*mine.py:N",
    }.items():
        with pytest.raises(ValueError, match=message):
            FunctionRewardModel.load(reference)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\ndef f(prompts, responses)\n    return []\n", "broken.py:2: SyntaxError: expected"),
        (
            "import json\nimport not_there\n",
            "broken.py:2: ModuleNotFoundError: No module named 'no",
        ),
        ("def g():\n    return 1 / 0\n\ng()\n", "broken.py:2: ZeroDivisionError: division"),
        ("import json\n\njson.loads('{')\n", "broken.py:3: JSONDecodeError: Expecting"),
        ("import sys\nsys.exit()\n", "broken.py:2: SystemExit; required"),
    ],
)
@pytest.mark.parametrize("form", ["python:{}/broken.py:f", "python:broken:f"])
def test_an_error_in_the_user_s_file_is_named_by_file_and_line(
    form: str, code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=rf"{said}.*a module that can be imported. Correct"):
        load_reward_model(form.format(tmp_path))
    assert not {"broken", "reward_function_broken"} & set(sys.modules)


def test_a_function_in_the_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("def f(prompts, responses):\n    return [7.0]\n")
    assert load_reward_model("python:~/mine.py:f").score(["p"], ["r"]).tolist() == [7]
    with pytest.raises(ValueError, match=r"python:~/mine.py:NAME"):
        load_reward_model("~/mine.py")


def test_a_function_that_needs_a_column_is_answered_for_commands_and_for_python() -> None:
    with pytest.raises(ValueError, match="needs answer") as caught:
        FunctionRewardModel(of_trl)
    said = as_flags(str(caught.value), ScoreArgs)
    assert "Commands give a function no other columns" in said
    assert "name answers:FILE" in said
    assert said.endswith(
        "FunctionRewardModel takes columns={'answer': {prompt: value}} (in Python)"
    )


def test_exact_match_is_letter_for_letter() -> None:
    model = ExactMatch({"Capital?": "Paris "})
    assert model.score(["Capital?"] * 3, [" Paris", "paris", "Paris."]).tolist() == [1, 0, 0]
    lax = ExactMatch({"Capital?": "Paris"}, ignore_case=True)
    assert lax(["Capital?"] * 2, ["PARIS\n", "Lyon"]) == [1, 0]
    with pytest.raises(ValueError, match=r"no reference answer to the prompt 'Where.'"):
        model.score(["Where?"], ["Paris"])

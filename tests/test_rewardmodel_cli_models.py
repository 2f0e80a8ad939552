import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prefsearch.cli import entry
from rewardmodel.cli import models as cli_models
from rewardmodel.data.conversation import Conversation
from rewardmodel.data.rows import PreferenceDataError
from rewardmodel.models.loading import load_reward_model
from tests.reward_folders import CLOSE, PROMPT, TEXTS, save_classifier


def run(*argv: str) -> int:
    return entry.main(["reward", *argv])


def by_length(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(text)) for text in responses]


@pytest.fixture(scope="module")
def folders(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two untrained reward models."""
    root = tmp_path_factory.mktemp("models")
    return [str(save_classifier(policy_folder, root / f"m{i}", seed=i)) for i in range(2)]


def write(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_models_are_averaged_and_put_together_and_score(folders: list[str], tmp_path: Path) -> None:
    data = write(
        tmp_path / "texts.jsonl",
        {"prompt": PROMPT, "responses": TEXTS[:2], "id": 7},
        {"prompt": PROMPT, "response": TEXTS[2]},
    )
    assert run("average", "--models", *folders, "--out", str(tmp_path / "mean")) == 0
    both = ["ensemble", "--models", *folders, "--aggregate", "min"]
    assert run(*both, "--out", str(tmp_path / "both")) == 0
    scaled = ["--standardize_on", data, "--out", str(tmp_path / "scaled")]
    assert run(*both, *scaled) == 0
    for name in ("mean", "both", "scaled"):
        out = tmp_path / f"{name}.jsonl"
        options = ["--model", str(tmp_path / name), "--dataset", data, "--out", str(out)]
        assert run("score", *options) == 0
        first, second = read(out)
        expected = load_reward_model(str(tmp_path / name)).score([PROMPT] * 3, TEXTS[:3])
        found = torch.tensor([*first["scores"], second["score"]])  # type: ignore[misc]
        torch.testing.assert_close(found, expected, **CLOSE)
        assert first["id"] == 7
        assert ("member_scores" in second) == (name != "mean")
    scores = load_reward_model(tmp_path / "scaled").member_scores([PROMPT] * 3, TEXTS[:3])
    torch.testing.assert_close(scores.mean(1), torch.zeros(2), atol=1e-4, rtol=0)


def test_members_are_told_which_responses_are_finished(folders: list[str], tmp_path: Path) -> None:
    marks = [True, False, None]
    texts = write(
        tmp_path / "texts.jsonl", {"prompt": PROMPT, "responses": TEXTS[:3], "finished": marks}
    )
    both = ["ensemble", "--models", *folders, "--aggregate", "min", "--standardize_on", texts]
    assert run(*both, "--out", str(tmp_path / "both")) == 0
    out = tmp_path / "scores.jsonl"
    data = ["--dataset", texts, "--out", str(out)]
    assert run("score", "--model", str(tmp_path / "both"), *data) == 0
    (row,) = read(out)
    members = torch.tensor(row["member_scores"])  # [B, M]
    raw = torch.stack([
        load_reward_model(folder).score([PROMPT] * 3, TEXTS[:3], finished=[True, False, True])
        for folder in folders
    ])  # fmt: skip
    expected = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True)
    torch.testing.assert_close(members.T, expected, **CLOSE)
    torch.testing.assert_close(torch.tensor(row["scores"]), expected.amin(0), **CLOSE)


@pytest.mark.parametrize(
    ("marks", "match"),
    [([True, False], "2 values for 3 replies"), ("perhaps", "'perhaps'.*true, false or null")],
)
def test_marks_of_responses_that_say_nothing_are_refused(
    marks: object, match: str, tmp_path: Path
) -> None:
    data = write(
        tmp_path / "t.jsonl", {"prompt": PROMPT, "responses": TEXTS[:3], "finished": marks}
    )
    with pytest.raises(PreferenceDataError, match=match):
        cli_models.load_responses(data)


def test_functions_and_steps_are_scored(policy_folder: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", {"prompt": PROMPT, "response": "One.\n\nTwo."})
    out = tmp_path / "s.jsonl"
    options = ["--dataset", data, "--out", str(out)]
    assert run("score", "--model", f"python:{__name__}:by_length", *options) == 0
    assert read(out)[0]["score"] == 10
    steps = save_classifier(policy_folder, tmp_path / "p", seed=0, labels=2, tokens=True)
    assert run("score", "--model", str(steps), "--aggregate", "mean", *options) == 0
    (row,) = read(out)
    assert len(row["step_scores"]) == 2  # type: ignore[arg-type]
    assert row["score"] == pytest.approx(sum(row["step_scores"]) / 2, abs=1e-6)  # type: ignore[call-overload]


USER = {"role": "user", "content": "Who?"}
ANSWER = {"role": "assistant", "content": "The baker."}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"messages": [USER, ANSWER]}, {}),
        ({"messages": [USER, ANSWER]}, {"prompt_column": "messages"}),
        ({"conversations": [USER, ANSWER]}, {}),
        ({"chat": [USER, ANSWER]}, {"response_column": "chat"}),
        ({"prompt": "Who?", "messages": [USER, ANSWER]}, {}),
        ({"prompt": [USER], "response": [USER, ANSWER]}, {}),
    ],
)
def test_the_last_turn_of_a_conversation_is_scored(
    row: dict[str, object], columns: dict[str, Any], tmp_path: Path
) -> None:
    data = write(tmp_path / "t.jsonl", row)
    (found,) = cli_models.load_responses(data, **columns)
    assert found["prompt"] == Conversation((USER,))
    assert found["responses"] == ["The baker."]
    assert not found["several"]
    assert found["row"] == row  # as it was read


def test_a_conversation_that_waits_for_an_answer_has_no_response(tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", {"messages": [USER, ANSWER, USER]})
    with pytest.raises(PreferenceDataError, match="'prompt' is missing"):
        cli_models.load_responses(data)
    with pytest.raises(PreferenceDataError, match="found no responses"):
        cli_models.load_responses(data, prompt_column="messages")


def test_steps_are_learned_from_measured_and_resumed(policy_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{i}: {PROMPT}", "completions": TEXTS[:2], "labels": [True, i % 2 == 0]}
        for i in range(10)
    ]
    data = write(tmp_path / "steps.jsonl", *rows)
    out = tmp_path / "run"
    options = ["--model", str(policy_folder), "--dataset", data, "--out", str(out)]
    options += ["--separator", "\n", "--batch_size", "4", "--holdout", "0.2"]
    assert run("train_prm", *options) == 0
    result = json.loads((out / "steps" / "evaluate.json").read_text())["result"]
    assert (result["responses"], result["steps"]) == (2, 4)
    assert run("train_prm", *options, "--resume", "true") == 0
    model = load_reward_model(str(out / "checkpoints" / "model"))
    assert model.separator == "\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["average"], "models: found None; required: folders"),
        (["ensemble", "--models", "/nowhere"], "no config.json at '/nowhere'"),
        (["score", "--model", "m"], "dataset: found ''; required: a hub id or file"),
        (["score", "--model", "m", "--dataset", "d", "--out", "s.csv"], "out: found 's.csv'"),
        (["train_prm", "--model", "m"], "dataset: found ''"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    assert message in capsys.readouterr().err


def test_a_bad_row_is_named_by_file_and_line(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row, message in {
        '{"prompt": 3, "response": "a"}': "t.jsonl:1: column 'prompt' is 3",
        '{"prompt": "a", "responses": []}': "t.jsonl:1: found no responses among",
        '{"prompt": "a", "reply": "b"}': "t.jsonl:1: found no responses among",
    }.items():
        (tmp_path / "t.jsonl").write_text(row + "\n")
        options = ["--dataset", str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "s.jsonl")]
        assert run("score", "--model", folders[0], *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "s.jsonl").exists()

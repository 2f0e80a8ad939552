"""`prefsearch reward split`, `inspect` and `convert`."""

import json
from pathlib import Path

import pytest

from prefsearch.cli import entry
from prefsearch.config.settings import settings_of_class
from rewardmodel.cli.data_args import ConvertArgs, InspectArgs, SplitArgs
from rewardmodel.data.formats.registry import FORMATS
from rewardmodel.data.preferences import load_preferences

RANKING = {"prompt": "p", "responses": [" good", " bad", " poor"], "scores": [2, 1, 1]}


def run(*argv: object) -> int:
    return entry.main(["reward", *map(str, argv)])


@pytest.fixture
def rankings(tmp_path: Path) -> Path:
    path = tmp_path / "r.jsonl"
    rows = [{**RANKING, "prompt": f"ask {k}"} for k in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("args", [SplitArgs, InspectArgs, ConvertArgs])
def test_help_names_every_format(args):
    for name in ("auto", "plain", *FORMATS):
        assert name in settings_of_class(args)["format"].help


def test_split_takes_a_format(rankings, tmp_path):
    out = tmp_path / "split"
    argv = ("split", "--dataset", rankings, "--holdout", "0.25", "--out", out)
    assert run(*argv, "--format", "scores") == 0
    parts = [len((out / f"{name}.jsonl").read_text().splitlines()) for name in ("train", "test")]
    assert parts == [18, 6]
    assert json.loads((out / "data_report.json").read_text())["pairs"] == 24
    assert run(*argv, "--format", "plain") == 2


def test_inspect_prints_and_writes_the_report(rankings, policy_folder, tmp_path, capsys):
    out = tmp_path / "seen"
    argv = ("inspect", "--dataset", rankings, "--out", out)
    assert run(*argv, "--model", policy_folder, "--max_length", "4") == 0
    shown = capsys.readouterr().out
    assert "pairs TRL would have dropped" in shown
    assert "longer reply chosen" in shown
    report = json.loads((out / "data_report.json").read_text())
    assert (report["pairs"], report["ties"]) == (24, 8)
    assert report["limits"]["cut_pairs"] > 0
    assert (out / "data_report.html").is_file()
    assert run(*argv, "--max_length", "4") == 2
    assert "model: found None; required: a tokenizer for max_length" in capsys.readouterr().err
    assert run("inspect") == 2
    assert "dataset: found ''" in capsys.readouterr().err


def test_convert_writes_pairs_that_load_as_they_were(rankings, tmp_path, capsys):
    out = tmp_path / "new" / "pairs.jsonl"
    assert run("convert", "--dataset", rankings, "--margins", "true", "--out", out) == 0
    assert "24 pairs of prompt, chosen, rejected, margin" in " ".join(
        capsys.readouterr().out.split()
    )
    assert load_preferences(out).to_list() == load_preferences(rankings, margins=True).to_list()


def test_inspect_and_convert_name_the_columns_that_they_do_not_use(rankings, tmp_path, capsys):
    rows = [json.loads(line) for line in rankings.read_text().splitlines()]
    noted = [{**row, "rubric": "short", "id": 7} for row in rows]
    rankings.write_text("".join(json.dumps(row) + "\n" for row in noted))
    said = "ot used: columns 'rubric', 'id'"
    assert run("inspect", "--dataset", rankings, "--out", tmp_path / "seen") == 0
    assert said in " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "seen" / "data_report.json").read_text())
    assert report["unused_columns"] == ["rubric", "id"]
    assert "rubric" in (tmp_path / "seen" / "data_report.html").read_text()
    assert run("convert", "--dataset", rankings, "--out", tmp_path / "pairs.jsonl") == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_columns_are_named_by_flags(tmp_path):
    row = {"q": "Who?", "good": "I.", "bad": "You.", "sure": 0.75, "system": "Be brief."}
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({**row, "q": f"{k}?"}) + "\n" for k in range(4)))
    flags = ["--prompt_column", "q", "--chosen_column", "good", "--rejected_column", "bad"]
    flags += ["--probability_column", "sure"]
    out = tmp_path / "pairs.jsonl"
    assert run("convert", "--dataset", path, "--out", out, *flags) == 0
    assert json.loads(out.read_text().splitlines()[0]) == {
        "prompt": "Be brief.\n\n0?",
        "chosen": "I.",
        "rejected": "You.",
        "chosen_probability": 0.75,
    }
    assert run("split", "--dataset", path, "--out", tmp_path / "split", *flags) == 0


def test_messages_are_kept_without_a_model(tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Yes"}],
        "rejected": [{"role": "assistant", "content": "No"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row) + "\n")
    out = tmp_path / "pairs.jsonl"
    assert run("convert", "--dataset", path, "--out", out) == 0
    assert json.loads(out.read_text()) == row


def test_convert_that_fails_leaves_no_file(rankings, tmp_path, capsys):
    with rankings.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**RANKING, "scores": [1]}) + "\n")
    out = tmp_path / "pairs.jsonl"
    argv = ("convert", "--dataset", rankings, "--out", out)
    assert run(*argv) == 2
    assert "r.jsonl:9: 'scores' holds list" in capsys.readouterr().err
    assert not out.exists()
    assert run(*argv, "--on_bad_row", "skip") == 0
    assert len(out.read_text().splitlines()) == 24
    assert run("convert", "--dataset", rankings, "--out", tmp_path / "pairs.csv") == 2
    assert "a file that ends in .jsonl" in capsys.readouterr().err
    assert run(*argv, "--query_tokens", "9") == 2
    assert "model: found None; required: a tokenizer to count with" in capsys.readouterr().err

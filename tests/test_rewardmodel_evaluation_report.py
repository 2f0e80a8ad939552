"""The report of `prefsearch reward evaluate`: all figures, as JSON and as a page."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from rewardmodel.cli import evaluate as cli_evaluate
from rewardmodel.cli.evaluate import evaluate, measure, show_measures
from rewardmodel.cli.model_args import RewardEvaluateArgs
from rewardmodel.data.conversation import Conversation
from rewardmodel.data.preferences import load_preferences
from rewardmodel.evaluation import report
from rewardmodel.evaluation.benchmarks.rewardbench import evaluate_reward_bench
from rewardmodel.evaluation.report import EvaluationRecord, write_evaluation
from tests.chat_models import chat_tokenizer


class Ensemble:
    """Two members that count different letters; its score is their mean."""

    def member_scores(self, prompts, responses):
        return torch.tensor(
            [[float(r.count("a")) for r in responses], [float(r.count("e")) for r in responses]]
        )

    def score(self, prompts, responses):
        return self.member_scores(prompts, responses).mean(0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    pairs, edits, benchmark = [], [], []
    for index in range(40):
        pairs.append(
            {
                "prompt": f"question {index % 30}",
                "chosen": f"an apple {index}. " + "tea " * (index % 3) + "is here.",
                "rejected": "no " * (index % 5) + f"nothing {index}",
                "chosen_probability": 0.5 if index % 3 == 0 else 1.0,
                "subset": f"kind {index % 2}",
            }
        )
        edits.append(
            {"prompt": f"q{index}", "original": "some words", "edited": f"a{'a' * index} word"}
        )
    for name in ("hep-cpp", "hep-go"):
        benchmark += [
            {"id": i, "prompt": f"q{i}", "chosen": "aa", "rejected": "b", "subset": name}
            for i in range(3)
        ]
    second = [
        {"id": "1", "prompt": "q", "chosen": ["aa"], "rejected": ["b"] * 3, "subset": "Math"},
        {"id": "ref:1", "prompt": "q", "chosen": ["aa"], "rejected": ["b"], "subset": "Ties"},
        {"id": "tied:1", "prompt": "q", "chosen": ["aa", "aaa"], "rejected": ["b"],
         "subset": "Ties"},
    ]  # fmt: skip
    tables = {"pairs": pairs, "edits": edits, "bench": benchmark, "bench2": second}
    for name, rows in tables.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_evaluate, "load_reward_model", lambda source, max_length: Ensemble())


@pytest.mark.usefixtures("loaded")
def test_folder_holds_the_page_the_numbers_and_every_figure(files: Path, capsys):
    evaluate(
        RewardEvaluateArgs(
            model="some/model",
            dataset=str(files / "pairs.jsonl"),
            holdout=0.5,
            calibrate=True,
            edits=str(files / "edits.jsonl"),
            probes=True,
            check_batches=True,
            out=str(files / "out"),
        )
    )
    found = json.loads((files / "out" / "evaluation.json").read_text())
    pairs = found["pairs"]
    assert pairs["pairs"] == pairs["tied_labels"] + sum(s["pairs"] for s in pairs["by_subset"])
    assert found["settings"]["seed"] == pairs["seed"] == pairs["calibration"]["seed"] == 0
    assert pairs["seconds"] >= 0
    assert found["edits"]["edits"] == 40
    assert found["agreement"]["members"] == 2
    assert found["invariance"]["max_difference"] == 0.0
    assert set(found["baselines"]) == {"longer reply", "bag of words"}
    assert "versions" in found["environment"]
    names = ["reliability", "accuracy_by_subset", "accuracy_by_length", "risk_coverage"]
    for name in names:
        for suffix in (".png", ".svg"):
            assert (files / "out" / "figures" / (name + suffix)).stat().st_size > 1000
    page = (files / "out" / "report.html").read_text()
    assert page.count("<svg") == len(names)
    for heading in ("Accuracy", "Calibration", "Length", "Selective", "Members", "Batches"):
        assert heading in page
    assert "kind 1" in page
    printed = " ".join(capsys.readouterr().out.split())
    assert "Held-out accuracy on" in printed
    assert "ties left out" in printed
    assert "temperature" in printed


@pytest.mark.usefixtures("loaded")
def test_json_alone_keeps_the_figures_at_the_top(files: Path):
    out = files / "out.json"
    evaluate(RewardEvaluateArgs(model="m", dataset=str(files / "pairs.jsonl"), out=str(out)))
    found = json.loads(out.read_text())
    assert found["settings"]["model"] == "m"
    assert found["pairs"] == 40
    assert found["accuracy"]["low"] < found["accuracy"]["estimate"]
    assert "longer reply" in found["baselines"]
    assert found["calibration"] is None
    assert not (files / "figures").exists()


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("benchmark", ["rewardbench", "rewardbench2"])
def test_benchmarks_are_evaluated_by_the_command(files: Path, capsys, benchmark):
    source = files / ("bench.jsonl" if benchmark == "rewardbench" else "bench2.jsonl")
    job = RewardEvaluateArgs(
        model="m", dataset=str(source), benchmark=benchmark, out=str(files / "out")
    )
    evaluate(job)
    found = json.loads((files / "out" / "evaluation.json").read_text())
    assert found["pairs"] is None
    assert found["benchmark"]["score"] is None
    assert found["benchmark"]["subsets"][0]["accuracy"]["estimate"] == 1.0
    if benchmark == "rewardbench2":
        assert found["benchmark"]["ties"]["questions"] == 1
    assert "incomplete" in capsys.readouterr().out
    assert "RewardBench" in (files / "out" / "report.html").read_text()


@pytest.mark.usefixtures("loaded")
def test_page_of_a_benchmark_shows_the_edits_too_and_where_chance_lies(
    files: Path, monkeypatch: pytest.MonkeyPatch
):
    chances = []
    draw = report.draw_strata

    def draw_and_note(*args, chance: float, **options):
        chances.append(chance)
        return draw(*args, chance=chance, **options)

    monkeypatch.setattr(report, "draw_strata", draw_and_note)
    for name, source in (("rewardbench", "bench"), ("rewardbench2", "bench2")):
        job = RewardEvaluateArgs(
            model="m",
            dataset=str(files / f"{source}.jsonl"),
            benchmark=name,
            edits=str(files / "edits.jsonl"),
            out=str(files / name),
        )
        evaluate(job)
        page = (files / name / "report.html").read_text()
        assert "improving edit scores higher" in page
    assert chances == [0.5, 0.25]


@pytest.mark.usefixtures("loaded")
def test_prompts_that_were_trained_on_are_left_out_of_edits_and_the_other_way_round(
    files: Path, caplog: pytest.LogCaptureFixture
):
    pairs = files / "pairs.jsonl"
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    edits = [{"prompt": f"question {n}", "original": "b", "edited": "aa"} for n in range(30)]
    (files / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in edits))
    (files / "half.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:15]))
    (files / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[10:25]))
    out = files / "out.json"
    evaluate(
        RewardEvaluateArgs(
            model="m", dataset=str(pairs), holdout=0.5, edits=str(files / "same.jsonl"),
            out=str(out),
        )
    )  # fmt: skip
    assert json.loads(out.read_text())["edits"]["edits"] == 15
    assert "left out 15 of 30 edits" in caplog.text
    test = str(files / "test.jsonl")
    half = RewardEvaluateArgs(model="m", dataset=test, training_dataset=str(files / "half.jsonl"))
    evaluate(half)
    assert "left out 5 of 15 pairs" in caplog.text
    with pytest.raises(ValueError, match=r"all 15 pairs in .*test.jsonl have prompts that are bot"):
        evaluate(dataclasses.replace(half, training_dataset=test))


@pytest.mark.usefixtures("loaded")
def test_temperature_at_its_bound_is_not_printed_as_known(files: Path, capsys):
    rows = [{"prompt": f"q{n}", "chosen": "a" * (n + 1), "rejected": "b"} for n in range(10)]
    (files / "sure.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(RewardEvaluateArgs(model="m", dataset=str(files / "sure.jsonl"), calibrate=True))
    assert "(at its bound: not known)" in " ".join(capsys.readouterr().out.split())


def test_ensemble_is_given_questions_as_messages_where_a_member_has_a_template(
    files: Path, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = chat_tokenizer("qwen")
    asked: set[Conversation] = set()

    class Chat(Ensemble):
        members = (object(), SimpleNamespace(encoder=SimpleNamespace(tokenizer=tokenizer)))

        def score(self, prompts, responses):
            asked.update(prompts)
            return super().score(prompts, responses)

    monkeypatch.setattr(cli_evaluate, "load_reward_model", lambda source, max_length: Chat())
    bench = str(files / "bench.jsonl")
    evaluate(RewardEvaluateArgs(model="m", dataset=bench, benchmark="rewardbench"))
    # Messages stay messages: each member renders them with its own template.
    questions = ({"role": "user", "content": f"q{number}"} for number in range(3))
    assert asked == {Conversation((question,)) for question in questions}


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="calibrate: found True; required: unset, for benchmark"):
        RewardEvaluateArgs(model="m", dataset="d", benchmark="rewardbench", calibrate=True)
    with pytest.raises(ValueError, match="training_dataset: found 'x'; required: unset where hold"):
        RewardEvaluateArgs(model="m", dataset="d", holdout=0.1, training_dataset="x")
    with pytest.raises(ValueError, match="benchmark: found 'x'"):
        RewardEvaluateArgs(model="m", dataset="d", benchmark="x")
    with pytest.raises(ValueError, match="dataset"):
        RewardEvaluateArgs(model="m")


def test_measure_gives_plain_values_that_train_can_keep(files: Path, capsys):
    data = load_preferences(str(files / "pairs.jsonl"))
    found = measure(Ensemble(), data.select(range(20)), data.select(range(20, 40)), seed=0)
    assert json.loads(json.dumps(found))["accuracy"] == found["accuracy"]
    assert set(found["baselines"]) == {"longer reply", "bag of words"}
    show_measures(Console(), found)
    assert "bag of words" in capsys.readouterr().out


def test_page_of_a_benchmark_shows_its_subsets(files: Path):
    data = load_preferences(str(files / "bench.jsonl"))
    found = evaluate_reward_bench(Ensemble(), data)
    record = EvaluationRecord(settings={"seed": 0}, benchmark=found)
    page = write_evaluation(record, files / "bench", title="A <model>").read_text()
    assert "A &lt;model&gt;" in page
    assert "hep-go" in page
    assert (files / "bench" / "figures" / "benchmark.svg").exists()

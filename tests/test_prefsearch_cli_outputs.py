"""A place that nothing can be written to is named before the work begins."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atari_bridge.cli.args import AtariEvaluateArgs, AtariPlayArgs, AtariTrainArgs
from policies.cli.args import FinetuneArgs, PlanArgs, SampleArgs, SftArgs, ValueArgs
from policies.cli.demo_args import DemoArgs
from policies.cli.evaluate_args import CombineArgs, PolicyEvaluateArgs
from prefsearch.cli import entry
from prefsearch.cli.outputs import Output, check_outputs, home_expanded
from prefsearch.config.settings import build
from rewardmodel.cli.data_args import ConvertArgs, InspectArgs, LabelArgs, SplitArgs, WorldArgs
from rewardmodel.cli.model_args import (
    AverageArgs,
    EnsembleArgs,
    RewardEvaluateArgs,
    RewardTrainArgs,
    ScoreArgs,
    TrainPrmArgs,
)

SEARCH = {"policy": "p", "dataset": "d", "reward_model": "r"}
FILES: dict[str, Callable[[str], Any]] = {
    "sample": lambda out: build(SampleArgs, policy="p", dataset="d", out=out),
    "plan": lambda out: build(PlanArgs, **SEARCH, out=out),
    "convert": lambda out: ConvertArgs(dataset="d", out=out),
    "score": lambda out: ScoreArgs(model="m", dataset="d", out=out),
    "label": lambda out: LabelArgs(responses="r", out=out),
    "figures": lambda out: RewardEvaluateArgs(model="m", dataset="d", out=out),
    "games": lambda out: AtariEvaluateArgs(checkpoint="c", out=out),
}
FOLDERS: dict[str, Callable[[str], Any]] = {
    "trees": lambda out: build(PlanArgs, **SEARCH, out="planned.jsonl", save_trees=out),
    "split": lambda out: SplitArgs(dataset="d", out=out),
    "inspect": lambda out: InspectArgs(dataset="d", out=out),
    "measure": lambda out: RewardEvaluateArgs(model="m", dataset="d", out=out),
    "average": lambda out: AverageArgs(models=["a", "b"], out=out),
    "ensemble": lambda out: EnsembleArgs(models=["a"], out=out),
    "steps": lambda out: build(TrainPrmArgs, model="m", dataset="d", out=out),
    "train": lambda out: build(RewardTrainArgs, model="m", dataset="d", out=out),
    "world": lambda out: WorldArgs(out=out),
    "sft": lambda out: build(SftArgs, dataset="d", out=out),
    "value": lambda out: build(ValueArgs, **SEARCH, out=out),
    "finetune": lambda out: build(FinetuneArgs, **SEARCH, out=out),
    "evaluate": lambda out: build(PolicyEvaluateArgs, **SEARCH, out=out),
    "combine": lambda out: CombineArgs(runs=["a", "b"], out=out),
    "demo": lambda out: DemoArgs(out=out),
    "agent": lambda out: build(AtariTrainArgs, out=out),
    "play": lambda out: AtariPlayArgs(checkpoint="c", out=out),
}
SUFFIX = {"figures": ".json", "games": ".json"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "taken").write_text("kept")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_written_is_named_first(name: str, tmp_path: Path) -> None:
    suffix = SUFFIX.get(name, ".jsonl")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"device{suffix}").symlink_to("/dev/full")
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"circle{suffix}").symlink_to(f"circle{suffix}")
    places = [f"{kind}{suffix}" for kind in ("folder", "device", "pipe", "circle")]
    places += [f"taken/x{suffix}", f"taken/y/x{suffix}", f"/proc/x{suffix}", f"{'n' * 300}{suffix}"]
    places += [f"~no-such-user/x{suffix}"]
    before = sorted(tmp_path.rglob("*"))
    for place in places:
        with pytest.raises(ValueError, match=r"^out: found .*required: "):
            FILES[name](place)
    assert sorted(tmp_path.rglob("*")) == before
    args = FILES[name](f"~/new/x{suffix}")
    assert args.out == str(tmp_path / "home" / "new" / f"x{suffix}")
    assert not (tmp_path / "home" / "new").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_cannot_be_made_is_named_first(name: str, tmp_path: Path) -> None:
    setting = "save_trees" if name == "trees" else "out"
    for place in ("taken", "taken/x", "/dev/full", "/proc/x", "n" * 300, "~no-such-user", "", " "):
        with pytest.raises(ValueError, match=rf"^{setting}: found .*required: "):
            FOLDERS[name](place)
    assert (tmp_path / "taken").read_text() == "kept"
    args = FOLDERS[name]("~/new")
    assert getattr(args, setting) == str(tmp_path / "home" / "new")


def test_a_name_in_a_folder_that_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "split" / "test.jsonl").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"test\.jsonl, a folder; required"):
        SplitArgs(dataset="d", out="split")


def test_an_open_pipe_is_named_for_what_it_is() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match=r"found '/dev/fd/.*', a pipe or device; required: a file"):
        check_outputs([Output("out", f"/dev/fd/{writing}")])
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("trees", ["o.jsonl", "./o.jsonl", "o.jsonl/trees", "new/../o.jsonl"])
def test_two_outputs_are_not_in_the_way_of_each_other(trees: str) -> None:
    with pytest.raises(ValueError, match=r"save_trees: found .* in the way of"):
        build(PlanArgs, **SEARCH, out="o.jsonl", save_trees=trees)
    build(PlanArgs, **SEARCH, out="t/o.jsonl", save_trees="t")


def test_usable_places_pass_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "later" / "x")
    before = sorted(tmp_path.rglob("*"))
    for place in ("x", "a/b/c", "taken", "nowhere", "a/../x"):
        check_outputs([Output("out", place)])
    for place in (".", "a/b/", "home"):
        check_outputs([Output("out", place, ("x", "y"))])
    assert sorted(tmp_path.rglob("*")) == before
    assert home_expanded("a~b", "out") == "a~b"


@pytest.mark.parametrize("name", ["split", "world", "inspect"])
def test_an_empty_folder_name_does_not_mean_the_current_folder(
    name: str, tmp_path: Path, capsys
) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row) + "\n")
    data = [] if name == "world" else ["--dataset", "prompts.jsonl"]
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert entry.main(["reward", name, *data, "--out", ""]) == 2
    assert capsys.readouterr().err.startswith("error: out: found an empty text; required: ")
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before

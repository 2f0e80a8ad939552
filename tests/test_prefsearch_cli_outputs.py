"""A place that nothing can be written to is named before the work begins."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atari_bridge.cli.evaluate import EvaluateJob as AtariEvaluateJob
from atari_bridge.cli.play import PlayJob
from atari_bridge.cli.train import TrainJob as AtariTrainJob
from policies.cli.combine import CombineJob
from policies.cli.evaluate import EvaluateJob as PolicyEvaluateJob
from policies.cli.search import PlanJob, SampleJob
from policies.cli.train import FinetuneJob, SftJob, ValueJob
from policies.demo import DemoConfig
from prefsearch.cli import entry
from prefsearch.cli.outputs import Output, check_outputs, home_expanded
from rewardmodel.cli.data import ConvertJob, InspectJob, SplitJob
from rewardmodel.cli.evaluate import EvaluateJob
from rewardmodel.cli.models import AverageJob, EnsembleJob, ScoreJob, TrainStepsJob
from rewardmodel.cli.train import TrainJob
from rewardmodel.cli.world import LabelJob, WorldJob

SEARCH = {"policy": "p", "dataset": "d", "reward_model": "r"}
FILES: dict[str, Callable[[str], Any]] = {
    "sample": lambda out: SampleJob(policy="p", dataset="d", out=out),
    "plan": lambda out: PlanJob(**SEARCH, out=out),
    "convert": lambda out: ConvertJob(dataset="d", out=out),
    "score": lambda out: ScoreJob(model="m", dataset="d", out=out),
    "label": lambda out: LabelJob(responses="r", out=out),
    "figures": lambda out: EvaluateJob(model="m", dataset="d", out=out),
    "games": lambda out: AtariEvaluateJob(checkpoint="c", out=out),
}
FOLDERS: dict[str, Callable[[str], Any]] = {
    "trees": lambda out: PlanJob(**SEARCH, out="planned.jsonl", save_trees=out),
    "split": lambda out: SplitJob(dataset="d", out=out),
    "inspect": lambda out: InspectJob(dataset="d", out=out),
    "measure": lambda out: EvaluateJob(model="m", dataset="d", out=out),
    "average": lambda out: AverageJob(models=["a", "b"], out=out),
    "ensemble": lambda out: EnsembleJob(models=["a"], out=out),
    "steps": lambda out: TrainStepsJob(model="m", dataset="d", out=out),
    "train": lambda out: TrainJob(model="m", dataset="d", out=out),
    "world": lambda out: WorldJob(out=out),
    "sft": lambda out: SftJob(dataset="d", out=out),
    "value": lambda out: ValueJob(**SEARCH, out=out),
    "finetune": lambda out: FinetuneJob(**SEARCH, out=out),
    "evaluate": lambda out: PolicyEvaluateJob(**SEARCH, out=out),
    "combine": lambda out: CombineJob(runs=["a", "b"], out=out),
    "demo": lambda out: DemoConfig(out=out),
    "agent": lambda out: AtariTrainJob(out=out),
    "play": lambda out: PlayJob(checkpoint="c", out=out),
}
SUFFIX = {"figures": ".json", "games": ".json"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "taken").write_text("kept")


@pytest.mark.parametrize("verb", FILES)
def test_a_file_that_cannot_be_written_is_named_first(verb: str, tmp_path: Path) -> None:
    suffix = SUFFIX.get(verb, ".jsonl")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"device{suffix}").symlink_to("/dev/full")
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"circle{suffix}").symlink_to(f"circle{suffix}")
    places = [f"{name}{suffix}" for name in ("folder", "device", "pipe", "circle")]
    places += [f"taken/x{suffix}", f"taken/y/x{suffix}", f"/proc/x{suffix}", f"{'n' * 300}{suffix}"]
    places += [f"~no-such-user/x{suffix}"]
    before = sorted(tmp_path.rglob("*"))
    for place in places:
        with pytest.raises(ValueError, match=r"^out: found .*required: "):
            FILES[verb](place)
    assert sorted(tmp_path.rglob("*")) == before
    job = FILES[verb](f"~/new/x{suffix}")
    assert job.out == str(tmp_path / "home" / "new" / f"x{suffix}")
    assert not (tmp_path / "home" / "new").exists()


@pytest.mark.parametrize("verb", FOLDERS)
def test_a_folder_that_cannot_be_made_is_named_first(verb: str, tmp_path: Path) -> None:
    setting = "save_trees" if verb == "trees" else "out"
    for place in ("taken", "taken/x", "/dev/full", "/proc/x", "n" * 300, "~no-such-user", "", " "):
        with pytest.raises(ValueError, match=rf"^{setting}: found .*required: "):
            FOLDERS[verb](place)
    assert (tmp_path / "taken").read_text() == "kept"
    job = FOLDERS[verb]("~/new")
    assert getattr(job, setting) == str(tmp_path / "home" / "new")


def test_a_name_in_a_folder_that_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "split" / "test.jsonl").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"test\.jsonl, a folder; required"):
        SplitJob(dataset="d", out="split")


def test_an_open_pipe_is_named_for_what_it_is() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match=r"found '/dev/fd/.*', a pipe or device; required: a file"):
        check_outputs([Output("out", f"/dev/fd/{writing}")])
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("trees", ["o.jsonl", "./o.jsonl", "o.jsonl/trees", "new/../o.jsonl"])
def test_two_outputs_are_not_in_the_way_of_each_other(trees: str) -> None:
    with pytest.raises(ValueError, match=r"save_trees: found .* in the way of"):
        PlanJob(**SEARCH, out="o.jsonl", save_trees=trees)
    PlanJob(**SEARCH, out="t/o.jsonl", save_trees="t")


def test_usable_places_pass_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "later" / "x")
    before = sorted(tmp_path.rglob("*"))
    for place in ("x", "a/b/c", "taken", "nowhere", "a/../x"):
        check_outputs([Output("out", place)])
    for place in (".", "a/b/", "home"):
        check_outputs([Output("out", place, ("x", "y"))])
    assert sorted(tmp_path.rglob("*")) == before
    assert home_expanded("a~b", "out") == "a~b"


@pytest.mark.parametrize("verb", ["split", "world", "inspect"])
def test_an_empty_folder_name_does_not_mean_the_current_folder(
    verb: str, tmp_path: Path, capsys
) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row) + "\n")
    data = [] if verb == "world" else ["--dataset", "prompts.jsonl"]
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert entry.main(["reward", verb, *data, "--out", ""]) == 2
    assert capsys.readouterr().err.startswith("error: out: found an empty text; required: ")
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before

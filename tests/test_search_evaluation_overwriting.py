"""No command writes over what it reads, by whatever name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import prefsearch
from policies.door_search import PlanJob, SampleJob
from policies.door_training import ValueJob
from rewardmodel.door_data import ConvertJob, InspectJob, SplitJob
from rewardmodel.door_evaluate import EvaluateJob
from rewardmodel.door_models import AverageJob, EnsembleJob, ScoreJob
from rewardmodel.door_world import LabelJob
from search.evaluation.overwriting import require_kept

ROW = {"prompt": "a", "chosen": "b", "rejected": "c", "responses": ["a", "b"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({**ROW, "prompt": f"{i}"}) + "\n" for i in range(8)))
    return path


def by_path(data: Path) -> Path:
    return data


def by_another_spelling(data: Path) -> Path:
    return data.parent / "." / ".." / data.parent.name / data.name


def by_symbolic_link(data: Path) -> Path:
    link = data.parent / "link" / data.name
    link.parent.mkdir()
    link.symlink_to(data)
    return link


def by_hard_link(data: Path) -> Path:
    link = data.parent / "hard" / data.name
    link.parent.mkdir()
    os.link(data, link)
    return link


WAYS = pytest.mark.parametrize(
    "way", [by_path, by_another_spelling, by_symbolic_link, by_hard_link]
)


@WAYS
@pytest.mark.parametrize("read", ["file", "folder"])
@pytest.mark.parametrize("verb", ["convert", "split", "score", "label", "sample"])
def test_a_file_that_is_read_is_not_written_over(
    verb: str, read: str, way: Callable[[Path], Path], data: Path, capsys
) -> None:
    before, out = data.read_bytes(), way(data)
    source = str(data if read == "file" else data.parent)
    flags = {
        "convert": ["reward", "convert", "--dataset", source, "--out", str(out)],
        "split": ["reward", "split", "--dataset", source, "--out", str(out.parent)],
        "score": ["reward", "score", "--model", "m", "--dataset", source, "--out", str(out)],
        "label": ["reward", "label", "--responses", source, "--out", str(out)],
        "sample": ["policy", "sample", "--policy", "p", "--dataset", source, "--out", str(out)],
    }[verb]
    assert prefsearch.main(flags) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: out: found ")
    assert "which would be written over and is read as " in told
    assert told.count("\n") == 1
    assert data.read_bytes() == before


def test_a_model_that_is_read_is_not_replaced_or_written_into(tmp_path: Path) -> None:
    models = [tmp_path / name for name in ("a", "b")]
    for model in models:
        (model / "inner").mkdir(parents=True)
        (model / "config.json").write_text("{}")
    names = [str(model) for model in models]
    link = tmp_path / "link"
    link.symlink_to(models[0])
    for out in (names[0], f"{names[1]}/", str(link), str(tmp_path)):
        with pytest.raises(ValueError, match=r"out: found .* is read as models"):
            AverageJob(models=names, out=out)
    for out in (names[0], str(link)):
        with pytest.raises(ValueError, match=r"out: found .* is read as models"):
            EnsembleJob(models=names, out=out)
    EnsembleJob(models=names, out=str(tmp_path))  # beside its members
    AverageJob(models=names, out=str(tmp_path / "c"))
    with pytest.raises(ValueError, match="is read as policy"):
        ValueJob(policy=names[0], dataset="d", reward_model="r", out=names[0])
    with pytest.raises(ValueError, match="is read as models"):
        AverageJob(models=[f"{names[0]}/inner", names[1]], out=names[0])


def test_every_input_of_every_kind_is_kept(data: Path) -> None:
    out = str(data)
    with pytest.raises(ValueError, match="is read as value_head"):
        PlanJob(policy="p", dataset="d", reward_model="r", value_head=str(data.parent), out=out)
    with pytest.raises(ValueError, match="is read as reward_model"):
        PlanJob(policy="p", dataset="d", reward_model=f"python:{data}:score", out=out)
    with pytest.raises(ValueError, match="is read as model"):
        ScoreJob(model=f"answers:{data}", dataset="d", out=out)
    table = data.with_name("figures.json")
    table.write_text("[]")
    with pytest.raises(ValueError, match="is read as edits"):
        EvaluateJob(model="m", dataset="d", edits=str(table), out=str(table))
    report = data.with_name("data_report.json")
    report.write_text("[]")
    with pytest.raises(ValueError, match="is read as dataset"):
        InspectJob(dataset=str(report), out=str(data.parent))
    test = data.with_name("test.jsonl")
    os.link(data, test)
    with pytest.raises(ValueError, match=r"test\.jsonl"):
        SplitJob(dataset=str(test), out=str(test.parent))


def test_other_outputs_are_free(data: Path) -> None:
    other = data.with_name("other.jsonl")
    ConvertJob(dataset=str(data), out=str(other))
    other.write_text("older")
    ConvertJob(dataset=str(data), out=str(other))
    ConvertJob(dataset="owner/name", out=str(data))
    SampleJob(policy="p", dataset=str(data), out=str(data.with_name("new.jsonl")))
    LabelJob(responses=str(data), out=str(other))
    SplitJob(dataset=str(data), out=str(data.parent / "split"))
    require_kept({"dataset": str(data.parent)}, files=[data.with_name("not_yet.jsonl")])
    require_kept({"dataset": "x" * 5000, "other": None, "more": ["", "a/b"]}, files=[data])


def test_links_in_circles_and_to_nowhere_end(data: Path) -> None:
    (data.parent / "loop").symlink_to(data.parent)
    (data.parent / "nowhere").symlink_to(data.parent / "none")
    with pytest.raises(ValueError, match="is read as dataset"):
        require_kept({"dataset": str(data.parent)}, files=[data])

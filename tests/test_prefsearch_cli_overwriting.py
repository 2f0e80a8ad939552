"""No command writes over what it reads, by whatever name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from atari_bridge.cli.args import AtariEvaluateArgs, AtariPlayArgs
from policies.cli.args import PlanArgs, SampleArgs, ValueArgs
from policies.cli.evaluate_args import CombineArgs
from prefsearch.cli import entry
from prefsearch.cli.outputs import require_kept
from prefsearch.config.settings import build
from rewardmodel.cli.data_args import ConvertArgs, InspectArgs, LabelArgs, SplitArgs
from rewardmodel.cli.model_args import AverageArgs, EnsembleArgs, RewardEvaluateArgs, ScoreArgs

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


@pytest.mark.parametrize("way", [by_path, by_another_spelling, by_symbolic_link, by_hard_link])
@pytest.mark.parametrize("name", ["convert", "split", "score", "label", "sample"])
def test_a_file_that_is_read_is_not_written_over(
    name: str, way: Callable[[Path], Path], data: Path, capsys
) -> None:
    read = "file" if way in (by_path, by_hard_link) else "folder"
    before, out = data.read_bytes(), way(data)
    source = str(data if read == "file" else data.parent)
    flags = {
        "convert": ["reward", "convert", "--dataset", source, "--out", str(out)],
        "split": ["reward", "split", "--dataset", source, "--out", str(out.parent)],
        "score": ["reward", "score", "--model", "m", "--dataset", source, "--out", str(out)],
        "label": ["reward", "label", "--responses", source, "--out", str(out)],
        "sample": ["policy", "sample", "--policy", "p", "--dataset", source, "--out", str(out)],
    }[name]
    assert entry.main(flags) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: out: found ")
    assert "which would be written over and is read as " in errors
    assert errors.count("\n") == 1
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
            AverageArgs(models=names, out=out)
    for out in (names[0], str(link)):
        with pytest.raises(ValueError, match=r"out: found .* is read as models"):
            EnsembleArgs(models=names, out=out)
    EnsembleArgs(models=names, out=str(tmp_path))  # beside its members
    AverageArgs(models=names, out=str(tmp_path / "c"))
    with pytest.raises(ValueError, match="is read as policy"):
        build(ValueArgs, policy=names[0], dataset="d", reward_model="r", out=names[0])
    with pytest.raises(ValueError, match="is read as models"):
        AverageArgs(models=[f"{names[0]}/inner", names[1]], out=names[0])


def test_every_input_of_every_kind_is_kept(data: Path) -> None:
    out = str(data)
    with pytest.raises(ValueError, match="is read as value_head"):
        build(
            PlanArgs,
            policy="p",
            dataset="d",
            reward_model="r",
            value_head=str(data.parent),
            out=out,
        )
    with pytest.raises(ValueError, match="is read as reward_model"):
        build(PlanArgs, policy="p", dataset="d", reward_model=f"python:{data}:score", out=out)
    with pytest.raises(ValueError, match="is read as model"):
        ScoreArgs(model=f"answers:{data}", dataset="d", out=out)
    table = data.with_name("figures.json")
    table.write_text("[]")
    with pytest.raises(ValueError, match="is read as edits"):
        RewardEvaluateArgs(model="m", dataset="d", edits=str(table), out=str(table))
    report = data.with_name("data_report.json")
    report.write_text("[]")
    with pytest.raises(ValueError, match="is read as dataset"):
        InspectArgs(dataset=str(report), out=str(data.parent))
    test = data.with_name("test.jsonl")
    os.link(data, test)
    with pytest.raises(ValueError, match="written over and is read as dataset"):
        SplitArgs(dataset=str(test), out=str(test.parent))


def test_other_outputs_are_free(data: Path) -> None:
    other = data.with_name("other.jsonl")
    ConvertArgs(dataset=str(data), out=str(other))
    other.write_text("older")
    ConvertArgs(dataset=str(data), out=str(other))
    ConvertArgs(dataset="owner/name", out=str(data))
    build(SampleArgs, policy="p", dataset=str(data), out=str(data.with_name("new.jsonl")))
    LabelArgs(responses=str(data), out=str(other))
    SplitArgs(dataset=str(data), out=str(data.parent / "split"))
    require_kept({"dataset": str(data.parent)}, files=[data.with_name("not_yet.jsonl")])
    require_kept({"dataset": "x" * 5000, "other": None, "more": ["", "a/b"]}, files=[data])


def test_links_in_circles_and_to_nowhere_end(data: Path) -> None:
    (data.parent / "loop").symlink_to(data.parent)
    (data.parent / "nowhere").symlink_to(data.parent / "none")
    with pytest.raises(ValueError, match="is read as dataset"):
        require_kept({"dataset": str(data.parent)}, files=[data])


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def test_the_models_behind_a_name_are_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("m1", "m2", "base"):
        write_json(tmp_path / name / "config.json", {})
    write_json(tmp_path / "ens" / "ensemble.json", {"members": ["../m1", "answers:../a.jsonl"]})
    write_json(tmp_path / "outer" / "ensemble.json", {"members": ["../ens", "../outer"]})
    write_json(
        tmp_path / "ad" / "adapter_config.json", {"base_model_name_or_path": str(tmp_path / "base")}
    )
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "package").mkdir()
    for file in ("ok.py", "package/__init__.py", "package/inner.py"):
        (tmp_path / file).write_text("raise RuntimeError('imported')")
    for source, out in (
        ("ensemble:m1,m2", "m2/config.json"),
        ("ensemble:m2,ok.py:f", "ok.py"),
        ("ensemble:~/m1,m2", "m1/config.json"),
        ("ens", "m1/config.json"),
        ("ens", "a.jsonl"),
        ("outer", "m1/config.json"),
        ("ensemble:outer,m2", "m1/config.json"),
        ("ad", "base/config.json"),
        ("ensemble:ad,m2", "base/config.json"),
        ("python:ok:f", "ok.py"),
        ("ok:f", "ok.py"),
        ("ok.py:f", "ok.py"),
        ("python:~/ok.py:f", "ok.py"),
        ("package.inner:f.g", "package/inner.py"),
        ("python:package:f", "package/__init__.py"),
        ("answers:~/a.jsonl", "a.jsonl"),
        ("~/m1", "new/../m1/config.json"),
    ):
        with pytest.raises(ValueError, match=r"out: found .* is read as reward_model"):
            build(PlanArgs, policy="p", dataset="d", reward_model=source, out=out)
        build(PlanArgs, policy="p", dataset="d", reward_model=source, out="free.jsonl")


def test_members_without_bounds_end(tmp_path: Path) -> None:
    for i in range(8):
        members = [f"../e{(i + 1) % 8}"] * 12
        write_json(tmp_path / f"e{i}" / "ensemble.json", {"members": members})
    kept = tmp_path / "e7" / "ensemble.json"
    with pytest.raises(ValueError, match="is read as model"):
        ScoreArgs(model=str(tmp_path / "e0"), dataset="d", out=str(link_to(kept)))


def link_to(file: Path) -> Path:
    link = file.with_name("link.jsonl")
    link.symlink_to(file)
    return link


def test_places_are_those_of_the_disk(data: Path, monkeypatch) -> None:
    folder = data.parent
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    (folder / "sl.jsonl").symlink_to(data.name)
    for dataset, out in (
        ("~/train.jsonl", "train.jsonl"),
        ("train.jsonl", "~/train.jsonl"),
        ("train.jsonl", "new/../train.jsonl"),
        ("train.jsonl", "./x/../sl.jsonl"),
        ("sl.jsonl", "x/y/../../train.jsonl"),
    ):
        with pytest.raises(ValueError, match="is read as dataset"):
            ConvertArgs(dataset=dataset, out=out)
    with pytest.raises(ValueError, match="is read as dataset"):
        SplitArgs(dataset="train.jsonl", out="new/..")
    model = write_json(folder / "rm" / "config.json", {}).parent
    with pytest.raises(ValueError, match="is read as models"):
        EnsembleArgs(models=[str(model)], out="nope/../rm")
    with pytest.raises(ValueError, match="is read as models"):
        AverageArgs(models=["rm", "other"], out="nope/../rm")
    assert not (folder / "new").exists()


@pytest.mark.parametrize("place", ["c.yaml", "./new/../c.yaml", "link.yaml", "~/c.yaml"])
def test_the_file_of_settings_is_kept(place: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = tmp_path / "c.yaml"
    settings.write_text(f"policy: p\ndataset: d\nout: {place}\n")
    (tmp_path / "link.yaml").symlink_to("c.yaml")
    for file in ("c.yaml", "~/c.yaml", "link.yaml"):
        assert entry.main(["policy", "sample", f"--config={file}"]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: out: found ")
        assert "is read as config" in errors
    assert settings.read_text().startswith("policy: p")
    settings.rename(tmp_path / "train.jsonl")
    (tmp_path / "train.jsonl").write_text("dataset: d\nout: .\n")
    assert entry.main(["reward", "split", "--config", "train.jsonl"]) == 2
    assert "is read as config" in capsys.readouterr().err


def test_runs_that_are_read_are_not_written_into(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "checkpoints" / "decisions-000000001-updates-000000001").mkdir(
            parents=True
        )
    runs = [str(tmp_path / name) for name in ("a", "b")]
    for out in (runs[1], f"{runs[0]}/new/comb", f"{tmp_path}/none/../b/comb"):
        with pytest.raises(ValueError, match=r"out: found .* lies in .* read as runs"):
            CombineArgs(runs=runs, out=out)
    CombineArgs(runs=runs, out=str(tmp_path / "comb"))
    checkpoint = str(next((tmp_path / "a" / "checkpoints").iterdir()))
    for source, out in (
        (runs[0], runs[0]),
        (runs[0], checkpoint),
        (runs[0], f"{checkpoint}/new"),
        (checkpoint, checkpoint),
        (checkpoint, f"{checkpoint}/new"),
    ):
        with pytest.raises(ValueError, match=r"out: found .* read as checkpoint"):
            AtariPlayArgs(checkpoint=source, out=out)
    AtariPlayArgs(checkpoint=runs[0], out=f"{runs[0]}/played")
    manifest = write_json(Path(checkpoint, "checkpoint.json"), {})
    with pytest.raises(ValueError, match="is read as checkpoint"):
        AtariEvaluateArgs(checkpoint=runs[0], out=str(manifest))

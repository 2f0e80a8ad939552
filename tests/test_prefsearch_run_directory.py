import errno
import json
import os
from pathlib import Path

import pytest

from prefsearch.run.directory import DamagedRunError, RunDirectory, RunExistsError, step_seed
from prefsearch.storage.errors import StorageError
from prefsearch.storage.files import read_records

SETTINGS = {"seed": 0, "size": 3}


def test_a_new_run_writes_its_configuration_and_environment(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "run", SETTINGS, resume=False)
    assert "size: 3" in (run.path / "config.yaml").read_text()
    assert json.loads((run.path / "environment.json").read_text())["versions"]["torch"]


def test_an_existing_run_needs_resume(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, SETTINGS, resume=False)
    with pytest.raises(RunExistsError, match=r"exists and is not empty.*--resume.*--out"):
        RunDirectory.open(tmp_path, SETTINGS, resume=False)
    RunDirectory.open(tmp_path, SETTINGS, resume=True)


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, SETTINGS, resume=False)
    with pytest.raises(RunExistsError, match="size: 3 -> 4"):
        RunDirectory.open(tmp_path, {**SETTINGS, "size": 4}, resume=True)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunExistsError, match=r"no config\.yaml"):
        RunDirectory.open(tmp_path, SETTINGS, resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["letter.txt"]


def test_a_finished_step_keeps_result_and_records_in_order(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, SETTINGS, resume=False)
    assert run.result("z-first") is None
    run.finish("z-first", {"loss": 1.5}, records=[{"prompt": 0}, {"prompt": 1}])
    run.finish("a-second", {"loss": 0.5}, records=[{"prompt": 0}])
    run.finish(
        "z-first", {"loss": 1.5}, records=[{"prompt": 0}, {"prompt": 1}]
    )  # a kill repeats it
    assert run.result("z-first") == {"loss": 1.5}
    steps = [record["step"] for record in read_records(run.records)]
    assert steps == ["z-first", "z-first", "a-second"]
    assert [record["step"] for record in read_records(run.metrics)] == ["z-first", "a-second"]


def test_a_step_that_is_taken_again_stands_where_it_stood(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, SETTINGS, resume=False)
    for step in ("z", "y", "x"):
        run.finish(step, {"loss": 1.0}, records=[{"of": step}])
    before = run.metrics.read_text(), run.records.read_text()
    (tmp_path / "steps" / "y.json").unlink()
    again = RunDirectory.open(tmp_path, SETTINGS, resume=True)
    with pytest.raises(DamagedRunError, match="found no file of step 1"):
        again.require_all_steps()
    again.finish("y", {"loss": 1.0}, records=[{"of": "y"}])
    assert (run.metrics.read_text(), run.records.read_text()) == before
    again.require_all_steps()


def _write_half(folder: Path) -> None:
    (folder / "half").write_text("x")
    raise NotImplementedError


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, SETTINGS, resume=False)
    with pytest.raises(NotImplementedError), run.folder("model") as scratch:
        _write_half(scratch)
    assert list(run.checkpoints.iterdir()) == []
    with run.folder("model") as scratch:
        (scratch / "whole").write_text("x")
    assert (run.checkpoints / "model" / "whole").is_file()


def test_litter_of_a_kill_is_swept_when_the_run_goes_on(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, SETTINGS, resume=False)
    litter = run.checkpoints / "model.partial-1234"
    litter.mkdir()
    RunDirectory.open(tmp_path, SETTINGS, resume=True)
    assert not litter.exists()


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"choose a path whose parents are folders"):
        RunDirectory.open(tmp_path / "file" / "run", SETTINGS, resume=False)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_loses_no_finished_step(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.open(tmp_path, SETTINGS, resume=False)
    run.finish("first", {"loss": 1.0}, records=[{"prompt": 0}])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=os.strerror(code)):
        run.finish("second", {"loss": 0.5}, records=[{"prompt": 0}])
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert RunDirectory.open(tmp_path, SETTINGS, resume=True).result("second") is None


def test_seeds_differ_by_step_and_repeat() -> None:
    assert step_seed(0, "a") == step_seed(0, "a")
    assert len({step_seed(0, "a"), step_seed(0, "b"), step_seed(1, "a")}) == 3

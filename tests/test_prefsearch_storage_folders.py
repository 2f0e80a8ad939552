"""Folders appear whole, are replaced at once, and leave nothing behind."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from prefsearch.storage import folders as folder_writing
from prefsearch.storage import scratch_files
from prefsearch.storage.errors import StorageError, naming_path
from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.folders import new_folder, remove_folder
from prefsearch.storage.scratch_files import partial_folder, remove_leftovers, replaced_folder


class _Killed(BaseException):
    """In place of a kill."""


def write_model(target: Path, text: str) -> None:
    with new_folder(target) as scratch:
        (scratch / "config.json").write_text(text)


@pytest.mark.parametrize("exchange", [True, False])
def test_the_former_folder_is_there_until_its_successor_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(folder_writing, "_exchange", lambda one, other: False)
    target = tmp_path / "model"
    write_model(target, "old")
    for name in ("replace", "rename"):
        original = getattr(os, name)

        def stop(one: str, other: str, original: object = original) -> None:
            if ".partial-" in str(one):
                raise _Killed
            original(one, other)  # type: ignore[operator]

        monkeypatch.setattr(os, name, stop)
    if exchange:
        write_model(target, "new")
        assert (target / "config.json").read_text() == "new"
        return
    with pytest.raises(_Killed):
        write_model(target, "new")
    monkeypatch.undo()
    remove_leftovers(tmp_path, living=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "config.json").read_text() == "old"


def test_an_exchange_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    write_model(target, "old")
    monkeypatch.setattr(folder_writing.ctypes, "get_errno", lambda: errno.EROFS)

    class Refusing:
        def __init__(self, *_: object, **__: object) -> None:
            self.renameat2 = lambda *_: -1

    monkeypatch.setattr(ctypes, "CDLL", Refusing)
    with pytest.raises(StorageError, match="read-only"):
        write_model(target, "new")
    assert (target / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_to_a_folder_survives(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_model(tmp_path / "elsewhere" / "model", "old")
    link = tmp_path / "model"
    link.symlink_to(tmp_path / "elsewhere" / "model")
    write_model(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "model" / "config.json").read_text() == "new"


def test_leftovers_of_dead_processes_alone_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = partial_folder(tmp_path / "model")
    mine.mkdir()
    with monkeypatch.context() as other:
        other.setattr(scratch_files.os, "getpid", lambda: 2**22 + 7)  # more than a kernel gives
        dead = partial_folder(tmp_path / "model")
        dead.mkdir()
        file = scratch_files.temporary_file(tmp_path / "text")
        file.write_text("half")
        other.setattr(scratch_files, "_host", lambda: "0" * 8)
        foreign = partial_folder(tmp_path / "model")
        foreign.mkdir()
    (tmp_path / "model.partial-results").mkdir()  # a user's
    remove_leftovers(tmp_path)
    kept = {mine.name, foreign.name, "model.partial-results"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    remove_leftovers(tmp_path, living=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.partial-results"]


def test_a_folder_taken_out_of_its_place_is_put_back_unless_it_has_a_successor(
    tmp_path: Path,
) -> None:
    for name in ("lost", "replaced"):
        replaced_folder(tmp_path / name).mkdir()
    (tmp_path / "replaced").mkdir()
    remove_leftovers(tmp_path, living=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost", "replaced"]


def test_a_folder_is_removed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model", "old")

    def stop(*_: object, **__: object) -> None:
        raise _Killed

    monkeypatch.setattr(folder_writing.shutil, "rmtree", stop)
    with pytest.raises(_Killed):
        remove_folder(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_temporary_file_of_a_dead_process_goes_with_the_first_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setattr(scratch_files.os, "getpid", lambda: 2**22 + 7)
        scratch_files.temporary_file(tmp_path / "text").write_text("half")
    write_text_atomic(tmp_path / "text", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        OSError("write error: No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_libraries_make_of_a_full_disk_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from prefsearch.storage import errors

    monkeypatch.setattr(errors, "_NEARLY_FULL", 2**60)
    with (
        pytest.raises(StorageError, match="No space left on device; free some") as raised,
        new_folder(tmp_path / "model"),
    ):
        raise error
    assert list(tmp_path.iterdir()) == []
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(tmp_path / "model")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), naming_path(tmp_path, "write"):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize(
    ("held", "over", "message"),
    [
        ([".git/HEAD", "config.json"], "model", "holds .git beside a model"),
        (["config.json", "thesis.txt"], "model", "holds thesis.txt beside a model"),
        (["config.json", "model.safetensors"], "value_head", "and no value head"),
        (["value_head.json", "value_head.safetensors"], "model", "and no model"),
        (["letter.txt"], "model", "holds letter.txt and no model"),
    ],
)
def test_a_folder_that_is_not_of_the_kind_alone_is_never_replaced(
    tmp_path: Path, held: list[str], over: Any, message: str
) -> None:
    for name in held:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(ValueError, match=message), new_folder(tmp_path / "mine", over=over):
        pytest.fail("nothing may be made for a folder that cannot be replaced")
    assert all((tmp_path / "mine" / name).read_text() == "mine" for name in held)

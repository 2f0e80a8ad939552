"""Checkpoint folders: damage is named, and the newest intact one is chosen."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prefsearch.storage.checkpoints import (
    newest_intact,
    numbered_checkpoints,
    read_manifest,
    remove_oldest,
    write_manifest,
)

NAME = re.compile(r"step-(\d+)-(\d+)")
REMEDY = "Copy it again"


def write(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "weights").write_bytes(b"\1" * 100)
    write_manifest(folder / "m.json", kind="test", version=2, facts={"updates": 7, "path": "a"})
    return folder


def read(folder: Path, *, check_files: bool = True) -> dict[str, object]:
    path, required = folder / "m.json", "a checkpoint of the test"
    return read_manifest(
        path, kind="test", version=2, required=required, remedy=REMEDY, check_files=check_files
    )


def put(name: str, data: bytes | None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.unlink() if data is None else path.write_bytes(data)

    return damage


def edit(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "m.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


DAMAGES = [
    (put("inner/weights", None), r"weights: found no file; required: 100 bytes\. Copy it again"),
    (put("inner/weights", b"\1" * 99), "weights: found 99 bytes; required: 100 bytes"),
    (put("inner/weights", b"\1" * 99 + b"\0"), r"weights: .*found the SHA-256 \w+; required: \w+"),
    (edit(version=9), r"m\.json: found version 9; required: 2"),
    (edit(format="other"), r"m\.json: found JSON of something else; required: format test"),
    (edit(updates=8), r"m\.json: found other values than were written"),
    (edit(files=None), r"m\.json: found other values than were written"),
    (put("m.json", b"{"), r"m\.json: cannot be read as JSON"),
    (put("m.json", b"[]"), r"m\.json: found JSON of something else"),
    (put("m.json", None), "found a folder that holds inner; required: a checkpoint of the test"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, damage: Callable[[Path], None], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    older, newest = write(tmp_path / "step-1-0"), write(tmp_path / "step-2-0")
    assert read(newest)["updates"] == 7
    assert newest_intact([older, newest], read) == newest
    damage(newest)
    with pytest.raises(ValueError, match=message):
        read(newest)
    with caplog.at_level(logging.WARNING):
        assert newest_intact([older, newest], read) == older
    assert f"Going on from {older}" in caplog.text
    damage(older)
    with pytest.raises(ValueError, match=message):
        newest_intact([older, newest], read)


def test_files_are_left_unread_where_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "step-1-0")
    (folder / "inner" / "weights").unlink()
    assert read(folder, check_files=False)["updates"] == 7
    with pytest.raises(ValueError, match="found no such folder"):
        read(tmp_path / "nowhere")


def test_checkpoints_are_ordered_by_their_numbers_and_the_oldest_removed(tmp_path: Path) -> None:
    for name in ("step-10-2", "step-9-30", "step-10-11", "step-8-1.partial", "other"):
        (tmp_path / name).mkdir()
    found = numbered_checkpoints(tmp_path, NAME)
    assert [path.name for path in found] == ["step-9-30", "step-10-2", "step-10-11"]
    remove_oldest(found, keep=2)
    assert [path.exists() for path in found] == [False, True, True]
    remove_oldest(found[1:], keep=5)
    assert numbered_checkpoints(tmp_path, NAME) == found[1:]
    assert newest_intact([], read) is None

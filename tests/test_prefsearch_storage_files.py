"""Files survive kills, full disks and bad values, or say why they cannot."""

import errno
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prefsearch.statistics.intervals import Interval
from prefsearch.storage.errors import StorageError
from prefsearch.storage.files import (
    append_record,
    read_records,
    write_json_atomic,
    write_text_atomic,
)


def fail_with(code: int) -> Callable[..., None]:
    """A stand-in for a system call that always fails."""

    def fail(*_args: object, **_keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_records_come_back_in_order_as_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "run" / "records.jsonl"
    append_record(path, {"step": 1, "score": np.float32(0.5), "text": "é\n</b>", "none": None})
    append_record(
        path, {"step": torch.tensor(2), "scores": np.arange(3), "gain": Interval(1, 0, 2)}
    )
    assert read_records(path) == [
        {"step": 1, "score": 0.5, "text": "é\n</b>", "none": None},
        {"step": 2, "scores": [0, 1, 2], "gain": {"estimate": 1, "low": 0, "high": 2}},
    ]
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"loss": math.nan}, r"record\['loss'\]: found nan"),
        ({"a": {"b": [0.0, np.float64("inf")]}}, r"record\['a'\]\['b'\]\[1\]: found inf"),
        ({"a": torch.tensor([math.nan])}, r"record\['a'\]\[0\]: found nan"),
        ({"by_n": {1: 0.5}}, "key 1 of type int"),
        ({"a": {1, 2}}, "found a set"),
        ([1, 2], "a record is a mapping, found list"),
    ],
)
def test_append_refuses_what_json_cannot_hold(
    tmp_path: Path, record: dict[str, object], message: str
) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, {"step": 0})
    with pytest.raises(ValueError, match=message):
        append_record(path, record)
    assert read_records(path) == [{"step": 0}]


def test_torn_last_line_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    whole = b'{"step": 0}\n{"text": "\xc3\xa9"}'
    for cut in range(13, len(whole)):  # every place a kill may cut, half a character included
        path.write_bytes(whole[:cut])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read_records(path) == [{"step": 0}]
        assert "line 2" in caplog.text
        assert str(path) in caplog.text
    path.write_bytes(whole)  # torn only of its newline: nothing is lost
    assert read_records(path) == [{"step": 0}, {"text": "é"}]


@pytest.mark.parametrize("bad", [b'{"step": 1', b"[1]", b'{"a": NaN}', b'{"a": "\xff"}'])
def test_torn_line_elsewhere_is_an_error_with_file_and_line(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"step": 0}\n' + bad + b'\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"records\.jsonl, line 2: not a record"):
        read_records(path)
    path.write_bytes(b'{"step": 0}\n' + bad + b"\n")  # a kill leaves no newline behind it
    with pytest.raises(ValueError, match="line 2"):
        read_records(path)


def test_append_after_a_kill_cuts_the_torn_line_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    for left, kept in ((b'{"step": 1, "sc', []), (b'{"step": 1}', [{"step": 1}])):
        path.write_bytes(b'{"step": 0}\n' + left)
        append_record(path, {"step": 2})
        assert read_records(path) == [{"step": 0}, *kept, {"step": 2}]
    assert caplog.text.count("cut off a torn last record") == 1


def test_a_killed_writer_loses_at_most_its_last_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    program = (
        "import itertools, sys\n"
        "from prefsearch.storage.files import append_record\n"
        "for step in itertools.count():\n"
        "    append_record(sys.argv[1], {'step': step, 'text': 'x' * 1000})\n"
        "    print(step, flush=True)\n"
    )
    root = str(Path(__file__).resolve().parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": root},
    ) as writer:
        for _ in range(20):
            confirmed = int(writer.stdout.readline())
        writer.kill()
    steps = [record["step"] for record in read_records(path)]
    assert steps == list(range(len(steps)))
    assert len(steps) > confirmed


def test_full_device_is_named_with_cause_and_remedy() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match=r"No space left.*free some space.*/dev/full") as caught:
        append_record("/dev/full", {"step": 0})
    assert caught.value.errno == errno.ENOSPC


def test_append_on_a_full_disk_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, {"step": 0})
    before = path.read_bytes()
    # The line is in the file when the disk reports that it is full.
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(StorageError, match="No space left"):
        append_record(path, {"step": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "report.html"
    write_text_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "replace" else os, call, fail_with(code))
        with pytest.raises(StorageError) as caught:
            write_text_atomic(path, "new")
    assert caught.value.errno == code
    assert caught.value.filename == str(path)
    assert os.strerror(code) in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]
    write_text_atomic(path, "new")
    assert path.read_text() == "new"


def test_impossible_paths_are_storage_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below_a_file = tmp_path / "file" / "records.jsonl"
    with pytest.raises(StorageError, match=r"could not append to it.*parents are folders"):
        append_record(below_a_file, {})
    with pytest.raises(StorageError, match=r"could not write it.*parents are folders"):
        write_text_atomic(below_a_file, "")
    with pytest.raises(StorageError, match="name a file inside it"):
        write_text_atomic(tmp_path, "")
    with pytest.raises(StorageError, match="missing") as caught:
        read_records(tmp_path / "absent.jsonl")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(StorageError, match="not a regular file"):
        write_text_atomic("/dev/null", "")
    assert not Path("/dev/null").is_file()


def test_rewriting_keeps_permissions_and_links(tmp_path: Path) -> None:
    path, link = tmp_path / "real.txt", tmp_path / "link.txt"
    write_text_atomic(path, "one")
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    path.chmod(0o640)
    link.symlink_to(path)
    write_text_atomic(link, "two")
    assert link.is_symlink()
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o640


def test_json_round_trip_and_refusal(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json_atomic(path, {"kl": (0.0, 1.5), "path": tmp_path, "ok": np.bool_(True)})
    assert json.loads(path.read_text()) == {"kl": [0.0, 1.5], "path": str(tmp_path), "ok": True}
    with pytest.raises(ValueError, match=r"value\['kl'\]: found nan"):
        write_json_atomic(path, {"kl": math.nan})
    assert json.loads(path.read_text())["ok"] is True


def test_names_of_files_that_are_no_utf8_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \\udc80 \xff.jsonl")
    write_json_atomic(tmp_path / "settings.json", {name: [name]})
    assert json.loads((tmp_path / "settings.json").read_text(encoding="utf-8")) == {name: [name]}
    append_record(tmp_path / "records.jsonl", {"dataset": name})
    assert read_records(tmp_path / "records.jsonl") == [{"dataset": name}]

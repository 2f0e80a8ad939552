"""What a cell keeps on disk, whoever does it and however often it is begun."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from policies.evaluation.cell_files import CellFile
from prefsearch.distributed import Processes, join_processes


def cell_of(path: Path, rank: int = 0, count: int = 1) -> CellFile:
    return CellFile(path, prompts=7, batch_size=2, processes=Processes(rank, count))


def worker(done: list[int]) -> Callable[[int], list[dict[str, Any]]]:
    def work(batch: int) -> list[dict[str, Any]]:
        done.append(batch)
        prompts = range(2 * batch, min(7, 2 * batch + 2))
        return [{"prompt": prompt, "text": f"é{prompt}"} for prompt in prompts]

    return work


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["prompt"] for line in path.read_text().splitlines()]


def test_batches_are_done_once_and_kept_in_order(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    done: list[int] = []
    cell_of(path).fill(worker(done), label="x")
    cell = cell_of(path)
    cell.fill(worker(done), label="x")
    assert done == [0, 1, 2, 3]
    assert cell.close() == [{"prompt": i, "text": f"é{i}"} for i in range(7)]


def test_a_batch_that_was_cut_short_is_done_again_and_nothing_is_doubled(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    path.write_text('{"prompt": 0, "text": "old"}\n{"prompt": 4, "text": "old"}\n{"prompt": 5, "te')
    done: list[int] = []
    cell = cell_of(path)
    cell.fill(worker(done), label="x")
    assert done == [0, 1, 2, 3]
    assert sorted(numbers(path)) == list(range(7))
    kept = cell.close()
    assert [line["text"] for line in kept] == ["old", "é1", "é2", "é3", "old", "é5", "é6"]


def test_processes_divide_the_batches_and_others_go_on_with_what_they_left(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    other: list[int] = []
    cell_of(path, 1, 3).fill(worker(other), label="x")
    assert other == [1]
    assert numbers(tmp_path / "cell.rank-1.jsonl") == [2, 3]
    assert not path.exists()
    # Two processes go on where three began: batch 1 is known, batch 3 belongs to the second.
    rest: list[int] = []
    cell_of(path, 1, 2).fill(worker(rest), label="x")
    assert rest == [3]
    cell = cell_of(path)
    cell.fill(worker(rest), label="x")
    assert rest == [3, 0, 2]
    cell.close()
    assert numbers(path) == list(range(7))
    assert [file.name for file in tmp_path.iterdir()] == ["cell.jsonl"]


def test_a_kill_between_merging_and_tidying_up_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    cell_of(path, 1, 2).fill(worker([]), label="x")
    left = (tmp_path / "cell.rank-1.jsonl").read_text()
    cell = cell_of(path)
    cell.fill(worker([]), label="x")
    cell.close()
    whole = path.read_text()
    (tmp_path / "cell.rank-1.jsonl").write_text(left)
    again: list[int] = []
    cell = cell_of(path)
    cell.fill(worker(again), label="x")
    cell.close()
    assert again == []
    assert path.read_text() == whole


def test_shares_cover_all_batches_once() -> None:
    for count in (1, 2, 3, 5):
        shares = [batch for rank in range(count) for batch in Processes(rank, count).share(7)]
        assert sorted(shares) == list(range(7))


def test_other_processes_are_quiet_and_a_single_one_needs_no_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Processes(1, 2).console().print("never")
    Processes(0, 2).console().print("once")
    assert capsys.readouterr().out.split() == ["once"]
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = join_processes()
    assert alone == Processes(0, 1)
    alone.wait()
    assert alone.gather([1, 2]) == [1, 2]
    assert alone.on_main(lambda: 3) == 3
    assert alone.leave_main()


def test_a_launcher_that_starts_one_process_for_two_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")  # set where more than one process was asked for
    assert join_processes() == Processes()
    assert "torchrun" in caplog.text


def test_what_fails_in_the_main_process_ends_the_others_quietly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[bool] = []

    def broadcast(failed: list[bool], src: int) -> None:
        sent.append(failed[0])
        failed[0] = True  # as in the main process

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    with pytest.raises(SystemExit) as left:
        Processes(1, 2).on_main(lambda: pytest.fail("not here"))
    assert left.value.code == 2

    def fail() -> None:
        raise ValueError("the folder is in use")

    with pytest.raises(ValueError, match="in use"):
        Processes(0, 2).on_main(fail)
    assert sent[-1] is True, "the others know before the error goes on"


def test_a_process_that_is_gone_is_no_puzzle(monkeypatch: pytest.MonkeyPatch) -> None:
    def barrier() -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:44511")

    monkeypatch.setattr(torch.distributed, "barrier", barrier)
    with pytest.raises(ConnectionError, match="another process of this run has ended"):
        Processes(0, 2).wait()

"""What processes tell each other, each side of it by itself: torch.distributed is a stand-in."""

import datetime
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from policies.evaluation.cell_files import CellFile
from prefsearch.distributed import Processes, join_processes

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@pytest.fixture(autouse=True)
def _restored_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*SIZES, "ACCELERATE_USE_CPU", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


class State:
    """Stands in for accelerate's `PartialState`."""

    made: tuple[Any, ...] = ()
    rank = 1
    device: torch.device | None = torch.device("cpu")

    def __init__(self, **options: Any) -> None:
        State.made = (*State.made, options)
        self.process_index, self.num_processes = State.rank, 3
        self.device = State.device

    @classmethod
    def _reset_state(cls) -> None:
        cls.made = ()


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> type[State]:
    monkeypatch.setattr("accelerate.PartialState", State)
    monkeypatch.setattr("accelerate.state.PartialState", State)
    monkeypatch.setattr(State, "made", ())
    return State


@pytest.mark.parametrize("size", SIZES)
def test_any_launcher_that_counts_several_processes_is_joined(
    size: str, state: type[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(size, "3")
    assert join_processes() == Processes(1, 3)
    (options,) = state.made
    assert (options["cpu"], options["backend"]) == (True, "gloo"), "there is no GPU here"
    assert options["timeout"] >= datetime.timedelta(days=1), "a share may take hours"
    monkeypatch.setenv(size, "1")
    assert join_processes() == Processes()
    assert len(state.made) == 1


@pytest.mark.parametrize(("rank", "level"), [(0, logging.INFO), (1, logging.ERROR)])
def test_only_the_main_process_logs_less_than_errors(
    rank: int, level: int, state: type[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(state, "rank", rank)
    logging.getLogger().setLevel(logging.INFO)
    assert join_processes() == Processes(rank, 3)
    assert logging.getLogger().level == level


@pytest.mark.parametrize("device", [None, "cpu", "cuda:1"])
def test_a_process_takes_the_gpu_that_it_was_given(
    device: str | None, state: type[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(state, "device", None if device is None else torch.device(device))
    join_processes()
    assert taken == ([torch.device("cuda:1")] if device == "cuda:1" else [])


@pytest.mark.parametrize("name", ["ACCELERATE_USE_CPU", "MASTER_PORT"])
def test_a_single_process_that_nobody_wanted_several_of_is_no_warning(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, "True")
    assert join_processes() == Processes()
    assert caplog.text == ""


def test_what_the_main_process_did_is_returned_there_and_none_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[bool] = []

    def broadcast(failed: list[bool], src: int) -> None:
        assert src == 0
        sent.append(failed[0])
        failed[0] = False  # the main process was fine

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    assert Processes(0, 2).on_main(lambda: 7) == 7
    assert sent == [False]
    assert Processes(1, 2).on_main(lambda: pytest.fail("not here")) is None


def test_items_meet_in_the_main_process_in_the_order_of_the_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gather(items: list[str], found: list[Any] | None, dst: int) -> None:
        assert dst == 0
        if found is not None:
            assert found == [None, None]
            found[:] = [items, ["c", "d"]]

    monkeypatch.setattr(torch.distributed, "gather_object", gather)
    assert Processes(0, 2).gather(("a", "b")) == ["a", "b", "c", "d"]
    assert Processes(1, 2).gather(["c", "d"]) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_leaving_ends_the_group_and_what_a_trainer_would_look_for(
    rank: int, state: type[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.distributed, "barrier", lambda: calls.append("barrier"))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: calls.append("end"))
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    for name in names:
        monkeypatch.setenv(name, "2")
    state()
    assert Processes(rank, 2).leave_main() == (rank == 0)
    assert calls == ["barrier", "end"]
    assert not state.made, "accelerate forgets the group, too"
    assert not set(names) & set(os.environ)
    calls.clear()
    monkeypatch.setenv("RANK", "0")
    assert Processes().leave_main()
    assert not calls
    assert os.environ["RANK"] == "0", "a process by itself has nothing to leave"


def test_all_processes_meet_before_the_main_one_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cell.jsonl"

    def cell_of(rank: int) -> CellFile:
        return CellFile(path, prompts=4, batch_size=2, processes=Processes(rank, 2))

    def work(batch: int) -> list[dict[str, Any]]:
        return [{"prompt": 2 * batch + i, "text": "é"} for i in (0, 1, 1)]

    def late() -> None:
        # The other process ends while the main one waits.
        monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
        other = cell_of(1)
        other.fill(work, label="x")
        assert other.close() is None
        assert (tmp_path / "cell.rank-1.jsonl").is_file()

    monkeypatch.setattr(torch.distributed, "barrier", late)
    main = cell_of(0)
    main.fill(work, label="x")
    assert len(path.read_text().splitlines()) == 2, "a prompt is kept once"
    lines = main.close()
    assert lines is not None
    assert [line["prompt"] for line in lines] == [0, 1, 2, 3]
    assert path.read_text().count("é") == 4, "texts stay readable"
    assert not (tmp_path / "cell.rank-1.jsonl").exists()

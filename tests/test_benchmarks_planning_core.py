"""The planning-core benchmark: cells, limits, ratios, and a run of our own side."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.core import planning_core
from benchmarks.core.grid import Cell, choose_cells, parse_cells, reason_to_skip
from benchmarks.core.report import ratio, side_summary, summarize
from benchmarks.core.run import Benchmark
from benchmarks.core.show import draw, print_report
from benchmarks.core.worker import task_of, write_weights
from benchmarks.harness.provenance import source_digest
from benchmarks.harness.results import load_cells
from benchmarks.harness.worker import Worker, WorkerError

MODULE = "benchmarks.core.worker"
OPTIONS = {"side": "prefsearch", "threads": 1, "model_threads": 1, "lightzero": "none"}


def timed(cell: Cell, milliseconds: list[float], model: float = 0.1) -> dict[str, Any]:
    """What a side's summary is of such times."""
    measured = {
        "milliseconds": milliseconds,
        "model_milliseconds": [model] * len(milliseconds),
        "rounds": len(milliseconds),
        "compile_seconds": 2.0,
        "megabytes": 3.0,
    }
    return side_summary(measured, cell)


def row(cell: Cell, **sides: Any) -> dict[str, Any]:
    """A row of results: times of each side, or the reason it was skipped."""
    found = {
        side: {"skipped": value, "over_limit": True}
        if isinstance(value, str)
        else timed(cell, value)
        for side, value in sides.items()
    }
    names = ("algorithm", "batch", "actions", "simulations")
    return {**{n: getattr(cell, n) for n in names}, "agreement": 1.0, "sides": found}


def test_cells_come_once_and_smaller_trees_first() -> None:
    cells = choose_cells(["muzero", "gumbel"], [16, 1, 16], [6], [50, 16])
    assert len(cells) == len(set(cells)) == 8
    edges = [cell.edges for cell in cells]
    assert edges == sorted(edges)
    assert cells[-1] == Cell("muzero", 16, 6, 50)


def test_cells_are_parsed_and_mistakes_are_named() -> None:
    assert parse_cells(["256x18x200"], ["gumbel"]) == [Cell("gumbel", 256, 18, 200)]
    for text in ("256x18", "ax18x200", "-1x2x3"):
        with pytest.raises(ValueError, match="BxAxS"):
            parse_cells([text], ["gumbel"])
    with pytest.raises(ValueError, match="at least 1"):
        choose_cells(["gumbel"], [0], [6], [16])
    with pytest.raises(ValueError, match="alphazero"):
        choose_cells(["alphazero"], [1], [6], [16])


def test_named_grids() -> None:
    def chosen(*arguments: str) -> list[Cell]:
        return planning_core.cells_of(planning_core.parse_options(arguments))

    assert len(chosen()) == 128
    assert len(chosen("--quick")) == 8
    assert set(chosen("--quick")) <= set(chosen())


def test_a_cell_is_skipped_for_a_smaller_one_that_went_over_a_limit() -> None:
    cell, near = Cell("muzero", 256, 18, 200), Cell("muzero", 16, 18, 200)
    reason = reason_to_skip(cell, {near: "time: stopped"})
    assert reason == f"larger than {near.name}, which was over a limit: time: stopped"
    assert reason_to_skip(near, {cell: "time: stopped"}) is None
    assert reason_to_skip(cell, {cell: "time: stopped"}) is None
    assert reason_to_skip(cell, {Cell("gumbel", 1, 6, 16): "time: stopped"}) is None


def test_ratio_compares_medians_minima_and_times_of_one_round() -> None:
    cell = Cell("muzero", 2, 3, 5)
    ours, peer = timed(cell, [1.0, 2.0, 4.0]), timed(cell, [6.0, 4.0])  # stopped after two rounds
    assert ratio(ours, peer) == {"of_medians": 2.5, "of_minima": 4.0, "low": 2.0, "high": 6.0}
    assert ours["above_model"] == pytest.approx(1.9)
    assert ours["microseconds_per_simulation_and_tree"] == pytest.approx(200.0)


def results() -> dict[str, Any]:
    cells = [
        row(Cell("muzero", 256, 18, 200), prefsearch=[200.0] * 3, mctx=[4000.0] * 3),
        row(Cell("gumbel", 256, 18, 200), prefsearch=[100.0, 90.0], mctx="time: too long"),
        row(Cell("gumbel", 1, 18, 200), prefsearch=[9.0], mctx=[3.0], lightzero=[10.0]),
    ]
    return summarize({"cells": cells})


def test_summary_lists_ratios_losses_and_skips() -> None:
    found = results()
    assert found["cells"][-1]["ratios"]["mctx"]["of_medians"] == 20.0
    (loss,) = found["losses"]
    assert (loss["cell"], loss["peer"], loss["decided"]) == ("gumbel B1 A18 S200", "mctx", True)
    assert found["skipped"] == [
        {"cell": "gumbel B256 A18 S200", "side": "mctx", "reason": "time: too long"}
    ]
    assert summarize(found) == found


def test_report_shows_every_cell_and_draws(tmp_path: Path) -> None:
    console = Console(width=220, record=True, file=(tmp_path / "out.txt").open("w"), markup=False)
    print_report(results(), console.print)
    text = console.export_text()
    assert "20.00 [20.00, 20.00]" in text
    assert "time: too long" in text
    assert "Losing cells: 1" in text
    picture = tmp_path / "planning_core.png"
    assert draw(results()["cells"], picture, actions=18)
    assert picture.is_file()
    assert not picture.with_suffix(".svg").exists()
    assert not draw(results()["cells"], tmp_path / "none.png", actions=7)
    assert not (tmp_path / "none.png").exists()


def test_finished_cells_are_kept_only_for_the_same_code_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    expected = {"settings": {"repeats": 5}, "versions": {"mctx": {"jax": "1"}}}
    assert load_cells("planning_core", path, expected) == []
    source = {"source_digest": source_digest("planning_core")}
    written = {"provenance": source, **expected, "cells": [{"batch": 1}]}
    path.write_text(json.dumps(written))
    assert load_cells("planning_core", path, expected) == [{"batch": 1}]
    for name in expected:
        with pytest.raises(ValueError, match=f"other {name}"):
            load_cells("planning_core", path, {**expected, name: "changed"})
    path.write_text(json.dumps({**written, "provenance": {"source_digest": "abc"}}))
    with pytest.raises(ValueError, match="other source files: found abc"):
        load_cells("planning_core", path, expected)


def test_our_worker_searches_as_often_as_asked(tmp_path: Path) -> None:
    weights = tmp_path / "weights.npz"
    write_weights(weights, num_actions=3, batch=2, seed=0)
    worker = Worker(sys.executable, MODULE, OPTIONS, limit_megabytes=4000.0)
    try:
        for algorithm in ("muzero", "gumbel"):
            task = task_of(Cell(algorithm, 2, 3, 4), weights)
            assert worker.request("prepare", seconds=600.0, **task)["seconds"] > 0
            visits = worker.request("visits", seconds=60.0)["visits"]
            assert [sum(counts) for counts in visits] == [4, 4]
            for what in ("search", "model"):
                taken = worker.request("time", seconds=60.0, what=what, inner=2)
                assert taken["milliseconds"] > 0
        memory = worker.request("memory", seconds=600.0, **task)["megabytes"]
        assert memory is None or memory >= 0
        with pytest.raises(WorkerError, match="required one of") as stopped:
            worker.request("rest", seconds=60.0)
        assert not stopped.value.limit
    finally:
        worker.close()


def test_a_worker_over_its_limits_is_stopped(tmp_path: Path) -> None:
    weights = tmp_path / "weights.npz"
    write_weights(weights, num_actions=3, batch=2, seed=0)
    task = task_of(Cell("muzero", 2, 3, 4), weights)
    worker = Worker(sys.executable, MODULE, OPTIONS, limit_megabytes=4000.0)
    with pytest.raises(WorkerError, match="time: prepare stopped") as stopped:
        worker.request("prepare", seconds=0.0, **task)
    assert stopped.value.limit
    with pytest.raises(WorkerError, match="memory: stopped"):
        Worker(sys.executable, MODULE, OPTIONS, limit_megabytes=1.0)


def test_a_run_of_our_side_resumes_and_names_missing_peers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "planning_core.json"
    arguments = ["--cells", "2x3x4", "--algorithms", "gumbel", "--repeats", "2", "--threads", "1"]
    arguments += ["--budget-seconds", "600"]  # kernels may have to be compiled
    arguments += ["--out", str(out), "--plot-actions", "3"]
    arguments += ["--mctx-python", str(tmp_path / "none"), "--lightzero", str(tmp_path / "none")]
    planning_core.main(arguments)
    found = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text()
    assert found["provenance"]["command"].startswith(
        "python benchmarks/core/planning_core.py --cells"
    )
    assert found["provenance"]["rounds"] == 2
    (cell,) = found["cells"]
    assert cell["sides"]["prefsearch"]["rounds"] == 2
    for peer in ("mctx", "lightzero"):
        assert "peers.sh" in cell["sides"][peer]["skipped"]
    assert found["missing"].keys() == {"mctx", "lightzero"}
    assert out.with_suffix(".png").is_file()
    assert "skipped" in capsys.readouterr().out

    def refuse(self: Benchmark, cell: Cell) -> None:
        raise AssertionError(f"measured {cell.name} again")

    monkeypatch.setattr(Benchmark, "measure", refuse)
    planning_core.main([*arguments, "--resume"])
    assert json.loads(out.read_text())["cells"] == found["cells"]

"""The planning-core benchmark: its cells, limits and sums, and our own side in small."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.core import planning_core
from benchmarks.core.grid import (
    Cell,
    Cost,
    choose_cells,
    parse_cells,
    predict_megabytes,
    predict_seconds,
    reason_to_skip,
)
from benchmarks.core.report import fit_exponent, ratio, side_summary, summarize
from benchmarks.core.run import Benchmark
from benchmarks.core.show import draw, print_report
from benchmarks.core.worker import Worker, WorkerStoppedError, task_of, write_weights
from benchmarks.harness.provenance import source_digest

LIMITS = {"budget_seconds": 60.0, "limit_megabytes": 1000.0}
OPTIONS = {"threads": 1, "model_threads": 1, "lightzero": "none"}


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


def test_named_grids_hold_the_cells_of_the_targets() -> None:
    def chosen(*arguments: str) -> list[Cell]:
        return planning_core.cells_of(planning_core.parse_options(arguments))

    assert len(chosen()) == 128
    assert len(chosen("--quick")) == 8
    targets = chosen("--targets")
    assert {Cell(a, 256, 18, 200) for a in ("muzero", "gumbel")} <= set(targets)
    assert len([cell for cell in targets if cell.batch == 1]) == 16
    assert set(targets) <= set(chosen())


def test_seconds_are_foretold_along_one_axis_with_the_measured_growth() -> None:
    cell = Cell("muzero", 1, 6, 800)
    one = {Cell("muzero", 1, 6, 200): Cost(2.0)}
    assert predict_seconds(cell, one) == (8.0, Cell("muzero", 1, 6, 200))  # linear until known
    two = {**one, Cell("muzero", 1, 6, 100): Cost(0.5)}
    found = predict_seconds(cell, two)
    assert found is not None
    assert found[0] == pytest.approx(32.0)  # squared, as from 100 to 200
    other = {Cell("gumbel", 1, 6, 200): Cost(2.0), Cell("muzero", 16, 6, 800): Cost(2.0)}
    assert predict_seconds(cell, other) is None


def test_megabytes_are_foretold_by_edges_unless_too_few_to_tell() -> None:
    cell, near = Cell("gumbel", 256, 18, 99), Cell("gumbel", 16, 18, 99)
    assert predict_megabytes(cell, {near: Cost(1.0, megabytes=50.0)}) == (800.0, near)
    assert predict_megabytes(cell, {near: Cost(1.0, megabytes=1.0)}) is None


def test_a_cell_is_skipped_for_its_foretold_time_memory_or_a_smaller_cell() -> None:
    cell, near = Cell("muzero", 256, 18, 200), Cell("muzero", 16, 18, 200)
    assert reason_to_skip(cell, {}, **LIMITS) is None
    assert reason_to_skip(cell, {near: Cost(1.0)}, **LIMITS) is None  # 3 * 16 s
    slow = reason_to_skip(cell, {near: Cost(1.0, first_seconds=13.0)}, **LIMITS)
    assert slow is not None
    assert slow.startswith("time: foretold 16.0 s")
    large = reason_to_skip(cell, {near: Cost(0.1, megabytes=100.0)}, **LIMITS)
    assert large is not None
    assert large.startswith("memory: foretold 1600 MB")
    over = reason_to_skip(cell, {near: Cost(None, over="time: stopped")}, **LIMITS)
    assert over is not None
    assert near.name in over
    assert reason_to_skip(near, {cell: Cost(None, over="time: stopped")}, **LIMITS) is None


def test_exponent_is_common_to_groups_of_different_levels() -> None:
    points = [(group, x, group * x**1.3) for group in (1.0, 50.0) for x in (16, 50, 200)]
    found = fit_exponent([*points, ("alone", 800, 9.0)])
    assert found is not None
    assert found == (pytest.approx(1.3), 6)
    assert fit_exponent([("alone", 800, 9.0)]) is None


def test_ratio_compares_medians_minima_and_times_of_one_round() -> None:
    cell = Cell("muzero", 2, 3, 5)
    ours, peer = timed(cell, [1.0, 2.0, 4.0]), timed(cell, [6.0, 4.0])  # stopped after two rounds
    assert ratio(ours, peer) == {"of_medians": 2.5, "of_minima": 4.0, "low": 2.0, "high": 6.0}
    assert ours["above_model"] == pytest.approx(1.9)
    assert ours["microseconds_per_simulation_and_tree"] == pytest.approx(200.0)


def results() -> dict[str, Any]:
    """Results of few cells: one target met, one missed, one not measured."""
    cells = [
        row(Cell("muzero", 256, 18, s), prefsearch=[s * 1.0] * 3, mctx=[s * 20.0] * 3)
        for s in (16, 50, 200)
    ]
    cells += [
        row(Cell("gumbel", 256, 18, 200), prefsearch=[100.0, 90.0], mctx="time: too long"),
        row(Cell("gumbel", 1, 18, 200), prefsearch=[9.0], mctx=[3.0], lightzero=[10.0]),
    ]
    return summarize({"cells": cells})


def test_summary_names_targets_losses_and_skips() -> None:
    found = results()
    met = {goal["target"]: goal["met"] for goal in found["targets"]}
    assert met["muzero B256 A18 S200: times as fast as mctx (XLA)"] is True
    assert met["gumbel B256 A18 S200: times as fast as mctx (XLA)"] is None
    assert met["muzero B256 A18: exponent of time in simulations"] is True
    assert met["gumbel B256 A18: exponent of time in simulations"] is None  # one budget
    assert met["gumbel B1 A18 S200: ms above the model's, at most mctx's"] is False
    notes = {goal["target"]: goal["note"] for goal in found["targets"]}
    assert notes["gumbel B256 A18 S200: times as fast as mctx (XLA)"] == "time: too long"
    assert [(loss["cell"], loss["peer"]) for loss in found["losses"]] == [
        ("gumbel B1 A18 S200", "mctx")
    ]
    assert found["skipped"] == [
        {"cell": "gumbel B256 A18 S200", "side": "mctx", "reason": "time: too long"}
    ]
    fits = {(f["algorithm"], f["side"], f["axis"]): f["exponent"] for f in found["exponents"]}
    assert fits["muzero", "mctx", "simulations"] == pytest.approx(1.0)
    assert summarize(found) == found  # sums of sums change nothing


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
    assert planning_core.kept_rows(path, expected) == []
    source = {"source_digest": source_digest("planning_core")}
    written = {"provenance": source, **expected, "cells": [{"batch": 1}]}
    path.write_text(json.dumps(written))
    assert planning_core.kept_rows(path, expected) == [{"batch": 1}]
    for name in expected:
        with pytest.raises(ValueError, match=f"other {name}"):
            planning_core.kept_rows(path, {**expected, name: "changed"})
    path.write_text(json.dumps({**written, "provenance": {"source_digest": "abc"}}))
    with pytest.raises(ValueError, match="other source files: found abc"):
        planning_core.kept_rows(path, expected)


def test_our_worker_searches_as_often_as_asked(tmp_path: Path) -> None:
    weights = tmp_path / "weights.npz"
    write_weights(weights, num_actions=3, batch=2, seed=0)
    worker = Worker("prefsearch", [sys.executable], options=OPTIONS, limit_megabytes=4000.0)
    try:
        for algorithm in ("muzero", "gumbel"):
            task = task_of(Cell(algorithm, 2, 3, 4), weights)
            assert worker.ask("prepare", seconds=600.0, **task)["first_seconds"] > 0
            visits = worker.ask("visits", seconds=60.0)["visits"]
            assert [sum(counts) for counts in visits] == [4, 4]
            for what in ("search", "model"):
                taken = worker.ask("time", seconds=60.0, what=what, inner=2)
                assert taken["milliseconds"] > 0
        memory = worker.ask("memory", seconds=600.0, least_simulations=1, **task)["megabytes"]
        assert memory is None or memory >= 0
        with pytest.raises(WorkerStoppedError, match="required one of") as stopped:
            worker.ask("rest", seconds=60.0)
        assert not stopped.value.limit
    finally:
        worker.close()


def test_a_worker_over_its_limits_is_stopped(tmp_path: Path) -> None:
    weights = tmp_path / "weights.npz"
    write_weights(weights, num_actions=3, batch=2, seed=0)
    task = task_of(Cell("muzero", 2, 3, 4), weights)
    worker = Worker("prefsearch", [sys.executable], options=OPTIONS, limit_megabytes=4000.0)
    with pytest.raises(WorkerStoppedError, match="time: prepare stopped") as stopped:
        worker.ask("prepare", seconds=0.0, **task)
    assert stopped.value.limit
    with pytest.raises(WorkerStoppedError, match="memory: stopped"):
        Worker("prefsearch", [sys.executable], options=OPTIONS, limit_megabytes=1.0)


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

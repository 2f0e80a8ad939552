"""The benchmarks' command lines: help of all, and quick runs of some."""

import importlib
import json
from pathlib import Path

import pytest
import torch

from benchmarks.core import leaves_per_step
from benchmarks.harness.provenance import ROOT, SOURCES
from benchmarks.text import planner_defaults

SCRIPTS = {*(sources.roots[0] for sources in SOURCES.values()), "benchmarks.atari.gpu"}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_help_is_the_docstring_and_lists_the_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if ".atari." in name:
        pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert str(module.__doc__).splitlines()[0] in shown
    assert "--out" in shown
    assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize("name", ["text.text_search", "reward.scoring", "reward.training"])
@pytest.mark.parametrize("option", ["rounds", "threads"])
def test_a_count_below_one_is_refused(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{option}", "0"]
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{name}").parse_options(words)
    assert f"--{option}: found 0; required: at least 1" in capsys.readouterr().err


def test_a_quick_run_of_leaves_per_step(tmp_path: Path) -> None:
    out = tmp_path / "leaves.json"
    words = ["--simulations", "16", "--rounds", "1", "--worlds", "20", "--out", str(out)]
    leaves_per_step.main(words)
    found = json.loads(out.read_text())
    assert len(found["time"]) == len(found["regret"]) == 10
    assert found["time"][0]["times_as_fast"] == 1.0
    assert all(row["regret"][0] >= 0 for row in found["regret"])


def test_a_quick_run_of_planner_defaults(tmp_path: Path) -> None:
    out, threads = tmp_path / "defaults.json", torch.get_num_threads()
    try:
        planner_defaults.main(["--budgets", "4", "--prompts", "2", "--out", str(out)])
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())
    toys, variants = len(planner_defaults.TOYS), len(planner_defaults.VARIANTS)
    assert len(found["toys"]) == variants * (toys + 1)
    assert found["world"] == []

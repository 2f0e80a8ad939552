"""The demo, made very small: it ends, and a killed run ends with the same numbers."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from policies.cli.demo_args import DemoArgs
from policies.demo import Demo
from prefsearch.cli import entry
from rewardmodel.synthetic.requests import assignment_of, count_held_out
from tests.fakes import demo_words

ROOT = Path(__file__).resolve().parent.parent

UNTIMED = ("seconds", "step_seconds")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in UNTIMED}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def summary(out: Path) -> Any:
    return without_times(json.loads((out / "summary.json").read_text()))


def test_the_demo_leaves_what_it_promises(demo_run: Path) -> None:
    for name in ("gains.png", "gains.svg", "overoptimization.png", "tree.html"):
        assert (demo_run / "figures" / name).stat().st_size > 1000
    page = (demo_run / "report.html").read_text()
    assert '<a href="./figures/tree.html">' in page
    assert "* principal line" in page
    for name in ("config.yaml", "metrics.jsonl", "records.jsonl", "summary.json", "report.html"):
        assert (demo_run / name).is_file()
    records = [json.loads(line) for line in (demo_run / "records.jsonl").read_text().splitlines()]
    pool = json.loads((demo_run / "data" / "pool.json").read_text())
    asked = [assignment_of(prompt) for prompt in pool["prompts"]]
    assert len(set(asked)) == len(asked), "a held-out set of things for every prompt"
    for record in records:
        for key in ("gold", "proxy", "tokens", "forward_tokens", "simulations", "seconds", "seed"):
            assert record[key] is not None
        assert record["cluster"] == asked[record["prompt"]]
    for name in ("pool", "tuned"):
        kept = json.loads((demo_run / "data" / f"{name}.json").read_text())
        named = {"prompts", "texts", "tokens", "log_probabilities", "finished"}
        assert set(kept) == named, "no token ids"
    rows = json.loads((demo_run / "summary.json").read_text())["rows"]
    assert {row["method"] for row in rows if row["policy"] == "base"} == {
        "best-of-N",
        "beam search",
        "MCTS (MuZero)",
        "MCTS (Gumbel)",
    }


def test_no_two_of_eight_seeds_measure_on_one_set_of_things(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    named = []
    for seed in range(1, 9):
        config = DemoArgs(out=str(tmp_path / str(seed)), seed=seed, eval_prompts=200)
        demo = Demo(config, quiet)
        named += demo.clusters()
        assert demo.clusters() == [assignment_of(prompt) for prompt in demo.eval_prompts()]
    assert len(set(named)) == len(named) == 1600


def test_sizes_out_of_bounds_are_named_and_fast_is_smaller() -> None:
    most = count_held_out()
    for name, value, bound in (
        ("eval_prompts", most + 1, f"2 to {most}, the held-out"),
        ("eval_prompts", 1, "2 to"),
        ("demonstrations", 99, "at least 100"),
        ("comparisons", 19, "at least 20"),
        ("few_labels", 9, "at least 10"),
        ("pool", 15, "at least 16"),
        ("finetune_prompts", 1, "at least 2"),
        ("threads", 0, "at least 1"),
    ):
        with pytest.raises(ValueError, match=f"{name}: found {value}; required: {bound}"):
            DemoArgs(**{name: value})  # type: ignore[arg-type]
    DemoArgs(
        eval_prompts=most, demonstrations=100, comparisons=20, few_labels=10, pool=16,
        finetune_prompts=2, threads=1,
    )  # fmt: skip
    whole, fast = DemoArgs(), DemoArgs(fast=True)
    assert {budget for _, budget in whole.sweep} == {4, 8, 16}
    assert {budget for _, budget in fast.sweep} == {4}
    for name in ("demonstrations", "comparisons", "few_labels", "eval_prompts", "finetune_prompts"):
        assert getattr(fast, name) < getattr(whole, name)
    assert fast.pool == 16


def copy_until(step: str, run: Path, out: Path) -> None:
    """Copies of a finished run what it had left when a step was done."""
    shutil.copytree(run, out)
    steps = {path: json.loads(path.read_text()) for path in (out / "steps").glob("*.json")}
    last = steps[out / "steps" / f"{step}.json"]["order"]
    for path, done in steps.items():
        if done["order"] > last:
            for file in (path.relative_to(out), *done["files"]):
                (out / file).unlink()
    for name in ("report.html", "summary.json", "metrics.jsonl"):
        (out / name).unlink()
    shutil.rmtree(out / "figures")


@pytest.mark.parametrize(
    ("after", "following"),
    [
        pytest.param("compare", "3/7", marks=pytest.mark.slow),
        pytest.param("pool", "5/7", marks=pytest.mark.slow),
        ("improve", "Fine-tuning"),
    ],
)
def test_a_killed_run_ends_with_the_same_numbers(
    after: str, following: str, demo_run: Path, tmp_path: Path, undrawn: None
) -> None:
    out = tmp_path / "killed"
    copy_until(after, demo_run, out)
    command = [sys.executable, "-m", "prefsearch", *demo_words(out, "--resume")]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert any(following in line for line in running.stdout)
    time.sleep(0.3)  # into the next step
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (out / "report.html").exists()
    assert entry.main(demo_words(out, "--resume")) == 0
    assert summary(out) == summary(demo_run)


def test_a_run_that_is_there_is_not_overwritten(
    demo_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (demo_run / "summary.json").read_bytes()
    assert entry.main(demo_words(demo_run)) == 2
    assert "--resume" in capsys.readouterr().err
    assert (demo_run / "summary.json").read_bytes() == before


@pytest.mark.parametrize("name", ["policies/plan", "policies/evaluate", "rewardmodel/train"])
def test_the_demo_configurations_work_after_the_demo(
    name: str, demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    shutil.copytree(demo_run, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    package, subcommand = name.split("/")
    small = {"plan": ["--limit", "2"], "evaluate": ["--limit", "2"], "train": []}[subcommand]
    small += [] if subcommand == "train" else ["--max_new_tokens", "24"]
    command = {"policies": "policy", "rewardmodel": "reward"}[package]
    assert entry.main([command, subcommand, "--config", f"{name}_demo", *small]) == 0

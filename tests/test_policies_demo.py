"""The demo, made very small: it ends, and a killed run ends with the same numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

MICRO = {
    "demonstrations": 100,
    "comparisons": 20,
    "few_labels": 10,
    "eval_prompts": 3,
    "pool": 16,
    "improve_prompts": 3,
    "threads": 1,
}
UNTIMED = ("seconds", "step_seconds")


def command(out: Path, *flags: str) -> list[str]:
    sizes = [word for name, value in MICRO.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "prefsearch", "demo", "--out", str(out), *sizes, *flags]


def start(out: Path, *flags: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parent.parent
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command(out, *flags), cwd=root, **quiet)  # type: ignore[call-overload]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in UNTIMED}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def summary(out: Path) -> Any:
    return without_times(json.loads((out / "summary.json").read_text()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "whole"
    assert start(out).wait(timeout=300) == 0
    return out


def test_the_demo_leaves_what_it_promises(whole: Path) -> None:
    for name in ("gains", "overoptimisation", "tree"):
        for suffix in (".png", ".svg"):
            assert (whole / "figures" / name).with_suffix(suffix).stat().st_size > 1000
    for name in ("config.yaml", "metrics.jsonl", "records.jsonl", "summary.json", "report.html"):
        assert (whole / name).is_file()
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    for record in records:
        for key in ("gold", "proxy", "tokens", "simulations", "seconds", "seed"):
            assert record[key] is not None
    rows = json.loads((whole / "summary.json").read_text())["rows"]
    assert {row["method"] for row in rows if row["policy"] == "base"} == {
        "best-of-N",
        "beam search",
        "MCTS (MuZero)",
        "MCTS (Gumbel)",
    }


@pytest.mark.parametrize("after", ["sft", "reward", "search-muzero-8", "improve"])
def test_a_killed_run_ends_with_the_same_numbers(after: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    running = start(out)
    deadline = time.monotonic() + 240
    while not (out / "steps" / f"{after}.json").is_file():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # into the next step
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (out / "report.html").exists()
    assert start(out, "--resume").wait(timeout=300) == 0
    assert summary(out) == summary(whole)


def test_a_run_that_is_there_is_not_overwritten(whole: Path) -> None:
    before = (whole / "summary.json").read_bytes()
    done = subprocess.run(command(whole), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert (whole / "summary.json").read_bytes() == before

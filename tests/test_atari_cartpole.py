"""Learning a game from nothing, in minutes: CartPole to where it used to count as solved."""

import json
from pathlib import Path

import pytest

pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")

from prefsearch import main


@pytest.mark.slow
def test_the_shipped_configuration_learns_cartpole_to_195(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--config", "atari_bridge/cartpole", "--out", str(out), "--seed", "7"]
    assert main(["atari", "train", *words, "--total_decisions", "12000"]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    final = [line for line in lines if line["step"].startswith("evaluation")][-1]
    assert final["decisions"] == 12_000
    assert final["search_return"]["low"] > 195

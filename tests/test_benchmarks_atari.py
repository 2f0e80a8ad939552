"""The Atari benchmarks: the summary over training seeds, of made-up games, and a quick run."""

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from prefsearch.config.settings import build

pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")

from atari_bridge.cli.args import AtariTrainArgs
from benchmarks.atari import atari
from benchmarks.atari.budget_figure import budget_curves
from benchmarks.atari.cpu import _summary

JOB = build(AtariTrainArgs, out="x", game="UpNDown", num_simulations=16)
SEARCH, POLICY = "search, 16 simulations, sampled", "policy, sampled"


def evaluated(mean: float, simulations: int = 0) -> dict[str, Any]:
    return {
        "returns": [mean - 10, mean + 10],
        "simulations": simulations,
        "interval": {"estimate": mean, "low": mean - 10, "high": mean + 10},
    }


def runs() -> list[dict[str, Any]]:
    return [
        {
            "training_seed": seed,
            "curve": [{"frames": 100, "sampled_return": evaluated(found)["interval"]}],
            "evaluations": {
                "random": evaluated(chance),
                POLICY: evaluated(policy),
                SEARCH: evaluated(found, 16),
            },
        }
        for seed, chance, policy, found in [(1, 500, 800, 1000), (2, 520, 700, 1300)]
    ]


def test_gains_are_taken_seed_by_seed_and_their_interval_is_over_seeds() -> None:
    found = _summary(runs(), JOB)
    assert found["headline"] == SEARCH
    assert found["over_seeds"][SEARCH]["by_seed"] == [1000, 1300]
    assert found["over_seeds"][SEARCH]["estimate"] == 1150
    assert found["above"]["random"][SEARCH]["by_seed"] == [500, 780]
    gain = found["above"][POLICY][SEARCH]
    assert gain["by_seed"] == [200, 600]
    # Two seeds: mean 400, standard error 200, and Student's t of one degree of freedom.
    half = stats.t.ppf(0.975, 1) * 200
    assert (gain["low"], gain["high"]) == pytest.approx((400 - half, 400 + half))
    assert found["over_seeds"]["random"]["human_normalized"] == pytest.approx(
        (510 - 533.4) / (11693.2 - 533.4)
    )


def test_one_seed_has_an_interval_over_its_games() -> None:
    only = _summary(runs()[:1], JOB)
    found = only["over_seeds"][SEARCH]
    # Games of 990 and 1010: standard error 10, one degree of freedom.
    half = stats.t.ppf(0.975, 1) * 10
    assert (found["low"], found["high"]) == pytest.approx((1000 - half, 1000 + half))
    assert "over 2 games of one seed; nothing is known of other seeds" in only["interval"]
    assert only["power"] == "", "one seed says nothing of how much seeds differ"


def test_the_summary_counts_its_comparisons_and_the_seeds_that_would_decide() -> None:
    found = _summary(runs(), JOB)
    assert "over 2 seeds of 2 games" in found["interval"]
    counted = found["verdicts"][POLICY]
    assert counted.startswith("1 comparison, each at 95 %: 0 gain, 0 lose, 1 undecided.")
    assert "seeds would decide a true difference of 75 " in found["power"]


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    png, svg = budget_curves(runs(), tmp_path / "figure", title="UpNDown")
    assert png.stat().st_size > 1000
    assert svg.stat().st_size > 1000


def test_a_quick_run_measures_our_side(tmp_path: Path) -> None:
    out = tmp_path / "atari_speed.json"
    words = ["--sides", "prefsearch", "--only", "update", "--threads", "1", "--rounds", "1"]
    atari.main([*words, "--seconds", "0.01", "--out", str(out)])
    cells = json.loads(out.read_text())["cells"]
    assert [cell["settings"]["kind"] for cell in cells] == ["update"] * 4
    assert all(cell["sides"]["prefsearch"]["rate"]["median"] > 0 for cell in cells)
    assert all(cell["missing"] == {} for cell in cells)

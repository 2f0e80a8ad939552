"""The reward benchmarks: all sides compute the same, and the arithmetic of what is reported."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.harness.timing import clock_ratios, interleaved
from benchmarks.reward import reward_models
from benchmarks.reward import scoring as reward_scoring
from benchmarks.reward import scoring_sides as reward_scoring_sides
from benchmarks.reward import training as reward_training
from benchmarks.reward.reward_models import (
    LIKE,
    classifier,
    draw_pairs,
    drawn_lengths,
    fixed_lengths,
)
from benchmarks.reward.scoring_sides import SIDES, Cell, build_subject, draw_texts, same_ids

QUIET = Console(quiet=True)
FIGURES = ("median", "low", "high")


def scoring_cell(lengths: list[int], *, encoder: bool = False) -> Cell:
    texts = draw_texts("micro", 11, lengths, seed=3)
    return Cell("any", "micro", *texts, encoder=encoder)


def training_cell(lengths: list[tuple[int, int, int]]) -> reward_training.Cell:
    return reward_training.Cell("any", "micro", draw_pairs(lengths, 97, seed=2), None)


def threads() -> list[str]:
    return ["--threads", str(torch.get_num_threads())]


# What both are given


def test_pairs_share_exactly_the_prompt() -> None:
    lengths = [(7, 4, 9), (3, 5, 2), *fixed_lengths(2, 6, 3)]
    for (prompt, *replies), (rows, shared) in zip(
        lengths, draw_pairs(lengths, 97, seed=1), strict=True
    ):
        assert shared == prompt
        assert [len(row) - prompt for row in rows] == replies
        chosen, rejected = rows
        assert chosen[:prompt] == rejected[:prompt]
        assert chosen[prompt] != rejected[prompt]
        assert all(0 < token < 97 for row in rows for token in row)  # padding is never drawn


@pytest.mark.parametrize("name", LIKE)
def test_drawn_lengths_respect_the_limit(name: str) -> None:
    lengths = drawn_lengths(2000, name, seed=4)
    limit = LIKE[name][2]
    totals = [prompt + max(replies) for prompt, *replies in lengths]
    assert max(totals) == limit  # some reach it: there is something to respect
    assert min(min(row) for row in lengths) >= 4
    assert lengths != drawn_lengths(2000, name, seed=5)


def test_ratios_are_of_times_of_one_round() -> None:
    slow = [{"cpu": cpu, "wall": 2.0} for cpu in (8.0, 12.0, 30.0)]
    fast = [{"cpu": cpu, "wall": 4.0} for cpu in (2.0, 4.0, 3.0)]
    assert clock_ratios(slow, fast) == {
        "cpu": {"median": 4.0, "low": 3.0, "high": 10.0},
        "wall": {"median": 0.5, "low": 0.5, "high": 0.5},
    }


def test_sides_take_turns_in_alternating_order_until_they_are_removed() -> None:
    sides = {"a": 1, "b": 2, "c": 3}
    seen = []
    for number, side in interleaved(sides, 3):
        seen.append((number, side))
        if (number, side) == (1, "c"):
            del sides["b"]
    assert "".join(side for _, side in seen) == "abccbaac"


def test_encoder_is_about_as_large_as_the_llama() -> None:
    sizes = [
        sum(weight.numel() for name, weight in model.named_parameters() if "position" not in name)
        for model in (classifier("4M"), reward_models.encoder_classifier("4M"))
    ]
    assert sizes[1] / sizes[0] == pytest.approx(1, abs=0.1)


# Scoring


@pytest.mark.parametrize("lengths", [[5] * 3, [2, 9, 4, 9, 3]])
@pytest.mark.parametrize("encoder", [False, True])
def test_all_scoring_sides_give_the_scores_of_texts_run_alone(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], encoder: bool
) -> None:
    for name in ("PLAIN_ROWS", "SORTED_ROWS"):
        monkeypatch.setattr(reward_scoring_sides, name, 2)  # several forward passes
    cell = scoring_cell(lengths, encoder=encoder)
    assert cell.response_tokens == lengths
    subject = build_subject(cell)
    assert same_ids(subject, cell)
    joined = [subject.reward_model.encoder.joined(cell.prompt, one) for one in cell.responses]
    assert [len(ids) for ids in joined] == [11 + length for length in lengths]
    with torch.inference_mode():
        expected = torch.cat([subject.model(torch.tensor([ids])).logits[0] for ids in joined])
    assert expected.std() > 10 * reward_scoring.GATE  # the gate can tell responses apart
    assert cell.sides == tuple(SIDES)[: 3 if encoder else 4]
    for side in cell.sides:
        found = SIDES[side](subject, cell)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, msg=side)


def test_ours_reads_a_prompt_once_and_an_encoder_cannot() -> None:
    for encoder in (False, True):
        cell = scoring_cell([5] * 4, encoder=encoder)
        subject = build_subject(cell)
        prompts = [cell.prompt] * 4
        model = subject.reward_model
        _, tokens = model._score(prompts, cell.responses, finished=True)
        assert tokens == (4 * 16 if encoder else 11 + 4 * 5)
        assert cell.floor == 4 * (11 + 5) / tokens
    assert scoring_cell([2, 9]).floor == (2 * 11 + 11) / (11 + 11)


def test_unequal_lengths_are_unequal_and_bounded() -> None:
    lengths = reward_scoring_sides.unequal_lengths(400, 10, seed=0)
    assert (min(lengths), max(lengths)) == (4, 40)
    assert sorted(lengths)[200] == pytest.approx(10, abs=2)


def test_default_scoring_run_has_the_whole_grid_and_one_goal_cell() -> None:
    made = reward_scoring.cells(reward_scoring.parse_options([]))
    names = [cell.name for cell in made]
    assert len(set(names)) == len(made) == 3 * 5 + 2
    assert [cell.name for cell in made if reward_scoring.is_goal(cell)] == ["4M 64 x 256/48"]
    (goal,) = [cell for cell in made if reward_scoring.is_goal(cell)]
    assert goal.floor == pytest.approx(5.85, abs=0.01)
    assert sum(cell.encoder for cell in made) == 1
    large = reward_scoring.cells(reward_scoring.parse_options(["--models", "30M"]))
    assert [cell.name for cell in large] == ["30M 64 x 256/48"]


def scoring_row(**ours: tuple[float, float]) -> dict[str, Any]:
    times = {
        side: {"cpu": dict.fromkeys(FIGURES, cpu), "wall": dict.fromkeys(FIGURES, wall)}
        for side, (cpu, wall) in ours.items()
    }
    return {"cell": "one", "goal_cell": True, "sides": {"ours": {"times": times}}}


def test_lost_scoring_cells_are_listed_by_either_clock() -> None:
    row = scoring_row(plain=(5.2, 4.9), sorted=(1.0, 1.0), own=(0.8, 1.1))
    assert reward_scoring.lost([row]) == [
        "one: as fast as own times 0.80 by CPU time, 1.10 by wall time"
    ]
    assert reward_scoring.lost([scoring_row(plain=(1.1, 0.9))]) != []


@pytest.mark.parametrize(("wall", "met"), [(5.0, True), (4.9, False)])
def test_goal_must_be_met_by_both_clocks(wall: float, met: bool) -> None:
    (goal,) = reward_scoring.goals([scoring_row(plain=(5.2, wall))])
    assert goal["met"] is met
    assert "at least 5 times" in goal["goal"]
    assert reward_scoring.goals([{**scoring_row(plain=(5.2, wall)), "goal_cell": False}]) == []


@pytest.mark.parametrize(
    "wrong", [lambda scores: scores.flip(0), lambda scores: scores * torch.nan]
)
def test_a_side_with_other_scores_fails_the_scoring_gate(
    monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    def broken(subject: Any, cell: Cell) -> Tensor:
        return wrong(reward_scoring_sides.score_sorted(subject, cell))

    monkeypatch.setitem(SIDES, "sorted", broken)
    options = reward_scoring.parse_options(["--quick"])
    row = reward_scoring.run_cell(scoring_cell([3, 6, 9]), options, QUIET)
    assert not row["gate_passed"]
    assert row["sides"]["ours"]["scores_apart"] < reward_scoring.GATE
    assert not row["sides"]["sorted"]["scores_apart"] < reward_scoring.GATE
    monkeypatch.setattr(reward_scoring, "same_ids", lambda *_: False)
    assert not reward_scoring.run_cell(scoring_cell([3]), options, QUIET)["gate_passed"]


def test_quick_scoring_measures_shows_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "reward_scoring.json"
    arguments = ["--quick", "--rounds", "2", "--out", str(out), *threads()]
    assert reward_scoring.main(arguments) == 0
    found = json.loads(out.read_text())
    assert found["goals"] == []  # they are not about the micro model
    assert len(found["cells"]) == 6
    for row in found["cells"]:
        assert row["gate_passed"]
        assert row["scores_deviation"] > 10 * reward_scoring.GATE
        assert set(row["sides"]) == set(SIDES) - ({"own cache"} if row["encoder"] else set())
        times, ours = row["sides"]["ours"]["times"]["plain"], row["sides"]["ours"]
        assert times["cpu"]["low"] <= times["cpu"]["median"] <= times["cpu"]["high"]
        assert ours["responses_a_second"]["high"] == pytest.approx(
            row["responses"] / ours["wall_seconds"]["low"]
        )
    shown = capsys.readouterr().out
    assert "micro 8 x 24/6" in shown
    assert shown.count("lost: ") == len(found["lost"])


def test_large_cells_have_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_scoring, "HEAVY", 40)
    options = reward_scoring.parse_options(["--quick", "--rounds", "5"])
    rounds = [
        reward_scoring.run_cell(scoring_cell([5] * count), options, QUIET)["rounds"]
        for count in (2, 3)
    ]
    assert rounds == [5, 3]


def test_memory_of_a_side_is_a_number_of_mib() -> None:
    assert 0 <= reward_scoring.memory_of(scoring_cell([5] * 4), "ours") < 1000


def test_a_word_that_no_scoring_cell_holds_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"--only: no cell's name holds \['none'\].*micro 4 x"):
        reward_scoring.main(["--quick", "--only", "none"])


# Training


def test_all_training_sides_have_the_same_losses() -> None:
    cell = training_cell([(9, 4, 7), (14, 3, 3), (5, 8, 2), (20, 6, 5)] * 4)
    start = classifier("micro")
    found = {
        side: torch.tensor(reward_training.losses(cell, side, copy.deepcopy(start), steps=3))
        for side in ("trl, no checkpointing", "plain", "prefix", "packed")
    }
    expected = found.pop("trl, no checkpointing")
    assert expected.shape == (3,)
    assert expected.std() > 10 * reward_training.GATE
    for side, own in found.items():
        gap = (own - expected).abs().max()
        assert gap < reward_training.GATE, side


def stand_ins(monkeypatch: pytest.MonkeyPatch, losses: dict[str, float]) -> None:
    """Replaces what trains: every side needs two seconds, but `prefix` one and `packed` four."""
    seconds = {"prefix": 1.0, "packed": 4.0}

    def train(cell: object, side: str, model: object, *, steps: int) -> list[float]:
        return [0.7] * (steps - 1) + [losses.get(side, 0.6)]

    def timed(cell: object, side: str, model: object, *, steps: int) -> dict[str, float]:
        return dict.fromkeys(("cpu", "wall"), seconds.get(side, 2.0))

    monkeypatch.setattr(reward_training, "losses", train)
    monkeypatch.setattr(reward_training, "timed", timed)
    monkeypatch.setattr(reward_training, "measure_in_process", lambda *_, **__: 3.0)


def training_options(*more: str) -> argparse.Namespace:
    return reward_training.parse_options(["--quick", *more])


def test_training_row_has_floor_ratios_and_pairs_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(monkeypatch, {})
    cell = training_cell([(9, 4, 6)] * 16)
    row = reward_training.run_cell(cell, training_options(), QUIET, gate_steps=3)
    assert row["floor"] == (2 * 9 + 10) / (9 + 10)
    assert row["gate_passed"]
    assert row["sides"]["prefix"]["times_trl"]["cpu"]["median"] == 2.0
    assert row["sides"]["packed"]["times_trl"]["cpu"]["median"] == 0.5
    assert row["sides"]["trl"]["pairs_a_second"]["median"] == 2 * 8 / 2.0  # two steps of 8 pairs
    assert row["sides"]["plain"]["peak_mib"] == 3.0
    assert (row["rounds"], row["updates"]) == (1, 2)
    assert reward_training.lost([row]) == []
    slow = copy.deepcopy(row)
    slow["sides"]["prefix"]["times_trl_sorted"]["cpu"]["median"] = 0.9
    assert reward_training.lost([row, slow]) == ["any: 0.90 times trl sorted"]


def test_a_side_with_other_losses_fails_the_training_gate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_ins(monkeypatch, {"packed": 0.6 + 2 * reward_training.GATE})
    out = tmp_path / "training.json"
    assert reward_training.main(["--quick", "--out", str(out), *threads()]) == 1
    written = json.loads(out.read_text())
    command = "python benchmarks/reward/training.py --quick --out training.json"
    assert written["provenance"]["command"].startswith(command)
    for row in written["cells"]:
        assert not row["gate_passed"]
        assert row["sides"]["packed"]["loss_apart"] > reward_training.GATE
        assert row["sides"]["prefix"]["loss_apart"] == 0


def test_default_training_run_has_fixed_and_drawn_cells() -> None:
    made = reward_training.cells(reward_training.parse_options(["--models", "micro"]))
    assert [cell.fixed for cell in made if cell.fixed] == list(reward_training.GRID)
    assert [cell.name for cell in made if not cell.fixed] == [f"micro {name}" for name in LIKE]

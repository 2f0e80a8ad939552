"""`prefsearch atari`, from a command line to files, on CartPole and on a real Atari game."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")
pytest.importorskip("ale_py", reason="pip install 'prefsearch[atari]'")

from atari_bridge.evaluation.episodes import Evaluation, evaluate_agent
from atari_bridge.reference.scores import human_normalized
from prefsearch.cli.entry import main

SMALL = {
    "num_envs": 2,
    "network": "compact",
    "channels": 4,
    "hidden_size": 16,
    "support": 10,
    "support_bins": 21,
    "value_prefix": "true",
    "lstm_size": 8,
    "normalization": "layer",
    "self_supervised": "spr",
    "projection_size": 16,
    "prediction_size": 8,
    "num_simulations": 4,
    "replay_capacity": 200,
    "unroll_steps": 2,
    "td_steps": 2,
    "batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "image_size": 40,
    "grayscale": "true",
    "frame_stack": 3,
    "total_decisions": 40,
    "learning_starts": 20,
    "updates_per_decision": 0.1,
    "final_updates": 0,
    "save_every": 40,
    "evaluation_games": 2,
    "evaluation_max_decisions": 5,
    "threads": 1,
}


def flags(**settings: object) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def boxing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on Boxing, as short as it goes."""
    out = tmp_path_factory.mktemp("atari") / "boxing"
    assert main(["atari", "train", *flags(game="Boxing", out=out, **SMALL)]) == 0
    return out


def test_a_run_on_a_real_game_leaves_its_curve_its_page_and_a_checkpoint(boxing: Path) -> None:
    lines = [json.loads(line) for line in (boxing / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [
        "part-000000040-000000002",
        "evaluation-000000040-000000002",
    ]
    assert lines[0]["frames"] == 160
    assert lines[0]["updates"] == 2
    assert "emulator frames" in (boxing / "report.html").read_text(encoding="utf-8")
    facts = json.loads(
        (
            boxing / "checkpoints" / "decisions-000000040-updates-000000002" / "checkpoint.json"
        ).read_text()
    )
    assert facts["game"] == "Boxing"
    assert facts["num_actions"] == 18


def test_evaluation_compares_budgets_the_policy_and_random_play(
    boxing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evaluation.json"
    words = flags(checkpoint=boxing, games=2, max_decisions=4, out=out, threads=1)
    assert main(["atari", "evaluate", *words, "--budgets", "2", "4"]) == 0
    shown = capsys.readouterr().out
    assert "search, 4 simulations" in shown
    assert "% of human" in shown
    assert "2 games of at most 4 decisions" in shown
    found = json.loads(out.read_text())["evaluations"]
    assert list(found) == [
        "random",
        "policy, best action",
        "policy, sampled",
        "search, 2 simulations",
        "search, 2 simulations, sampled",
        "search, 4 simulations",
        "search, 4 simulations, sampled",
    ]
    for value in found.values():
        assert len(value["returns"]) == 2
        expected = human_normalized("Boxing", value["interval"]["estimate"])
        assert value["human_normalized"] == expected


def test_an_evaluation_is_kept_as_soon_as_it_is_made_and_not_made_again(
    boxing: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "evaluation.json"
    settings = {"checkpoint": boxing, "games": 2, "max_decisions": 3, "out": out, "threads": 1}
    words = [*flags(**settings, policy="false"), "--budgets", "2"]
    real, made = evaluate_agent, list[int]()

    def stopped(*arguments: Any, **named: Any) -> Evaluation:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr("atari_bridge.cli.evaluate.evaluate_agent", stopped)
    assert main(["atari", "evaluate", *words]) == 130
    first = json.loads(out.read_text())["evaluations"]
    assert list(first) == ["random", "search, 2 simulations"]
    monkeypatch.setattr("atari_bridge.cli.evaluate.evaluate_agent", real)
    assert main(["atari", "evaluate", *words]) == 0
    second = json.loads(out.read_text())["evaluations"]
    assert {name: second[name] for name in first} == first  # the clock's seconds, too
    assert list(second) == [*first, "search, 2 simulations, sampled"]
    capsys.readouterr()
    assert main(["atari", "evaluate", *words, "--seed", "7"]) == 2
    assert "found evaluations with other or no seed; required" in capsys.readouterr().err
    assert json.loads(out.read_text())["evaluations"] == second
    out.write_text("[]")
    assert main(["atari", "evaluate", *words]) == 2
    assert "found no evaluations" in capsys.readouterr().err


def test_play_leaves_a_film_and_searches_with_their_pictures(boxing: Path, tmp_path: Path) -> None:
    out = tmp_path / "play"
    words = flags(checkpoint=boxing, out=out, max_decisions=6, every=1)
    assert main(["atari", "play", *words, "--save_trees_at", "0", "3"]) == 0
    with Image.open(out / "game-1.gif") as film:
        assert film.n_frames == 6  # pyright: ignore[reportAttributeAccessIssue]
        assert film.size == (80, 80)
    page = (out / "tree-00003.html").read_text(encoding="utf-8")
    assert 'src="data:image/png;base64,' in page
    assert "FIRE" in page or "UP" in page or "NOOP" in page
    assert main(["tree", "show", str(out / "tree-00003.safetensors"), "--format", "text"]) == 0


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("play", {"max_decisions": 0}, "max_decisions: found 0"),
        ("evaluate", {"max_decisions": 0}, "max_decisions: found 0"),
        ("evaluate", {"threads": 0}, "threads: found 0"),
    ],
)
def test_a_bound_that_leaves_nothing_to_play_is_refused(
    boxing: Path,
    tmp_path: Path,
    command: str,
    settings: dict[str, int],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = flags(checkpoint=boxing, out=tmp_path / "out", **settings)
    assert main(["atari", command, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "Boxin"}, "Boxing"),
        ({"game": "Pendulum-v1", "frame_stack": 1}, "Discrete"),
        ({"game": "CartPole-v1", "frame_stack": 1}, "required: dense"),
        ({"game": "Boxing", "network": "dense"}, "residual or compact"),
        ({"game": "Boxing", "updates_per_decision": -1}, "updates_per_decision"),
        ({"game": "Boxing", "support_bins": 20}, "odd number"),
        ({"game": "Boxing", "replay_capacity": 3}, "replay_capacity"),
        ({"game": "Boxing", "learning_starts": 3}, "learning_starts"),
        ({"game": "Boxing", "compile_network": True, "play_workers": 2}, "false with workers"),
    ],
)
def test_a_mistake_ends_with_one_line_that_helps_and_leaves_no_folder(
    settings: dict[str, object],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = flags(out=tmp_path / "run", **{**SMALL, **settings})
    assert main(["atari", "train", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_evaluating_what_is_no_run_names_what_is_required(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["atari", "evaluate", "--checkpoint", str(tmp_path)]) == 2
    assert "prefsearch atari train" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_may_compile_its_network_and_go_on_without(tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = {"game": "Boxing", "out": out, "total_decisions": 80, "overlap": "true"}
    words = flags(**{**SMALL, **changes})
    assert main(["atari", "train", *words, "--compile_network", "true", "--minutes", "0.005"]) == 0
    assert main(["atari", "train", *words, "--resume", "true"]) == 0
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == "evaluation-000000080-000000006"

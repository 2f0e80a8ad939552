"""What an agent is loaded from: whole checkpoints, whose games import nothing on their own."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from atari_bridge.acting.config import SearchSettings
from atari_bridge.cli.args import AtariEvaluateArgs, AtariPlayArgs
from atari_bridge.cli.evaluate import evaluate
from atari_bridge.cli.play import play
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.training.agent import load_agent
from atari_bridge.training.checkpoints import save_tensors, write_manifest
from prefsearch.storage.weights import WeightsError

pytest.importorskip("gymnasium")
GAME = "evil_games:CartPole-v1"
MISSING = "missing"


def checkpoint(folder: Path, *, game: str, spoil: bool = False, **facts: Any) -> Path:
    config = NetworkConfig(network="dense")
    network = build_network(config, frame_shape=(4,), num_actions=2)
    weights = dict(network.state_dict())
    if spoil:
        name = next(n for n, w in weights.items() if w.is_floating_point())
        weights[name] = torch.full_like(weights[name], torch.nan)
    save_tensors(folder / "network.safetensors", weights)
    environment = EnvironmentConfig(game=game, frame_stack=1)
    known = {
        "game": game, "decisions": 1, "updates": 1, "processes": 1, "num_actions": 2,
        "observation_shape": [4], "environment": asdict(environment), "network": asdict(config),
        "search": asdict(SearchSettings()), "discount": 0.99, "seed": 0,
    }  # fmt: skip
    given = {name: value for name, value in {**known, **facts}.items() if value != MISSING}
    write_manifest(folder, given)
    return folder


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mark = tmp_path / "ran"
    (tmp_path / "evil_games.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evil_games", raising=False)
    return mark


def test_a_module_that_a_checkpoint_names_is_not_imported(tmp_path: Path, ran: Path) -> None:
    source = str(checkpoint(tmp_path / "c", game=GAME))
    with pytest.raises(ValueError, match=r"checkpoint\.json: found the game 'evil_games:CartPole"):
        evaluate(AtariEvaluateArgs(checkpoint=source, games=2, budgets=[], max_decisions=2))
    with pytest.raises(ValueError, match="whose module would be imported"):
        play(AtariPlayArgs(checkpoint=source, out=str(tmp_path / "o"), max_decisions=2))
    with pytest.raises(ValueError, match="required: 'evil_games:Other-v1', as requested"):
        load_agent(source, game="evil_games:Other-v1")
    assert not ran.exists()


def test_a_module_that_the_command_names_too_is_imported(tmp_path: Path, ran: Path) -> None:
    source = str(checkpoint(tmp_path / "c", game=GAME))
    job = AtariEvaluateArgs(checkpoint=source, game=GAME, games=2, budgets=[], max_decisions=2)
    evaluate(job)
    assert ran.exists()


def test_a_checkpoint_of_a_plain_id_needs_no_game(tmp_path: Path) -> None:
    source = str(checkpoint(tmp_path / "c", game="CartPole-v1"))
    evaluate(AtariEvaluateArgs(checkpoint=source, games=2, budgets=[], max_decisions=2))
    with pytest.raises(ValueError, match="required: 'Acrobot-v1', as requested"):
        load_agent(source, game="Acrobot-v1")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"network\.safetensors: the weight .* is not finite"):
        load_agent(checkpoint(tmp_path / "c", game="CartPole-v1", spoil=True))


@pytest.mark.parametrize(
    "facts",
    [{"environment": {"wrong": 1}}, {"network": None}, {"search": []}, {"discount": MISSING}],
)
def test_settings_that_no_agent_can_be_built_from_are_named(tmp_path: Path, facts: dict) -> None:
    folder = checkpoint(tmp_path / "c", game="CartPole-v1", **facts)
    with pytest.raises(ValueError, match=r"checkpoint\.json: found settings that no agent"):
        load_agent(folder)

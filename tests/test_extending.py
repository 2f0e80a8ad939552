"""The steps of docs/extending.md, followed as they are written."""

import ast
import json
import re
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pytest
import torch

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning import options
from policies.planning.methods import build_searcher
from rewardmodel.data.formats.registry import FORMATS
from rewardmodel.data.preferences import load_preferences
from rewardmodel.models.loading import load_reward_model
from rewardmodel.training import loss_config, losses
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.trainer import comparison_losses
from search.planners import registry
from tests.fakes import CountingReward
from tests.search_reference import random_tables

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def block(file: str) -> str:
    """The code of the page for a file."""
    return next(code for code in BLOCKS if code.startswith(f"# {file}\n"))


def entry(name: str) -> Any:
    """The entry of the page under a name of a table."""
    (code,) = (code for code in BLOCKS if code.startswith(f'"{name}":'))
    return ast.literal_eval("{" + code + "}")[name]


def define(file: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module made of the page's code for its file."""
    name = file.removesuffix(".py").replace("/", ".")
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(block(file), file, "exec"), module.__dict__)
    parent, _, child = name.rpartition(".")
    if parent:
        monkeypatch.setattr(sys.modules[parent], child, module, raising=False)
    return module


def test_a_planner_is_a_file_and_an_entry(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    define("search/planners/one_step.py", monkeypatch)
    monkeypatch.setitem(registry._PLANNERS, "one_step", entry("one_step"))
    model = random_tables(0, num_tables=6, num_actions=4, invalid=0.3)
    rows = torch.arange(6)
    found = registry.build_planner("one_step", 4, prior_weight=0.0).plan(model, rows)
    best = registry.build_planner("best_of_n", 4).plan(model, rows)
    assert found.action.tolist() == best.action.tolist()
    torch.testing.assert_close(found.value, best.value)
    assert registry.planner_settings("one_step") == {"prior_weight": 0.0}
    monkeypatch.setitem(options.TITLES, "one_step", "one step")  # made of the table at import
    searcher = build_searcher(
        "one_step", 4, policy=policy, reward_model=CountingReward(),
        proposal=Proposal(unit="block", segment_tokens=4, max_new_tokens=8),
    )  # fmt: skip
    (result,) = searcher.generate(["Write of the sea.\n"], seed=0)
    assert result.response


def test_a_reward_model_is_a_function(tmp_path: Path) -> None:
    (tmp_path / "my_scores.py").write_text(block("my_scores.py"), encoding="utf-8")
    model = load_reward_model(f"python:{tmp_path / 'my_scores.py'}:brevity")
    assert model.score(["p", "p"], ["a" * 100, "a"]).tolist() == pytest.approx([-1, -0.01])


def test_a_format_is_a_file_and_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define("rewardmodel/data/formats/versus.py", monkeypatch)
    monkeypatch.setitem(FORMATS, "versus", entry("versus"))
    row = {"question": "Who?", "first": "I.", "second": "You.", "better": 2}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "better": 3}) + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: better is 3"):
        load_preferences(path)  # recognized by its columns
    (pair,) = load_preferences(path, format="versus", on_bad_row="skip")
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("Who?", "You.", "I.")


def test_a_game_is_a_registered_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    gymnasium = pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")
    from atari_bridge.environments.config import EnvironmentConfig
    from atari_bridge.environments.factory import open_environment

    define("my_games.py", monkeypatch)
    config = EnvironmentConfig(game="my_games:Hill-v0", num_envs=2, frame_stack=1)
    environment = open_environment(config, num_envs=2)
    try:
        assert environment.num_actions == 2
    finally:
        environment.close()
        gymnasium.registry.pop("Hill-v0")


def test_a_loss_is_a_function_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = dict(vars(losses))
    exec(block("rewardmodel/training/losses.py"), namespace)
    monkeypatch.setattr(losses, "best_first_loss", namespace["best_first_loss"], raising=False)
    monkeypatch.setitem(loss_config.RANKING_LOSSES, "best_first", entry("best_first"))
    objective = LossConfig()
    objective.rankings = "best_first"
    scores = torch.tensor([[1.0], [0.0], [3.0]])
    inputs = {"slots": torch.tensor([[0, 1, 2]]), "ranks": torch.tensor([[1, 2, 3]])}
    best_first = resolve_name(loss_config.RANKING_LOSSES["best_first"])
    found = comparison_losses(scores, inputs, objective, ranking_loss=best_first)
    torch.testing.assert_close(found, -scores.log_softmax(0)[:1])

"""Each example runs, does what it is for, and stays short."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from policies.generation.language_model import Policy

FOLDER = Path(__file__).resolve().parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_is_short(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 120
    load(path).main()
    assert capsys.readouterr().out.strip()


def test_walkers_take_shortest_paths() -> None:
    maze = load(FOLDER / "plan_with_your_model.py")
    start = torch.tensor([[1, 1], [5, 1], [5, 5]])
    paths = maze.walk(maze.Maze(), start, num_simulations=200)
    assert [len(path) for path in paths] == [10, 14, 2]


def test_carts_come_to_rest_and_planning_costs_less_than_coasting() -> None:
    cart = load(FOLDER / "continuous_actions.py")
    start = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
    end, cost = cart.drive(start, steps=40, seed=0)
    assert end.abs().max() < 0.5
    model, coasting, still = cart.Cart(), 0.0, start
    for _ in range(40):
        step = model.step({"cart": still}, torch.zeros(2))
        still, coasting = step.embedding["cart"], coasting - float(step.reward.mean())
    assert cost < coasting / 40 / 2


def test_the_die_is_rolled_while_it_pays() -> None:
    pig = load(FOLDER / "game_of_chance.py")
    decisions = pig.decide([0, 5, 10, 23, 26, 40], num_simulations=1000)
    assert decisions == ["roll"] * 3 + ["hold"] * 3


def test_search_finds_better_responses_than_one_sample(policy: Policy) -> None:
    example = load(FOLDER / "search_with_your_reward_model.py")
    found = example.compare(policy, budget=8, seed=0)
    one, best, tree = (found[name][0] for name in ("one sample", "best-of-N", "tree search"))
    assert one < min(best, tree)

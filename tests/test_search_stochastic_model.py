"""Every way a stochastic model can break the contract, and the message it gets."""

from dataclasses import replace

import pytest
import torch

from search import StochasticMuZeroPlanner
from tests.stochastic_reference import StochasticTable, random_games

NAN = float("nan")


class BrokenGame(StochasticTable):
    """A game whose answers are changed by `broken`, from the call of that number on."""

    def __init__(self, *, root=None, action=None, outcome=None, since=1, **numbers):
        tables = vars(random_games(1, **numbers))
        super().__init__(**{name: table for name, table in tables.items() if name != "calls"})
        self.broken = {"root": root, "action": action, "outcome": outcome}
        self.since = since

    def changed(self, name, output):
        number = 1 if name == "root" else [call for call, _ in self.calls].count(name)
        broken = self.broken[name]
        return replace(output, **broken(output)) if broken and number >= self.since else output

    def root(self, observation, *, generator=None):
        return self.changed("root", super().root(observation))

    def step_action(self, embedding, action, *, generator=None):
        return self.changed("action", super().step_action(embedding, action))

    def step_outcome(self, embedding, outcome, *, generator=None):
        return self.changed("outcome", super().step_outcome(embedding, outcome))


def plan(model):
    return StochasticMuZeroPlanner(8).plan(model, torch.arange(4))


def with_row(tensor, row, value):
    tensor = tensor.clone()
    tensor[row] = value
    return tensor


AFTERSTATES = {
    "nan_logits": (
        lambda o: {"chance_logits": with_row(o.chance_logits, 2, NAN), "valid_outcomes": None},
        r"chance_logits, row 2: found \[nan.*finite values where valid_outcomes is True.*mark",
    ),
    "infinite_value": (
        lambda o: {"value": with_row(o.value, 1, float("inf"))},
        r"value, row 1: found inf; required finite values\. Check",
    ),
    "no_valid_outcome": (
        lambda o: {"valid_outcomes": with_row(o.valid_outcomes, 3, False)},
        r"valid_outcomes, row 3: found 0 of 3 outcomes valid; .*at least one.*discount 0",
    ),
    "value_of_two_dimensions": (
        lambda o: {"value": o.value[:, None]},
        r"value: found shape \[4, 1\]; required shape \[4\]",
    ),
    "too_few_rows": (
        lambda o: {"value": o.value[:3]},
        r"value: found shape \[3\]; required shape \[4\]\. Rows come first",
    ),
    "logits_of_too_many_outcomes": (
        lambda o: {"chance_logits": o.chance_logits.repeat(1, 2)},
        r"chance_logits: found shape \[4, 6\]; required shape \[4, 3\].*num_outcomes",
    ),
    "integer_logits": (
        lambda o: {"chance_logits": o.chance_logits.long()},
        r"chance_logits: found dtype torch.int64; required a floating-point dtype.*\.float\(\)",
    ),
    "mask_of_numbers": (
        lambda o: {"valid_outcomes": o.valid_outcomes.double()},
        r"valid_outcomes: found dtype torch.float64; required dtype torch.bool.*\.bool\(\)",
    ),
    "mask_of_another_shape": (
        lambda o: {"valid_outcomes": o.valid_outcomes[:, :2]},
        r"valid_outcomes: found shape \[4, 2\]; required shape \[4, 3\]",
    ),
    "leaf_without_rows": (
        lambda o: {"embedding": {"row": o.embedding["row"][0]}},
        r'embedding\["row"\]: found shape \[\].*required shape \[4, \.\.\.\]',
    ),
}
LATER_AFTERSTATES = {
    "other_leaves": (
        lambda o: {"embedding": {"row": o.embedding["row"]}},
        r"embedding: found leaves \['row'\]; required .*\['path', 'row', 'where'\]. Return the sam",
    ),
    "another_dtype": (
        lambda o: {"embedding": {**o.embedding, "path": o.embedding["path"].float()}},
        r'embedding\["path"\]: found shape .* torch.float32; required .*torch.float64, as at first',
    ),
    "another_shape": (
        lambda o: {"embedding": {**o.embedding, "path": o.embedding["path"][:, 1:]}},
        r'embedding\["path"\]: found shape \[\d, 3\].*required \[\d, 4\]',
    ),
}


@pytest.mark.parametrize("name", AFTERSTATES)
def test_afterstate_that_breaks_the_contract_is_named(name):
    broken, message = AFTERSTATES[name]
    with pytest.raises(ValueError, match=rf"AfterstateOutput\.{message}"):
        plan(BrokenGame(action=broken))


@pytest.mark.parametrize("name", ["nan_logits", "infinite_value", *LATER_AFTERSTATES])
def test_later_afterstate_must_be_as_the_first(name):
    broken, message = {**AFTERSTATES, **LATER_AFTERSTATES}[name]
    game = BrokenGame(action=broken, since=2, num_actions=1, discount=1.0)
    with pytest.raises(ValueError, match=rf"AfterstateOutput\.{message}"):
        plan(game)
    assert [name for name, _ in game.calls] == ["action", "outcome", "action"]


def test_next_state_and_root_are_checked_as_those_of_other_models():
    with pytest.raises(ValueError, match=r"RootOutput.prior_logits: .*\[4, 5\]; .*\[4, 4\]"):
        plan(BrokenGame(root=lambda o: {"prior_logits": torch.zeros(4, 5)}))
    with pytest.raises(ValueError, match=r"StepOutput.reward, row 1: found nan"):
        plan(BrokenGame(outcome=lambda o: {"reward": with_row(o.reward, 1, NAN)}))
    with pytest.raises(ValueError, match=r"StepOutput.valid_actions: .*\[\d, 3\]; .*\[\d, 4\]"):
        plan(BrokenGame(outcome=lambda o: {"valid_actions": o.valid_actions[:, :3]}))
    with pytest.raises(ValueError, match=r"leaves \['row'\]; .*\['table', 'trace', 'where'\]"):
        plan(BrokenGame(outcome=lambda o: {"embedding": {"row": o.value}}))


def test_infinite_logits_of_invalid_outcomes_are_ignored():
    game = random_games(1, invalid_outcomes=0.5)
    expected = plan(game).tree.children_visits[:, 0].sum()
    wild = game.chance_logits.masked_fill(~game.valid_outcomes, -torch.inf)
    tree = plan(replace(game, chance_logits=wild)).tree
    assert tree.children_visits[:, 0].sum() == expected
    assert bool(torch.isfinite(tree.node_values).all())


@pytest.mark.parametrize("name", ["num_actions", "num_outcomes"])
@pytest.mark.parametrize("bad", [0, -1, 2.0])
def test_numbers_of_actions_and_outcomes_are_positive_ints(monkeypatch, name, bad):
    monkeypatch.setattr(StochasticTable, name, bad)
    with pytest.raises(ValueError, match=rf"StochasticPlanningModel.{name}: found {bad!r} .*int"):
        plan(random_games(1))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("num_simulations", 0),
        ("max_depth", 0),
        ("dirichlet_fraction", 1.5),
        ("dirichlet_alpha", 0.0),
        ("pb_c_init", -1.0),
        ("pb_c_base", 0.0),
        ("temperature", NAN),
    ],
)
def test_planner_numbers_out_of_range_are_named(name, bad):
    with pytest.raises(ValueError, match=rf"StochasticMuZeroPlanner.{name}: found {bad!r} "):
        StochasticMuZeroPlanner(**{"num_simulations": 8, name: bad})

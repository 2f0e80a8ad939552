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


# Fields, change, what the message names of the first field, and the remedy.
AFTERSTATES = {
    "infinite_value": ("value", lambda x: with_row(x, 1, torch.inf), "inf; .*finite.*Check"),
    "no_valid_outcome": (
        "valid_outcomes",
        lambda x: with_row(x, 3, False),
        "0 of 3 outcomes valid; .*at least one.*discount 0",
    ),
    "value_of_two_dimensions": ("value", lambda x: x[:, None], r"\[4, 1\]; .*\[4\]"),
    "too_few_rows": ("value", lambda x: x[:3], r"\[3\]; .*\[4\]\. Rows come first"),
    "logits_of_too_many_outcomes": (
        "chance_logits",
        lambda x: x.repeat(1, 2),
        r"\[4, 6\]; .*\[4, 3\].*num_outcomes",
    ),
    "integer_logits": ("chance_logits", torch.Tensor.long, r"torch.int64; .*\.float\(\)"),
    "mask_of_numbers": ("valid_outcomes", torch.Tensor.double, r"torch.float64; .*\.bool\(\)"),
    "mask_of_another_shape": ("valid_outcomes", lambda x: x[:, :2], r"\[4, 2\]; .*\[4, 3\]"),
    "leaf_without_rows": (
        "embedding",
        lambda x: {"row": x["row"][0]},
        r"\[\].*required shape \[4, \.\.\.\]",
    ),
}
LATER_AFTERSTATES = {
    "other_leaves": (
        "embedding",
        lambda x: {"row": x["row"]},
        r"leaves \['row'\]; required .*\['path', 'row', 'where'\]. Return the sam",
    ),
    "another_dtype": (
        "embedding",
        lambda x: {**x, "path": x["path"].float()},
        ".* torch.float32; required .*torch.float64, as at first",
    ),
    "another_shape": (
        "embedding",
        lambda x: {**x, "path": x["path"][:, 1:]},
        r"\[\d, 3\].*required \[\d, 4\]",
    ),
}
NAN_LOGITS = {
    "nan_logits": (
        lambda o: {"chance_logits": with_row(o.chance_logits, 2, NAN), "valid_outcomes": None},
        r"chance_logits, row 2: found \[nan.*finite values where valid_outcomes is True.*mark",
    ),
}


def break_by(name):
    """The change that one of the faults above makes, and what the message must match."""
    if name in NAN_LOGITS:
        return NAN_LOGITS[name]
    field, change, message = (AFTERSTATES | LATER_AFTERSTATES)[name]
    expected = rf'{field}(\["\w+"\])?(, row \d)?: found (shape |dtype )?{message}'
    return lambda output: {field: change(getattr(output, field))}, expected


@pytest.mark.parametrize("name", [*NAN_LOGITS, *AFTERSTATES])
def test_afterstate_that_breaks_the_contract_is_named(name):
    broken, message = break_by(name)
    with pytest.raises(ValueError, match=rf"AfterstateOutput\.{message}"):
        plan(BrokenGame(action=broken))


@pytest.mark.parametrize("name", ["nan_logits", "infinite_value", *LATER_AFTERSTATES])
def test_later_afterstate_must_be_as_the_first(name):
    broken, message = break_by(name)
    game = BrokenGame(action=broken, since=2, num_actions=1, discount=1.0)
    with pytest.raises(ValueError, match=rf"AfterstateOutput\.{message}"):
        plan(game)
    assert [name for name, _ in game.calls] == ["action", "outcome", "action"]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("root", lambda o: {"prior_logits": torch.zeros(4, 5)}, r"prior_logits: .*5\]; .*4\]"),
        ("outcome", lambda o: {"reward": with_row(o.reward, 1, NAN)}, "reward, row 1: found nan"),
        (
            "outcome",
            lambda o: {"valid_actions": o.valid_actions[:, :3]},
            r"valid_actions: .*\[\d, 3\]; .*\[\d, 4\]",
        ),
        (
            "outcome",
            lambda o: {"embedding": {"row": o.value}},
            r"leaves \['row'\]; .*\['table', 'trace', 'where'\]",
        ),
    ],
)
def test_next_state_and_root_are_checked_as_those_of_other_models(kind, change, message):
    with pytest.raises(ValueError, match=message):
        plan(BrokenGame(**{kind: change}))


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

"""Planning with a true simulator: values, games, the store of states."""

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from search import (
    ExactModel,
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    Transition,
    UniformRollouts,
    ZeroValues,
    keep_subtree,
)
from tests.search_reference import TableModel, assert_same_tree, random_tables

QUIET = MuZeroPlanner(40, dirichlet_fraction=0, temperature=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class TableSimulator:
    table: TableModel
    steps: int = 0

    @property
    def num_actions(self):
        return self.table.num_actions

    def step(self, state, action):
        self.steps += 1
        edge = (*state, action)
        discount = float(self.table.discount[edge])
        return Transition(
            (state[0], int(self.table.next_state[edge])),
            float(self.table.reward[edge]),
            terminated=discount == 0,
            discount=discount or None,  # the end needs no discount
        )

    def valid_actions(self, state):
        return self.table.valid_actions[state].tolist()


@dataclass
class TableValues:
    table: TableModel

    def __call__(self, states, *, generator=None):
        table, number = torch.tensor(states).unbind(dim=-1)
        return self.table.prior_logits[table, number], self.table.value[table, number]


class EndsWorthNothing(TableModel):
    def step(self, embedding, action, *, generator=None):
        step = super().step(embedding, action)
        return replace(step, value=step.value.masked_fill(step.discount == 0, 0.0))


def optimal_qvalues(table: TableModel) -> torch.Tensor:
    """Value iteration: `[T, S, A]`, -inf where invalid."""
    tables = torch.arange(table.value.shape[0]).view(-1, 1, 1)
    value = torch.zeros_like(table.value)
    for _ in range(500):
        q = table.reward + table.discount * value[tables, table.next_state]
        q = q.masked_fill(~table.valid_actions, -torch.inf)
        value = q.amax(dim=-1)
    return q


# Against what is known exactly


@pytest.mark.parametrize("rollouts", [False, True])
def test_search_finds_the_optimal_action_and_nears_the_optimal_value(rollouts):
    """16 random worlds whose best action is better by 0.1: all found, and the value within 0.2.

    The value is a mean over all simulations, the poor first ones too, so its error (on a scale of
    returns of about 2) falls slowly: it must halve from 25 to 400 simulations.
    """
    table = random_tables(
        13, num_tables=24, num_states=6, num_actions=3, discount=0.6, terminal=0.1, invalid=0.2
    )
    best = optimal_qvalues(table)[:, 0]
    first, second = best.topk(2, dim=-1).values.unbind(dim=-1)
    chosen = (first - second > 0.1).nonzero().flatten()[:16]
    simulator = TableSimulator(table)
    evaluator = ZeroValues(3)
    if rollouts:
        evaluator = UniformRollouts(simulator, max_steps=4, discount=0.6)
    model = ExactModel(simulator, evaluator)
    errors = []
    for num_simulations in (25, 400):
        planner = MuZeroPlanner(num_simulations, dirichlet_fraction=0, temperature=0)
        output = planner.plan(model, [(int(t), 0) for t in chosen], generator=generator())
        errors.append(float((output.value - first[chosen]).abs().mean()))
    assert len(chosen) == 16
    assert output.action.tolist() == best[chosen].argmax(dim=-1).tolist()
    assert errors[1] < min(0.2, errors[0] / 2), errors


WORLDS = {
    "plain": {},
    "two_players": {"discount": -1.0, "invalid": 0.3},
    "all_at_once": {"terminal": 0.2, "dead": 0.2, "invalid": 0.4},
}


@pytest.mark.parametrize("planner", [QUIET, GumbelMuZeroPlanner(40, gumbel_scale=0)])
@pytest.mark.parametrize("world", WORLDS)
def test_trees_equal_those_of_the_same_tables_node_for_node(world, planner):
    table = random_tables(12, **WORLDS[world])
    tables = EndsWorthNothing(**vars(table))
    model = ExactModel(TableSimulator(table), TableValues(table))
    found = planner.plan(model, [(t, 0) for t in range(4)])
    expected = planner.plan(tables, torch.arange(4))
    for row in range(4):
        assert_same_tree(found.tree.to_dict(row), expected.tree.to_dict(row), 0.0)
    assert torch.equal(found.action, expected.action)
    assert torch.equal(found.action_weights, expected.action_weights)
    used = expected.tree.node_visits > 0
    states = model.states(found.tree.embeddings["state"][used])
    assert [s for _, s in states] == expected.tree.embeddings["state"][used].tolist()


def test_terminal_states_are_neither_evaluated_nor_expanded():
    table = random_tables(13, num_tables=2, num_actions=3, terminal=1.0)
    simulator = TableSimulator(table)

    def evaluator(states, *, generator=None):
        assert all(number == 0 for _, number in states), "a finished state was evaluated"
        return TableValues(table)(states)

    output = QUIET.plan(ExactModel(simulator, evaluator), [(0, 0), (1, 0)])
    assert simulator.steps <= 6
    assert bool((output.tree.children_values == 0).all())


# A game of two players

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


class TicTacToe:
    """A state is nine characters, of the player to move (`x`), the other (`o`), and `.`."""

    num_actions = 9

    def step(self, state, action):
        assert state[action] == "."
        board = state[:action] + "x" + state[action + 1 :]
        won = any(all(board[square] == "x" for square in line) for line in LINES)
        turned = board.translate(str.maketrans("xo", "ox"))
        return Transition(turned, float(won), terminated=won or "." not in board)

    def valid_actions(self, state):
        return [square == "." for square in state]


GAME = TicTacToe()
GAME_START = "." * 9


def player(num_simulations: int) -> tuple[ExactModel, MuZeroPlanner]:
    model = ExactModel(GAME, UniformRollouts(GAME, discount=-1.0), discount=-1.0)
    return model, MuZeroPlanner(num_simulations, dirichlet_fraction=0, temperature=0)


@pytest.mark.parametrize(
    ("position", "move"),
    [
        ("xx.oo....", 2),  # win, although 5 would block
        ("x..oo...x", 5),  # block
        ("oxo.x....", 7),  # win
        ("o...x...o", None),  # take an edge: a corner loses to a fork
    ],
)
def test_forced_moves_are_found(position, move):
    model, planner = player(400)
    output = planner.plan(model, [position], generator=generator())
    assert int(output.action) in ({1, 3, 5, 7} if move is None else {move})
    if move is not None and "xx" in position:
        assert float(output.value) > 0.8


def test_search_never_loses_tic_tac_toe_against_random_play():
    """24 games, both sides. (With 50 simulations a sixth of such games is lost.)"""
    model, planner = player(400)
    chance = random.Random(0)
    games = [(GAME_START, seat) for seat in (0, 1) for _ in range(12)]
    results = []
    turn = 0
    while games:
        mine = [i for i, (_, seat) in enumerate(games) if turn % 2 == seat]
        moves = {}
        if mine:
            output = planner.plan(model, [games[i][0] for i in mine], generator=generator(turn))
            moves = dict(zip(mine, output.action.tolist(), strict=True))
        going = []
        for i, (state, seat) in enumerate(games):
            free = [a for a in range(9) if state[a] == "."]
            after = GAME.step(state, moves[i] if i in moves else chance.choice(free))
            if after.terminated:
                results.append(after.reward if i in moves else -after.reward)
            else:
                going.append((after.state, seat))
        games, turn = going, turn + 1
    assert len(results) == 24
    assert min(results) >= 0
    assert sum(results) >= 18


def test_rollouts_see_the_game_from_the_player_to_move():
    """A last square that wins; two that both let the other win; one that wins, one that draws."""
    rollouts = UniformRollouts(GAME, num_rollouts=400, discount=-1.0)
    _, value = rollouts(["xx.ooxoxo", "oo.xoxox.", "oo.xx.oxx"], generator=generator())
    assert value[:2].tolist() == [1.0, -1.0]
    assert float(value[2]) == pytest.approx(0.5, abs=0.08)  # three standard errors
    first, second = (rollouts([GAME_START], generator=generator(s))[1] for s in (3, 3))
    assert torch.equal(first, second)


# Truncation


class Clock:
    """Counts moves up to a limit of 2, then only says that time is up; each move earns 1."""

    num_actions = 2

    def step(self, state, action):
        return Transition(state + 1, 1.0, truncated=state + 1 >= 2)

    def valid_actions(self, state):
        return None


def test_truncated_states_bootstrap_and_are_not_searched_below():
    """Each action line is worth 1 + 0.5 * (1 + 0.5 * 10), however long the search."""

    def evaluator(states, *, generator=None):
        return torch.zeros(len(states), 2), torch.full((len(states),), 10.0)

    model = ExactModel(Clock(), evaluator, discount=0.5)
    output = MuZeroPlanner(60, dirichlet_fraction=0).plan(model, [0])
    tree = output.tree
    states = torch.tensor(model.states(tree.embeddings["state"][0, :7]))
    assert sorted(states.tolist()) == [0, 1, 1, 2, 2, 2, 2]
    assert int((tree.node_visits > 0).sum()) == 7
    ends = states == 2
    assert bool((tree.node_values[0, :7][ends] == 10.0).all())
    assert bool(tree.terminal[0, :7][ends].all())
    below = tree.children_discounts[0, :7][states == 1]
    assert bool((below == 0.5).all())
    assert float(output.value) == pytest.approx(4.0, abs=0.3)
    _, value = UniformRollouts(Clock(), max_steps=5)([2])
    assert float(value) == 5.0  # rollouts go on: time says nothing of the world


# The store


def test_store_does_not_grow_over_an_episode():
    model, planner = player(50)
    state, sizes, numbers = GAME_START, [], set()
    for _ in range(20):
        output = planner.plan(model, [state], generator=generator())
        sizes.append(model.num_states)
        used = output.tree.embeddings["state"][output.tree.node_visits > 0].tolist()
        assert len(used) == model.num_states
        assert not numbers & set(used)
        numbers |= set(used)
    assert max(sizes) <= 51
    model.release()
    assert model.num_states == 0


def test_states_of_a_kept_tree_survive_and_others_are_released():
    model, planner = player(30)
    model.keep_states = True
    first = planner.plan(model, [GAME_START], generator=generator()).tree
    second = planner.plan(model, ["x...o...."], generator=generator()).tree
    assert model.num_states > 31
    model.release(keep=second)
    used = second.node_visits[0] > 0
    assert model.num_states == int(used.sum())
    assert model.states(second.embeddings["state"][:, 0]) == ["x...o...."]
    embedding = {"state": second.embeddings["state"][:, 0]}
    assert model.states(model.step(embedding, torch.tensor([1])).embedding["state"]) == [
        "oo..x...."
    ]
    with pytest.raises(ValueError, match=r"found a node of state 0, which was released"):
        model.step({"state": first.embeddings["state"][:, 0]}, torch.tensor([1]))


def test_an_episode_of_kept_trees_holds_their_states_and_no_others():
    model, planner = player(60)
    model.keep_states = True
    state, kept, sizes = GAME_START, None, []
    for _ in range(4):
        output = planner.plan(model, [state], generator=generator(), kept=kept)
        tree = output.tree
        sizes.append(model.num_states)
        for node in (tree.node_visits[0] > 0).nonzero().flatten().tolist():
            (found,) = model.states(tree.embeddings["state"][0, node : node + 1])
            if node == 0:
                assert found == state
            else:
                parent, action = int(tree.parents[0, node]), int(tree.action_from_parent[0, node])
                (before,) = model.states(tree.embeddings["state"][0, parent : parent + 1])
                assert found == GAME.step(before, action).state
        kept = keep_subtree(tree, output.action)
        model.release(keep=kept)
        assert model.num_states == int((kept.node_visits > 0).sum())
        state = GAME.step(state, int(output.action)).state
    assert max(sizes) < 2 * 61  # what was kept, and one search


def test_stale_nodes_are_an_error_and_never_another_state():
    model, planner = player(5)
    old = planner.plan(model, [GAME_START], generator=generator()).tree
    planner.plan(model, [GAME_START], generator=generator())
    with pytest.raises(ValueError, match=r"released.*keep_states=True"):
        model.step({"state": old.embeddings["state"][:, 0]}, torch.tensor([0]))
    assert ExactModel.append_only


# Mistakes


def plan_tables(**changes: Any) -> None:
    table = random_tables(14, num_tables=2, num_actions=3)
    simulator = TableSimulator(table)
    for name in ("step", "valid_actions"):
        if name in changes:
            setattr(simulator, name, changes[name])
    evaluator = changes.get("evaluator", TableValues(table))
    QUIET.plan(ExactModel(simulator, evaluator), [(0, 0), (1, 0)])


def evaluate_four_actions(states, *, generator=None):
    return torch.zeros(len(states), 4), torch.zeros(len(states))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # A list of the valid actions instead of a mask; gymnasium's tuple.
        ({"valid_actions": lambda state: [0, 2]}, "valid_actions: found 2 entries; required 3"),
        (
            {"step": lambda state, action: (state, 0.0, False, False, {})},
            "Simulator.step: found tuple; required a Transition",
        ),
        (
            {"evaluator": evaluate_four_actions},
            r"logits of shape \[2, 4\].*required \[2, 3\] and \[2\]",
        ),
    ],
)
def test_a_wrong_answer_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        plan_tables(**changes)


def test_nan_of_evaluator_or_simulator_is_named_with_its_row():
    def evaluator(states, *, generator=None):
        logits, value = torch.zeros(len(states), 3), torch.zeros(len(states))
        is_bad = [table == 1 and number != 0 for table, number in states]
        return logits, value.masked_fill(torch.tensor(is_bad), torch.nan)

    with pytest.raises(ValueError, match=r"StepOutput.value, row 1: found nan"):
        plan_tables(evaluator=evaluator)
    with pytest.raises(ValueError, match=r"StepOutput.reward, row 1: found nan"):
        plan_tables(step=lambda state, action: Transition(state, float("nan") if state[0] else 0.0))


def test_numbers_are_checked():
    with pytest.raises(ValueError, match=r"ExactModel.discount: found 1.5"):
        ExactModel(GAME, ZeroValues(9), discount=1.5)
    for bad in ({"num_rollouts": 0}, {"max_steps": 0}, {"discount": -2.0}):
        with pytest.raises(ValueError, match=rf"UniformRollouts.{next(iter(bad))}: found"):
            UniformRollouts(GAME, **bad)

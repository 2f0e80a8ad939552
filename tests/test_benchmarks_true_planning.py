"""Atari as an exact simulator, and planning with it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.atari.emulator import AtariSimulator, AtariState
from benchmarks.atari.true_planning import (
    HeldRollouts,
    play_at_random,
    play_by_planning,
    play_greedily,
)
from search import MuZeroPlanner, SearchOutput, Tree, ZeroValues
from search.simulators.interface import Transition

ale_py = pytest.importorskip("ale_py", reason="ale-py is an extra: pip install 'prefsearch[atari]'")


def followed(simulator: AtariSimulator, state: AtariState, actions: list[int]) -> list[Transition]:
    transitions = []
    for action in actions:
        transitions.append(simulator.step(state, action))
        state = transitions[-1].state
    return transitions


def some_actions(simulator: AtariSimulator, length: int, *, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(simulator.num_actions, size=length).tolist()


def plain_emulator(game: str):
    emulator = ale_py.ALEInterface()
    emulator.setInt("random_seed", 0)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(ale_py.roms.get_rom_path(game))
    emulator.reset_game()
    return emulator


def test_stepping_twice_from_a_state_gives_the_same_child_bit_for_bit() -> None:
    simulator = AtariSimulator("Breakout")
    opening = [1, *some_actions(simulator, 20)]
    state = followed(simulator, simulator.reset(seed=1), opening)[-1].state
    before, line = simulator.ram(state), [2, 3, 0, 2, 3] * 4
    first = simulator.ram(followed(simulator, state, line)[-1].state)
    followed(simulator, state, [3, 0, 3, 3])  # elsewhere in between
    simulator.reset(seed=9)
    second = simulator.ram(followed(simulator, state, line)[-1].state)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(simulator.ram(state), before)
    assert (before != first).any()


def test_two_games_interleaved_on_one_emulator_do_not_disturb_each_other() -> None:
    simulator = AtariSimulator("SpaceInvaders")
    lines = [some_actions(simulator, 40, seed=s) for s in (1, 2)]
    starts = [simulator.reset(seed=s) for s in (1, 2)]
    alone = [
        simulator.ram(followed(simulator, start, line)[-1].state)
        for start, line in zip(starts, lines, strict=True)
    ]
    states = list(starts)
    for pair in zip(*lines, strict=True):
        states = [simulator.step(s, a).state for s, a in zip(states, pair, strict=True)]
    for expected, state in zip(alone, states, strict=True):
        np.testing.assert_array_equal(simulator.ram(state), expected)
    assert (alone[0] != alone[1]).any()


def test_score_and_frames_equal_those_of_a_plain_emulator_run_of_the_same_actions() -> None:
    simulator = AtariSimulator("SpaceInvaders", frame_skip=4, noop_max=0)
    actions = some_actions(simulator, 150)
    transitions = followed(simulator, simulator.reset(seed=0), actions)
    emulator = plain_emulator("space_invaders")
    pressed = emulator.getMinimalActionSet()
    points = [sum(emulator.act(pressed[a]) for _ in range(4)) for a in actions]
    assert sum(points) > 0
    assert [t.reward for t in transitions] == points
    last = transitions[-1].state
    assert last.score == sum(points)
    assert last.frame == emulator.getEpisodeFrameNumber() == 600
    assert last.lives == emulator.lives()
    np.testing.assert_array_equal(simulator.ram(last), emulator.getRAM())


def test_the_seed_decides_the_opening() -> None:
    simulator = AtariSimulator("SpaceInvaders", noop_max=30)
    frames = [simulator.reset(seed=seed).frame for seed in (3, 4, 3)]
    assert frames[0] == frames[2] != frames[1]
    assert 0 <= min(frames) <= max(frames) <= 30


def lose(simulator: AtariSimulator) -> list[Transition]:
    """Breakout played by serving and then staying in the corner, until the game is over."""
    state, transitions = simulator.reset(seed=0), []
    while not state.ended:
        action = 1 if len(transitions) % 8 == 0 else 3
        transitions.append(simulator.step(state, action))
        state = transitions[-1].state
        assert len(transitions) < 2000
    return transitions


def test_a_game_terminates_when_it_is_over_and_a_life_costs_what_was_asked() -> None:
    plain = lose(AtariSimulator("Breakout", frame_skip=8))
    costly = lose(AtariSimulator("Breakout", frame_skip=8, life_cost=7.0))
    assert [t.terminated for t in plain] == [False] * (len(plain) - 1) + [True]
    assert plain[-1].state.lives == 0
    difference = [a.reward - b.reward for a, b in zip(plain, costly, strict=True)]
    assert sorted(difference)[-5:] == [7.0] * 5
    assert sum(difference) == 35.0
    assert costly[-1].state.score == plain[-1].state.score


def test_no_action_is_accepted_after_the_end_or_outside_the_set() -> None:
    simulator = AtariSimulator("Breakout", frame_skip=8)
    over = lose(simulator)[-1].state
    assert not any(simulator.valid_actions(over) or [])
    with pytest.raises(ValueError, match="game is over"):
        simulator.step(over, 0)
    with pytest.raises(ValueError, match="found action 4"):
        simulator.step(simulator.reset(seed=0), 4)


def test_a_line_pays_what_its_steps_pay_and_stops_at_the_end_of_the_game() -> None:
    simulator = AtariSimulator("Breakout", frame_skip=8, life_cost=2.0)
    before_the_end = lose(simulator)[-8].state
    rewards = simulator.play_line(before_the_end, [3] * 60)
    steps = followed(simulator, before_the_end, [3] * len(rewards))
    assert len(rewards) < 60
    assert rewards == [t.reward for t in steps]
    assert [t.terminated for t in steps] == [False] * (len(rewards) - 1) + [True]
    assert simulator.play_line(before_the_end, []) == []


def test_stepping_on_restores_nothing_and_going_back_does() -> None:
    simulator = AtariSimulator("Breakout")
    restored = []

    class Watched:
        def __init__(self, emulator) -> None:
            self.emulator = emulator

        def __getattr__(self, name: str):
            if name == "restoreState":
                restored.append(name)
            return getattr(self.emulator, name)

    simulator._emulator = Watched(simulator._emulator)
    start = simulator.reset(seed=0)
    followed(simulator, start, [1, 2, 3])
    assert not restored
    simulator.step(start, 1)
    assert len(restored) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "Bxing"}, "found 'Bxing'"),
        ({"game": "Combat"}, "found 'Combat'"),
        ({"frame_skip": 0}, "frame_skip"),
        ({"life_cost": -1.0}, "life_cost"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AtariSimulator(**{"game": "Boxing", **settings})


def planned(*, seed: int = 5, decisions: int = 8):
    simulator = AtariSimulator("Boxing", frame_skip=10)
    return play_by_planning(
        simulator,
        MuZeroPlanner(18, dirichlet_fraction=0.0, temperature=0.0),
        evaluator=HeldRollouts(simulator, max_steps=2, max_hold=2),
        discount=0.97,
        seed=seed,
        max_decisions=decisions,
    )


def test_planning_with_the_emulator_scores_where_random_play_does_not() -> None:
    episode = planned()
    simulator = AtariSimulator("Boxing", frame_skip=10)
    random = play_at_random(simulator, seed=5, max_decisions=8)
    assert episode.score > max(0.0, random.score)
    assert not episode.ended
    assert episode.planning_frames > 8 * 18 * 30  # 18 simulations of 3 steps of 10 frames
    # The actions alone replay the episode.
    state = followed(simulator, simulator.reset(seed=5), list(episode.actions))[-1].state
    assert (state.score, state.frame) == (episode.score, episode.frames)


def test_an_episode_is_decided_by_its_seed() -> None:
    first, again, other = (planned(seed=seed, decisions=2) for seed in (5, 5, 6))
    assert first.actions == again.actions
    assert first.planning_frames == again.planning_frames
    assert (first.actions, first.frames) != (other.actions, other.frames)


class WatchedPlanner:
    """Records the trees that it is given, and the states of its own."""

    def __init__(self) -> None:
        self.planner = MuZeroPlanner(20, dirichlet_fraction=0.0, temperature=0.0)
        self.kept: list[Tree | None] = []
        self.states: list[list[AtariState]] = []

    def plan(self, model, observation, *, generator=None, kept=None) -> SearchOutput:
        self.kept.append(kept)
        output = self.planner.plan(model, observation, generator=generator, kept=kept)
        assert output.tree is not None
        self.states.append(model.states(output.tree.embeddings["state"][0]))
        return output


def test_the_subtree_of_the_action_taken_is_reused() -> None:
    simulator = AtariSimulator("Breakout", frame_skip=8)
    watched: Any = WatchedPlanner()
    episode = play_by_planning(
        simulator,
        watched,
        evaluator=ZeroValues(simulator.num_actions),
        discount=0.99,
        seed=0,
        max_decisions=4,
    )
    assert watched.kept[0] is None
    before = watched.states[0]
    for kept, states in zip(watched.kept[1:], watched.states[1:], strict=True):
        assert kept is not None
        assert int(kept.node_visits[0, 0]) > 1
        assert any(state is old for state in states for old in before)  # not stepped again
        before = states
    assert len(episode.actions) == 4


class Paying:
    """A world of 4 decisions whose action a pays `table[decision][a]`."""

    num_actions = 3
    frames_emulated = 0
    table = ((0.0, 5.0, 1.0), (-2.0, -3.0, -1.0), (4.0, 0.0, 0.0), (0.0, 0.0, 2.0))

    def reset(self, *, seed: int) -> AtariState:
        return self.state(0, 0.0)

    def step(self, state: AtariState, action: int) -> Transition:
        reward = self.table[state.frame][action]
        return Transition(self.state(state.frame + 1, state.score + reward), reward)

    def state(self, frame: int, score: float) -> AtariState:
        return AtariState(None, score, 0, frame, frame == 4)


def test_greedy_play_takes_the_greatest_next_reward() -> None:
    paying: Any = Paying()
    episode = play_greedily(paying, seed=0)
    assert episode.actions == (1, 2, 0, 2)
    assert episode.score == 10.0
    assert episode.ended


def test_rollouts_hold_their_actions_and_discount_their_rewards() -> None:
    simulator = AtariSimulator("SpaceInvaders", frame_skip=8)
    line = HeldRollouts(simulator, max_steps=200, max_hold=5).actions(np.random.default_rng(0))
    assert len(line) == 200
    changes = sum(a != b for a, b in pairwise(line))
    assert 40 < changes < 75  # about 200 / 3 draws, one in six of which repeats the last
    state = simulator.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    drawn = int(torch.randint(2**62, (), generator=generator))
    found = {}
    for discount in (1.0, 0.9):
        evaluate = HeldRollouts(simulator, max_steps=60, max_hold=5, discount=discount)
        logits, value = evaluate([state], generator=generator.manual_seed(0))
        found[discount] = float(value)
        assert logits.shape == (1, 6)
    rewards = simulator.play_line(state, evaluate.actions(np.random.default_rng(drawn)))
    assert found[1.0] == sum(rewards) > 0
    assert found[0.9] == pytest.approx(sum(r * 0.9**t for t, r in enumerate(rewards)))

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from atari_bridge.environments.simulator import AtariSimulator, AtariState
from atari_bridge.evaluation.true_planning import (
    HeldRollouts,
    TrueDecision,
    play_at_random,
    play_by_planning,
    play_greedily,
)
from search import ExactModel, GumbelMuZeroPlanner, MuZeroPlanner, SearchOutput, Tree, ZeroValues
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


def assert_views_equal(simulator: AtariSimulator, state: AtariState, views) -> None:
    for found, expected in zip((simulator.ram(state), simulator.screen(state)), views, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("sticky", [0.0, 0.5])
def test_stepping_twice_from_a_state_gives_the_same_child_bit_for_bit(sticky: float) -> None:
    simulator = AtariSimulator("Breakout", sticky_actions=sticky)
    opening = [1, *some_actions(simulator, 20)]
    state = followed(simulator, simulator.reset(seed=1), opening)[-1].state
    before = simulator.ram(state), simulator.screen(state)
    line = [2, 3, 0, 2, 3] * 4
    first = followed(simulator, state, line)[-1].state
    first_view = simulator.ram(first), simulator.screen(first)
    followed(simulator, state, [3, 0, 3, 3])  # elsewhere in between
    simulator.reset(seed=9)
    second = followed(simulator, state, line)[-1].state
    assert_views_equal(simulator, second, first_view)
    assert_views_equal(simulator, state, before)
    assert not np.array_equal(before[0], first_view[0])


def test_a_screen_is_what_the_emulator_showed_though_it_was_elsewhere_since() -> None:
    simulator = AtariSimulator("MsPacman", noop_max=0)
    actions = some_actions(simulator, 70)
    start = simulator.reset(seed=0)
    states = [start, *(t.state for t in followed(simulator, start, actions))]
    emulator = plain_emulator("ms_pacman")
    pressed = emulator.getMinimalActionSet()
    shown = [(emulator.getScreenRGB(),) * 2]
    for action in actions:
        frames = []
        for _ in range(4):
            emulator.act(pressed[action])
            frames.append(emulator.getScreenRGB())
        shown.append((frames[-1], np.maximum(frames[-1], frames[-2])))
    for place in (70, 3, 40, 40, 0, 69):
        plain, pooled = shown[place]
        np.testing.assert_array_equal(simulator.screen(states[place]), plain)
        np.testing.assert_array_equal(simulator.screen(states[place], pooled=True), pooled)
    assert any((pooled != plain).any() for plain, pooled in shown)


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
    np.testing.assert_array_equal(simulator.screen(last), emulator.getScreenRGB())


def test_the_seed_decides_the_opening() -> None:
    simulator = AtariSimulator("SpaceInvaders", noop_max=30)
    frames = [simulator.reset(seed=seed).frame for seed in (3, 4, 3)]
    assert frames[0] == frames[2] != frames[1]
    assert 0 <= min(frames) <= max(frames) <= 30


def test_sticky_actions_repeat_by_chance_what_was_pressed_before() -> None:
    shares = []
    for sticky in (0.0, 0.5):
        simulator = AtariSimulator("Breakout", sticky_actions=sticky)
        state, repeated = simulator.reset(seed=1), 0
        for decision in range(200):
            felt_before = state.pressed
            state = simulator.step(state, 2 + decision % 2).state
            repeated += state.pressed == felt_before
        shares.append(repeated / 200)
    # The last of 4 frames feels the action before only if all 4 repeated it.
    assert shares[0] == 0
    assert 0.02 < shares[1] < 0.15


def test_sticky_actions_are_decided_by_the_seed() -> None:
    simulator = AtariSimulator("Breakout", sticky_actions=0.5, noop_max=0)
    line = [1, 2, 3, 2, 3, 3, 2, 3, 2]
    rams = [
        simulator.ram(followed(simulator, simulator.reset(seed=seed), line)[-1].state)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(rams[0], rams[1])
    assert (rams[0] != rams[2]).any()


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


def test_a_lost_life_terminates_where_asked_and_can_be_played_on_from() -> None:
    transitions = lose(AtariSimulator("Breakout", frame_skip=8, life_loss_ends=True))
    lives = [5, *(t.state.lives for t in transitions)]
    lost = [now < before for before, now in pairwise(lives)]
    assert [t.terminated for t in transitions] == lost
    assert sum(lost) == 5


def test_nothing_follows_the_end_of_a_game() -> None:
    simulator = AtariSimulator("Breakout", frame_skip=8)
    over = lose(simulator)[-1].state
    assert not any(simulator.valid_actions(over) or [])
    with pytest.raises(ValueError, match="game is over"):
        simulator.step(over, 0)


def test_rewards_are_clipped_and_long_episodes_truncated_where_asked() -> None:
    simulator = AtariSimulator("SpaceInvaders", clip_rewards=True, noop_max=0, max_frames=590)
    transitions = followed(simulator, simulator.reset(seed=0), some_actions(simulator, 150))
    assert {t.reward for t in transitions} == {0.0, 1.0}
    assert transitions[-1].state.score > sum(t.reward for t in transitions)
    assert [t.truncated for t in transitions] == [False] * 147 + [True] * 3


def test_a_line_pays_what_its_steps_pay_and_stops_where_they_terminate() -> None:
    simulator = AtariSimulator("Breakout", frame_skip=8, life_loss_ends=True, life_cost=2.0)
    state = simulator.reset(seed=0)
    actions = [1, *[3] * 60]
    rewards, terminated = simulator.play_line(state, actions)
    steps = followed(simulator, state, actions[: len(rewards)])
    assert terminated
    assert rewards == [t.reward for t in steps]
    assert [t.terminated for t in steps] == [False] * (len(rewards) - 1) + [True]
    assert simulator.play_line(state, []) == ([], False)


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
        ({"game": "Combat"}, "a game for one player"),
        ({"frame_skip": 0}, "frame_skip"),
        ({"sticky_actions": 1.5}, "sticky_actions"),
        ({"life_cost": -1.0}, "life_cost"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AtariSimulator(**{"game": "Boxing", **settings})


def test_an_action_that_is_none_is_refused() -> None:
    simulator = AtariSimulator("Breakout")
    with pytest.raises(ValueError, match="found action 4"):
        simulator.step(simulator.reset(seed=0), 4)


def planned(*, seed: int = 5, decisions: int = 8, progress=None, carry_tree: bool = True):
    simulator = AtariSimulator("Boxing", frame_skip=10)
    return play_by_planning(
        simulator,
        MuZeroPlanner(18, dirichlet_fraction=0.0, temperature=0.0),
        evaluator=HeldRollouts(simulator, max_steps=2, max_hold=2),
        discount=0.97,
        seed=seed,
        max_decisions=decisions,
        carry_tree=carry_tree,
        progress=progress,
    )


def test_planning_with_the_emulator_scores_where_random_play_does_not() -> None:
    told: list[TrueDecision] = []
    episode = planned(progress=told.append)
    simulator = AtariSimulator("Boxing", frame_skip=10)
    random = play_at_random(simulator, seed=5, max_decisions=8)
    assert episode.score > max(0.0, random.score)
    assert [d.decision for d in told] == list(range(1, 9))
    assert told[-1].score == episode.score
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
    """Remembers the trees it was asked to go on from, and the actions it took."""

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


@pytest.mark.parametrize("carry_tree", [True, False])
def test_the_tree_below_the_action_taken_is_carried_over_where_asked(carry_tree: bool) -> None:
    simulator = AtariSimulator("Breakout", frame_skip=8)
    watched = WatchedPlanner()
    episode = play_by_planning(
        simulator,
        watched,
        evaluator=ZeroValues(simulator.num_actions),
        discount=0.99,
        seed=0,
        max_decisions=4,
        carry_tree=carry_tree,
    )
    if not carry_tree:
        assert watched.kept == [None] * 4
        return
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
        return AtariState(None, score, 0, frame, frame == 4, None, None, 0, 0)


def test_an_episode_goes_on_through_lives_whose_loss_ends_a_search() -> None:
    told: list[TrueDecision] = []
    simulator = AtariSimulator("Breakout", frame_skip=15, life_loss_ends=True)
    episode = play_by_planning(
        simulator,
        GumbelMuZeroPlanner(4),
        evaluator=ZeroValues(simulator.num_actions),
        discount=0.99,
        seed=0,
        max_decisions=40,
        progress=told.append,
    )
    assert episode.decisions == 40
    assert {d.lives for d in told} >= {5, 4, 3}


def test_greedy_play_takes_the_greatest_next_reward() -> None:
    paying: Any = Paying()
    episode = play_greedily(paying, seed=0)
    assert episode.actions == (1, 2, 0, 2)
    assert episode.score == 10.0
    assert episode.ended


def test_rollouts_hold_their_actions_and_discount_their_rewards() -> None:
    simulator = AtariSimulator("SpaceInvaders", frame_skip=8)
    line = HeldRollouts(simulator, max_steps=200, max_hold=5)._line(np.random.default_rng(0))
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
    rewards, _ = simulator.play_line(state, evaluate._line(np.random.default_rng(drawn)))
    assert found[1.0] == sum(rewards) > 0
    assert found[0.9] == pytest.approx(sum(r * 0.9**t for t, r in enumerate(rewards)))


def test_the_best_rollout_counts_by_its_share() -> None:
    simulator = AtariSimulator("SpaceInvaders")
    state = simulator.reset(seed=0)
    values = [
        float(
            HeldRollouts(simulator, num_rollouts=4, max_steps=60, max_hold=5, best=best)(
                [state], generator=torch.Generator().manual_seed(1)
            )[1]
        )
        for best in (0.0, 0.5, 1.0)
    ]
    assert values[0] < values[2]
    assert values[1] == pytest.approx((values[0] + values[2]) / 2)


def test_a_kept_tree_holds_true_states() -> None:
    simulator = AtariSimulator("Breakout", frame_skip=8)
    model = ExactModel(simulator, ZeroValues(simulator.num_actions))
    state = simulator.reset(seed=0)
    tree = MuZeroPlanner(20, dirichlet_fraction=0.0).plan(model, [state]).tree
    assert tree is not None
    child = int(tree.children_index[0, 0, 2])
    [stored] = model.states(tree.embeddings["state"][0, child : child + 1])
    expected = simulator.step(state, 2).state
    np.testing.assert_array_equal(simulator.ram(stored), simulator.ram(expected))

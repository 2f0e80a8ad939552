"""The emulator itself as a true simulator: states are copies of the machine, stepped from at will.

This file does not know search or networks. It speaks to ale-py directly, without gymnasium's
wrappers, and draws no picture unless asked.
"""

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from search.planners.base import require_float, require_int
from search.simulators.interface import Transition

NOOP = 0
"""ale-py's number of the action that presses nothing."""


@dataclass(frozen=True, eq=False, slots=True)
class AtariState:
    """One state of a game; it stays as it is, however often it is stepped from.

    Attributes:
        memory: ale-py's copy of the machine.
        score: Raw points since the start of the episode.
        lives: Left; 0 in games without lives.
        frame: Emulator frames since the start of the episode, the opening no-ops included.
        ended: Whether the game is over.
        action: The last action; None at the start.
        origin: What `AtariSimulator.screen` draws it by. The emulator's picture is no part of a
            copy of the machine, so it is drawn by playing the last action again: the copy before
            it, or at the start of an episode the picture itself.
        pressed: What the console felt in the last frame, by ale-py's number: a sticky frame may
            repeat it.
        chance: Seed of the next step's random numbers.
    """

    memory: Any
    score: float
    lives: int
    frame: int
    ended: bool
    action: int | None
    origin: Any
    pressed: int
    chance: int


@dataclass
class AtariSimulator:
    """A `search.Simulator` of one Atari game, on one emulator that is moved from state to state.

    Stepping on from the state where the emulator already is restores nothing, so a line of play
    costs its frames and one copy a decision.

    States of one instance are understood by others of the same game and settings, in the same
    process. An instance must not be shared between threads.

    Attributes:
        game: A game's name in gymnasium's spelling ("MsPacman") or ale-py's ("ms_pacman").
        frame_skip: Emulator frames a decision, at least 1.
        sticky_actions: Probability with which a frame repeats the action of the frame before. What
            comes of it is decided by the state: a step draws the same outcome each time, as search
            expects of a simulator. (Drawn here, not by the emulator, whose copies do not hold the
            action of the frame before.)
        noop_max: Most no-ops (frames) that open an episode; their number is drawn by its seed.
        full_action_space: All 18 actions instead of those that do something in this game.
        life_loss_ends: Whether a lost life terminates. The state after it can be stepped from.
        life_cost: Taken from the reward for each life lost, in points (before clipping).
        clip_rewards: Whether rewards are their signs.
        max_frames: After so many frames of an episode transitions are truncated.

    Raises:
        ImportError: Without ale-py.
        ValueError: If a number is out of its range, or the game is not one of ale-py's.

    Source: states as ALE's `cloneState`, Bellemare et al. 2013, "The Arcade Learning Environment";
        sticky actions, Machado et al. 2018.
    """

    game: str
    _: KW_ONLY
    frame_skip: int = 4
    sticky_actions: float = 0.0
    noop_max: int = 30
    full_action_space: bool = False
    life_loss_ends: bool = False
    life_cost: float = 0.0
    clip_rewards: bool = False
    max_frames: int = 108_000

    def __post_init__(self) -> None:
        """Validates the numbers and starts the emulator."""
        owner = type(self).__name__
        for name, minimum in (("frame_skip", 1), ("noop_max", 0), ("max_frames", 1)):
            require_int(owner, name, getattr(self, name), minimum=minimum)
        require_float(owner, "sticky_actions", self.sticky_actions, maximum=1.0)
        require_float(owner, "life_cost", self.life_cost)
        self._emulator = _start(self.game)
        actions = (
            self._emulator.getLegalActionSet()
            if self.full_action_space
            else self._emulator.getMinimalActionSet()
        )
        self._actions = tuple(actions)
        self._numbers = tuple(int(action.value) for action in actions)
        self._at: AtariState | None = None
        self._frames = 0
        # Where the emulator is, beyond what the emulator knows.
        self._pressed, self._chance = NOOP, 0

    @property
    def num_actions(self) -> int:
        """A, the number of actions."""
        return len(self._actions)

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """What each action presses, such as "NOOP" and "UPFIRE"."""
        return tuple(action.name for action in self._actions)

    @property
    def frames_emulated(self) -> int:
        """Emulator frames this instance has run so far, of all states and openings."""
        return self._frames

    def reset(self, *, seed: int) -> AtariState:
        """The first state of an episode, decided by its seed (0 or more).

        Raises:
            ValueError: If the seed is no such number.
        """
        require_int("AtariSimulator.reset", "seed", seed, minimum=0)
        self._emulator.reset_game()
        generator = np.random.default_rng(seed)
        noops = int(generator.integers(self.noop_max + 1))
        self._pressed, self._chance = NOOP, int(generator.integers(2**62))
        score = 0.0
        for _ in range(noops):
            score += self._emulator.act(NOOP)
        self._frames += noops
        picture = self._emulator.getScreenRGB()
        return self._arrive(score=score, frame=noops, action=None, origin=picture)

    def step(self, state: AtariState, action: int) -> Transition:
        """Takes an action for `frame_skip` frames, fewer where the game ends; `state` stays.

        Raises:
            ValueError: If the game is over in `state`, or there is no such action.
        """
        points, frames = self._play(state, action)
        after = self._arrive(
            score=state.score + points,
            frame=state.frame + frames,
            action=action,
            origin=(state.memory, state.pressed, state.chance),
        )
        lost = after.lives < state.lives
        terminated = after.ended or (self.life_loss_ends and lost)
        return Transition(
            state=after,
            reward=self._reward(points, max(0, state.lives - after.lives)),
            terminated=terminated,
            truncated=not terminated and after.frame >= self.max_frames,
        )

    def play_line(self, state: AtariState, actions: Sequence[int]) -> tuple[list[float], bool]:
        """The rewards `[T]` of a line of actions, and whether it terminated (T may be shorter).

        As stepping them one by one, but without a copy of the machine at each: for rollouts.
        """
        rewards: list[float] = []
        lives = state.lives
        for place, action in enumerate(actions):
            if place == 0:
                points, _ = self._play(state, action)
            else:
                points, _ = self._act(action)
            lives_now = self._emulator.lives()
            lost = max(0, lives - lives_now)
            rewards.append(self._reward(points, lost))
            if self._emulator.game_over() or (self.life_loss_ends and lost):
                return rewards, True
            lives = lives_now
        return rewards, False

    def valid_actions(self, state: AtariState) -> Sequence[bool] | None:
        """None: all actions can be taken, unless the game is over."""
        return [False] * self.num_actions if state.ended else None

    def screen(self, state: AtariState, *, pooled: bool = False) -> np.ndarray:
        """The picture of a state, `[210, 160, 3]` uint8 (some games are taller).

        Costs the frames of a step, which count in `frames_emulated`.

        Args:
            state: Of this game.
            pooled: Whether to take the greater of the last two frames, pixel by pixel, as
                published agents see games whose sprites flicker.
        """
        if state.action is None:
            return state.origin.copy()
        memory, self._pressed, self._chance = state.origin
        self._emulator.restoreState(memory)
        pictures: list[np.ndarray] = []
        self._act(state.action, pictures)
        self._at = state
        return np.maximum.reduce(pictures[-2:]) if pooled else pictures[-1]

    def ram(self, state: AtariState) -> np.ndarray:
        """The console's memory, `[128]` uint8."""
        self._move_to(state)
        return self._emulator.getRAM()

    def _reward(self, points: float, lives_lost: int) -> float:
        reward = points - self.life_cost * lives_lost
        return float((reward > 0) - (reward < 0)) if self.clip_rewards else reward

    def _move_to(self, state: AtariState) -> None:
        """Puts the emulator into a state, unless it is there."""
        if self._at is not state:
            self._emulator.restoreState(state.memory)
            self._at = state
        self._pressed, self._chance = state.pressed, state.chance

    def _play(self, state: AtariState, action: int) -> tuple[float, int]:
        """Acts from a state; the emulator is then in a state that nothing holds."""
        if state.ended:
            raise ValueError(
                "AtariSimulator.step: found a state in which the game is over; required one that "
                "can be played on. Stop at terminated transitions."
            )
        self._move_to(state)
        return self._act(action)

    def _act(self, action: int, pictures: list[np.ndarray] | None = None) -> tuple[float, int]:
        """Points and frames of one action from where the emulator is; adds each frame's picture."""
        if not 0 <= action < len(self._actions):
            raise ValueError(
                f"AtariSimulator.step: found action {action}; required 0 to {self.num_actions - 1},"
                f" of {', '.join(self.action_meanings)}. Pass an index into action_meanings."
            )
        self._at = None
        emulator, felt = self._emulator, self._felt(action)
        points, frames = 0.0, 0
        while frames < self.frame_skip:
            self._pressed = felt[frames]
            points += emulator.act(self._pressed)
            frames += 1
            if pictures is not None:
                pictures.append(emulator.getScreenRGB())
            if emulator.game_over():
                break
        self._frames += frames
        return points, frames

    def _felt(self, action: int) -> list[int]:
        """What the console feels in each frame of a decision; draws the next one's chance."""
        felt = [self._numbers[action]] * self.frame_skip
        if self.sticky_actions > 0:
            chance = random.Random(self._chance)
            last = self._pressed
            for frame in range(self.frame_skip):
                if chance.random() < self.sticky_actions:
                    felt[frame] = last
                last = felt[frame]
            self._chance = chance.getrandbits(62)
        return felt

    def _arrive(self, *, score: float, frame: int, action: int | None, origin: Any) -> AtariState:
        """Copies the machine as it is now."""
        self._at = AtariState(
            memory=self._emulator.cloneState(),
            score=score,
            lives=self._emulator.lives(),
            frame=frame,
            ended=self._emulator.game_over(),
            action=action,
            origin=origin,
            pressed=self._pressed,
            chance=self._chance,
        )
        return self._at


def _start(game: str) -> Any:
    """An emulator with a game loaded."""
    try:
        import ale_py
        from ale_py import roms
    except ImportError as error:
        raise ImportError(
            "AtariSimulator: found no ale-py; required for Atari games. Install it by "
            "pip install 'prefsearch[atari]'."
        ) from error
    # Some games need two players; the emulator would end the process over them.
    paths = {name.replace("_", ""): roms.get_rom_path(name) for name in roms.get_all_rom_ids()}
    name = game.replace("_", "").lower()
    known = [n for n in paths if n == name and ale_py.ALEInterface.isSupportedROM(str(paths[n]))]
    if not known:
        raise ValueError(
            f"AtariSimulator.game: found {game!r}; required a game for one player of "
            f"{', '.join(sorted(paths))} (in any case, with or without underscores). Correct the "
            "name."
        )
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    # Nothing of these games is drawn by the emulator but its own sticky actions.
    emulator.setInt("random_seed", 0)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(str(paths[name]))
    return emulator

"""The Atari emulator as an exact simulator: states are copies of the machine, stepped at will."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from atari_bridge.environments.games import rom_name
from search.planners.base import require_float, require_int
from search.simulators.interface import Transition

_NOOP = 0
_MAX_FRAMES = 108_000  # of an episode


@dataclass(frozen=True, eq=False, slots=True)
class AtariState:
    """One state of a game.

    Attributes:
        memory: ale-py's copy of the machine.
        score: Raw points since the start of the episode.
        lives: Left; 0 in games without lives.
        frame: Emulator frames since the start of the episode, no-ops at the start included.
        ended: Whether the game is over.
    """

    memory: Any
    score: float
    lives: int
    frame: int
    ended: bool


@dataclass
class AtariSimulator:
    """A `search.Simulator` of one Atari game, on one emulator that is moved from state to state.

    Stepping on from the state where the emulator is restores nothing, so a line of play costs its
    frames and one copy per decision. Not thread-safe.

    Attributes:
        game: Its name ("MsPacman").
        frame_skip: Emulator frames a decision, at least 1.
        noop_max: Most no-op frames at the start of an episode; its seed draws their number.
        life_cost: Subtracted from the reward for each life lost, in points.

    Raises:
        ImportError: Without ale-py.
        ValueError: If a number is out of its range, or there is no such game.

    Source: states as ALE's `cloneState`, Bellemare et al. 2013, "The Arcade Learning Environment".
    """

    game: str
    _: KW_ONLY
    frame_skip: int = 4
    noop_max: int = 30
    life_cost: float = 0.0

    def __post_init__(self) -> None:
        """Validates the numbers and starts the emulator."""
        owner = type(self).__name__
        require_int(owner, "frame_skip", self.frame_skip, minimum=1)
        require_int(owner, "noop_max", self.noop_max, minimum=0)
        require_float(owner, "life_cost", self.life_cost)
        rom = rom_name(self.game)
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._emulator: Any = ale_py.ALEInterface()
        self._emulator.setInt("random_seed", 0)
        self._emulator.setFloat("repeat_action_probability", 0.0)
        self._emulator.loadROM(str(ale_py.roms.get_rom_path(rom)))
        self._actions = tuple(self._emulator.getMinimalActionSet())
        self._at: AtariState | None = None
        self.frames_emulated = 0

    @property
    def num_actions(self) -> int:
        """A, the number of actions."""
        return len(self._actions)

    def reset(self, *, seed: int) -> AtariState:
        """The first state of an episode, determined by its seed (0 or more)."""
        require_int("AtariSimulator.reset", "seed", seed, minimum=0)
        self._emulator.reset_game()
        noops = int(np.random.default_rng(seed).integers(self.noop_max + 1))
        score = float(sum(self._emulator.act(_NOOP) for _ in range(noops)))
        self.frames_emulated += noops
        return self._copy(score=score, frame=noops)

    def step(self, state: AtariState, action: int) -> Transition:
        """Takes an action for `frame_skip` frames, fewer where the game ends.

        Raises:
            ValueError: If the game is over in `state`, or there is no such action.
        """
        self._move_to(state)
        points, frames = self._act(action)
        after = self._copy(score=state.score + points, frame=state.frame + frames)
        return Transition(
            state=after,
            reward=self._reward(points, state.lives, after.lives),
            terminated=after.ended,
            truncated=not after.ended and after.frame >= _MAX_FRAMES,
        )

    def play_line(self, state: AtariState, actions: Sequence[int]) -> list[float]:
        """The rewards of a line of actions, up to the end of the game, without copies of states."""
        rewards: list[float] = []
        lives = state.lives
        for place, action in enumerate(actions):
            if place == 0:
                self._move_to(state)
            points, _ = self._act(action)
            rewards.append(self._reward(points, lives, lives := self._emulator.lives()))
            if self._emulator.game_over():
                break
        return rewards

    def valid_actions(self, state: AtariState) -> Sequence[bool] | None:
        """None (all actions are valid), unless the game is over."""
        return [False] * self.num_actions if state.ended else None

    def ram(self, state: AtariState) -> np.ndarray:
        """The console's memory, `[128]` uint8."""
        if self._at is not state:
            self._emulator.restoreState(state.memory)
            self._at = state
        return self._emulator.getRAM()

    def _reward(self, points: float, lives_before: int, lives: int) -> float:
        return points - self.life_cost * max(0, lives_before - lives)

    def _move_to(self, state: AtariState) -> None:
        """Moves the emulator to a state, unless it is there."""
        if state.ended:
            raise ValueError(
                "AtariSimulator.step: found a state in which the game is over; required one that "
                "can be played on. Stop at terminated transitions."
            )
        if self._at is not state:
            self._emulator.restoreState(state.memory)

    def _act(self, action: int) -> tuple[float, int]:
        """Points and frames of one action from where the emulator is."""
        if not 0 <= action < len(self._actions):
            raise ValueError(
                f"AtariSimulator.step: found action {action}; required 0 to {self.num_actions - 1}."
                " Pass the index of an action."
            )
        self._at = None
        points, frames = 0.0, 0
        while frames < self.frame_skip:
            points += self._emulator.act(self._actions[action])
            frames += 1
            if self._emulator.game_over():
                break
        self.frames_emulated += frames
        return points, frames

    def _copy(self, *, score: float, frame: int) -> AtariState:
        """A copy of the machine as it is now."""
        self._at = AtariState(
            memory=self._emulator.cloneState(),
            score=score,
            lives=self._emulator.lives(),
            frame=frame,
            ended=self._emulator.game_over(),
        )
        return self._at

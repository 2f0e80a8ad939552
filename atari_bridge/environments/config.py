"""Configuration of the environments."""

from dataclasses import dataclass
from typing import Annotated

from prefsearch.config.bounds import Count, FractionBelowOne, Within
from prefsearch.config.checks import check_types, require


@dataclass(frozen=True)
class EnvironmentConfig:
    """The game, and the agent's observations and rewards.

    Attributes:
        game: An Atari game ("Boxing", "MsPacman"), or a Gymnasium id ("CartPole-v1").
        num_envs: N.
        frame_skip: Emulator frames a decision. This and the next settings up to
            `max_episode_frames`, `frame_stack` excepted, are for Atari games only.
        image_size: Height and width of a frame in pixels.
        grayscale: One channel instead of three.
        frame_stack: S, frames of an observation; 1 where observations are vectors.
        noop_max: Most no-op frames at the start of an episode; its seed draws their number.
        repeat_action_probability: Probability with which the emulator repeats the action of the
            frame before.
            0 in Atari 100k.
        full_action_space: All 18 actions instead of those that do something in the game.
        max_episode_frames: Training only: emulator frames after which an episode is truncated;
            evaluation has 108,000. Gymnasium environments have their own limit.
        terminal_on_life_loss: Training only: a lost life ends the learner's episode.
        clip_rewards: Training only: rewards are replaced by their signs, as usual for Atari; set it
            to false where the size of rewards matters.
    """

    game: str = "Pong"
    num_envs: Annotated[int, Within(ge=1, le=2**16)] = 8
    frame_skip: Annotated[int, Within(ge=1, le=1024)] = 4
    image_size: Annotated[int, Within(ge=8, le=4096, unit="pixels")] = 96
    grayscale: bool = False
    frame_stack: Annotated[int, Within(ge=1, le=1024)] = 4
    noop_max: Annotated[int, Within(ge=0, le=1_000_000)] = 30
    repeat_action_probability: FractionBelowOne = 0.0
    full_action_space: bool = False
    max_episode_frames: Count = 108_000
    terminal_on_life_loss: bool = True
    clip_rewards: bool = True

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(
            bool(self.game), "game", self.game, "a game's name ('Pong') or an id ('CartPole-v1')"
        )

"""Opens the environments of a configuration."""

from atari_bridge.environments.atari import AtariEnvironments
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.games import names_gymnasium_id
from atari_bridge.environments.gymnasium_vector import GymnasiumEnvironments
from atari_bridge.environments.interface import VectorEnvironment
from prefsearch.config.checks import require


def open_environment(
    config: EnvironmentConfig, *, num_envs: int | None = None
) -> VectorEnvironment:
    """Opens N environments: an Atari game by its name, any other by its gymnasium id.

    Args:
        config: Of the environments.
        num_envs: N instead of the configuration's.

    Raises:
        ImportError: Without ale-py or gymnasium.
        ValueError: If there is no such environment, it is not supported, or a setting was
            changed that it does not have.
    """
    count = config.num_envs if num_envs is None else num_envs
    if names_gymnasium_id(config.game):
        only_atari = f"its default, for {config.game!r} is no Atari game and does not have it"
        require(
            config.repeat_action_probability == 0,
            "repeat_action_probability",
            config.repeat_action_probability,
            only_atari,
        )
        require(
            not config.full_action_space, "full_action_space", config.full_action_space, only_atari
        )
        return GymnasiumEnvironments(config.game, count)
    return AtariEnvironments(
        config.game,
        count,
        frame_skip=config.frame_skip,
        image_size=config.image_size,
        grayscale=config.grayscale,
        noop_max=config.noop_max,
        repeat_action_probability=config.repeat_action_probability,
        full_action_space=config.full_action_space,
        max_episode_frames=config.max_episode_frames,
    )

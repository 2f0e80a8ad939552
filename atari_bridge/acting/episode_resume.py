"""Exact resume of unfinished episodes, by replaying their actions."""

from collections.abc import Sequence

import numpy as np
from rich.progress import track

from atari_bridge.environments.interface import VectorEnvironment


def reproduce_episodes(
    environment: VectorEnvironment, seeds: np.ndarray, actions: Sequence[np.ndarray]
) -> np.ndarray:
    """Replays N episodes, each up to its last action.

    Environments are only stepped together, so shorter episodes begin later, that all end together;
    until then their environments play episodes that are discarded.

    Args:
        environment: N environments; they are reset.
        seeds: `[N]` int64 of the episodes.
        actions: N arrays `[T_n]` int64.

    Returns:
        `[N, *observation_shape]`, the observations after the last actions.

    Raises:
        ValueError: If there are not N seeds and lists of actions, or an episode ends before its
            last action.
    """
    count = environment.num_envs
    if len(seeds) != count or len(actions) != count:
        raise ValueError(
            f"reproduce_episodes: found {len(seeds)} seeds and {len(actions)} lists of actions; "
            f"required: {count} of each. Open as many environments as were played"
        )
    lengths = np.array([len(taken) for taken in actions], np.int64)
    longest = int(lengths.max())
    starts = longest - lengths
    table = np.zeros((longest, count), np.int64)  # action 0 before an episode's start
    for env, taken in enumerate(actions):
        table[starts[env] :, env] = taken

    def begin(chosen: np.ndarray, observation: np.ndarray) -> np.ndarray:
        index = np.flatnonzero(chosen)
        return environment.reset(index, seeds[index]) if len(index) else observation

    over = np.zeros(count, bool)
    observation = environment.reset(np.arange(count), seeds)
    times = range(longest)
    for time in track(times, "replaying episodes", transient=True, disable=longest < 1000):
        # Episodes that start now, and discarded ones that are over.
        observation = begin(((starts == time) & (time > 0)) | (over & (starts > time)), observation)
        step = environment.step(table[time])
        observation, over = step.observation, step.terminated | step.truncated
        early = np.flatnonzero(over & (starts <= time))
        if len(early) and time + 1 < longest:
            raise ValueError(
                f"reproduce_episodes: found that the episodes of environments {early.tolist()} end "
                f"{longest - time - 1} actions early; required: environments determined by seed "
                "and actions. Check that the environment and its version are those that were played"
            )
    return begin((lengths == 0) & (longest > 0), observation)

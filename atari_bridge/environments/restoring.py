"""Brings environments back to where they were by playing their episodes again.

This file knows no game: an episode is its seed and its actions, so nothing else has to be kept,
and a checkpoint holds no emulator's memory.
"""

from collections.abc import Sequence

import numpy as np

from atari_bridge.environments.interface import VectorEnvironment
from prefsearch.progress import track


def replay_episodes(
    environment: VectorEnvironment, seeds: np.ndarray, actions: Sequence[np.ndarray]
) -> np.ndarray:
    """Plays N episodes again, up to where they were.

    Environments are only stepped together. So lanes with fewer actions begin later, that all end
    together; before that they play an episode that nobody looks at.

    Args:
        environment: N environments; they are begun anew.
        seeds: `[N]` int64 of the episodes under way.
        actions: N arrays `[T_n]` int64, taken since the episodes began.

    Returns:
        `[N, *observation_shape]`, what the environments show after the last actions.

    Raises:
        ValueError: If there are not N seeds and lists of actions, or an episode ends before its
            last action.
    """
    count = environment.num_environments
    if len(seeds) != count or len(actions) != count:
        raise ValueError(
            f"replay_episodes: found {len(seeds)} seeds and {len(actions)} lists of actions; "
            f"required: {count} of each. Open as many environments as were played"
        )
    lengths = np.array([len(taken) for taken in actions], np.int64)
    longest = int(lengths.max())
    starts = longest - lengths
    # Left-aligned at each lane's start; 0 where a lane waits.
    table = np.zeros((longest, count), np.int64)
    for lane, taken in enumerate(actions):
        table[starts[lane] :, lane] = taken
    over = np.zeros(count, bool)
    observation = environment.reset(np.arange(count), seeds)
    for time in track(range(longest), "playing games again"):
        # Lanes whose turn it is, and waiting ones that cannot be stepped on.
        begin = ((starts == time) & (time > 0)) | (over & (starts > time))
        observation = _begin(environment, begin, seeds, observation)
        step = environment.step(table[time])
        observation, over = step.observation, step.terminated | step.truncated
        early = np.flatnonzero(over & (starts <= time))
        if len(early) and time + 1 < longest:
            raise ValueError(
                f"replay_episodes: found that the episodes of environments {early.tolist()} end "
                f"{longest - time - 1} actions early; required: environments decided by seed and "
                "actions. Check that the environment and its version are those that were played"
            )
    return _begin(environment, (lengths == 0) & (longest > 0), seeds, observation)


def _begin(
    environment: VectorEnvironment, rows: np.ndarray, seeds: np.ndarray, observation: np.ndarray
) -> np.ndarray:
    """Begins the episodes of `rows` `[N]` bool, if any; returns what all environments show."""
    chosen = np.flatnonzero(rows)
    return environment.reset(chosen, seeds[chosen]) if len(chosen) else observation

"""Training targets of the root and the unrolled steps: pure functions of windows of rows.

Position j of a window of W rows is the row j decisions after the sampled one, which is position 0.
A row holds an observation, the action taken there, and its reward and termination.

Positions after a termination are *absorbing*: reward and value targets are 0. Positions after a
truncation are masked; the value of its last observation, in the void row, is bootstrapped.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Targets:
    """Targets of K unrolled steps; masks are True where a target is known.

    Attributes:
        action: Of each unrolled step, random where none was taken, `[B, K]` int64.
        reward: Of each unrolled step, or the value prefix, `[B, K]` float32.
        value: Expected return, `[B, K+1]` float32.
        policy: Search weights, `[B, K+1, A]` float32; uniform where masked.
        reward_mask: `[B, K]` bool.
        value_mask: `[B, K+1]` bool.
        policy_mask: `[B, K+1]` bool, where an action was taken.
        observed: `[B, K+1]` bool, where an observation of this episode exists, for
            self-supervision.
    """

    action: np.ndarray
    reward: np.ndarray
    value: np.ndarray
    policy: np.ndarray
    reward_mask: np.ndarray
    value_mask: np.ndarray
    policy_mask: np.ndarray
    observed: np.ndarray


@dataclass(frozen=True)
class Horizon:
    """The n-step return of each value target; all arrays `[B, K+1]`.

    Attributes:
        steps: Rewards summed, int64; 0 where no action was taken.
        position: Window position at which the value is read, int64.
        bootstraps: Whether the value at `position` is added.
        counts: Whether the target is known: the return ends in a value or a termination, or the
            state is absorbing.
    """

    steps: np.ndarray
    position: np.ndarray
    bootstraps: np.ndarray
    counts: np.ndarray

    def reads(self, width: int) -> np.ndarray:
        """Positions whose values are bootstrapped, `[B, W]` bool."""
        read = np.zeros((len(self.position), width), dtype=bool)
        row, step = np.nonzero(self.bootstraps)
        read[row, self.position[row, step]] = True
        return read


def off_policy_horizon(age: np.ndarray, td_steps: int, interval: int) -> np.ndarray:
    """Steps of the n-step return of each row: fewer for older rows.

    Args:
        age: Decisions since the row was made, `[B]` int.
        td_steps: Of a new row.
        interval: Decisions of age that take one step away.

    Returns:
        `[B]` int64 in `[1, td_steps]`.

    Source: EfficientZero (Ye et al. 2021), section 4.3, with its code's integer steps.
    """
    return np.clip(td_steps - np.asarray(age, dtype=np.int64) // interval, 1, td_steps)


def absorbing_states(*, alive: np.ndarray, terminated: np.ndarray) -> np.ndarray:
    """Positions past a termination, `[B, W]` bool."""
    before = np.cumsum(alive & terminated, axis=1)
    return np.concatenate([np.zeros_like(alive[:, :1]), before[:, :-1] > 0], axis=1)


def value_horizon(
    *,
    alive: np.ndarray,
    bootstrap: np.ndarray,
    terminated: np.ndarray,
    td: np.ndarray,
    unroll_steps: int,
) -> Horizon:
    """Length of each n-step return, and where it bootstraps.

    Separate from `value_targets` so that values are computed only where they are needed.

    Args:
        alive: A decision of the sampled row's episode, `[B, W]` bool.
        bootstrap: Alive, or the void row of a truncation, `[B, W]` bool.
        terminated: The row's action ended the game, `[B, W]` bool.
        td: Most steps of each row's returns, `[B]` int, each at least 1.
        unroll_steps: K.

    Raises:
        ValueError: If the window is shorter than `K + max(td) + 1` rows.
    """
    batch, width = alive.shape
    columns, longest = unroll_steps + 1, int(td.max(initial=1))
    if width < unroll_steps + longest + 1:
        raise ValueError(
            f"a window of {width} rows is too short for {unroll_steps} unroll steps and sums of "
            f"{longest} rewards; required: {unroll_steps + longest + 1} rows. Take longer "
            "windows from the replay"
        )
    absorbing = absorbing_states(alive=alive, terminated=terminated)
    going = np.ones((batch, columns), dtype=bool)
    steps = np.zeros((batch, columns), dtype=np.int64)
    for j in range(longest):
        going &= alive[:, j : j + columns] & (j < td)[:, None]
        steps += going
    position = np.arange(columns) + steps
    finished = np.take_along_axis(absorbing, position, axis=1)
    known = np.take_along_axis(bootstrap, position, axis=1)
    bootstraps = alive[:, :columns] & known
    return Horizon(steps, position, bootstraps, bootstraps | finished)


def value_targets(
    *, reward: np.ndarray, values: np.ndarray, horizon: Horizon, discount: float
) -> np.ndarray:
    """n-step returns: discounted rewards and the bootstrapped value.

    Args:
        reward: Of each row's action, clipped if need be, `[B, W]`.
        values: `[B, W]`; only those of `Horizon.reads` are used, the rest may be NaN.
        horizon: Of `value_horizon`.
        discount: Per decision.

    Returns:
        `[B, K+1]` float32; 0 where the target is unknown.
    """
    columns = horizon.steps.shape[1]
    total = np.zeros(horizon.steps.shape)  # float64: rewards of unclipped games are large
    for j in range(int(horizon.steps.max(initial=0))):
        here = j < horizon.steps
        total += np.where(here, discount**j * reward[:, j : j + columns], 0.0)
    ends = np.take_along_axis(values, horizon.position, axis=1)
    total += np.where(horizon.bootstraps, discount**horizon.steps * ends, 0.0)
    return np.where(horizon.counts, total, 0.0).astype(np.float32)


def reward_targets(*, reward: np.ndarray, prefix_horizon: int | None) -> np.ndarray:
    """The reward of each unrolled step, or the value prefix.

    A value prefix is not discounted, as in EfficientZero's code.

    Args:
        reward: Of the K unrolled steps, 0 where unknown, `[B, K]`.
        prefix_horizon: Steps after which the prefix is reset to 0; None: rewards.

    Returns:
        `[B, K]` float32.

    Source: EfficientZero (Ye et al. 2021), section 4.2.
    """
    if prefix_horizon is None:
        return reward.astype(np.float32)
    target = np.zeros(reward.shape)
    for k in range(reward.shape[1]):
        before = 0.0 if k % prefix_horizon == 0 else target[:, k - 1]
        target[:, k] = before + reward[:, k]
    return target.astype(np.float32)


def make_targets(
    *,
    action: np.ndarray,
    reward: np.ndarray,
    terminated: np.ndarray,
    alive: np.ndarray,
    bootstrap: np.ndarray,
    policy: np.ndarray,
    values: np.ndarray,
    horizon: Horizon,
    discount: float,
    prefix_horizon: int | None,
    clip_rewards: bool,
    generator: np.random.Generator,
) -> Targets:
    """Targets of a batch of windows.

    Args:
        action: `[B, W]` int.
        reward: Raw, `[B, W]` float.
        terminated: `[B, W]` bool.
        alive: `[B, W]` bool.
        bootstrap: `[B, W]` bool.
        policy: Search weights, of self-play or reanalysis, `[B, K+1 or more, A]`.
        values: `[B, W]`, where `horizon.reads`.
        horizon: Of `value_horizon` with the same windows.
        discount: Per decision.
        prefix_horizon: See `reward_targets`.
        clip_rewards: Whether to replace rewards by their signs.
        generator: Draws the actions past an episode's end.
    """
    rows, columns = horizon.steps.shape
    unroll, num_actions = columns - 1, policy.shape[-1]
    absorbing = absorbing_states(alive=alive, terminated=terminated)
    acted = alive[:, :columns]
    learned = np.sign(reward) if clip_rewards else reward
    learned = np.where(alive, learned, 0.0)
    # Drawn for every position, so that draws do not depend on where episodes end.
    drawn = generator.integers(num_actions, size=(rows, unroll))
    weights = np.where(acted[..., None], policy[:, :columns], 1 / num_actions)
    return Targets(
        action=np.where(acted[:, :unroll], action[:, :unroll], drawn).astype(np.int64),
        reward=reward_targets(reward=learned[:, :unroll], prefix_horizon=prefix_horizon),
        value=value_targets(reward=learned, values=values, horizon=horizon, discount=discount),
        policy=weights.astype(np.float32),
        reward_mask=(alive | absorbing)[:, :unroll],
        value_mask=horizon.counts,
        policy_mask=acted,
        observed=bootstrap[:, :columns],
    )


def with_search_values(targets: Targets, *, searched: np.ndarray, rows: np.ndarray) -> Targets:
    """Replaces n-step returns by root values of new searches, in some rows.

    Root values do not depend on the actions of an old policy, but are biased by the model, so new
    rows keep their returns.

    Args:
        targets: Of `make_targets`.
        searched: Root values, `[B, K+1]`.
        rows: `[B]` bool, the rows to replace.

    Source: EfficientZero V2 (Wang et al. 2024), mixed value target.
    """
    replaced = rows[:, None] & targets.policy_mask
    value = np.where(replaced, searched, targets.value).astype(np.float32)
    return replace(targets, value=value, value_mask=targets.value_mask | replaced)

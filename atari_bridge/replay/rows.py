"""Rows of experience: what is appended to a replay, and what is sampled from it."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Rows:
    """A batch of M transitions, at most one of each environment. A is the number of actions.

    Attributes:
        env_index: `[M]` int64, the environments, 0 to `num_envs` - 1, no two alike.
        frame: `[M, *observation_shape]`, a single frame, observed before the action.
        action: `[M]` int64.
        reward: `[M]` float32, raw.
        terminated: `[M]` bool, the action ended the learner's episode (a lost life may).
        truncated: `[M]` bool, a time limit ended the episode after the action. A void row follows.
        first: `[M]` bool, the learner's episode begins here.
        void: `[M]` bool, the row holds only the last observation of an ended episode.
        made_at: `[M]` int64, decisions of the whole run at that time.
        policy: `[M, A]` float32, action weights of the search.
        value: `[M]` float32, root value of the search.
    """

    env_index: np.ndarray
    frame: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    first: np.ndarray
    void: np.ndarray
    made_at: np.ndarray
    policy: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Sample:
    """B sampled rows.

    Attributes:
        index: `[B]` int64, env_index * capacity_per_env + position in its buffer.
        weight: `[B]` float32 importance weights, not normalized.
    """

    index: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Window:
    """B sampled rows, each with the W - 1 rows that follow it in its environment.

    Past the newest row all is 0; past the episode's end stand the rows of the next one.

    Attributes:
        action: `[B, W]` int64; the others as in `Rows`.
        reward: `[B, W]` float32.
        terminated: `[B, W]` bool.
        truncated: `[B, W]` bool.
        void: `[B, W]` bool.
        made_at: `[B, W]` int64.
        value: `[B, W]` float32.
        policy: `[B, W, A]` float32.
        alive: `[B, W]` bool, a decision of the sampled row's episode.
        bootstrap: `[B, W]` bool, alive, or the void row of that episode if it was truncated: its
            value replaces the rewards that were not observed.
    """

    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    void: np.ndarray
    made_at: np.ndarray
    value: np.ndarray
    policy: np.ndarray
    alive: np.ndarray
    bootstrap: np.ndarray


@dataclass(frozen=True)
class FrameWindow:
    """The frames of W stacked observations of B sampled rows, each frame once.

    Attributes:
        frames: `[B, S - 1 + W, *observation_shape]`, of the S - 1 rows before and the W rows from
            the sampled one on. Outside the buffer the nearest frame is repeated.
        stack_index: `[B, W, S]` int64 into the second axis, oldest first; before the first row of
            an episode or buffer, that row's frame is repeated.
    """

    frames: np.ndarray
    stack_index: np.ndarray


def columns(
    observation_shape: tuple[int, ...], observation_dtype: np.dtype, num_actions: int
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of one row of each field of `Rows` but `env_index`."""
    whole, real, truth = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.bool_)
    return {
        "frame": (observation_shape, np.dtype(observation_dtype)),
        "action": ((), whole),
        "reward": ((), real),
        "terminated": ((), truth),
        "truncated": ((), truth),
        "first": ((), truth),
        "void": ((), truth),
        "made_at": ((), whole),
        "policy": ((num_actions,), real),
        "value": ((), real),
    }


def check_rows(
    rows: Rows, *, num_envs: int, expected: dict[str, tuple[tuple[int, ...], np.dtype]]
) -> None:
    """Checks shapes, dtypes and environment indices of rows.

    Raises:
        ValueError: Naming the field, what was found and what is required.
    """
    named = np.asarray(rows.env_index)
    bad = named.ndim != 1 or named.dtype.kind not in "iu"
    if bad or len(np.unique(named)) != len(named) or ((named < 0) | (named >= num_envs)).any():
        raise ValueError(
            f"rows.env_index: found {named.dtype} {named.tolist()}; required: integers from 0 to "
            f"{num_envs - 1}, no two alike. Append the rows of one environment one by one"
        )
    for field in fields(rows):
        if field.name == "env_index":
            continue
        array = np.asarray(getattr(rows, field.name))
        shape, dtype = expected[field.name]
        if array.shape != (len(named), *shape) or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(
                f"rows.{field.name}: found {array.shape} {array.dtype}; required: "
                f"{(len(named), *shape)} {dtype}, a row for each of {len(named)} environments"
            )


def check_order(
    rows: Rows,
    *,
    begins: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    void: np.ndarray,
) -> None:
    """Checks that rows can follow the newest rows of their environments.

    Args:
        rows: M of them.
        begins: `[M]` bool, the buffer is empty, or its last episode was cut.
        terminated: `[M]` bool, of the newest row.
        truncated: As `terminated`.
        void: As `terminated`.

    Raises:
        ValueError: Naming the environment, what was found and what is required.
    """
    may_begin = begins | void | terminated
    may_be_void = (terminated | truncated) & ~begins
    right = np.where(rows.first, may_begin, ~may_begin & ~may_be_void)
    right = np.where(rows.void, may_be_void & ~rows.first, right)
    right &= rows.terminated.astype(np.int64) + rows.truncated + rows.void <= 1
    if right.all():
        return
    at = int(np.argmin(right))
    marks = [n for n in ("first", "void", "terminated", "truncated") if getattr(rows, n)[at]]
    ends = {"void": void, "terminated": terminated, "truncated": truncated}
    before = next((f"a {name} row" for name, is_so in ends.items() if is_so[at]), "a row under way")
    after = "nothing or a cut" if begins[at] else before
    raise ValueError(
        f"rows of environment {rows.env_index[at]}: found one marked "
        f"{' and '.join(marks) or 'as nothing'} after {after}; required: a first row after "
        "nothing, a cut or a void row, a void or a first one after a terminated row, a void one "
        "after a truncated row, else neither; and at most one of terminated, truncated and void. "
        "Where an episode was interrupted, call cut(env_index)"
    )

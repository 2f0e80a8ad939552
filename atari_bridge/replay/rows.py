"""What goes into a replay and what comes out, as arrays. This file keeps nothing."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Rows:
    """M remembered decisions, at most one of a lane. A is the number of actions.

    Attributes:
        lanes: `[M]` int64, whose they are: 0 to the number of lanes - 1, no two alike.
        frame: `[M, *observation_shape]`, what was seen before the action, a single frame.
        action: `[M]` int64.
        reward: `[M]` float32, raw.
        terminated: `[M]` bool, the action ended the episode as the learner sees it (a lost life
            may).
        truncated: `[M]` bool, only the clock ran out after the action. A void row follows.
        first: `[M]` bool, the episode as the learner sees it begins here.
        void: `[M]` bool, holds only what was last seen of an ended episode; no action was taken.
        made_at: `[M]` int64, decisions of the whole run when the row was made.
        policy: `[M, A]` float32, weights that the search gave the actions.
        value: `[M]` float32, the search's value of the root.
    """

    lanes: np.ndarray
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
    """B rows that were drawn.

    Attributes:
        index: `[B]` int64, where they lie: lane * rows of a lane + slot.
        weight: `[B]` float32 importance weights, not normalized.
    """

    index: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Window:
    """B sampled rows, each with the W - 1 rows that follow it in its lane.

    Past the lane's newest row all is 0. Past the episode's end stands what came next in the lane.

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
        bootstrap: `[B, W]` bool, alive, or the void row of that episode if it was truncated: a
            value stands for what would have followed.
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
    """The frames that W observations of B sampled rows are stacked from, once each.

    Attributes:
        frames: `[B, S - 1 + W, *observation_shape]`, of the S - 1 rows before and the W rows from
            the sampled one on. Outside the remembered rows the nearest frame is repeated.
        stack_index: `[B, W, S]` int64 into the second axis, oldest first; before an episode's
            first row, or the lane's oldest, that row's frame is repeated.
    """

    frames: np.ndarray
    stack_index: np.ndarray


def columns(
    observation_shape: tuple[int, ...], observation_dtype: np.dtype, num_actions: int
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of one row of each field of `Rows` but `lanes`."""
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
    rows: Rows, *, lanes: int, expected: dict[str, tuple[tuple[int, ...], np.dtype]]
) -> None:
    """Refuses rows that do not fit.

    Raises:
        ValueError: Naming the field, what was found and what is required.
    """
    named = np.asarray(rows.lanes)
    bad = named.ndim != 1 or named.dtype.kind not in "iu"
    if bad or len(np.unique(named)) != len(named) or ((named < 0) | (named >= lanes)).any():
        raise ValueError(
            f"rows.lanes: found {named.dtype} {named.tolist()}; required: whole numbers from 0 to "
            f"{lanes - 1}, no two alike. Append a lane's rows by one call each"
        )
    for field in fields(rows):
        if field.name == "lanes":
            continue
        array = np.asarray(getattr(rows, field.name))
        shape, dtype = expected[field.name]
        if array.shape != (len(named), *shape) or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(
                f"rows.{field.name}: found {array.shape} {array.dtype}; required: "
                f"{(len(named), *shape)} {dtype}, a row for each of {len(named)} lanes"
            )


def check_order(
    rows: Rows,
    *,
    begins: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    void: np.ndarray,
) -> None:
    """Refuses rows that cannot follow the newest rows of their lanes.

    Args:
        rows: M of them.
        begins: `[M]` bool, the lane holds nothing yet, or its stream was broken off.
        terminated: `[M]` bool, of the lane's newest row; so are the next two.
        truncated: See there.
        void: See there.

    Raises:
        ValueError: Naming the lane, what it was given and what is required.
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
    raise ValueError(
        f"rows of lane {rows.lanes[at]}: found one marked {' and '.join(marks) or 'as nothing'} "
        f"after {'nothing or a cut' if begins[at] else before}; required: a first row after "
        "nothing, a cut or a void row, a void or a first one after a terminated row, a void one "
        "after a truncated row, else neither; and at most one of terminated, truncated and void. "
        "Where a stream was broken off, call cut(lane)"
    )

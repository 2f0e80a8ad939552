"""What callers of N environments must respect, checked before anything is stepped.

ale-py's threads die of an action that does not exist, and the call then waits for them forever;
gymnasium steps on past the end of an episode. So neither is asked. This file knows no game.
"""

import numpy as np

_SEEDS = 2**31  # the emulator's seeds are 31 bits


def check_reset(rows: np.ndarray, seeds: np.ndarray, *, begun: np.ndarray) -> None:
    """Checks what `VectorEnvironment.reset` is called with.

    Args:
        rows: `[M]` int64, environments to begin anew.
        seeds: `[M]` int64.
        begun: `[N]` bool, those that have been begun before.

    Raises:
        ValueError: If rows are not distinct numbers below N, seeds are not 31-bit numbers, one a
            row, or an environment would still not be begun.
    """
    count = len(begun)
    if (
        rows.ndim != 1
        or not np.issubdtype(rows.dtype, np.integer)
        or len(np.unique(rows)) != len(rows)
        or ((rows < 0) | (rows >= count)).any()
    ):
        raise ValueError(
            f"reset: found rows {rows!r}; required: distinct integers from 0 to {count - 1}. "
            "Name each environment that is to begin anew once"
        )
    if (
        seeds.shape != rows.shape
        or not np.issubdtype(seeds.dtype, np.integer)
        or ((seeds < 0) | (seeds >= _SEEDS)).any()
    ):
        raise ValueError(
            f"reset: found seeds {seeds!r} for {len(rows)} rows; required: an integer from 0 to "
            f"{_SEEDS - 1} for each. Draw seeds of 31 bits"
        )
    never = np.setdiff1d(np.flatnonzero(~begun), rows)
    if len(never):
        raise ValueError(
            f"reset: found environments {never.tolist()} that were never begun; required: the "
            "first reset begins all. Pass all rows first"
        )


def check_step(actions: np.ndarray, num_actions: int, *, under_way: np.ndarray) -> None:
    """Checks what `VectorEnvironment.step` is called with.

    Args:
        actions: `[N]` int64.
        num_actions: A.
        under_way: `[N]` bool, False where the episode is over or none was begun.

    Raises:
        ValueError: If actions are not N integers below A, or an environment is not under way.
    """
    if (
        actions.shape != under_way.shape
        or not np.issubdtype(actions.dtype, np.integer)
        or ((actions < 0) | (actions >= num_actions)).any()
    ):
        raise ValueError(
            f"step: found actions {actions!r}; required: {len(under_way)} integers from 0 to "
            f"{num_actions - 1}. Pass one action for each environment"
        )
    if not under_way.all():
        raise ValueError(
            f"step: found environments {np.flatnonzero(~under_way).tolist()} that are not under "
            "way; required: episodes that are begun and not over. Reset those rows first"
        )

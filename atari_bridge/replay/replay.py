"""Prioritized experience replay: a ring buffer of rows for each environment.

Row t of an environment lies at position t % `capacity_per_env`, where it replaces the oldest. What
is returned never crosses a buffer's head: positions past the newest row are not alive, and frame
stacks begin at the oldest row at the earliest.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from atari_bridge.replay.config import ReplayConfig
from atari_bridge.replay.frame_store import FrameStore, PackedFrames, PlainFrames
from atari_bridge.replay.rows import (
    FrameWindow,
    Rows,
    Sample,
    Window,
    check_order,
    check_rows,
    columns,
)
from atari_bridge.replay.sum_tree import SumTree


class Replay:
    """Prioritized replay of L environments. Not thread-safe.

    A row can be sampled once `lookahead` more rows of its environment follow, or its episode is
    over (and, if truncated, its void row is there). Void rows are never sampled.

    Args:
        config: Capacity and priorities.
        num_envs: L.
        observation_shape: Of one frame, `(C, H, W)` or `(D,)`.
        observation_dtype: Of one frame, uint8 of images.
        num_actions: A.
        frame_stack: S, frames of an observation; 1 where observations are vectors.
        lookahead: Rows that must follow a row before it is sampled; at least 0, less than the
            capacity of an environment.

    Raises:
        ValueError: If the capacity is too small, or vectors are to be stacked.
    """

    def __init__(
        self,
        config: ReplayConfig,
        *,
        num_envs: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
        num_actions: int,
        frame_stack: int = 1,
        lookahead: int = 10,
    ) -> None:
        if frame_stack < 1 or (len(observation_shape) == 1 and frame_stack != 1):
            raise ValueError(
                f"frame_stack: found {frame_stack} with observations of shape {observation_shape}; "
                "required: at least 1, and 1 of vectors. Set frame_stack"
            )
        self.config, self.num_envs, self.frame_stack = config, num_envs, frame_stack
        self.capacity_per_env, self.lookahead = config.replay_capacity // num_envs, lookahead
        if not 0 <= lookahead < self.capacity_per_env:
            raise ValueError(
                f"replay_capacity: found {config.replay_capacity}, {self.capacity_per_env} "
                f"rows for each of {num_envs} environments, and a lookahead of {lookahead}; "
                f"required: more rows than that for each. Raise replay_capacity to "
                f"{(max(lookahead, 0) + 1) * num_envs} or more"
            )
        self.num_actions = num_actions
        self.observation_shape = tuple(observation_shape)
        self.observation_dtype = np.dtype(observation_dtype)
        self._expected = columns(self.observation_shape, self.observation_dtype, num_actions)
        size = num_envs * self.capacity_per_env
        self._columns: dict[str, np.ndarray] = {
            name: np.zeros((size, *shape), dtype)
            for name, (shape, dtype) in self._expected.items()
            if name != "frame"
        }
        self._counts = np.zeros(num_envs, np.int64)  # rows ever
        self._waiting = np.zeros(num_envs, np.int64)  # the oldest row not yet ready
        self._cut = np.zeros(num_envs, bool)
        self._tree = SumTree(size)
        self._ready = 0  # leaves above 0
        self._greatest = 1.0  # priority of rows that become ready, raised to the exponent
        self._frames: FrameStore
        if config.compress_frames and len(self.observation_shape) == 3:
            self._frames = PackedFrames(num_envs, self.capacity_per_env, self.observation_shape)
        else:
            self._frames = PlainFrames(
                num_envs, self.capacity_per_env, self.observation_shape, self.observation_dtype
            )

    def __len__(self) -> int:
        """Rows that can be sampled."""
        return self._ready

    def append(self, rows: Rows) -> None:
        """Appends one row to the buffers of some environments.

        Raises:
            ValueError: If arrays do not fit, or a row cannot follow the newest one.
        """
        check_rows(rows, num_envs=self.num_envs, expected=self._expected)
        env_index = rows.env_index.astype(np.int64)
        newest = np.maximum(self.newest(env_index), 0)
        check_order(
            rows,
            begins=(self._counts[env_index] == 0) | self._cut[env_index],
            **{n: self._columns[n][newest] for n in ("terminated", "truncated", "void")},
        )
        count = self._counts[env_index]
        positions = count % self.capacity_per_env
        index = env_index * self.capacity_per_env + positions
        self._ready -= int((self._tree.values[index] > 0).sum())
        self._tree.set(index, np.zeros(len(index)))
        for name, column in self._columns.items():
            column[index] = getattr(rows, name)
        self._frames.write(env_index, positions, rows.frame)
        self._counts[env_index] = count + 1
        self._cut[env_index] = False
        start = np.where(rows.first, count, self._waiting[env_index])
        stop = np.maximum(start, count + 1 - self.lookahead)
        stop = np.where(rows.void, count, np.where(rows.terminated, count + 1, stop))
        self._waiting[env_index] = np.where(rows.void, count + 1, stop)
        self._make_ready(env_index, start, stop)

    def cut(self, env: int) -> None:
        """Notes that an environment's episode was interrupted; its next row must be a first one.

        Rows that still wait for their lookahead are never sampled.
        """
        self._cut[env] = True  # and a first row leaves waiting ones behind

    def _make_ready(self, env_index: np.ndarray, start: np.ndarray, stop: np.ndarray) -> None:
        """Lets rows `start` to `stop - 1` of `env_index`, all `[M]`, be sampled."""
        length = stop - start
        total = int(length.sum())
        if total == 0:
            return
        within = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
        row = np.repeat(start, length) + within
        index = np.repeat(env_index, length) * self.capacity_per_env + row % self.capacity_per_env
        self._tree.set(index, np.full(total, self._greatest))
        self._ready += total

    def sample(self, batch_size: int, *, beta: float, generator: np.random.Generator) -> Sample:
        """Samples rows in proportion to their priorities, stratified.

        Args:
            batch_size: B.
            beta: Exponent of the importance weights, 0 to 1.
            generator: Source of randomness.

        Raises:
            ValueError: If no row can be sampled yet.

        Source: Schaul et al. 2016, sections 3.3 and 3.4.
        """
        if self._ready == 0:
            raise ValueError(
                f"found no row that can be sampled among {int(self._counts.sum())}; required: one "
                f"with {self.lookahead} more after it, or of a finished episode. Play on first"
            )
        index = self._tree.sample(batch_size, generator)
        probability = self._tree.values[index] / self._tree.total
        weight = (self._ready * probability) ** -beta
        return Sample(index, weight.astype(np.float32))

    def update_priorities(self, index: np.ndarray, priorities: np.ndarray) -> None:
        """Sets priorities, before the exponent is applied.

        Rows that were replaced meanwhile are skipped.

        Args:
            index: `[B]` int64, of sampled rows.
            priorities: `[B]`, at least 0.

        Raises:
            ValueError: If a priority is negative or not finite.
        """
        given = np.asarray(priorities, np.float64)
        if given.shape != index.shape or not (np.isfinite(given) & (given >= 0)).all():
            raise ValueError(
                f"priorities: found {given.tolist()}; required: {index.shape} finite numbers, at "
                "least 0"
            )
        config = self.config
        raised = (given + config.priority_eps) ** config.priority_exponent
        raised = np.maximum(raised, np.finfo(np.float64).tiny)  # a leaf of 0 is no row
        known = self._tree.values[index] > 0
        self._tree.set(index[known], raised[known])
        self._greatest = max(self._greatest, float(raised[known].max(initial=0.0)))

    def newest(self, env_index: np.ndarray | None = None) -> np.ndarray:
        """`[M]` int64, index of the newest row of environments `[M]` (default: all); -1: none."""
        env_index = np.arange(self.num_envs) if env_index is None else env_index
        position = (self._counts[env_index] - 1) % self.capacity_per_env
        return np.where(
            self._counts[env_index] > 0, env_index * self.capacity_per_env + position, -1
        )

    def window(self, index: np.ndarray, length: int) -> Window:
        """The `length` rows from each row `index` `[B]` on.

        Raises:
            ValueError: If an index is not that of a row.
        """
        env, position, newer, _ = self._place(index)
        ahead = np.arange(length)
        known = ahead <= newer[:, None]  # [B, W]
        at = (
            env[:, None] * self.capacity_per_env
            + (position[:, None] + ahead) % self.capacity_per_env
        )
        taken = {name: column[at] for name, column in self._columns.items()}
        if not known.all():
            for array in taken.values():
                array[~known] = 0
        first, void = taken.pop("first"), taken["void"]
        same = known & ~first
        same[:, 0] = True
        same = np.logical_and.accumulate(same, axis=1)
        alive = same & ~void
        bootstrap = alive.copy()
        bootstrap[:, 1:] |= same[:, 1:] & void[:, 1:] & taken["truncated"][:, :-1]
        return Window(**taken, alive=alive, bootstrap=bootstrap)

    def frames(self, index: np.ndarray, length: int) -> FrameWindow:
        """The frames of the observations of `length` rows from each row `index` `[B]` on.

        Raises:
            ValueError: If an index is not that of a row.
        """
        env, position, newer, older = self._place(index)
        before = self.frame_stack - 1
        axis = np.arange(before + length)  # of F = S - 1 + W frames
        offset = np.clip(axis - before, -older[:, None], newer[:, None])  # [B, F]
        positions = (position[:, None] + offset) % self.capacity_per_env
        env_index = np.broadcast_to(env[:, None], positions.shape)
        frames = self._frames.read(env_index.ravel(), positions.ravel())
        first = self._columns["first"][env_index * self.capacity_per_env + positions]
        # Where each frame's episode begins on this axis: its first row, or the buffer's oldest.
        start = np.maximum.accumulate(np.where(first, axis, 0), axis=1)
        start = np.maximum(start, np.maximum(before - older, 0)[:, None])
        stack = np.arange(length)[:, None] + np.arange(self.frame_stack)  # [W, S]
        stack_index = np.maximum(stack, start[:, before:, None])  # [B, W, S]
        return FrameWindow(frames.reshape(*positions.shape, *self.observation_shape), stack_index)

    def _place(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Environment, position, and the numbers of newer and older rows there, `[B]` each."""
        env, position = np.divmod(index, self.capacity_per_env)
        if (index < 0).any() or (env >= self.num_envs).any():
            raise ValueError(f"index: found {index.tolist()}; required: rows that were sampled")
        newer = (self._counts[env] - 1 - position) % self.capacity_per_env
        older = np.minimum(self._counts[env], self.capacity_per_env) - 1 - newer
        if (older < 0).any():
            raise ValueError(
                f"index: found {index[older < 0].tolist()}, where there is no row yet; "
                "required: rows that were sampled"
            )
        return env, position, newer, older

    def facts(self) -> dict[str, object]:
        """Settings that a saved replay and the one that loads it must share, as JSON values."""
        return {
            "num_envs": self.num_envs,
            "capacity_per_env": self.capacity_per_env,
            "observation_shape": list(self.observation_shape),
            "observation_dtype": self.observation_dtype.name,
            "num_actions": self.num_actions,
            "packed": isinstance(self._frames, PackedFrames),
            "lookahead": self.lookahead,
            "priority_exponent": float(self.config.priority_exponent),
            "priority_eps": float(self.config.priority_eps),
        }

    def state(self) -> dict[str, np.ndarray]:
        """All but the frames: arrays by name, rows `[R, ...]` of all environments concatenated."""
        kept = self._kept(self._counts)
        return {
            "counts": self._counts.copy(),
            "waiting": self._waiting.copy(),
            "cut": self._cut.copy(),
            "greatest": np.array([self._greatest]),
            "leaf": self._tree.values[kept],
            **{name: column[kept] for name, column in self._columns.items()},
        }

    def frame_items(self) -> Iterator[bytes]:
        """The frames as byte strings, see `FrameStore.items`."""
        return self._frames.items(self._counts)

    def load_state(self, state: Mapping[str, np.ndarray], items: Iterator[bytes]) -> None:
        """Loads what `state` and `frame_items` returned, in place of the present contents.

        Raises:
            ValueError: If it is not of a replay with the same `facts`.
        """
        kept = self._kept(state["counts"])
        for name, column in self._columns.items():
            column[:] = 0
            column[kept] = state[name]
        leaves = np.zeros(self.num_envs * self.capacity_per_env)
        leaves[kept] = state["leaf"]
        self._frames.load_items(state["counts"], items)
        self._tree.set_all(leaves)
        self._ready = int((leaves > 0).sum())
        self._counts, self._waiting = state["counts"].copy(), state["waiting"].copy()
        self._cut, self._greatest = state["cut"].copy(), float(state["greatest"][0])

    def _kept(self, counts: np.ndarray) -> np.ndarray:
        """`[R]` int64, index of every row, by environment and position."""
        positions = np.arange(self.capacity_per_env) < counts[:, None]  # [L, capacity]
        return np.flatnonzero(positions)

"""What was played, remembered: a ring of rows for each lane, drawn by priority.

A lane's rows are counted from 0 on; row t lies in slot t % `lane_capacity`, where it replaces the
oldest. Nothing that is handed out crosses a ring's head: what lies past the newest row is not
alive, and stacks begin at the oldest row at the earliest. This file does not know what is learned
from rows, nor how frames are kept or anything is stored on disk.
"""

from collections.abc import Iterator, Mapping
from typing import Any

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
    """Rows of L lanes. Not to be used from several threads at a time.

    A row can be drawn once `lookahead` more rows of its lane are there or its episode is over; of a
    truncated one that is once its void row is there. Void rows are never drawn.

    Args:
        config: How much is kept, and how it is drawn.
        lanes: L.
        observation_shape: Of one frame, `(C, H, W)` or `(D,)`.
        observation_dtype: Of one frame, uint8 of images.
        num_actions: A.
        frame_stack: S, frames of an observation; 1 where observations are vectors.
        lookahead: Rows that must follow a row of an episode under way before it is drawn; at
            least 0, less than the rows of a lane.
        threads: That unpack frames; None: one for each processor, 8 at most.

    Raises:
        ValueError: If the capacity is too small for the lanes, or vectors are to be stacked.
    """

    def __init__(
        self,
        config: ReplayConfig,
        *,
        lanes: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
        num_actions: int,
        frame_stack: int = 1,
        lookahead: int = 10,
        threads: int | None = None,
    ) -> None:
        if frame_stack < 1 or (len(observation_shape) == 1 and frame_stack != 1):
            raise ValueError(
                f"frame_stack: found {frame_stack} with observations of shape {observation_shape}; "
                "required: at least 1, and 1 of vectors. Set frame_stack"
            )
        self.config, self.lanes, self.frame_stack = config, lanes, frame_stack
        self.lane_capacity, self.lookahead = config.replay_capacity // lanes, lookahead
        if not 0 <= lookahead < self.lane_capacity:
            raise ValueError(
                f"replay_capacity: found {config.replay_capacity}, which is {self.lane_capacity} "
                f"rows for each of {lanes} lanes, and a lookahead of {lookahead}; required: more "
                f"rows than that for each lane. Raise replay_capacity to "
                f"{(max(lookahead, 0) + 1) * lanes} or more"
            )
        self.num_actions = num_actions
        self.observation_shape = tuple(observation_shape)
        self.observation_dtype = np.dtype(observation_dtype)
        self._expected = columns(self.observation_shape, self.observation_dtype, num_actions)
        size = lanes * self.lane_capacity
        self._columns: dict[str, np.ndarray] = {
            name: np.zeros((size, *shape), dtype)
            for name, (shape, dtype) in self._expected.items()
            if name != "frame"
        }
        self._counts = np.zeros(lanes, np.int64)  # rows ever
        self._waiting = np.zeros(lanes, np.int64)  # the oldest row that may still become ready
        self._cut = np.zeros(lanes, bool)
        self._tree = SumTree(size)
        self._ready = 0  # leaves above 0
        self._greatest = 1.0  # raised priority of rows that become ready
        self._frames: FrameStore
        if config.compress_frames and len(self.observation_shape) == 3:
            self._frames = PackedFrames(
                lanes, self.lane_capacity, self.observation_shape, threads=threads
            )
        else:
            self._frames = PlainFrames(
                lanes, self.lane_capacity, self.observation_shape, self.observation_dtype
            )

    def __len__(self) -> int:
        """Rows that can be drawn."""
        return self._ready

    def append(self, rows: Rows) -> None:
        """Remembers one row more of some lanes, and forgets their oldest rows where they are full.

        Raises:
            ValueError: If arrays do not fit, or a row cannot follow its lane's newest one.
        """
        check_rows(rows, lanes=self.lanes, expected=self._expected)
        lanes = rows.lanes.astype(np.int64)
        newest = np.maximum(self.newest(lanes), 0)
        check_order(
            rows,
            begins=(self._counts[lanes] == 0) | self._cut[lanes],
            **{n: self._columns[n][newest] for n in ("terminated", "truncated", "void")},
        )
        count = self._counts[lanes]
        slots = count % self.lane_capacity
        index = lanes * self.lane_capacity + slots
        self._ready -= int((self._tree.values[index] > 0).sum())
        self._tree.set(index, np.zeros(len(index)))
        for name, column in self._columns.items():
            column[index] = getattr(rows, name)
        self._frames.write(lanes, slots, rows.frame)
        self._counts[lanes] = count + 1
        self._cut[lanes] = False
        start = np.where(rows.first, count, self._waiting[lanes])
        stop = np.maximum(start, count + 1 - self.lookahead)
        stop = np.where(rows.void, count, np.where(rows.terminated, count + 1, stop))
        self._waiting[lanes] = np.where(rows.void, count + 1, stop)
        self._make_ready(lanes, start, stop)

    def cut(self, lane: int) -> None:
        """Notes that a lane's stream was broken off; its next row must be a first one.

        What the newest row led to will never be known, so rows that still wait for their lookahead
        are never drawn.
        """
        self._cut[lane] = True  # and a first row leaves waiting ones behind

    def _make_ready(self, lanes: np.ndarray, start: np.ndarray, stop: np.ndarray) -> None:
        """Lets rows `start` to `stop - 1` of `lanes`, all `[M]`, be drawn."""
        length = stop - start
        total = int(length.sum())
        if total == 0:
            return
        within = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
        row = np.repeat(start, length) + within
        index = np.repeat(lanes, length) * self.lane_capacity + row % self.lane_capacity
        self._tree.set(index, np.full(total, self._greatest))
        self._ready += total

    def sample(self, batch_size: int, *, beta: float, generator: np.random.Generator) -> Sample:
        """Draws rows in proportion to their raised priorities, one from each equal share.

        Args:
            batch_size: B.
            beta: How far weights make up for the draw, 0 (not at all) to 1 (wholly).
            generator: Source of the draw.

        Raises:
            ValueError: If no row can be drawn yet.

        Source: Schaul et al. 2016, sections 3.3 and 3.4.
        """
        if self._ready == 0:
            raise ValueError(
                f"found no row that can be drawn among {int(self._counts.sum())}; required: one "
                f"with {self.lookahead} more after it, or of a finished episode. Play on first"
            )
        index = self._tree.sample(batch_size, generator)
        probability = self._tree.values[index] / self._tree.total
        weight = (self._ready * probability) ** -beta
        return Sample(index, weight.astype(np.float32))

    def update_priorities(self, index: np.ndarray, priorities: np.ndarray) -> None:
        """Sets priorities; they are raised to the exponent here.

        Rows that cannot be drawn, since they were replaced meanwhile, stay as they are.

        Args:
            index: `[B]` int64, of rows that were drawn.
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
        raised = (given + config.priority_offset) ** config.priority_exponent
        raised = np.maximum(raised, np.finfo(np.float64).tiny)  # a leaf of 0 is no row
        known = self._tree.values[index] > 0
        self._tree.set(index[known], raised[known])
        self._greatest = max(self._greatest, float(raised[known].max(initial=0.0)))

    def newest(self, lanes: np.ndarray | None = None) -> np.ndarray:
        """`[M]` int64, index of the newest row of `lanes` `[M]` (all by default); -1: none yet."""
        lanes = np.arange(self.lanes) if lanes is None else lanes
        slot = (self._counts[lanes] - 1) % self.lane_capacity
        return np.where(self._counts[lanes] > 0, lanes * self.lane_capacity + slot, -1)

    def window(self, index: np.ndarray, length: int) -> Window:
        """The `length` rows from each row `index` `[B]` on.

        Raises:
            ValueError: If an index is that of no remembered row.
        """
        lane, slot, newer, _ = self._place(index)
        ahead = np.arange(length)
        known = ahead <= newer[:, None]  # [B, W]
        at = lane[:, None] * self.lane_capacity + (slot[:, None] + ahead) % self.lane_capacity
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
        """The frames that the observations of `length` rows from `index` `[B]` on consist of.

        Raises:
            ValueError: If an index is that of no remembered row.
        """
        lane, slot, newer, older = self._place(index)
        before = self.frame_stack - 1
        axis = np.arange(before + length)  # of F = S - 1 + W frames
        offset = np.clip(axis - before, -older[:, None], newer[:, None])  # [B, F]
        slots = (slot[:, None] + offset) % self.lane_capacity
        lanes = np.broadcast_to(lane[:, None], slots.shape)
        frames = self._frames.read(lanes.ravel(), slots.ravel())
        first = self._columns["first"][lanes * self.lane_capacity + slots]
        # Of each frame, where its episode begins on this axis: its first row, or the lane's oldest.
        start = np.maximum.accumulate(np.where(first, axis, 0), axis=1)
        start = np.maximum(start, np.maximum(before - older, 0)[:, None])
        stack = np.arange(length)[:, None] + np.arange(self.frame_stack)  # [W, S]
        stack_index = np.maximum(stack, start[:, before:, None])  # [B, W, S]
        return FrameWindow(frames.reshape(*slots.shape, *self.observation_shape), stack_index)

    def _place(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Lane, slot, and how many newer and older rows the lane remembers, `[B]` each."""
        lane, slot = np.divmod(index, self.lane_capacity)
        if (index < 0).any() or (lane >= self.lanes).any():
            raise ValueError(f"index: found {index.tolist()}; required: rows that were sampled")
        newer = (self._counts[lane] - 1 - slot) % self.lane_capacity
        older = np.minimum(self._counts[lane], self.lane_capacity) - 1 - newer
        if (older < 0).any():
            raise ValueError(
                f"index: found {index[older < 0].tolist()}, where no row was remembered yet; "
                "required: rows that were sampled"
            )
        return lane, slot, newer, older

    def facts(self) -> dict[str, Any]:
        """What two replays must have in common to hold the same rows, as JSON values."""
        return {
            "lanes": self.lanes,
            "lane_capacity": self.lane_capacity,
            "observation_shape": list(self.observation_shape),
            "observation_dtype": self.observation_dtype.name,
            "num_actions": self.num_actions,
            "packed": isinstance(self._frames, PackedFrames),
            "lookahead": self.lookahead,
            "priority_exponent": float(self.config.priority_exponent),
            "priority_offset": float(self.config.priority_offset),
        }

    def state(self) -> dict[str, np.ndarray]:
        """All but the frames: arrays by name, rows `[R, ...]` of all lanes one after another."""
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
        """The frames, as byte strings."""
        return self._frames.items(self._counts)

    def load_state(self, state: Mapping[str, np.ndarray], items: Iterator[bytes]) -> None:
        """Takes back what `state` and `frame_items` gave; all that was held before is dropped.

        Raises:
            ValueError: If that was no replay's of these `facts`.
        """
        kept = self._kept(state["counts"])
        for name, column in self._columns.items():
            column[:] = 0
            column[kept] = state[name]
        leaves = np.zeros(self.lanes * self.lane_capacity)
        leaves[kept] = state["leaf"]
        self._frames.load_items(state["counts"], items)
        self._tree.set_all(leaves)
        self._ready = int((leaves > 0).sum())
        self._counts, self._waiting = state["counts"].copy(), state["waiting"].copy()
        self._cut, self._greatest = state["cut"].copy(), float(state["greatest"][0])

    def _kept(self, counts: np.ndarray) -> np.ndarray:
        """`[R]` int64, index of every remembered row, by lane and slot."""
        slots = np.arange(self.lane_capacity) < counts[:, None]  # [L, lane_capacity]
        return np.flatnonzero(slots)

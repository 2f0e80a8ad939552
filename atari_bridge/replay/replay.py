"""What was played, remembered: rows by lane in rings, drawn by priority.

Rows of a lane are counted on for ever; a row's number modulo the ring's size is its slot. This file
does not know targets or networks: it hands out windows of rows and the frames they were seen in.
"""

from dataclasses import dataclass, fields

import numpy as np

from atari_bridge.replay.config import ReplayConfig
from atari_bridge.replay.frame_store import FrameStore
from atari_bridge.replay.sum_tree import SumTree


@dataclass(frozen=True)
class Rows:
    """New rows, at most one a lane; all arrays have M entries.

    Attributes:
        lanes: int64, which lane each row belongs to.
        frame: `[M, *shape]`, what was seen when the decision was taken.
        action: int64.
        reward: float32, raw, of that action.
        terminated: bool, the episode ended by it, as the learner sees it.
        truncated: bool, only the clock ran out.
        first: bool, an episode begins here.
        void: bool, only the last observation of an episode that ended: no action was taken.
        made_at: int64, decisions of the whole run before this one.
        policy: `[M, A]` float32, the search's weights.
        value: float32, the search's value; of a void row the network's.
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
    """Rows that were drawn.

    Attributes:
        index: `[B]` int64, as the replay numbers them.
        weight: `[B]` float32 importance weights, at most 1.
    """

    index: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Window:
    """W rows in a row from each of B; fields as of `Rows`, `[B, W]`.

    Attributes:
        alive: The row belongs to the first one's episode and is no void row.
        bootstrap: Alive, or the void row after a truncation.
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
    """The frames of B windows, once each.

    Attributes:
        frames: `[B, F, *shape]`, F = S - 1 + W.
        stack_index: `[B, W, S]` int64 into F: the frames of each row's observation, oldest first.
    """

    frames: np.ndarray
    stack_index: np.ndarray


class Replay:
    """Rings of rows, one a lane.

    Args:
        config: Numbers.
        lanes: L.
        observation_shape: Of one frame.
        observation_dtype: Of one frame.
        num_actions: A.
        frame_stack: S, frames of an observation.

    Attributes:
        lookahead: A row can be drawn once so many rows of its lane follow it, or its episode has
            ended.
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
    ) -> None:
        self.config, self.lanes, self.frame_stack = config, lanes, frame_stack
        self.shape, self.dtype = observation_shape, np.dtype(observation_dtype)
        self.lookahead = 0
        rows = -(-config.replay_capacity // lanes)
        self.stores = [
            FrameStore(rows, self.shape, self.dtype, compressed=config.compress_frames)
            for _ in range(lanes)
        ]
        self.ring = self.stores[0].capacity  # slots of a lane
        # While a block of frames is overwritten, the rest of it is forgotten already.
        self.kept = self.ring - (self.stores[0].block if self.stores[0].compressed else 0)
        if self.kept < 1 + frame_stack:
            raise ValueError(
                f"replay_capacity: found {config.replay_capacity} for {lanes} environments; "
                "required: some tens of rows for each. Raise replay_capacity"
            )
        size = (lanes, self.ring)
        self.columns: dict[str, np.ndarray] = {
            "action": np.zeros(size, np.int64),
            "reward": np.zeros(size, np.float32),
            "terminated": np.zeros(size, bool),
            "truncated": np.zeros(size, bool),
            "first": np.zeros(size, bool),
            "void": np.zeros(size, bool),
            "made_at": np.zeros(size, np.int64),
            "value": np.zeros(size, np.float32),
            "policy": np.zeros((*size, num_actions), np.float32),
            "start": np.zeros(size, np.int64),  # number of the row that began the episode
            "cut": np.zeros(size, bool),  # the stream was broken off after this row
        }
        self.written = np.zeros(lanes, np.int64)  # rows ever
        self.ready = np.zeros(lanes, np.int64)  # rows before this one need wait for no other
        self.tree = SumTree(lanes * self.ring)
        self.greatest = 1.0  # raised priority of new rows
        self.num_sampleable = 0

    def __len__(self) -> int:
        """How many rows can be drawn."""
        return self.num_sampleable

    @property
    def num_bytes(self) -> int:
        """Memory of frames and columns."""
        columns = sum(array.nbytes for array in self.columns.values())
        return columns + sum(store.num_bytes for store in self.stores)

    def append(self, rows: Rows) -> None:
        """Remembers rows, and forgets the oldest of full lanes.

        Raises:
            ValueError: If a lane occurs twice, or frames have another shape.
        """
        lanes = rows.lanes
        if len(np.unique(lanes)) != len(lanes):
            raise ValueError(f"Rows.lanes: found {lanes.tolist()}; required: each lane once a call")
        if rows.frame.shape[1:] != self.shape or rows.frame.dtype != self.dtype:
            raise ValueError(
                f"Rows.frame: found {rows.frame.shape[1:]} {rows.frame.dtype}; required: "
                f"{self.shape} {self.dtype}"
            )
        number = self.written[lanes]
        slot, before = number % self.ring, (number - 1) % self.ring
        begins = rows.first | (number == 0)
        start = np.where(begins, number, self.columns["start"][lanes, before])
        for name in fields(rows):
            if name.name in self.columns:
                self.columns[name.name][lanes, slot] = getattr(rows, name.name)
        self.columns["start"][lanes, slot] = start
        self.columns["cut"][lanes, slot] = False
        for m, lane in enumerate(lanes.tolist()):
            self.stores[lane].write(int(slot[m]), rows.frame[m])
        self.written[lanes] = number + 1
        self._forget(lanes, number - self.kept)
        ended = rows.terminated | rows.void
        ready = np.where(ended, number + 1, number - self.lookahead + 1)
        self._release(lanes, np.maximum(self.ready[lanes], ready))

    def cut(self, lane: int) -> None:
        """Notes that a lane's stream was broken off: its next row must be the first of an episode.

        Rows that still waited for what was to follow are never drawn.
        """
        if self.written[lane] > 0:
            self.columns["cut"][lane, (self.written[lane] - 1) % self.ring] = True
            self.ready[lane] = self.written[lane]

    def _forget(self, lanes: np.ndarray, number: np.ndarray) -> None:
        """Takes rows out of the draw; numbers below 0 are none."""
        gone = number >= 0
        index = lanes[gone] * self.ring + number[gone] % self.ring
        self.num_sampleable -= int((self.tree.leaves[index] > 0).sum())
        self.tree.set(index, np.zeros(len(index)))

    def _release(self, lanes: np.ndarray, ready: np.ndarray) -> None:
        """Lets rows up to `ready` `[M]` be drawn, with the greatest priority so far."""
        new: list[np.ndarray] = []
        for lane, until in zip(lanes.tolist(), ready.tolist(), strict=True):
            oldest = self.written[lane] - self.kept
            numbers = np.arange(max(self.ready[lane], oldest, 0), until)
            slots = numbers % self.ring
            new.append(lane * self.ring + slots[~self.columns["void"][lane, slots]])
        self.ready[lanes] = ready
        index = np.concatenate(new) if new else np.zeros(0, np.int64)
        self.num_sampleable += len(index)
        self.tree.set(index, np.full(len(index), self.greatest))

    def sample(self, batch_size: int, *, beta: float, generator: np.random.Generator) -> Sample:
        """Draws rows by priority.

        Args:
            batch_size: B.
            beta: How far weights make up for the draw, 0 (not) to 1 (wholly).
            generator: Source of the draw.

        Raises:
            ValueError: If no row can be drawn yet.

        Source: Schaul et al. 2016, prioritised replay.
        """
        if self.num_sampleable == 0:
            raise ValueError(
                f"replay: found no row that can be drawn among {int(self.written.sum())}; required "
                f"one with {self.lookahead} more after it. Raise start_decisions"
            )
        index = self.tree.sample(batch_size, generator)
        probability = self.tree.leaves[index] / self.tree.total
        weight = (self.num_sampleable * probability) ** -beta
        return Sample(index, (weight / weight.max()).astype(np.float32))

    def update_priorities(self, index: np.ndarray, priorities: np.ndarray) -> None:
        """Sets priorities `[B]`, at least 0, of rows that were drawn; forgotten ones stay so."""
        raised = (priorities.astype(np.float64) + self.config.priority_floor) ** (
            self.config.priority_exponent
        )
        here = self.tree.leaves[index] > 0
        self.tree.set(index[here], raised[here])
        self.greatest = max(self.greatest, float(raised.max(initial=0.0)))

    def window(self, index: np.ndarray, length: int) -> Window:
        """W rows from each of `index` `[B]` on; what lies past the newest row is not alive."""
        lane, number = self._place(index)
        numbers = number[:, None] + np.arange(length)  # [B, W]
        known = numbers < self.written[lane, None]
        at = (lane[:, None], np.where(known, numbers, number[:, None]) % self.ring)
        taken = {name: column[at] for name, column in self.columns.items()}
        ends = taken["terminated"] | taken["truncated"] | taken["cut"]
        goes_on = known & ~taken["void"] & ~taken["first"]
        goes_on[:, 1:] &= ~ends[:, :-1]
        goes_on[:, 0] = True
        alive = np.logical_and.accumulate(goes_on, axis=1)
        bootstrap = alive.copy()
        last_seen = alive[:, :-1] & taken["truncated"][:, :-1] & known[:, 1:] & taken["void"][:, 1:]
        bootstrap[:, 1:] |= last_seen
        named = {f.name: taken[f.name] for f in fields(Window) if f.name in taken}
        return Window(**named, alive=alive, bootstrap=bootstrap)

    def frames(self, index: np.ndarray, length: int) -> FrameWindow:
        """The frames of W rows from each of `index` `[B]` on, and how they are stacked."""
        lane, number = self._place(index)
        more = self.frame_stack - 1
        oldest = np.maximum(self.written[lane] - self.kept, 0)[:, None]
        newest = self.written[lane, None] - 1
        numbers = number[:, None] + np.arange(-more, length)  # [B, F]
        slots = np.clip(numbers, oldest, newest) % self.ring
        frames = np.empty((*slots.shape, *self.shape), self.dtype)
        for which in np.unique(lane):
            rows = np.flatnonzero(lane == which)
            found = np.empty((len(rows) * slots.shape[1], *self.shape), self.dtype)
            self.stores[which].read(slots[rows].ravel(), found)
            frames[rows] = found.reshape(len(rows), *frames.shape[1:])
        row = np.minimum(numbers[:, more:], newest)  # [B, W]
        start = self.columns["start"][lane[:, None], row % self.ring]
        wanted = row[..., None] + np.arange(-more, 1)  # [B, W, S]
        wanted = np.maximum(wanted, np.maximum(start, oldest)[..., None])
        return FrameWindow(frames, wanted - (number - more)[:, None, None])

    def _place(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lane and number `[B]` of rows by their index."""
        lane, slot = np.divmod(index, self.ring)
        newest = self.written[lane] - 1
        return lane, newest - (newest - slot) % self.ring

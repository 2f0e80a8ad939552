"""The cells of the Atari benchmark and the sizes that its sides share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

Kind = Literal["environment", "play", "search", "update", "step"]
UNITS = {
    "environment": "decisions a second",
    "play": "decisions a second",
    "search": "roots a second",
    "update": "updates a second",
    "step": "seconds a decision",
}

GAME = "Pong"
NUM_ACTIONS = 6
FRAME_STACK = 4
FRAME_SKIP = 4
# The image of LightZero's Atari configurations; the networks are narrower than its 64 channels.
CHANNELS, BLOCKS, IMAGE = 16, 1, 64
LSTM_SIZE, PROJECTION, PREDICTION = 512, 1024, 512
SUPPORT = 50  # bins at every unit from -50 to 50: 101
BATCH, UNROLL_STEPS = 64, 5
PREFIX_HORIZON = 5
# A decision's, so that both backups multiply by the same number.
DISCOUNT = 0.997


@dataclass(frozen=True)
class Cell:
    """One thing that is measured on all sides.

    Attributes:
        kind: `environment`: random play, no network. `play`: environments, frame stacks and the
            search of every decision. `search`: roots from constant observations. `update`: losses,
            gradient and optimizer on a constant batch. `step`: where the time of
            our own training goes.
        threads: Processors that the side's process and its children may use; threads of torch.
        size: Environments, roots or rows.
        image_size: Height and width of a frame, pixels.
        grayscale: One channel instead of three.
        simulations: Of a search.
        value_prefix: Whether the network predicts sums of rewards with an LSTM.
        consistency: Whether updates have the self-supervised loss.
    """

    kind: Kind
    threads: int
    size: int
    image_size: int = IMAGE
    grayscale: bool = True
    simulations: int = 0
    value_prefix: bool = False
    consistency: bool = False

    @property
    def channels(self) -> int:
        """Of one frame."""
        return 1 if self.grayscale else 3

    @property
    def stacked_shape(self) -> tuple[int, int, int]:
        """Of an observation, [S*C, H, W]."""
        return FRAME_STACK * self.channels, self.image_size, self.image_size

    @property
    def name(self) -> str:
        """Shown, and what `--only` matches."""
        parts = [self.kind, f"{self.threads} thread{'s' * (self.threads > 1)}"]
        match self.kind:
            case "environment":
                color = "gray" if self.grayscale else "RGB"
                parts += [f"N={self.size}", f"{self.image_size}x{self.image_size} {color}"]
            case "play":
                parts += [f"N={self.size}", f"S={self.simulations}", self._reward]
            case "search":
                parts += [f"B={self.size}", f"S={self.simulations}", self._reward]
            case "update":
                parts += [self._reward, "consistency" if self.consistency else "no consistency"]
            case "step":
                parts += [f"N={self.size}"]
        return ", ".join(parts)

    @property
    def _reward(self) -> str:
        return "value prefix" if self.value_prefix else "reward"


def grid(threads: Sequence[int]) -> list[Cell]:
    """All cells, the most informative first."""
    cells: list[Cell] = []
    for count in sorted(threads, reverse=True):
        searching: dict[Kind, tuple[int, ...]] = {"play": (8, 32), "search": (64, 256)}
        for kind, sizes in searching.items():
            for size, prefix, number in product(sizes, (True, False), (16, 50)):
                cells.append(Cell(kind, count, size, simulations=number, value_prefix=prefix))
        for prefix, consistency in product((True, False), (True, False)):
            update = Cell("update", count, BATCH, value_prefix=prefix, consistency=consistency)
            cells.append(update)
        for (pixels, gray), size in product(((96, False), (64, True)), (1, 8, 32)):
            cells.append(Cell("environment", count, size, image_size=pixels, grayscale=gray))
        cells.append(Cell("step", count, 8, simulations=16, value_prefix=True, consistency=True))
    return cells

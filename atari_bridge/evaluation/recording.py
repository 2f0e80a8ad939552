"""Recordings of games: GIFs, and frames inside a page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prefsearch.storage.files import write_bytes_atomic

# Emulator frames per second, of an NTSC console.
_CONSOLE_RATE = 60


def picture_of(frame: np.ndarray, *, scale: int = 2) -> Image.Image:
    """One frame as a picture.

    Args:
        frame: `[C, H, W]` uint8: 1 gray channel, 3 colors, or planes, each drawn in a shade.
        scale: Screen pixels per pixel.
    """
    channels, height, width = frame.shape
    if channels == 3:
        pixels = frame.transpose(1, 2, 0)  # [H, W, 3]
    elif channels == 1:
        pixels = frame[0]
    else:
        shades = np.linspace(80, 255, channels).astype(np.uint8)
        pixels = np.where(frame > 0, shades[:, None, None], 0).max(axis=0).astype(np.uint8)
    return Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)


def write_gif(
    frames: Sequence[np.ndarray], path: str | Path, *, frame_skip: int, every: int = 1
) -> Path:
    """Writes frames as a GIF at the console's speed, as far as GIFs allow.

    Args:
        frames: `[C, H, W]` uint8 each, one per decision.
        path: The file.
        frame_skip: Emulator frames a decision.
        every: Keep one frame in so many, at the same speed.

    Raises:
        ValueError: If there is no frame, or frames are vectors.
    """
    kept = list(frames)[::every]
    if not kept or kept[0].ndim != 3:
        found = "no frame" if not kept else f"observations of shape {kept[0].shape}"
        raise ValueError(f"{path}: found {found}; required: images [C, H, W]")
    pictures = [picture_of(frame) for frame in kept]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        # Viewers slow down GIFs whose frames last less than 20 ms.
        duration=max(20, round(1000 * frame_skip * every / _CONSOLE_RATE)),
        loop=0,
    )
    return write_bytes_atomic(path, buffer.getvalue())


def data_address(frame: np.ndarray, *, scale: int = 3) -> str:
    """A frame as a `data:` URL, for pages that load nothing."""
    buffer = io.BytesIO()
    picture_of(frame, scale=scale).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

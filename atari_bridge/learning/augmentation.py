"""Image augmentation: random shift and random intensity.

All frames of a stack are changed alike: a shift between them would look like movement.

Source: random shift of DrQ (Kostrikov et al. 2021) and intensity of SPR (Schwarzer et al. 2021),
both as EfficientZero uses them.
"""

import torch
from torch import Tensor

from atari_bridge.learning.config import AugmentationName

# Of the height: EfficientZero's 4 pixels of 96.
_SHIFT = 4 / 96


def random_shift(images: Tensor, *, generator: torch.Generator, pixels: int = 4) -> Tensor:
    """Shifts each stack by up to `pixels` in both directions; edges are repeated.

    Args:
        images: `[..., C, H, W]`, bytes or floats; each `[C, H, W]` is one stack.
        generator: Of any device; two integers a stack are drawn.
        pixels: Largest shift, at least 0.

    Returns:
        A new tensor shaped as `images`.
    """
    *leading, channels, height, width = images.shape
    stacks = images.reshape(-1, channels, height, width)
    corner = torch.randint(
        2 * pixels + 1, (2, len(stacks)), generator=generator, device=generator.device
    ).to(images.device)
    padded = _repeat_edges(_repeat_edges(stacks, pixels, dim=2), pixels, dim=3)
    # A view of all windows, [B, C, 2P+1, 2P+1, H, W]: indexing it copies whole rows of pixels, five
    # times as fast on a CPU as indexing pixels.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    row = torch.arange(len(stacks), device=images.device)
    return windows[row, :, corner[0], corner[1]].reshape(*leading, channels, height, width)


def _repeat_edges(images: Tensor, count: int, *, dim: int) -> Tensor:
    """Pads with the first and the last row or column; torch cannot pad bytes on a GPU."""
    size = images.shape[dim]
    shape = [count if axis == dim else length for axis, length in enumerate(images.shape)]
    first, last = images.narrow(dim, 0, 1), images.narrow(dim, size - 1, 1)
    return torch.cat([first.expand(shape), images, last.expand(shape)], dim=dim)


def random_intensity(images: Tensor, *, generator: torch.Generator, scale: float = 0.05) -> Tensor:
    """Multiplies each stack by `1 + scale * clip(N(0, 1), -2, 2)`.

    Args:
        images: `[..., C, H, W]` float. Results are not clipped to [0, 1], as in SPR.
        generator: Of any device; one normal number a stack is drawn.
        scale: Standard deviation of the factor, before clipping.

    Returns:
        A new tensor shaped as `images`.
    """
    noise = torch.randn(*images.shape[:-3], 1, 1, 1, generator=generator, device=generator.device)
    factor = 1.0 + scale * noise.clamp(-2.0, 2.0)
    return images * factor.to(device=images.device, dtype=images.dtype)


def as_floats(images: Tensor) -> Tensor:
    """Bytes as floats in [0, 1]; floats as they are."""
    if images.dtype != torch.uint8:
        return images
    # In place: allocating a second tensor costs more than the division.
    return images.float().div_(255)


def augment(images: Tensor, name: AugmentationName, *, generator: torch.Generator) -> Tensor:
    """Applies the augmentation of that name, shift before intensity.

    Args:
        images: `[..., C, H, W]` bytes, or floats in [0, 1].
        name: `none` (floats return as they are), `shift`, `intensity` or `shift_intensity`.
        generator: Source of all randomness.

    Returns:
        Floats, shaped as `images`.

    Raises:
        ValueError: If `images` has fewer than three axes or is neither of bytes nor of floats, or
            the name is unknown.
    """
    if name not in ("none", "shift", "intensity", "shift_intensity"):
        raise ValueError(
            f"augmentation: found {name!r}; required: 'none', 'shift', 'intensity' or "
            "'shift_intensity'. Correct it"
        )
    if name == "none":
        return as_floats(images)
    if images.ndim < 3 or not (images.is_floating_point() or images.dtype == torch.uint8):
        raise ValueError(
            f"found a {images.dtype} observation of shape {tuple(images.shape)}; required: images "
            "[..., C, H, W] of bytes or floats. Use the augmentation 'none' for vectors"
        )
    if name in ("shift", "shift_intensity"):
        pixels = max(1, round(_SHIFT * images.shape[-2]))
        images = random_shift(images, generator=generator, pixels=pixels)
    images = as_floats(images)
    if name in ("intensity", "shift_intensity"):
        images = random_intensity(images, generator=generator)
    return images

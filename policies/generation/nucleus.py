"""Nucleus sampling: the likeliest tokens that hold a given probability together."""

import numpy as np
import torch
from torch import Tensor


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The likeliest tokens of each row whose predecessors hold less than `top_p` together.

    Only values are sorted, which numpy does many times faster than torch sorts values with their
    places; where the last value kept is met again behind it, the row is sorted with places.

    Args:
        probabilities: [R, V], each row summing to 1.
        top_p: In (0, 1).

    Returns:
        [R, V], 0 outside the nucleus. Of equally likely tokens the lower ids come first.
    """
    ordered = _descending(probabilities)
    inside = ordered.cumsum(-1).sub_(ordered) < top_p  # always the first
    # None is inside only in a row of NaN, which whoever draws refuses where it reaches the host.
    kept = inside.count_nonzero(-1)[:, None].clamp(min=1)  # [R, 1]
    least = ordered.gather(-1, kept - 1)
    following = ordered.gather(-1, kept.clamp(max=ordered.shape[-1] - 1))
    whole = kept == ordered.shape[-1]
    # By rounding a token may lie outside and its successor inside.
    plain = inside.gather(-1, kept - 1) & (whole | (following < least))
    found = _at_least(probabilities, least)
    for row in (~plain).nonzero()[:, 0].tolist():
        found[row] = _nucleus_by_places(probabilities[row], top_p)
    return found


def _descending(values: Tensor) -> Tensor:
    """Values [R, V] with the greatest first in each row."""
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)
    return values.sort(dim=-1, descending=True).values


def _at_least(values: Tensor, least: Tensor) -> Tensor:
    """Values [R, V] with 0 for what is less than its row's `least` [R, 1]."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.masked_fill(values < least, 0)
    below = np.nextafter(least[:, 0].numpy(), np.float32(-1)).tolist()
    # Several times faster than a mask.
    return torch.stack([torch.threshold(row, t, 0.0) for row, t in zip(values, below, strict=True)])


def _nucleus_by_places(probabilities: Tensor, top_p: float) -> Tensor:
    """`nucleus` of one row [V], as it is defined."""
    ordered, places = probabilities.sort(stable=True, dim=-1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)
    return torch.zeros_like(probabilities).scatter(-1, places, ordered)

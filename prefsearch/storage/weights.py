"""Loading of weights, with checks of names, shapes, dtypes and finite values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

if TYPE_CHECKING:  # torch takes a second to import, and commands answer --help without it
    from torch import Tensor
    from torch.nn import Module


class WeightsError(ValueError):
    """Weights are missing, unexpected, of the wrong shape or not finite."""


def require_finite_weights(
    source: object, weights: Iterable[tuple[str, Tensor]], *, remedy: str
) -> None:
    """Raises if any weight is NaN or infinite.

    A tensor is read once and not copied.

    Args:
        source: Where they were loaded from, for the message.
        weights: Names and tensors of any dtype and device; whole numbers are finite.
        remedy: What the user can do.

    Raises:
        WeightsError: Naming the first such weight and how many there are.
    """
    broken, count, first = [], 0, 0
    for name, weight in weights:
        count += 1
        if not _is_finite(weight):
            if not broken:
                plain = weight.detach() if weight.is_complex() else weight.detach().float()
                first = int((~plain.isfinite()).sum())
            broken.append(name)
    if broken:
        raise WeightsError(
            f"{source}: the weight {broken[0]} is not finite ({first} of its numbers are NaN or "
            f"infinite; {len(broken)} of {count} weights hold such numbers); required: finite "
            f"weights. {remedy}"
        )


def load_tensor_file(
    path: Path, *, remedy: str = "Copy the file again: it may be cut short"
) -> dict[str, Tensor]:
    """Loads a safetensors file to the CPU.

    Raises:
        WeightsError: If it is missing or damaged; naming it.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}). {remedy}") from error


def load_weights(
    source: object, tensors: Mapping[str, Tensor], module: Module, *, remedy: str
) -> None:
    """Loads weights into a module, strictly.

    Args:
        source: Where they were read, for messages.
        tensors: By name.
        module: Which has exactly such weights.
        remedy: What the user can do.

    Raises:
        WeightsError: If names, shapes or kinds of numbers are not the module's, or a weight is
            not finite.
    """
    own = module.state_dict()
    if odd := sorted(tensors.keys() ^ own.keys()):
        lacking = sum(name in own for name in odd)
        raise WeightsError(
            f"{source}: found other weights than the configured network's ({', '.join(odd[:5])}; "
            f"{lacking} missing, {len(odd) - lacking} too many); required: exactly its own. "
            f"{remedy}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}, {name}: found shape {list(tensor.shape)}; required: "
                f"{list(own[name].shape)}, that of the configured network. {remedy}"
            )
        if tensor.is_complex() or tensor.is_floating_point() != own[name].is_floating_point():
            raise WeightsError(
                f"{source}, {name}: found dtype {tensor.dtype}; required: {own[name].dtype}, that "
                f"of the configured network, or another of that kind. {remedy}"
            )
    require_finite_weights(source, tensors.items(), remedy=remedy)
    module.load_state_dict(dict(tensors))


def _is_finite(weight: Tensor) -> bool:
    """Whether all numbers of a tensor are; that of none are where there are none."""
    import torch

    weight = weight.detach()
    if weight.is_meta or not (weight.is_floating_point() or weight.is_complex()):
        return True
    if not weight.numel():
        return True
    if weight.is_complex():
        weight = torch.view_as_real(weight)
    if weight.element_size() < 2:  # float8, for which torch has no comparisons
        weight = weight.to(torch.bfloat16)
    # NaN passes through, and nothing as large as the weight is made, as isfinite would.
    least, greatest = torch.aminmax(weight)
    return bool(torch.isfinite(least) & torch.isfinite(greatest))

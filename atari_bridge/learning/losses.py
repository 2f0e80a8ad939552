"""Losses of an unrolled network: pure functions of logits and targets."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atari_bridge.learning.config import UnrollScaling


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy against a distribution: of a policy, or of a two-hot encoded scalar.

    Args:
        logits: `[..., A]` actions or bins, any floating dtype; computed in float32.
        target: Probabilities, `[..., A]`; no gradient reaches them.

    Returns:
        `[...]` float32.
    """
    return -(target.detach() * logits.float().log_softmax(dim=-1)).sum(dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the distribution of logits `[..., A]`, as `[...]` float32."""
    log_probabilities = logits.float().log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """Scales the gradient by `factor` and keeps the values; integers are returned unchanged.

    Source: MuZero (Schrittwieser et al. 2020), appendix G.
    """
    if not tensor.is_floating_point():
        return tensor
    still = tensor.detach()
    # The difference is exactly 0, so the value is not rounded, unlike in a weighted sum.
    return still + factor * (tensor - still)


@dataclass(frozen=True)
class MaskedLoss:
    """One part of the loss, per row and position.

    Attributes:
        loss: Of the unrolled steps, `[B, K]`, or of the root and these, `[B, K+1]`.
        mask: As `loss`, bool; True where the prediction counts.
        weight: In the total; negative for a bonus.
    """

    loss: Tensor
    mask: Tensor
    weight: float


@dataclass(frozen=True)
class Losses:
    """The loss and its parts; all scalars.

    Attributes:
        total: Weighted by part, position and row; carries the gradient.
        reward: Unweighted mean over unmasked predictions, detached, as are the other parts; 0 where
            there is none.
        value: As `reward`.
        policy: As `reward`.
        entropy: As `reward`, in nats.
        self_supervised: As `reward`.
    """

    total: Tensor
    reward: Tensor
    value: Tensor
    policy: Tensor
    entropy: Tensor
    self_supervised: Tensor


def combine(
    parts: Mapping[str, MaskedLoss],
    *,
    unroll_steps: int,
    row_weights: Tensor,
    unroll_scaling: UnrollScaling,
) -> Losses:
    """The batch's loss: the mean over rows of the weighted sums over the unroll.

    Losses of each of K unrolled steps are divided by K, and so are the root's with
    `unroll_scaling="all"` (EfficientZero), but not with `"unrolled"` (MuZero). Masked predictions
    add 0.

    Args:
        parts: By name, those of `Losses`.
        unroll_steps: K.
        row_weights: Importance weights of the rows, `[B]`.
        unroll_scaling: "all" or "unrolled".

    Raises:
        ValueError: If a part has a shape other than its mask's or than the unroll's, or
            `unroll_scaling` is unknown.
    """
    if unroll_scaling not in ("all", "unrolled"):
        raise ValueError(
            f"unroll_scaling: found {unroll_scaling!r}; required: 'all' or 'unrolled'. Correct it"
        )
    root = 1.0 if unroll_scaling == "unrolled" else 1.0 / unroll_steps
    total = row_weights.new_zeros(len(row_weights))  # [B]
    means: dict[str, Tensor] = {}
    for name, part in parts.items():
        loss, mask = part.loss, part.mask
        if loss.shape != mask.shape:
            raise ValueError(
                f"{name}: found losses {tuple(loss.shape)} with a mask {tuple(mask.shape)}; "
                "required: one mask entry for each loss. Cut both to the same positions"
            )
        # `where`, not a product: a masked loss may be infinite.
        counted = torch.where(mask, loss, torch.zeros_like(loss))
        # Parts of weight 0 are added too: data-parallel wrappers need every parameter's gradient.
        total = total + part.weight * _over_unroll(counted, steps=unroll_steps, root=root)
        means[name] = counted.detach().sum() / mask.sum().clamp_min(1)
    return Losses(total=(row_weights.detach() * total).mean(), **means)


def _over_unroll(loss: Tensor, *, steps: int, root: float) -> Tensor:
    """Weighted sum over positions, `[B]`: of K unrolled steps, or of the root and these."""
    unrolled = loss[:, -steps:].sum(dim=1) / steps
    if loss.shape[1] == steps:
        return unrolled
    if loss.shape[1] != steps + 1:
        raise ValueError(
            f"found losses at {loss.shape[1]} positions; required: {steps} unrolled steps, or "
            f"{steps + 1} with the root. Correct the losses given"
        )
    return root * loss[:, 0] + unrolled

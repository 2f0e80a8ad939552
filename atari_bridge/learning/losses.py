"""Losses of an unrolled network: pure functions of logits and targets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from atari_bridge.learning.config import UnrollScaling
from prefsearch.config.bounds import NonNegative
from prefsearch.config.checks import check_types


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
class UnrollLosses:
    """Losses per row and position before masks and weights, and the masks.

    Attributes:
        reward: Of the unrolled steps, `[B, K]`.
        value: Of the root and the unrolled steps, `[B, K+1]`.
        policy: `[B, K+1]`.
        entropy: Of the policy, `[B, K+1]`.
        self_supervised: Of the unrolled steps, `[B, K]`; with the root's, `[B, K+1]`; or None.
        reward_mask: `[B, K]` bool.
        value_mask: `[B, K+1]` bool.
        policy_mask: `[B, K+1]` bool; of the entropy too.
        self_supervised_mask: As `self_supervised`, bool; or None.
    """

    reward: Tensor
    value: Tensor
    policy: Tensor
    entropy: Tensor
    reward_mask: Tensor
    value_mask: Tensor
    policy_mask: Tensor
    self_supervised: Tensor | None = None
    self_supervised_mask: Tensor | None = None


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the loss; the entropy is a bonus."""

    reward: NonNegative = 1.0
    value: NonNegative = 0.25
    policy: NonNegative = 1.0
    entropy: NonNegative = 0.0
    self_supervised: NonNegative = 2.0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)


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
    losses: UnrollLosses,
    *,
    weights: LossWeights,
    row_weights: Tensor,
    unroll_scaling: UnrollScaling,
) -> Losses:
    """The batch's loss: the mean over rows of the weighted sums over the unroll.

    Losses of each of K unrolled steps are divided by K, and so are the root's with
    `unroll_scaling="all"` (EfficientZero), but not with `"unrolled"` (MuZero). Masked predictions
    add 0.

    Args:
        losses: Per row and position.
        weights: Of the parts.
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
    steps = losses.reward.shape[1]
    root = 1.0 if unroll_scaling == "unrolled" else 1.0 / steps
    parts: dict[str, tuple[float, Tensor | None, Tensor | None]] = {
        "reward": (weights.reward, losses.reward, losses.reward_mask),
        "value": (weights.value, losses.value, losses.value_mask),
        "policy": (weights.policy, losses.policy, losses.policy_mask),
        "entropy": (-weights.entropy, losses.entropy, losses.policy_mask),
        "self_supervised": (
            weights.self_supervised,
            losses.self_supervised,
            losses.self_supervised_mask,
        ),
    }
    total = losses.reward.new_zeros(len(row_weights))  # [B]
    means: dict[str, Tensor] = {}
    for name, (weight, loss, mask) in parts.items():
        if loss is None or mask is None:
            means[name] = total.new_zeros(())
            continue
        counted = _masked(name, loss, mask)
        # Parts of weight 0 are added too: data-parallel wrappers need every parameter's gradient.
        total = total + weight * _over_unroll(counted, steps=steps, root=root)
        means[name] = counted.detach().sum() / mask.sum().clamp_min(1)
    return Losses(total=(row_weights.detach() * total).mean(), **means)


def _masked(name: str, loss: Tensor, mask: Tensor) -> Tensor:
    if loss.shape != mask.shape:
        raise ValueError(
            f"{name}: found losses {tuple(loss.shape)} with a mask {tuple(mask.shape)}; required: "
            "one mask entry for each loss. Cut both to the same positions"
        )
    # `where`, not a product: a masked loss may be infinite.
    return torch.where(mask, loss, torch.zeros_like(loss))


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

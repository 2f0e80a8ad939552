"""Losses of human comparisons: pairs with ties and soft labels, and rankings.

Pure functions of tensors. Letters: G groups (a prompt with its compared responses), K responses in
a group, M heads. Losses are per group and head; the caller averages.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rewardmodel.training.loss_config import Ties


def pair_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    probability: Tensor,
    margin: Tensor | None = None,
    ties: Ties = "half",
    tie_threshold: float = 0.5,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log likelihood of pairs, in nats [G, M].

    Args:
        chosen: Scores [G, M].
        rejected: Scores [G, M].
        probability: That the chosen is the better, float [G]; one half is a tie.
        margin: Lead required of the better score, float [G]; ties have none.
        ties: See `LossConfig`; "drop" is applied by the caller and means "half" here.
        tie_threshold: Of `rao_kupper`, the logarithm of its theta.
        label_smoothing: Share of the labels assumed to be wrong.

    Source: Bradley and Terry 1952; with a margin Touvron et al. 2023 (Llama 2), equation 2; with
        ties Rao and Kupper 1967.
    """
    certain = probability[:, None]  # [G, 1]
    tied = certain == 0.5
    target = certain * (1 - label_smoothing) + (1 - certain) * label_smoothing
    lead = chosen - rejected  # [G, M]
    least = torch.zeros_like(certain) if margin is None else margin[:, None].to(lead)
    least = torch.where(tied, torch.zeros_like(least), least)
    if ties == "rao_kupper":
        least = least + tie_threshold
    wins, loses = logsigmoid(lead - least), logsigmoid(-lead - least)
    loss = -(target * wins + (1 - target) * loses)
    if ties != "rao_kupper":
        return loss
    # The rest: 1 - P(win) - P(loss) = (theta^2 - 1) P(win) P(loss).
    even = wins + loses + math.log(math.expm1(2 * tie_threshold))
    return torch.where(tied, -even, loss)


def plackett_luce_loss(
    scores: Tensor, ranks: Tensor, *, ties: Ties = "half", tie_threshold: float = 0.5
) -> Tensor:
    """Negative log likelihood of rankings, in nats [G, M]; for K = 2 without ties Bradley-Terry's.

    Tied responses are each drawn from the same rest, which counts their order neither way
    (Breslow's treatment of ties).

    Args:
        scores: [G, K, M].
        ranks: int64 [G, K], 1 the best, equal numbers are ties; 0 fills up short rankings.
        ties: Not used; see above.
        tie_threshold: Not used.

    Source: Plackett 1975; Luce 1959; Breslow 1974 for ties.
    """
    real = ranks > 0
    # rest[g, i, j]: when i is drawn, j is still there.
    rest = (ranks[:, None, :] >= ranks[:, :, None]) & real[:, None, :] & real[:, :, None]
    rest = rest | torch.eye(ranks.shape[1], dtype=torch.bool, device=ranks.device)
    left = scores[:, None].masked_fill(~rest[..., None], -torch.inf)  # [G, K, K, M]
    drawn = left.logsumexp(2) - scores  # [G, K, M]
    return drawn.masked_fill(~real[..., None], 0.0).sum(1)


def all_pairs_loss(
    scores: Tensor, ranks: Tensor, *, ties: Ties = "half", tie_threshold: float = 0.5
) -> Tensor:
    """Mean of `pair_loss` over all pairs of a ranking, [G, M]; arguments as the other losses.

    With `ties="drop"`, pairs of equal rank are left out.

    Source: Ouyang et al. 2022 (InstructGPT), equation 1: all pairs of a prompt are one element.
    """
    first, second = torch.triu_indices(ranks.shape[1], ranks.shape[1], 1, device=ranks.device)
    above, below = ranks[:, first], ranks[:, second]  # [G, pairs]
    real = (above > 0) & (below > 0)
    if ties == "drop":
        real = real & (above != below)
    swapped = (above > below)[..., None]
    a, b = scores[:, first], scores[:, second]  # [G, pairs, M]
    chosen, rejected = torch.where(swapped, b, a), torch.where(swapped, a, b)
    probability = torch.where(above == below, 0.5, 1.0).to(scores.dtype)
    losses = pair_loss(
        chosen.flatten(0, 1),
        rejected.flatten(0, 1),
        probability=probability.flatten(),
        ties=ties,
        tie_threshold=tie_threshold,
    ).view_as(a)  # [G * pairs, M] back to [G, pairs, M]
    total = losses.masked_fill(~real[..., None], 0.0).sum(1)
    return total / real.sum(1).clamp(min=1)[:, None]


def centering_loss(scores: Tensor, real: Tensor) -> Tensor:
    """Square of a group's sum of scores [G, K, M], scaled to that of a pair, [G, M].

    `real` [G, K] is False where a short group is filled up.

    Source: Eisenstein et al. 2023, equation 3, as trl's `center_rewards_coefficient`; of K
        responses twice their mean takes the place of a pair's sum.
    """
    counts = real.sum(1)[:, None]
    total = scores.masked_fill(~real[..., None], 0.0).sum(1)
    return (2 * total / counts) ** 2

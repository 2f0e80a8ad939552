"""Agreement of an ensemble's members, and accuracy by their disagreement.

Letters: M members, P pairs. A pair's disagreement is the standard deviation of its margin over the
members.
"""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from prefsearch.statistics.intervals import Interval
from rewardmodel.data.labels import chosen_probabilities, preference_signs, require_decided
from rewardmodel.evaluation.clustered import (
    Floats,
    Integers,
    clustered_accuracy,
    clustered_share,
    number_prompts,
)
from rewardmodel.evaluation.scoring import pair_texts, preference_margins, score_texts_by_member
from rewardmodel.evaluation.strata import RiskCoverage, Stratum, by_quantile, risk_coverage
from rewardmodel.interface import UncertainRewardModel


@dataclass(frozen=True)
class MemberPair:
    """Agreement of two members.

    Attributes:
        first: Index of a member.
        second: Index of the other.
        agreement: Share of pairs that they order alike; where one of them scores both replies the
            same, one half.
        kappa: Cohen's kappa of being right: 0 where they err independently, 1 where on the same
            pairs; None where one of them is always right or always wrong.
    """

    first: int
    second: int
    agreement: Interval
    kappa: float | None


@dataclass(frozen=True)
class EnsembleAgreement:
    """Figures of an ensemble's members, alone and together.

    Attributes:
        members: How many.
        pairs: With a better reply.
        accuracies: Of each member.
        ensemble_accuracy: Of the ensemble's own score.
        between: Every two members.
        mean_agreement: Mean of their agreement.
        by_disagreement: The ensemble's accuracy, in bins of equal counts of the disagreement.
        selective: Its accuracy where the pairs of most disagreement are left out.
    """

    members: int
    pairs: int
    accuracies: tuple[Interval, ...]
    ensemble_accuracy: Interval
    between: tuple[MemberPair, ...]
    mean_agreement: float
    by_disagreement: tuple[Stratum, ...]
    selective: RiskCoverage


def evaluate_agreement(
    ensemble: UncertainRewardModel,
    dataset: Dataset,
) -> EnsembleAgreement:
    """Measures how two or more members of an ensemble agree on preference pairs.

    Raises:
        ValueError: There are fewer than two members, all pairs are ties, or a score is not finite
            or missing; the message names row and member.
    """
    labels = chosen_probabilities(dataset)
    if len(labels):
        require_decided(labels)
    margins = member_margins(ensemble, dataset)
    if len(margins) < 2:
        raise ValueError(
            f"the ensemble has {len(margins)} member; required are at least 2 to agree. Evaluate "
            "it as a single reward model."
        )
    whole = preference_margins(ensemble, dataset)
    signs = preference_signs(labels)
    decided = signs != 0
    groups = number_prompts(dataset)[decided]
    oriented = (signs * margins)[:, decided]  # [M, P]
    ensemble_oriented = (signs * whole)[decided]
    disagreement = oriented.std(axis=0)
    between = tuple(
        _compare(first, second, oriented, groups)
        for first in range(len(oriented))
        for second in range(first + 1, len(oriented))
    )
    return EnsembleAgreement(
        members=len(oriented),
        pairs=oriented.shape[1],
        accuracies=tuple(clustered_accuracy(row, groups) for row in oriented),
        ensemble_accuracy=clustered_accuracy(ensemble_oriented, groups),
        between=between,
        mean_agreement=float(np.mean([pair.agreement.estimate for pair in between])),
        by_disagreement=by_quantile(disagreement, ensemble_oriented, groups),
        selective=risk_coverage(ensemble_oriented, -disagreement, groups),
    )


def member_margins(
    ensemble: UncertainRewardModel,
    dataset: Dataset,
) -> Floats:
    """Each member's margins, float64 [M, P]; errors as `evaluate_agreement`."""
    prompts, replies, finished, name = pair_texts(dataset)
    scores = score_texts_by_member(
        ensemble,
        prompts,
        replies,
        name=name,
        finished=finished,
    ).reshape(-1, len(dataset), 2)  # [M, P, 2]
    return scores[:, :, 0] - scores[:, :, 1]


def _compare(first: int, second: int, oriented: Floats, groups: Integers) -> MemberPair:
    product = oriented[first] * oriented[second]
    alike = (product > 0) + 0.5 * (product == 0)
    right = [oriented[member] > 0 for member in (first, second)]
    shares = [float(each.mean()) for each in right]
    observed = float((right[0] == right[1]).mean())
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    varied = all(0 < share < 1 for share in shares)
    return MemberPair(
        first=first,
        second=second,
        agreement=clustered_share(alike, groups),
        kappa=(observed - chance) / (1 - chance) if varied else None,
    )

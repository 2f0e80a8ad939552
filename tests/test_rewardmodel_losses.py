"""Likelihoods of comparisons, against the models they stand for, written out."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewardmodel.training.losses import (
    all_pairs_loss,
    centering_loss,
    pair_loss,
    plackett_luce_loss,
)

SCORES = st.floats(-5, 5)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def pair(lead: float, probability: float = 1.0, **options: object) -> float:
    loss = pair_loss(
        column(lead),
        column(0.0),
        probability=torch.tensor([probability], dtype=torch.float64),
        **options,  # type: ignore[arg-type]
    )
    return loss.item()


@given(SCORES)
def test_a_certain_pair_costs_what_bradley_and_terry_say(lead: float) -> None:
    assert pair(lead) == pytest.approx(math.log1p(math.exp(-lead)), abs=1e-12)


@given(SCORES, st.floats(0, 1))
def test_a_doubtful_pair_is_a_mixture_of_both_orders(lead: float, share: float) -> None:
    if share == 0.5:
        share = 0.25
    expected = share * pair(lead) + (1 - share) * pair(-lead)
    assert pair(lead, share) == pytest.approx(expected, abs=1e-12)


def test_a_margin_is_trls_and_spares_ties() -> None:
    margin = torch.tensor([0.7], dtype=torch.float64)
    assert pair(1.5, margin=margin) == pytest.approx(pair(0.8))
    assert pair(1.5, 0.5, margin=margin) == pytest.approx(pair(1.5, 0.5))


def test_label_smoothing_takes_a_share_of_labels_for_wrong() -> None:
    assert pair(2.0, label_smoothing=0.1) == pytest.approx(0.9 * pair(2.0) + 0.1 * pair(-2.0))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_label_smoothing_goes_as_far_for_a_doubtful_label(share: float) -> None:
    # A tenth of the labels are wrong, whatever the label: .7 becomes .7 * .9 + .3 * .1.
    smoothed = share * 0.9 + (1 - share) * 0.1
    expected = smoothed * pair(2.0) + (1 - smoothed) * pair(-2.0)
    assert pair(2.0, share, label_smoothing=0.1) == pytest.approx(expected)


@pytest.mark.parametrize("lead", [-1.5, 0.0, 2.0])
def test_label_smoothing_leaves_ties_alone(lead: float) -> None:
    # A wrong label of a tie would be a tie.
    assert pair(lead, 0.5, label_smoothing=0.2) == pytest.approx(pair(lead, 0.5))
    options = {"ties": "rao_kupper", "tie_threshold": 0.8}
    tie = pair(lead, 0.5, **options)
    assert pair(lead, 0.5, label_smoothing=0.2, **options) == pytest.approx(tie)
    win, loss = pair(lead, 1.0, **options), pair(-lead, 1.0, **options)
    smoothed = pair(lead, 0.9, label_smoothing=0.2, **options)
    assert smoothed == pytest.approx(0.74 * win + 0.26 * loss)


@given(SCORES, st.floats(0.01, 3))
def test_win_tie_and_loss_of_rao_and_kupper_are_all_there_is(lead: float, eta: float) -> None:
    options = {"ties": "rao_kupper", "tie_threshold": eta}
    chances = [
        math.exp(-pair(lead, 1.0, **options)),
        math.exp(-pair(-lead, 1.0, **options)),
        math.exp(-pair(lead, 0.5, **options)),
    ]
    assert sum(chances) == pytest.approx(1, abs=1e-9)
    theta = math.exp(eta)
    assert chances[0] == pytest.approx(1 / (1 + theta * math.exp(-lead)), abs=1e-9)


def test_a_tie_is_cheapest_at_equal_scores_under_both_models() -> None:
    for options in ({"ties": "half"}, {"ties": "rao_kupper", "tie_threshold": 1.0}):
        costs = [pair(lead, 0.5, **options) for lead in (-1.0, 0.0, 1.0)]
        assert costs[1] < min(costs[0], costs[2])
        assert costs[0] == pytest.approx(costs[2])


def ranking(scores: list[float], ranks: list[int]) -> float:
    rows = torch.tensor(scores, dtype=torch.float64)[None, :, None]
    return plackett_luce_loss(rows, torch.tensor([ranks])).item()


@given(st.lists(SCORES, min_size=2, max_size=4))
def test_the_chances_of_all_orders_sum_to_one(scores: list[float]) -> None:
    orders = itertools.permutations(range(1, len(scores) + 1))
    total = sum(math.exp(-ranking(scores, list(ranks))) for ranks in orders)
    assert total == pytest.approx(1, abs=1e-9)


def test_a_ranking_is_drawn_best_first_from_what_is_left() -> None:
    e = [math.exp(s) for s in (0.3, -1.0, 2.0)]
    # The third is best, then the first.
    expected = -math.log(e[2] / sum(e)) - math.log(e[0] / (e[0] + e[1]))
    assert ranking([0.3, -1.0, 2.0], [2, 3, 1]) == pytest.approx(expected)


def test_a_ranking_of_two_is_a_pair() -> None:
    assert ranking([1.2, -0.4], [1, 2]) == pytest.approx(pair(1.6))


def test_ties_in_a_ranking_are_drawn_from_the_same_rest() -> None:
    e = [math.exp(s) for s in (0.5, -0.5, 1.0)]
    expected = -math.log(e[2] / sum(e)) - math.log(e[0] / (e[0] + e[1]))
    expected -= math.log(e[1] / (e[0] + e[1]))
    assert ranking([0.5, -0.5, 1.0], [2, 2, 1]) == pytest.approx(expected)


def test_a_filled_up_ranking_costs_what_it_does_alone() -> None:
    rows = torch.tensor([[1.0, -1.0, 9.0], [0.2, 0.1, 0.3]], dtype=torch.float64)[..., None]
    ranks = torch.tensor([[1, 2, 0], [3, 1, 2]])
    both = plackett_luce_loss(rows, ranks)[:, 0]
    assert both[0].item() == pytest.approx(ranking([1.0, -1.0], [1, 2]))
    pairs = all_pairs_loss(rows, ranks)[:, 0]
    assert pairs[0].item() == pytest.approx(pair(2.0))
    assert pairs[1].item() == pytest.approx((pair(-0.1) + pair(0.1) + pair(-0.2)) / 3)


def test_all_pairs_take_ties_as_told() -> None:
    rows = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)[..., None]
    ranks = torch.tensor([[1, 1, 2]])
    half = all_pairs_loss(rows, ranks).item()
    assert half == pytest.approx((pair(1.0, 0.5) + pair(2.0) + pair(1.0)) / 3)
    dropped = all_pairs_loss(rows, ranks, ties="drop").item()
    assert dropped == pytest.approx((pair(2.0) + pair(1.0)) / 2)


def test_gradients_are_finite_where_short_rankings_are_filled_up() -> None:
    rows = torch.tensor([[[0.0], [1.0], [2.0]]], requires_grad=True)
    for loss in (plackett_luce_loss, all_pairs_loss):
        (gradient,) = torch.autograd.grad(loss(rows, torch.tensor([[2, 1, 0]])).sum(), rows)
        assert gradient.isfinite().all()
        assert gradient[0, 2] == 0


def test_centering_of_a_pair_is_trls() -> None:
    rows = torch.tensor([[[1.0], [2.0], [7.0]]])
    assert centering_loss(rows, torch.tensor([[True, True, False]])).item() == pytest.approx(9.0)
    assert centering_loss(rows, torch.tensor([[True] * 3])).item() == pytest.approx((20 / 3) ** 2)

"""The Sequential Halving schedule, against known sequences and an explicit run of arms."""

import pytest
import torch

from search.halving import considered_visits, considered_visits_table, score_considered
from tests.search_reference import ReferenceSearch


def test_known_schedules():
    """Four arms and eight pulls: one each, then two survivors twice each. One arm: no rivals."""
    assert considered_visits(4, 8) == (0, 0, 0, 0, 1, 1, 2, 2)
    assert considered_visits(1, 4) == considered_visits(0, 4) == (0, 1, 2, 3)
    assert considered_visits(8, 5) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("num_simulations", [1, 2, 7, 50, 200])
@pytest.mark.parametrize("num_considered", [1, 2, 3, 5, 16, 17])
def test_schedule_equals_explicit_arms(num_considered, num_simulations):
    expected = ReferenceSearch.halving(num_considered, num_simulations)
    assert list(considered_visits(num_considered, num_simulations)) == expected


def test_table_holds_one_schedule_a_row():
    table = considered_visits_table(3, 6)
    assert table.shape == (4, 6)
    assert [tuple(row) for row in table.tolist()] == [considered_visits(m, 6) for m in range(4)]


def test_only_considered_actions_score():
    scores = score_considered(
        torch.tensor([1]),
        torch.tensor([[0.5, 0.0, 0.0]]),
        logits=torch.tensor([[0.0, -1e30, 3.0]]),
        qvalues=torch.tensor([[1.0, 0.0, 9.0]]),
        visit_counts=torch.tensor([[1, 1, 0]]),
    )
    assert scores[0].tolist() == [0.5 - 3.0 + 1.0, pytest.approx(-1e30), float("-inf")]

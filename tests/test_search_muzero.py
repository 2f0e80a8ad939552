"""MuZeroPlanner's and GumbelMuZeroPlanner's noise, sampling, and acting."""

import pytest
import torch

from search import GumbelMuZeroPlanner, MuZeroPlanner
from search.planners.gumbel import sample_gumbel
from search.planners.muzero import sample_by_visits, sample_dirichlet
from tests.search_reference import random_tables


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def root_prior(output) -> torch.Tensor:
    return torch.softmax(output.tree.children_prior_logits[:, 0], dim=-1)


def test_dirichlet_noise_is_mixed_into_the_valid_prior():
    """(1 - f) * prior + f * noise, both renormalized over the valid actions."""
    model = random_tables(1, invalid=0.4)
    noise = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15], dtype=torch.float64).expand(4, 5)
    output = MuZeroPlanner(3, dirichlet_fraction=0.25).plan(
        model, torch.arange(4), dirichlet_noise=noise
    )
    valid = model.valid_actions[:, 0]
    prior = torch.softmax(model.prior_logits[:, 0].masked_fill(~valid, -torch.inf), dim=-1)
    kept = noise * valid
    expected = 0.75 * prior + 0.25 * kept / kept.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(root_prior(output), expected)


def test_drawn_noise_changes_the_root_and_nothing_below():
    model = random_tables(2)
    output = MuZeroPlanner(12).plan(model, torch.arange(4), generator=generator())
    plain = torch.softmax(model.prior_logits[:, 0], dim=-1)
    assert float((root_prior(output) - plain).abs().amax(dim=-1).min()) > 1e-3
    tree = output.tree
    states = tree.embeddings["state"]
    used = (tree.node_visits > 0) & (torch.arange(13) > 0)
    rows, nodes = used.nonzero(as_tuple=True)
    expected = model.prior_logits[rows, states[rows, nodes]]
    assert torch.equal(tree.children_prior_logits[rows, nodes], expected)


def test_dirichlet_draws_have_the_right_mean_and_spread():
    """Symmetric over k valid actions: mean 1/k, variance (k - 1) / (k^2 (k alpha + 1))."""
    valid = torch.tensor([True, False, True, True, True]).expand(20_000, 5)
    noise = sample_dirichlet(valid, alpha=0.3, generator=generator())
    assert bool((noise[:, 1] == 0).all())
    torch.testing.assert_close(noise.sum(dim=-1), torch.ones(20_000, dtype=torch.float64))
    kept = noise[:, valid[0]]
    torch.testing.assert_close(kept.mean(dim=0), torch.full((4,), 0.25).double(), atol=0.01, rtol=0)
    variance = 3 / (16 * (4 * 0.3 + 1))
    torch.testing.assert_close(
        kept.var(dim=0), torch.full((4,), variance).double(), atol=0.003, rtol=0
    )


def test_tiny_concentration_never_gives_nan():
    valid = torch.ones(1000, 3, dtype=torch.bool)
    noise = sample_dirichlet(valid, alpha=1e-5, generator=generator())
    assert bool(torch.isfinite(noise).all())


def test_gumbel_draws_have_the_right_mean_and_spread():
    """Mean Euler's constant, variance pi^2 / 6, in the dtype asked for."""
    noise = sample_gumbel(torch.empty(200_000), generator=generator())
    assert noise.dtype == torch.float32
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 6, abs=0.03)


def test_sampled_actions_follow_visits_to_the_inverse_temperature():
    visit_probs = torch.tensor([0.5, 0.25, 0.0, 0.25]).expand(20_000, 4)
    action = sample_by_visits(visit_probs, temperature=0.5, generator=generator())
    frequency = torch.bincount(action, minlength=4) / 20_000
    expected = torch.tensor([4 / 6, 1 / 6, 0.0, 1 / 6])
    torch.testing.assert_close(frequency, expected, atol=0.02, rtol=0)
    assert int((action == 2).sum()) == 0


@pytest.mark.parametrize("temperature", [0, 1e-30])
def test_cold_temperature_takes_the_most_visited(temperature):
    visit_probs = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4]])
    action = sample_by_visits(visit_probs, temperature=temperature, generator=generator())
    assert action.tolist() == [1, 0]


def test_ties_at_temperature_zero_go_to_the_greatest_value_then_to_the_lowest_index():
    visit_probs = torch.tensor([[0.2, 0.4, 0.4]])
    assert sample_by_visits(visit_probs, temperature=0, generator=None).tolist() == [1]
    for values, action in (([9.0, 1.0, 2.0], 2), ([0.0, 2.0, 1.0], 1), ([0.0, 1.0, 1.0], 1)):
        qvalues = torch.tensor([values])
        found = sample_by_visits(visit_probs, temperature=0, qvalues=qvalues, generator=None)
        assert found.tolist() == [action]


def test_a_search_that_visits_every_action_once_takes_the_best_of_them():
    model = random_tables(8, num_tables=30, uniform_prior=True)
    planner = MuZeroPlanner(5, dirichlet_fraction=0, temperature=0, max_depth=1, pb_c_init=1e6)
    output = planner.plan(model, torch.arange(30))
    assert bool((output.action_weights == 0.2).all())
    assert output.action.tolist() == output.tree.summary().qvalues.argmax(dim=-1).tolist()
    assert len(set(output.action.tolist())) > 1


def test_equal_scores_visit_actions_in_order():
    model = random_tables(3, uniform_prior=True)
    model.reward.zero_()
    model.value.zero_()
    for planner in (
        MuZeroPlanner(5, dirichlet_fraction=0, max_depth=1),
        GumbelMuZeroPlanner(5, gumbel_scale=0, max_depth=1),
    ):
        tree = planner.plan(model, torch.arange(4)).tree
        assert tree.children_index[:, 0].tolist() == [[1, 2, 3, 4, 5]] * 4


def test_gumbel_scale_weighs_the_noise():
    model = random_tables(4)
    noise = 1e6 * torch.nn.functional.one_hot(torch.tensor([3, 1, 0, 4]), 5).double()
    for scale, is_noise in ((1.0, True), (0.0, False)):
        planner = GumbelMuZeroPlanner(4, gumbel_scale=scale, max_num_considered_actions=1)
        output = planner.plan(model, torch.arange(4), root_gumbel=noise)
        expected = noise if is_noise else model.prior_logits[:, 0]
        assert torch.equal(output.action, expected.argmax(dim=-1))


def test_gumbel_noise_varies_with_the_seed():
    model, planner = random_tables(5), GumbelMuZeroPlanner(1, max_num_considered_actions=1)
    actions = [
        planner.plan(model, torch.arange(4), generator=generator(seed)).action.tolist()
        for seed in range(20)
    ]
    assert len({tuple(action) for action in actions}) > 5


def test_injected_noise_of_wrong_shape_is_refused():
    model, noise = random_tables(6), torch.ones(4, 3)
    with pytest.raises(ValueError, match=r"dirichlet_noise: found shape \[4, 3\]; .* \[4, 5\]"):
        MuZeroPlanner(2).plan(model, torch.arange(4), dirichlet_noise=noise)
    with pytest.raises(ValueError, match=r"root_gumbel: found shape \[4, 3\]; .* \[4, 5\]"):
        GumbelMuZeroPlanner(2).plan(model, torch.arange(4), root_gumbel=noise)

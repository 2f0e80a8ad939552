"""Policies over actions too many to list: samples, densities, bounds."""

import math

import pytest
import torch

from search import CategoricalActions, GaussianActions
from search.planners.sampled import correct_prior

LOGITS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_samples_follow_the_proposal_temperature():
    """Frequencies of 60000 draws against pi^(1/tau), tolerance 0.01 (five standard errors)."""
    policy = CategoricalActions(LOGITS.expand(3000, -1))
    for temperature in (0.5, 1.0, 2.0):
        ids = policy.sample(20, temperature=temperature, generator=generator())
        powers = LOGITS.exp() ** (1 / temperature)
        found = torch.bincount(ids.flatten(), minlength=3) / ids.numel()
        torch.testing.assert_close(found.double(), powers / powers.sum(), atol=0.01, rtol=0)
        log_beta = policy.proposal_log_prob(ids, temperature=temperature)
        torch.testing.assert_close(log_beta.exp(), (powers / powers.sum())[ids])


def test_a_row_without_valid_actions_can_be_sampled_and_says_so():
    valid = torch.tensor([[False, False, False], [False, True, True]])
    policy = CategoricalActions(LOGITS.expand(2, -1), valid)
    ids = policy.sample(200, temperature=0.5, generator=generator())
    assert bool((ids[1] > 0).all())
    possible = policy.log_prob(ids) > -torch.inf
    assert not bool(possible[0].any())
    assert bool(possible[1].all())
    torch.testing.assert_close(
        policy.log_prob(torch.tensor([[0, 1], [1, 2]]))[1].exp(), torch.tensor([0.6, 0.4]).double()
    )


@pytest.mark.parametrize("trailing", [(), (3,), (2, 2)])
def test_gaussian_actions_of_any_shape_match_torchs_own_density(trailing):
    shape = (5, *trailing)
    mean = torch.randn(shape, generator=generator(), dtype=torch.float64)
    scale = 0.5 + torch.rand(shape, generator=generator(1), dtype=torch.float64)
    low = torch.full(trailing, -2.0)
    policy = GaussianActions(mean, scale, low=low, high=5.0)
    actions = policy.sample(7, temperature=1.5, generator=generator())
    assert actions.shape == (5, 7, *trailing)
    assert actions.dtype == torch.float64
    for temperature, found in (
        (1.0, policy.log_prob(actions)),
        (1.5, policy.proposal_log_prob(actions, temperature=1.5)),
    ):
        gaussian = torch.distributions.Normal(
            mean.unsqueeze(1), scale.unsqueeze(1) * math.sqrt(temperature)
        )
        squash = [
            torch.distributions.TanhTransform(),
            torch.distributions.AffineTransform(1.5, 3.5),
        ]
        theirs = torch.distributions.TransformedDistribution(gaussian, squash).log_prob(actions)
        torch.testing.assert_close(found, theirs.reshape(5, 7, -1).sum(dim=-1))


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.5), (1.0, 1.0), (-2.0, 0.3)])
def test_squashed_density_integrates_to_one_and_samples_follow_it(mean, scale):
    """Midpoint rule on 20000 cells, tolerance 1e-3; quartiles of 40000 samples within 0.01."""
    policy = GaussianActions(
        torch.tensor([[mean]]).double(), torch.tensor([[scale]]).double(), low=0.0, high=3.0
    )
    grid = (torch.arange(20_000).double() + 0.5) * 3 / 20_000
    density = policy.log_prob(grid.view(1, -1, 1)).exp().squeeze(0)
    mass = density.cumsum(dim=0) * 3 / 20_000
    assert float(mass[-1]) == pytest.approx(1.0, abs=1e-3)
    samples = policy.sample(40_000, temperature=1.0, generator=generator()).flatten()
    for share in (0.25, 0.5, 0.75):
        quantile = grid[int((mass < share).sum())]
        assert float((samples < quantile).double().mean()) == pytest.approx(share, abs=0.01)


def test_gaussian_without_a_box_is_a_plain_gaussian():
    policy = GaussianActions(torch.full((1, 1), 3.0), torch.full((1, 1), 2.0))
    samples = policy.sample(50_000, temperature=4.0, generator=generator())
    assert float(samples.mean()) == pytest.approx(3.0, abs=0.1)
    assert float(samples.std()) == pytest.approx(4.0, abs=0.1)
    theirs = torch.distributions.Normal(3.0, 2.0).log_prob(samples.squeeze(-1))
    torch.testing.assert_close(policy.log_prob(samples), theirs)


def test_bounds_have_finite_density_and_beyond_them_is_impossible():
    policy = GaussianActions(torch.full((1, 1), 50.0), torch.ones(1, 1), low=-0.3, high=0.7)
    samples = policy.sample(4, temperature=1.0, generator=generator())
    assert bool((samples <= 0.7).all())
    assert bool(torch.isfinite(policy.log_prob(samples)).all())
    edge = torch.tensor([[[-0.3], [0.7], [0.70001], [-0.4]]])
    assert torch.isfinite(policy.log_prob(edge)).tolist() == [[True, True, False, False]]
    log_prob = policy.log_prob(samples)
    _, valid = correct_prior(samples, log_prob=log_prob, proposal_log_prob=log_prob)
    assert valid.tolist() == [[True, False, False, False]]


def test_bounds_come_together_and_in_order():
    mean = torch.zeros(1, 1)
    for bounds in ({"low": 0.0}, {"low": 1.0, "high": 1.0}):
        with pytest.raises(ValueError, match="required both, low below high, or neither"):
            GaussianActions(mean, mean, **bounds)

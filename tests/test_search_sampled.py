"""Planning over sampled actions: the corrected prior, the policies, and search with both."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from search import (
    BestOfNPlanner,
    CategoricalActions,
    GaussianActions,
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    SampledModel,
    SampledPlanner,
    SampledRootOutput,
    SampledStepOutput,
    sampled_policy_loss,
)
from search.planners.sampled import SAMPLED_ACTIONS, correct_prior
from tests.search_reference import TableModel, assert_same_tree, random_tables

TOLERANCE = 1e-12  # float64: logits are normalized before they reach the search
QUIET = MuZeroPlanner(40, dirichlet_fraction=0, temperature=0)
LOGITS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Fixed(CategoricalActions):
    samples: tuple[int, ...] = ()

    def sample(self, num_samples, *, temperature, generator):
        return torch.tensor(self.samples).expand(self.logits.shape[0], -1)


@dataclass(frozen=True)
class Everything(Fixed):
    """Samples that cover the space, each action once, as if from a uniform proposal."""

    def proposal_log_prob(self, actions, *, temperature):
        return torch.full_like(self.log_prob(actions), -math.log(len(self.samples)))


@dataclass
class SampledTable:
    table: TableModel
    policy: Callable[..., Any] = CategoricalActions
    leaf: str = "spare"

    def root(self, observation, *, generator=None):
        output = self.table.root(observation)
        embedding = {**output.embedding, self.leaf: observation}
        policy = self.policy(output.prior_logits, output.valid_actions)
        return SampledRootOutput(policy, output.value, embedding)

    def step(self, embedding, action, *, generator=None):
        own = {name: leaf for name, leaf in embedding.items() if name != self.leaf}
        output = self.table.step(own, action)
        return SampledStepOutput(
            policy=self.policy(output.prior_logits, output.valid_actions),
            value=output.value,
            embedding={**output.embedding, self.leaf: embedding[self.leaf]},
            reward=output.reward,
            discount=output.discount,
        )


def table_root(policy: Any, num_rows: int = 1) -> SampledTable:
    table = random_tables(1, num_tables=num_rows, num_actions=3)
    return SampledTable(table, lambda logits, valid: policy)


# The corrected prior


def test_corrected_prior_by_hand_with_duplicates_and_temperature():
    """Samples 0 2 0 1 0 at temperature 2: (n/5) * pi/beta, beta = sqrt(pi) / 1.702044."""
    policy = Fixed(LOGITS.expand(1, -1), samples=(0, 2, 0, 1, 0))
    model = SampledModel(table_root(policy), num_samples=5, proposal_temperature=2.0)
    root = model.root(torch.arange(1))
    assert root.valid_actions.tolist() == [[True, True, False, True, False]]
    prior = root.prior_logits.exp()
    expected = torch.tensor([[0.722116, 0.152235, 0.0, 0.186450, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(prior, expected, atol=1e-6, rtol=0)
    assert root.embedding[SAMPLED_ACTIONS].tolist() == [[0, 2, 0, 1, 0]]
    planner = SampledPlanner(QUIET, num_samples=5, proposal_temperature=2.0)
    tree = planner.plan(table_root(policy), torch.arange(1)).search.tree
    searched = torch.softmax(tree.children_prior_logits[:, 0], dim=-1)
    torch.testing.assert_close(searched, expected / 1.060801, atol=1e-6, rtol=0)


def test_prior_of_distinct_samples_of_the_policy_itself_is_uniform():
    policy = Fixed(LOGITS.expand(2, -1), samples=(2, 0, 1, 1))
    root = SampledModel(table_root(policy, 2), num_samples=4).root(torch.arange(2))
    expected = torch.tensor([0.25, 0.25, 0.5, 0.0], dtype=torch.float64).expand(2, -1)
    torch.testing.assert_close(root.prior_logits.exp(), expected)


def expected_prior(policy: CategoricalActions, *, num_samples: int, normalize: bool):
    model = SampledModel(
        table_root(policy, policy.logits.shape[0]),
        num_samples=num_samples,
        proposal_temperature=3.0,
    )
    root = model.root(torch.arange(policy.logits.shape[0]), generator=generator())
    prior = root.prior_logits.exp().masked_fill(~root.valid_actions, 0.0)
    if normalize:
        prior = prior / prior.sum(dim=-1, keepdim=True)
    full = torch.zeros_like(policy.logits)
    return full.scatter_add(1, root.embedding[SAMPLED_ACTIONS], prior).mean(dim=0)


@pytest.mark.parametrize(("num_samples", "normalize"), [(4, False), (64, True)])
def test_expected_corrected_prior_is_the_policy(num_samples, normalize):
    """Unbiased at any K before normalization; after it for K large (bias of order 1/K).

    Tolerance 0.01: five standard errors of 40000 rows at K = 4 (0.0019 for the likeliest
    action). Without the correction the mean would be the proposal, 0.3 away.
    """
    probs = torch.tensor([0.7, 0.15, 0.1, 0.04, 0.01, 0.0], dtype=torch.float64)
    rows = 40_000 if num_samples == 4 else 4_000
    policy = CategoricalActions(probs.log().expand(rows, -1))
    found = expected_prior(policy, num_samples=num_samples, normalize=normalize)
    torch.testing.assert_close(found, probs, atol=0.01, rtol=0)
    proposal = probs ** (1 / 3) / (probs ** (1 / 3)).sum()
    assert float((proposal - probs).abs().max()) > 0.3
    assert float(found[5]) == 0.0


def test_equal_vectors_are_merged_too():
    actions = torch.tensor([[[1.0, 2.0], [1.0, 3.0], [1.0, 2.0]]])
    zeros = torch.zeros(1, 3)
    logits, valid = correct_prior(actions, log_prob=zeros, proposal_log_prob=zeros)
    assert valid.tolist() == [[True, True, False]]
    torch.testing.assert_close(logits.exp(), torch.tensor([[2 / 3, 1 / 3, 0.0]]))


# Search


def rename(entry: dict[str, Any], actions: dict[int, int]) -> dict[str, Any]:
    children = [rename(child, actions) for child in entry["children"]]
    slot = entry["action"]
    return {
        **entry,
        "action": None if slot is None else actions[slot],
        "children": sorted(children, key=lambda child: child["action"]),
    }


WORLDS = {
    "plain": {},
    "invalid_and_terminal": {"invalid": 0.4, "terminal": 0.2, "dead": 0.2},
    "two_players": {"discount": -1.0, "invalid": 0.3},
}
PLANNERS = {"muzero": QUIET, "gumbel": GumbelMuZeroPlanner(40, gumbel_scale=0)}


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 1, 4, 0, 2)])
@pytest.mark.parametrize("kind", PLANNERS)
@pytest.mark.parametrize("world", WORLDS)
def test_samples_that_cover_all_actions_give_the_search_of_the_full_space(world, kind, order):
    table, planner = random_tables(3, **WORLDS[world]), PLANNERS[kind]
    full = planner.plan(table, torch.arange(4))
    model = SampledTable(table, lambda *policy: Everything(*policy, samples=order))
    output = SampledPlanner(planner, num_samples=5).plan(model, torch.arange(4))
    for row in range(4):
        found = rename(output.search.tree.to_dict(row), dict(enumerate(order)))
        assert_same_tree(found, full.tree.to_dict(row), TOLERANCE)
    assert torch.equal(output.action, full.action)
    assert output.actions.tolist() == [list(order)] * 4
    weights = full.action_weights[:, list(order)]
    torch.testing.assert_close(output.search.action_weights, weights)
    torch.testing.assert_close(output.search.value, full.value)


def test_a_slot_steps_the_action_it_holds():
    model = SampledTable(random_tables(4, num_actions=50))
    planner = SampledPlanner(QUIET, num_samples=6, proposal_temperature=2.0)
    output = planner.plan(model, torch.arange(4), generator=generator())
    tree = output.search.tree
    rows, node = (tree.parents >= 0).nonzero(as_tuple=True)
    parent, slot = tree.parents[rows, node], tree.action_from_parent[rows, node]
    sampled = tree.embeddings[SAMPLED_ACTIONS][rows, parent, slot]
    assert torch.equal(tree.embeddings["trace"][rows, node, -1].long(), sampled)
    assert len(sampled.unique()) > 10
    assert torch.equal(output.actions[torch.arange(4), output.search.action], output.action)
    assert torch.equal(output.actions, tree.embeddings[SAMPLED_ACTIONS][:, 0])


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_invalid_actions_are_never_sampled(temperature):
    table = random_tables(5, num_actions=40, invalid=0.8, dead=0.2)
    planner = SampledPlanner(QUIET, num_samples=10, proposal_temperature=temperature)
    tree = planner.plan(SampledTable(table), torch.arange(4), generator=generator()).search.tree
    rows, node = (tree.node_visits > 0).nonzero(as_tuple=True)
    state = tree.embeddings["state"][rows, node]
    sampled = tree.embeddings[SAMPLED_ACTIONS][rows, node]  # [M, K]
    allowed = table.valid_actions[rows, state].gather(1, sampled)
    alive = table.valid_actions[rows, state].any(dim=-1)
    assert bool(allowed[alive].all())
    assert not bool(tree.valid_actions[rows, node][~alive].any())
    assert bool((~alive).any())


@pytest.mark.parametrize("planner", [MuZeroPlanner(20), GumbelMuZeroPlanner(20), BestOfNPlanner(8)])
def test_seed_reproduces_samples_and_search(planner):
    model = SampledTable(random_tables(6, num_actions=30))
    sampled = SampledPlanner(planner, num_samples=8)
    first = sampled.plan(model, torch.arange(4), generator=generator(5))
    torch.rand(3)
    second = sampled.plan(model, torch.arange(4), generator=generator(5))
    third = sampled.plan(model, torch.arange(4), generator=generator(6))
    assert torch.equal(first.action, second.action)
    assert torch.equal(first.search.action_weights, second.search.action_weights)
    assert not torch.equal(first.actions, third.actions)
    assert not torch.equal(first.actions[0], first.actions[1])
    assert sampled.num_simulations == planner.num_simulations


def test_outputs_are_ordinary_tensors_of_the_models_dtype():
    model = SampledTable(random_tables(6, dtype=torch.float32))
    output = SampledPlanner(QUIET, num_samples=4).plan(model, torch.arange(4))
    assert not output.actions.is_inference()
    assert not output.action.is_inference()
    assert output.actions.dtype == torch.int64
    assert output.search.value.dtype == torch.float32


# Training


def test_loss_is_the_cross_entropy_with_gradients_towards_the_weights():
    """Gradient of the logits: policy minus weights; impossible slots of weight 0 count nothing."""
    logits = torch.randn(2, 4, generator=generator(), dtype=torch.float64).requires_grad_()
    valid = torch.tensor([True, True, True, False]).expand(2, -1)
    policy = CategoricalActions(logits, valid)
    actions = torch.tensor([[2, 0, 3], [1, 2, 1]])
    weights = torch.tensor([[0.75, 0.25, 0.0], [0.6, 0.4, 0.0]], dtype=torch.float64)
    loss = sampled_policy_loss(policy, actions, action_weights=weights)
    log_probs = logits.masked_fill(~valid, -torch.inf).log_softmax(dim=-1)
    assert float(loss[0].detach()) == pytest.approx(
        -float((0.75 * log_probs[0, 2] + 0.25 * log_probs[0, 0]).detach()), abs=1e-12
    )
    loss.sum().backward()
    target = torch.tensor([[0.25, 0.0, 0.75, 0.0], [0.0, 0.6, 0.4, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, log_probs.exp().detach() - target)


# Mistakes


def test_reserved_leaf_is_refused():
    model = SampledTable(random_tables(7), leaf=SAMPLED_ACTIONS)
    with pytest.raises(ValueError, match=r'found a leaf "sampled_actions".*Rename the leaf'):
        SampledPlanner(QUIET).plan(model, torch.arange(4))


@pytest.mark.parametrize("number", [0, 2.0, True])
def test_number_of_samples_must_be_a_positive_int(number):
    for build in (SampledPlanner, SampledModel):
        with pytest.raises(ValueError, match=rf"num_samples: found {number!r}"):
            build(QUIET, num_samples=number)
        with pytest.raises(ValueError, match=r"proposal_temperature: found 0.0"):
            build(QUIET, proposal_temperature=0.0)


def test_policies_with_the_wrong_shape_are_named():
    short = CategoricalActions(LOGITS.expand(3, -1))
    with pytest.raises(ValueError, match=r"policy.sample: found .*\[3, 20\]; required \[4, 20\]"):
        SampledPlanner(QUIET).plan(table_root(short, 4), torch.arange(4))

    class Deep(CategoricalActions):
        def log_prob(self, actions):
            return super().log_prob(actions).unsqueeze(-1)

    with pytest.raises(ValueError, match=r"policy.log_prob: found leading shape \[4, 20, 1\]"):
        SampledPlanner(QUIET).plan(table_root(Deep(LOGITS.expand(4, -1)), 4), torch.arange(4))


def test_nan_of_a_policy_is_named_with_its_row():
    logits = LOGITS.expand(3, -1).clone()
    logits[2] = torch.nan
    scale = torch.tensor([[1.0], [0.0], [1.0]])
    for policy, row in (
        (CategoricalActions(logits), 2),
        (GaussianActions(torch.zeros(3, 1), scale), 1),
    ):
        with pytest.raises(ValueError, match=rf"RootOutput.prior_logits, row {row}: found .*nan"):
            SampledPlanner(QUIET).plan(table_root(policy, 3), torch.arange(3))


def test_planners_without_a_tree_are_wrapped_too():
    class Treeless:
        num_simulations = 4

        def plan(self, model, observation, *, generator=None):
            return replace(QUIET.plan(model, observation, generator=generator), tree=None)

    model = SampledTable(random_tables(8, num_actions=30))
    output = SampledPlanner(Treeless(), num_samples=4).plan(model, torch.arange(4))
    assert output.actions.shape == (4, 4)
    assert SampledPlanner(Treeless()).num_simulations == 4

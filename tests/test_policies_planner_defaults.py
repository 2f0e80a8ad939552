"""Tree search as it is configured for text: its answers approach the optimum as budgets grow."""

import itertools
import math
from functools import partial

import pytest
import torch

from benchmarks.text.planner_toys import Outcome, Toy, ToyTexts, search_toys
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.methods import sampled_c_puct, sampled_gumbel_scale
from policies.planning.options import MethodName, SearchOptions
from search import Embedding, GumbelMuZeroPlanner, Planner, RootOutput, StepOutput, Tree
from search.qtransforms import qtransform_completed_by_mix_value
from tests.fakes import search_of

SENTENCES = Proposal(unit="block", segment_tokens=4, max_new_tokens=12)
MCTS: tuple[MethodName, ...] = ("muzero", "gumbel_muzero")
TOYS = {
    "4 candidates": [
        Toy("additive", 3, 4, "additive"),
        Toy("random", 3, 4, "random"),
        Toy("mixed", 3, 4, "mixed"),
        Toy("ties", 3, 4, "ties"),
        Toy("noisy values", 3, 4, "additive", value_noise=1.0),
        Toy("no values", 3, 4, "additive", blind=True),
    ],
    "8 slots": [
        Toy("shared successors", 3, 4, "additive", actions=8),
        Toy("wide", 2, 8, "mixed"),
        Toy("early ends", 3, 6, "additive", value_noise=0.5, actions=8, ends=0.2),
    ],
    "3 candidates": [Toy("deep", 4, 3, "additive", value_noise=0.5)],
}
PROMPTS = 25


def planner_of(policy: Policy, method: MethodName, budget: int, **options: float) -> Planner:
    """The planner of a method as `build_searcher` configures it."""
    searcher = search_of(policy, method, budget, SENTENCES, **options)
    return searcher.planner


def searched(toys: str, planner: Planner, *, seed: int = 0, prompts: int = PROMPTS) -> Outcome:
    return search_toys(ToyTexts(TOYS[toys], prompts, seed=seed), planner)


@pytest.mark.parametrize("toys", TOYS)
@pytest.mark.parametrize("method", MCTS)
def test_answers_approach_the_optimum_as_simulations_grow(
    method: MethodName, toys: str, policy: Policy
) -> None:
    answered, committed = [], []
    for budget in (16, 64, 512):
        outcome = searched(toys, planner_of(policy, method, budget))
        by_toy = outcome.answered.view(len(TOYS[toys]), PROMPTS)
        answered.append(by_toy.mean(1))
        committed.append(float(outcome.committed.mean()))
    assert bool((answered[-1] < 0.04).all()), dict(
        zip([toy.name for toy in TOYS[toys]], answered[-1].tolist(), strict=True)
    )
    means = [float(row.mean()) for row in answered]
    assert means[0] > means[1] > means[2]
    assert committed[0] > committed[1] > committed[2]


@pytest.mark.parametrize("method", MCTS)
def test_the_best_of_64_responses_is_found(method: MethodName, policy: Policy) -> None:
    toys = [Toy("additive", 3, 4, "additive"), Toy("random", 3, 4, "random")]
    outcome = search_toys(ToyTexts(toys, 60, seed=1), planner_of(policy, method, 512))
    additive, random = (outcome.answered < 1e-6).view(2, 60).float().mean(1).tolist()
    assert additive >= 0.98
    assert random >= 0.9


@pytest.mark.parametrize(
    ("method", "others"),
    [("gumbel_muzero", {"value_scale": 0.1, "maxvisit_init": 50.0}), ("muzero", {"c_puct": 5.0})],
)
def test_small_budgets_are_no_worse_than_with_other_numbers(
    method: MethodName, others: dict[str, float], policy: Policy
) -> None:
    """At 16 simulations, paired over prompts: no group of toys shows a loss."""
    for toys in TOYS:
        ours, theirs = (
            searched(toys, planner_of(policy, method, 16, **numbers), prompts=200)
            for numbers in ({}, others)
        )
        for gain in (theirs.answered - ours.answered, theirs.committed - ours.committed):
            assert float(gain.mean()) > -1.96 * float(gain.std()) / math.sqrt(len(gain)), toys


def test_every_slot_of_a_node_is_tried_more_often_as_budgets_grow(policy: Policy) -> None:
    """Also where the first slot looks best from the start and most visits rightly go there."""
    least, share = [], []
    for budget in (512, 1024, 4096):
        planner = planner_of(policy, "gumbel_muzero", budget)
        tree = planner.plan(_OneGoodSlot(), torch.zeros(1, dtype=torch.int64)).tree
        child = tree.children_index[0, Tree.ROOT, 0]
        visits = tree.children_visits[0, child]
        assert visits.argmax() == 0
        least.append(int(visits.min()))
        share.append(float(visits[0] / visits.sum()))
    assert 1 <= least[0] < least[1] < least[2]
    assert share[0] < share[1] < share[2]


class _OneGoodSlot:
    """Endless text: the second segment decides, slot 0 being worth 1 and all others 0."""

    num_actions = 8

    def root(
        self, observation: torch.Tensor, *, generator: torch.Generator | None = None
    ) -> RootOutput:
        rows = len(observation)
        valid = torch.ones((rows, 8), dtype=torch.bool)
        value = torch.full((rows,), 0.5)
        state = {"depth": observation, "value": value}
        return RootOutput(torch.zeros((rows, 8)), value, valid, state)

    def step(
        self,
        embedding: Embedding,
        action: torch.Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        depth = embedding["depth"] + 1
        value = torch.where(depth == 2, (action == 0).float(), embedding["value"])
        logits = torch.zeros((len(action), 8))
        none = torch.zeros_like(value)
        state = {"depth": depth, "value": value}
        return StepOutput(logits, value, torch.ones_like(logits).bool(), state, none, none + 1)


def test_the_scale_of_samples_keeps_the_odds_it_is_derived_from() -> None:
    for slots, budget in itertools.product((2, 4, 8), (8, 64, 1024)):
        scale, visits = sampled_gumbel_scale(slots, budget)
        at_new_node = math.exp(visits * scale) / (slots - 1)
        assert at_new_node == pytest.approx(1 + 8 * slots / budget)
        after_all = math.exp((visits + budget) * scale) / (slots - 1)
        assert after_all / at_new_node == pytest.approx(math.sqrt(1 + budget))
    assert math.isfinite(sampled_gumbel_scale(1, 1)[1])
    scale, visits = sampled_gumbel_scale(8, 64, value_scale=0.5)
    assert (scale, scale * visits) == (0.5, pytest.approx(math.log(7 * 2)))


@pytest.mark.parametrize(("simulations", "visits"), [(4, 1), (8, 1), (16, 2), (32, 3), (512, 3)])
def test_the_best_slot_is_visited_so_often_before_another(simulations: int, visits: int) -> None:
    """PUCT's scores of the best slot, q = 1, and of an untried one, q = 0."""
    slots = 8
    explored = sampled_c_puct(slots, simulations)
    for count in range(1, 9):
        bonus = explored / slots * math.sqrt(count + 1)  # the node's own first visit counts
        lead = 1 + bonus / (1 + count) - bonus
        assert lead == pytest.approx(0) if count == visits else (lead > 0) == (count < visits)


def test_both_numbers_are_the_users_to_set(policy: Policy) -> None:
    planner = planner_of(policy, "gumbel_muzero", 16, value_scale=0.3, maxvisit_init=7.0)
    assert isinstance(planner, GumbelMuZeroPlanner)
    assert isinstance(planner.qtransform, partial)
    assert planner.qtransform.keywords == {"value_scale": 0.3, "maxvisit_init": 7.0}
    with pytest.raises(ValueError, match="maxvisit_init: found -1; required: 0 or more, or null"):
        SearchOptions(maxvisit_init=-1)
    with pytest.raises(
        ValueError, match=r"value_scale: found 0\.0; required: more than 0, or null"
    ):
        SearchOptions(value_scale=0.0)


def test_ranked_tokens_keep_the_numbers_of_an_informative_prior(policy: Policy) -> None:
    searcher = search_of(policy, "gumbel_muzero", 16, Proposal(unit="token"))
    assert isinstance(searcher.planner, GumbelMuZeroPlanner)
    assert searcher.planner.qtransform is qtransform_completed_by_mix_value


@pytest.mark.parametrize("method", ["gumbel_muzero", "muzero"])
def test_the_number_of_proposals_is_an_option(method: MethodName, policy: Policy) -> None:
    def width(budget: int, num_proposals: int | None) -> int:
        return search_of(
            policy, method, budget, SENTENCES, num_proposals=num_proposals
        ).num_proposals

    assert [width(16, k) for k in (None, 3, 12)] == [8, 3, 12]
    assert width(2, 12) == 2
    with pytest.raises(ValueError, match="num_proposals"):
        SearchOptions(num_proposals=0)

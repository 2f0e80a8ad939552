"""Scores that are no numbers end a search or a measurement; they are never planned with."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from policies.evaluation.pooled import pool_lines
from policies.finetuning.policy_kl import kl_to
from policies.finetuning.samples import Samples, sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import ROLLOUT, SegmentTree
from policies.planning.leaf_values import PartialReward, Rollout
from policies.planning.searcher import SearchPolicy
from policies.planning.value_head import ValueHead
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.functions import FunctionRewardModel
from rewardmodel.prefix_cache.rerun import RerunTree
from rewardmodel.prefix_cache.tree import PrefixTree
from search import GumbelMuZeroPlanner
from tests.fakes import CountingReward

PROMPTS = ["Write a short story about the bell.\n", "How?\n"]
SAMPLES = Samples(
    prompts=PROMPTS,
    texts=[["one", "two"]] * 2,
    ids=[[[5, 6]] * 2] * 2,
    log_probabilities=[[-1.0, -1.0]] * 2,
)


class _LastIsBroken:
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        return torch.tensor([0.0] * (len(responses) - 1) + [torch.nan])


def test_a_pool_names_the_prompt_whose_score_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"scored nan for the response 'two' to prompt 8, 'How\?"):
        pool_lines(SAMPLES, _LastIsBroken(), None, first=7)
    fine = pool_lines(SAMPLES, FunctionRewardModel(lambda p, r: [1.0] * len(r)), None)
    assert [line["proxy"] for line in fine] == [[1.0, 1.0]] * 2


def test_a_search_against_an_ensemble_names_the_member_whose_score_is_no_number(
    policy: Policy,
) -> None:
    proposal = Proposal(unit="block", segment_tokens=4, max_new_tokens=8)

    def search(*members: object) -> SearchPolicy:
        model = EnsembleRewardModel(members)  # type: ignore[arg-type]
        return SearchPolicy(policy, model, PartialReward(), GumbelMuZeroPlanner(2), proposal, 2)

    with pytest.raises(ValueError, match=r"member 1 of the ensemble scored row \d+ as nan"):
        search(CountingReward(), _LastIsBroken()).generate(PROMPTS, seed=0)
    fine = search(CountingReward(), CountingReward()).generate(PROMPTS, seed=0)
    assert len(fine) == 2


@pytest.fixture
def broken_after(monkeypatch: pytest.MonkeyPatch):
    """Makes the second row of the policy's logits no numbers from the n-th pass on."""

    def broken(passes: int, number: float) -> None:
        for kind in (PrefixTree, RerunTree):
            plain, calls = kind.logits_of, [0]

            def logits_of(tree, states, plain=plain, calls=calls):
                logits = plain(tree, states).clone()
                calls[0] += 1
                if calls[0] > passes:
                    logits[-1, 7 if number > 0 else slice(None)] = number
                return logits

            monkeypatch.setattr(kind, "logits_of", logits_of)

    return broken


NUMBERS = [torch.nan, torch.inf, -torch.inf]
PROPOSALS = [
    Proposal(unit="block", segment_tokens=4, max_new_tokens=8, min_new_tokens=8),
    Proposal(unit="response", max_new_tokens=8, min_new_tokens=8, top_p=0.9),
    Proposal(unit="response", max_new_tokens=8, min_new_tokens=8, top_k=5, temperature=0.5),
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("passes", [0, 3])
@pytest.mark.parametrize("proposal", PROPOSALS)
def test_sampling_names_the_prompt_and_the_token_whose_logits_are_no_numbers(
    policy: Policy, broken_after, proposal: Proposal, passes: int, number: float
) -> None:
    broken_after(passes, number)
    message = rf"prompt 6 \('How.*'\): the policy's logits for token {passes + 1} of the response"
    with pytest.raises(ValueError, match=message):
        sample_responses(policy, PROMPTS, 1, proposal=proposal, seed=0, first=5)


@pytest.mark.parametrize("number", NUMBERS)
def test_ranked_tokens_and_rollouts_refuse_logits_that_are_no_numbers(
    policy: Policy, broken_after, number: float
) -> None:
    tokens = Proposal(unit="token", max_new_tokens=4, top_p=0.5)
    blocks = Proposal(unit="block", segment_tokens=2, max_new_tokens=8, min_new_tokens=8)
    broken_after(0, number)
    for proposal, leaf in ((tokens, PartialReward()), (blocks, Rollout())):
        planner = GumbelMuZeroPlanner(3)
        search = SearchPolicy(policy, CountingReward(), leaf, planner, proposal, 2)
        with pytest.raises(ValueError, match=r"prompt 1 .*for token 1 of the response are not"):
            search.generate(PROMPTS, seed=0)
    tree = SegmentTree(policy, blocks)
    with pytest.raises(ValueError, match=r"prompt 0 \('Write"):
        tree.extend([tree.add_prompts(PROMPTS[:1])[0]], [ROLLOUT])


def test_one_forbidden_token_is_no_fault(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PrefixTree.logits_of

    def logits_of(tree, states):
        logits = plain(tree, states).clone()
        logits[:, 7] = -torch.inf
        return logits

    monkeypatch.setattr(PrefixTree, "logits_of", logits_of)
    found = sample_responses(policy, PROMPTS, 1, proposal=PROPOSALS[1], seed=0)
    assert all(7 not in ids for row in found.ids for ids in row)


def test_leaf_values_that_are_no_numbers_are_named(policy: Policy) -> None:
    head = ValueHead(policy.model.config.hidden_size)
    head.shift.fill_(torch.nan)
    planner, proposal = GumbelMuZeroPlanner(2), PROPOSALS[0]
    search = SearchPolicy(policy, CountingReward(), head, planner, proposal, 2)
    with pytest.raises(ValueError, match=r"prompt 0 \('Write.*ValueHead gave nan"):
        search.generate(PROMPTS, seed=0)


def test_a_reference_whose_logits_are_no_numbers_is_named(policy: Policy) -> None:
    import copy

    reference = copy.copy(policy)
    reference.model = copy.deepcopy(policy.model)
    with torch.no_grad():
        reference.model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="log-probability of response 0 is nan"):
        kl_to(reference, SAMPLES)
    assert torch.isfinite(torch.tensor(kl_to(policy, SAMPLES).estimate))

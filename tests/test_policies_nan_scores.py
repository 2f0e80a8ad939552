"""Scores that are no numbers end a search or a measurement; they are never planned with."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from policies.collection import Samples
from policies.language_model import Policy
from policies.leaf_values import PartialReward
from policies.pooled import pool_lines
from policies.proposals import Proposal
from policies.search_policy import SearchPolicy
from rewardmodel.ensemble import EnsembleRewardModel
from rewardmodel.functions import FunctionRewardModel
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

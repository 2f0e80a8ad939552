"""What a search may spend and how far it may go, at its limits."""

import math

import pytest
import torch

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from policies.planning.leaf_values import NoValue, Rollout
from policies.planning.options import MethodName
from policies.planning.planning_model import TextPlanningModel
from policies.planning.scoring import TreeScorer
from tests.fakes import CountingReward, search_of

PROMPTS = ["Write of rain.", "Write of the sea.", "Write of a crow."]
BLOCKS = Proposal(unit="block", segment_tokens=4, max_new_tokens=12)


@pytest.mark.parametrize("method", ["gumbel_muzero", "muzero", "beam", "dvts", "rejection"])
def test_the_kl_bound_counts_every_segment_of_the_answer(
    policy: Policy, method: MethodName
) -> None:
    searcher = search_of(policy, method, 4, BLOCKS)
    slots = 4 * (1 if method == "rejection" else 2)  # each may be drawn once again
    segments = set()
    for result in searcher.generate(PROMPTS, seed=0):
        lengths = {c.tokens for c in result.candidates if c.text == result.response}
        bounds = [math.ceil(tokens / 4) * math.log(slots) for tokens in lengths]
        assert any(result.kl_bound == pytest.approx(bound) for bound in bounds)
        segments |= {math.ceil(tokens / 4) for tokens in lengths}
    assert max(segments) > 1


def planning_model(policy: Policy, proposal: Proposal, **options: object) -> TextPlanningModel:
    tree = SegmentTree(policy, proposal, seed=0)
    tree.add_prompts(PROMPTS[:1])
    return TextPlanningModel(TreeScorer(tree, CountingReward()), num_actions=8, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("resamples", [0, 1, 3])
def test_segments_drawn_again_are_within_the_token_budget(policy: Policy, resamples: int) -> None:
    """So cold that all slots of a node hold one segment: each is drawn as often as may be."""
    cold = Proposal(unit="block", segment_tokens=4, max_new_tokens=12, min_new_tokens=12,
                    temperature=1e-4)  # fmt: skip
    for budget in range(12, 40, 3):
        model = planning_model(
            policy, cold, leaf_value=NoValue(), resamples=resamples, token_budget=budget
        )
        root = torch.tensor([0])
        model.root(root)
        node = root
        for _ in range(8):  # one action after the other, then deeper
            for action in range(8):
                step = model.step({"node": node}, torch.tensor([action]))
            node = step.embedding["node"]
        assert model.tree.generated_tokens[0] <= budget


@pytest.mark.parametrize("method", ["gumbel_muzero", "muzero", "beam"])
@pytest.mark.parametrize("rollout", [False, True])
def test_no_search_goes_beyond_its_token_budget(
    policy: Policy, method: MethodName, rollout: bool
) -> None:
    cold = Proposal(unit="block", segment_tokens=4, max_new_tokens=12, min_new_tokens=12,
                    temperature=1e-4)  # fmt: skip
    for budget in (12, 18, 26):
        searcher = search_of(
            policy, method, 8, cold, leaf_value=Rollout() if rollout else None, token_budget=budget
        )
        for result in searcher.generate(PROMPTS, seed=0):
            assert result.tokens <= budget
            assert result.candidates, "and yet a response is finished"

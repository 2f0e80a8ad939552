from collections.abc import Sequence

import pytest
import torch

from policies.kv_tree import KVTree
from policies.language_model import Policy
from policies.leaf_values import PartialReward
from policies.proposals import Proposal
from policies.search_policy import SearchPolicy
from policies.text_planning import TextPlanningModel
from search import BeamPlanner, BestOfNPlanner, GumbelMuZeroPlanner, MuZeroPlanner, Planner
from tests.fakes import CountingReward

PROMPTS = ["Write a short story about the baker.\n", "How do I make a pie?\n"]


def planning_model(policy: Policy, proposal: Proposal, slots: int) -> TextPlanningModel:
    tree = KVTree(policy, proposal)
    roots = tree.add_prompts([policy.encoder.prompt_ids(prompt) for prompt in PROMPTS])
    reward = CountingReward()
    return TextPlanningModel(
        tree, dict(zip(roots, PROMPTS, strict=True)), reward, PartialReward(reward), slots
    )


def searcher(policy: Policy, planner: Planner, slots: int, **options: object) -> SearchPolicy:
    reward = CountingReward()
    proposal = options.pop("proposal", Proposal(unit="block", segment_tokens=4, max_new_tokens=12))
    return SearchPolicy(policy, reward, PartialReward(reward), planner, proposal, slots, **options)  # type: ignore[arg-type]


def test_best_of_n_is_depth_one_search(policy: Policy) -> None:
    whole = Proposal(unit="response", max_new_tokens=8)
    roots = torch.tensor([0, 1])
    answers = []
    for planner in (
        BestOfNPlanner(6),
        GumbelMuZeroPlanner(6, gumbel_scale=0.0, max_num_considered_actions=6, max_depth=1),
        BeamPlanner(6, beam_width=1, max_depth=1),
    ):
        model = planning_model(policy, whole, 6)
        for slot in range(6):  # draw the slots in one order, so that all see the same samples
            model.step(
                {"node": roots},
                torch.full((2,), slot),
                generator=torch.Generator().manual_seed(slot),
            )
        output = planner.plan(model, roots)
        answers.append(output.action.tolist())
        for row in (0, 1):
            best = model.best_finished(row)
            assert best == model.child(row, answers[-1][row])
    assert answers[0] == answers[1] == answers[2]


def test_a_slot_is_drawn_once_and_costs_nothing_the_second_time(policy: Policy) -> None:
    model = planning_model(policy, Proposal(unit="block", segment_tokens=3), 4)
    generator = torch.Generator().manual_seed(0)
    edge = {"node": torch.tensor([0, 1, 0])}
    first = model.step(edge, torch.tensor([2, 1, 2]), generator=generator)
    assert first.embedding["node"][0] == first.embedding["node"][2]
    spent = dict(model.tree.generated_tokens)
    again = model.step(edge, torch.tensor([2, 1, 2]), generator=generator)
    assert again.embedding["node"].tolist() == first.embedding["node"].tolist()
    assert model.tree.generated_tokens == spent


def test_finished_text_earns_its_score_once(policy: Policy) -> None:
    model = planning_model(policy, Proposal(unit="response", max_new_tokens=5), 2)
    step = model.step({"node": torch.tensor([0])}, torch.tensor([0]))
    child = int(step.embedding["node"][0])
    assert step.discount.tolist() == [0.0]
    assert step.value.tolist() == [0.0]
    assert not step.valid_actions.any()
    expected = CountingReward().score(PROMPTS[:1], [model.tree.response_text(child)])
    assert step.reward.tolist() == expected.tolist()
    beyond = model.step({"node": torch.tensor([child])}, torch.tensor([0]))
    assert beyond.reward.tolist() == [0.0]
    assert beyond.embedding["node"].tolist() == [child]


@pytest.mark.parametrize(
    ("planner", "replan"),
    [
        (GumbelMuZeroPlanner(6), True),
        (MuZeroPlanner(6), True),
        (BeamPlanner(200, beam_width=2), False),
        (BestOfNPlanner(3), True),
    ],
    ids=["gumbel", "muzero", "beam", "best_of_n"],
)
def test_every_planner_answers_and_a_seed_repeats_it(
    planner: Planner, replan: bool, policy: Policy
) -> None:
    search = searcher(policy, planner, 3, replan=replan)
    first = search.generate(PROMPTS, seed=1, keep_trees=1)
    again = search.generate(PROMPTS, seed=1)
    other = search.generate(PROMPTS, seed=2)
    assert [r.response for r in first] == [r.response for r in again]
    assert [r.tokens for r in first] == [r.tokens for r in again]
    assert [r.response for r in first] != [r.response for r in other]
    for prompt, result in zip(PROMPTS, first, strict=True):
        assert result.prompt == prompt
        assert result.finished >= 1
        assert result.tokens > 0
    assert first[0].tree is not None
    assert first[0].tree["text"] == PROMPTS[0].strip()
    assert first[1].tree is None


def test_the_answer_is_the_best_that_was_seen_or_the_line_committed_to(policy: Policy) -> None:
    planner = GumbelMuZeroPlanner(12)
    best = searcher(policy, planner, 4).generate(PROMPTS, seed=0)
    committed = searcher(policy, planner, 4, answer="committed").generate(PROMPTS, seed=0)
    for one, other in zip(best, committed, strict=True):
        assert one.tokens == other.tokens
        assert one.score >= other.score


def test_more_budget_scores_better_for_best_of_n(policy: Policy) -> None:
    whole = Proposal(unit="response", max_new_tokens=10)
    means = []
    for count in (1, 8, 32):
        search = searcher(policy, BestOfNPlanner(count), count, proposal=whole)
        means.append(sum(result.score for result in search.generate(PROMPTS * 20, seed=0)))
    assert means[0] < means[1] < means[2]


class _BrokenReward:
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        return torch.full((len(responses),), torch.nan)


def test_a_score_that_is_not_a_number_stops_the_search(policy: Policy) -> None:
    broken = _BrokenReward()
    search = SearchPolicy(
        policy, broken, PartialReward(broken), GumbelMuZeroPlanner(2), Proposal(), 2
    )
    with pytest.raises(ValueError, match=r"value, row 0: found nan"):
        search.generate(PROMPTS, seed=0)


def test_a_prompt_that_is_too_long_is_named(policy: Policy) -> None:
    search = searcher(policy, BestOfNPlanner(2), 2)
    with pytest.raises(ValueError, match=r"prompt 1 has \d+ tokens; required: at most"):
        search.generate([PROMPTS[0], "the bell " * 200], seed=0)

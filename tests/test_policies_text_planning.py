import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from policies.generation.language_model import Policy, TinyModel, build_tiny_model
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from policies.planning.leaf_values import LeafValue, PartialReward, Rollout
from policies.planning.options import METHOD_NAMES, MethodName
from policies.planning.planning_model import TextPlanningModel
from policies.planning.scoring import TreeScorer
from policies.planning.searcher import SearchPolicy
from policies.planning.segment_rewards import KLPenalty, ProcessReward
from rewardmodel.models.sequence import SequenceRewardModel, load_scorer
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer
from search import BeamPlanner, BestOfNPlanner, GumbelMuZeroPlanner, MuZeroPlanner, Planner
from tests.fakes import CountingReward, policy_of, search_of

PROMPTS = ["Write a short story about the baker.\n", "How do I make a pie?\n"]
BLOCKS = Proposal(unit="block", segment_tokens=4, max_new_tokens=12)


def planning_model(
    policy: Policy, proposal: Proposal, slots: int, **options: object
) -> TextPlanningModel:
    tree = SegmentTree(policy, proposal)
    tree.add_prompts(PROMPTS)
    leaf = options.pop("leaf_value", PartialReward())
    return TextPlanningModel(TreeScorer(tree, CountingReward()), leaf, slots, **options)  # type: ignore[arg-type]


def searcher(policy: Policy, planner: Planner, slots: int, **options: object) -> SearchPolicy:
    proposal = options.pop("proposal", BLOCKS)
    leaf = options.pop("leaf_value", PartialReward())
    reward = options.pop("reward_model", CountingReward())
    return SearchPolicy(policy, reward, leaf, planner, proposal, slots, **options)  # type: ignore[arg-type]


def step(model: TextPlanningModel, nodes: list[int], slots: list[int]):
    return model.step({"node": torch.tensor(nodes)}, torch.tensor(slots))


def test_best_of_n_is_depth_one_search(policy: Policy) -> None:
    whole = Proposal(unit="response", max_new_tokens=8)
    roots = torch.tensor([0, 1])
    answers, spent = [], []
    for planner in (
        BestOfNPlanner(6),
        GumbelMuZeroPlanner(6, gumbel_scale=0.0, max_num_considered_actions=6, max_depth=1),
        BeamPlanner(6, beam_width=1, max_depth=1),
    ):
        model = planning_model(policy, whole, 6)
        output = planner.plan(model, roots)
        answers.append(output.action.tolist())
        spent.append(model.tree.generated_tokens)
        for row in (0, 1):
            best = model.tree.best_finished(row)
            assert best == model.tree.segment(row).children[answers[-1][row]]
    assert answers[0] == answers[1] == answers[2]
    assert spent[0] == spent[1] == spent[2]


def test_a_slot_is_drawn_once_and_costs_nothing_the_second_time(policy: Policy) -> None:
    model = planning_model(policy, BLOCKS, 4)
    first = step(model, [0, 1, 0], [2, 1, 2])
    assert first.embedding["node"][0] == first.embedding["node"][2]
    spent = dict(model.tree.generated_tokens)
    again = step(model, [0, 1, 0], [2, 1, 2])
    assert again.embedding["node"].tolist() == first.embedding["node"].tolist()
    assert model.tree.generated_tokens == spent
    assert model.segments == {0: 1, 1: 1}


def test_finished_text_earns_its_score_once(policy: Policy) -> None:
    model = planning_model(policy, Proposal(unit="response", max_new_tokens=5), 2)
    made = step(model, [0], [0])
    child = int(made.embedding["node"][0])
    assert made.discount.tolist() == [0.0]
    assert made.value.tolist() == [0.0]
    assert not made.valid_actions.any()
    text = model.tree.response_text(child)
    expected = CountingReward().score(PROMPTS[:1], [text])
    assert made.reward.tolist() == expected.tolist()
    beyond = step(model, [child], [0])
    assert beyond.reward.tolist() == [0.0]
    assert beyond.embedding["node"].tolist() == [child]


def test_ranked_slots_hold_the_likeliest_tokens_with_their_probabilities(policy: Policy) -> None:
    model = planning_model(policy, Proposal(unit="token"), 3)
    root = model.root(torch.tensor([0, 1]))
    tree = model.tree
    chances = tree.log_probabilities([0, 1])
    weights, tokens = chances.topk(3)
    torch.testing.assert_close(root.prior_logits, weights)
    made = step(model, [0, 1], [0, 2])
    children = made.embedding["node"].tolist()
    found = [tree.response_ids(node) for node in children]
    assert found == [[int(tokens[0, 0])], [int(tokens[1, 2])]]
    assert tree.generated_tokens == {0: 1, 1: 1}


def test_a_proposal_that_cuts_the_tail_has_fewer_actions(policy: Policy) -> None:
    model = planning_model(policy, Proposal(unit="token", top_k=2), 4)
    root = model.root(torch.tensor([0, 1]))
    assert root.valid_actions.tolist() == [[True, True, False, False]] * 2


# Two tokens alone, so that segments repeat.
NARROW = Proposal(unit="block", segment_tokens=1, max_new_tokens=4, top_k=2)


def test_repeated_siblings_are_drawn_again_and_then_become_one(policy: Policy) -> None:
    free = planning_model(policy, NARROW, 6)
    step(free, [0] * 6, list(range(6)))
    assert len(set(free.tree.segment(0).children.values())) == 6
    merged = planning_model(policy, NARROW, 6, resamples=0)
    step(merged, [0] * 6, list(range(6)))
    assert len(set(merged.tree.segment(0).children.values())) == 2, "two tokens, two children"
    assert merged.tree.generated_tokens[0] == 6
    assert merged.segments[0] == 2
    # The first draw of each slot is the same, and a draw more makes more siblings differ.
    wide = Proposal(unit="block", segment_tokens=1, max_new_tokens=4, top_k=8)
    kinds = []
    for resamples in (0, 4):
        model = planning_model(policy, wide, 8, resamples=resamples)
        for slot in range(8):
            step(model, [0], [slot])
        kinds.append(len(set(model.tree.segment(0).children.values())))
    assert kinds[1] > kinds[0]


def test_a_step_into_a_sibling_returns_the_same_as_the_sibling(policy: Policy) -> None:
    model = planning_model(policy, NARROW, 6, resamples=0)
    made = step(model, [0] * 6, list(range(6)))
    by_child: dict[int, set[tuple[float, float]]] = {}
    for node, value, reward in zip(
        made.embedding["node"].tolist(), made.value.tolist(), made.reward.tolist(), strict=True
    ):
        by_child.setdefault(node, set()).add((value, reward))
    assert all(len(found) == 1 for found in by_child.values())


def test_process_rewards_and_their_differences(policy: Policy) -> None:
    plain = planning_model(policy, BLOCKS, 2, segment_reward=ProcessReward(weight=0.5))
    first = step(plain, [0], [0])
    child = int(first.embedding["node"][0])
    text = plain.tree.response_text(child)
    score = float(CountingReward().score(PROMPTS[:1], [text])[0])
    assert first.reward.tolist() == pytest.approx([0.5 * score])
    shaped = planning_model(policy, BLOCKS, 2, segment_reward=ProcessReward(differences=True))
    total, node = 0.0, 0
    while not shaped.tree.finished(node):
        made = step(shaped, [node], [1])
        node = int(made.embedding["node"][0])
        total += float(made.reward[0])
    last = shaped.tree.score(node)
    assert total == pytest.approx(2 * last, rel=1e-5), "differences sum to the last score"


@pytest.mark.parametrize("unit", ["block", "token"])
def test_the_kl_penalty_is_the_log_ratio_of_both_models(unit: str, policy: Policy) -> None:
    from transformers import LlamaConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vocabulary = len(policy.encoder.tokenizer)
    reference = policy_of(
        LlamaConfig(**sizes, intermediate_size=64, vocab_size=vocabulary, initializer_range=0.3),
        policy.encoder,
        seed=3,
    )
    proposal = Proposal(unit=unit, segment_tokens=4, max_new_tokens=9)  # type: ignore[arg-type]
    model = planning_model(policy, proposal, 3, segment_reward=KLPenalty(reference, beta=0.7))
    model.root(torch.tensor([0, 1]))
    tree = model.tree
    nodes, total = [0, 1], torch.zeros(2)
    while not all(map(tree.finished, nodes)):
        made = step(model, nodes, [1, 2])
        before = torch.tensor([(tree.segment(n).score or 0.0) for n in nodes])
        nodes = made.embedding["node"].tolist()
        final = torch.tensor([(tree.segment(n).score or 0.0) for n in nodes])
        total += made.reward - torch.where(before > 0, 0.0, 1.0) * final

    def chance(which: Policy, node: int) -> float:
        prompt, response = tree.segment(tree.root(node)).ids, tree.response_ids(node)
        with torch.inference_mode():
            logits = which.model(torch.tensor([prompt + response])).logits[0].float()
        places = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
        return float(logits.log_softmax(-1)[places, torch.tensor(response)].sum())

    expected = [-0.7 * (chance(policy, node) - chance(reference, node)) for node in nodes]
    assert total.tolist() == pytest.approx(expected, abs=2e-3)


def test_a_reference_with_another_vocabulary_is_refused(policy: Policy) -> None:
    import copy

    other = copy.copy(policy)
    other.encoder = copy.deepcopy(policy.encoder)
    other.encoder.tokenizer.add_tokens(["<new>"])
    model = planning_model(policy, BLOCKS, 2, segment_reward=KLPenalty(other, beta=1.0))
    with pytest.raises(ValueError, match="required: the same, since the penalty is a ratio"):
        step(model, [0], [0])


def test_rollouts_finish_the_text_and_may_be_the_answer(policy: Policy) -> None:
    model = planning_model(policy, BLOCKS, 3, leaf_value=Rollout())
    root = model.root(torch.tensor([0, 1]))
    tree = model.tree
    assert [len(tree.candidates(row)) for row in (0, 1)] == [1, 1], "each was finished once"
    for row in (0, 1):
        assert float(root.value[row]) == pytest.approx(tree.score(tree.candidates(row)[0]))
    spent = dict(tree.generated_tokens)
    model.root(torch.tensor([0, 1]))
    assert tree.generated_tokens == spent, "a node is rolled out once"
    search = searcher(policy, GumbelMuZeroPlanner(4, gumbel_scale=0), 3, leaf_value=Rollout())
    for result in search.generate(PROMPTS, seed=0):
        assert result.score == max(candidate.score for candidate in result.candidates)
        assert result.tokens >= sum(c.tokens for c in result.candidates) / 4


@pytest.mark.parametrize(
    ("planner", "replan"),
    [
        (GumbelMuZeroPlanner(6), True),
        (MuZeroPlanner(6), True),
        (BeamPlanner(200, beam_width=2), False),
        (BestOfNPlanner(3), True),
    ],
    ids=["gumbel_muzero", "muzero", "beam", "best_of_n"],
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
        assert result.num_candidates >= 1
        assert result.tokens > 0
    assert first[0].tree["text"] == PROMPTS[0].strip()
    assert first[1].tree is None


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_prompt_is_searched_alike_in_any_company(method: MethodName, policy: Policy) -> None:
    prompts = [*PROMPTS, "Tell a tale.\n", "Go on about the lake and the bell.\n"]

    def found(batch_size: int) -> list[tuple[str, int]]:
        search = search_of(policy, method, 4, BLOCKS, search_batch_size=batch_size, max_rows=3)
        return [(r.response, r.tokens) for r in search.generate(prompts, seed=4)]

    together = found(4)
    assert found(1) == together
    assert found(3) == together


def test_batches_may_be_searched_one_by_one_in_any_order(policy: Policy) -> None:
    prompts = [*PROMPTS, "Tell a tale.\n"]
    search = searcher(policy, GumbelMuZeroPlanner(4), 3, batch_size=1)
    whole = [r.response for r in search.generate(prompts, seed=1)]
    parts = dict(search.stream(prompts, seed=1, batches=[2, 0]))
    assert parts[2][0].response == whole[2]
    assert parts[0][0].response == whole[0]
    assert list(parts) == [2, 0]


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


@pytest.mark.parametrize("leaves", [1, 4])
def test_tree_search_takes_several_leaves_a_step(leaves: int, policy: Policy) -> None:

    calls = []

    class Watched(CountingReward):
        def score(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
            calls.append(len(responses))
            return super().score(prompts, responses)

    search = search_of(policy, "muzero", 8, BLOCKS, reward_model=Watched(), leaves_per_step=leaves)
    assert all(result.num_candidates for result in search.generate(PROMPTS, seed=0))
    assert (max(calls) > len(PROMPTS)) == (leaves > 1)


def test_costs_and_candidates_are_what_was_drawn(policy: Policy) -> None:
    search = searcher(
        policy, BestOfNPlanner(5), 5, proposal=Proposal(unit="response", max_new_tokens=9)
    )
    for result in search.generate(PROMPTS, seed=0):
        assert result.num_candidates == len(result.candidates) == result.segments == 5
        assert result.tokens == sum(candidate.tokens for candidate in result.candidates)
        prompt = len(policy.encoder.prompt_ids(result.prompt))
        # The last token of a response is drawn and never read.
        assert result.forward_tokens == prompt + result.tokens - 5
        assert result.kl_bound == pytest.approx(math.log(5))
        best = max(result.candidates, key=lambda candidate: candidate.score)
        assert (result.response, result.score) == (best.text, best.score)
        assert result.log_probability == best.log_probability < 0


@pytest.mark.parametrize("leaf_value", [PartialReward(), Rollout()], ids=["partial", "rollout"])
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_token_budget_is_never_exceeded_and_always_answers(
    method: MethodName, leaf_value: LeafValue, policy: Policy
) -> None:
    spent = []
    for budget in (12, 20, 45):
        search = search_of(policy, method, 8, BLOCKS, leaf_value=leaf_value, token_budget=budget)
        results = search.generate(PROMPTS, seed=2)
        assert all(result.num_candidates >= 1 for result in results)
        assert all(0 < result.tokens <= budget for result in results)
        spent.append(sum(result.tokens for result in results))
    assert spent[0] < spent[-1], "a larger budget is used"


def test_a_slot_beyond_the_budget_is_worth_what_its_node_is_worth(policy: Policy) -> None:
    model = planning_model(policy, BLOCKS, 4, token_budget=12, leaf_value=_Nothing())
    model.root(torch.tensor([0, 1]))
    made = step(model, [0, 1], [0, 0])
    assert not model.closed
    beyond = step(model, [0, 1, 0], [1, 1, 2])
    assert model.closed == {0, 1}
    assert beyond.reward.tolist() == [500.0] * 3
    assert beyond.discount.tolist() == beyond.value.tolist() == [0.0] * 3
    assert not beyond.valid_actions.any()
    # Below a segment it is the segment's value, each its own.
    model = planning_model(policy, BLOCKS, 4)
    made = step(model, [0, 1], [0, 0])
    model.token_budget = 0
    deeper = step(model, made.embedding["node"].tolist(), [0, 0])
    assert deeper.reward.tolist() == made.value.tolist()
    assert 0.0 not in made.value.tolist()


def test_resamples_are_part_of_what_a_budget_keeps_back(policy: Policy) -> None:
    """Two tokens in six slots: most draws repeat a sibling and are drawn again, up to thrice."""
    for budget in range(4, 24):
        model = planning_model(policy, NARROW, 6, token_budget=budget, resamples=3)
        for slot in range(6):
            step(model, [0], [slot])
        left = budget - model.tree.generated_tokens[0]
        assert left >= 0
        if model.tree.best_finished(0) is None:
            longest = 1 if model.tree.segment(0).children else 0
            assert left >= NARROW.max_new_tokens - longest, "no response could be finished"


def test_a_search_that_could_need_more_memory_than_there_is_does_not_begin(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.planning.searcher.available_memory", lambda device: 100_000)
    search = searcher(policy, GumbelMuZeroPlanner(64), 8)
    with pytest.raises(ValueError, match=r"could need .* GiB .* free\. Lower the batch size"):
        search.generate(PROMPTS, seed=0)


class _SumOfIds:
    """A reward that no greedy step finds: it counts only how two tokens fit together."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(sum(map(ord, text)) * 7919 % 1009) for text in responses])


class _Nothing:
    """Knows nothing of unfinished text."""

    samples = False

    def values(self, scorer: TreeScorer, nodes: Sequence[int]) -> torch.Tensor:
        return torch.full((len(nodes),), 500.0)


@pytest.mark.parametrize("name", ["muzero", "beam"])
def test_a_search_over_tokens_finds_the_optimum_of_a_small_language(
    name: str, policy: Policy
) -> None:
    tokens, length = 4, 3  # 4 tokens at a place: 64 responses at most
    proposal = Proposal(unit="token", max_new_tokens=length)
    reward = _SumOfIds()
    tree = SegmentTree(policy, proposal)
    tree.add_prompts(PROMPTS[:1])
    model = TextPlanningModel(TreeScorer(tree, reward), _Nothing(), tokens)
    model.root(torch.tensor([0]))
    level = [0]
    for _ in range(length):  # the whole language
        edges = [(n, k) for n, k in itertools.product(level, range(tokens)) if not tree.finished(n)]
        made = step(model, [n for n, _ in edges], [k for _, k in edges])
        level = made.embedding["node"].tolist()
        alive = [n for n in level if not tree.finished(n)]
        if alive:
            model.root(torch.tensor(alive))
    optimum = max(map(tree.score, tree.candidates(0)))
    planner = {
        "muzero": MuZeroPlanner(400, dirichlet_fraction=0.0, temperature=0.0, pb_c_init=8.0),
        "beam": BeamPlanner(400, beam_width=64),
    }[name]
    search = searcher(
        policy, planner, tokens, proposal=proposal, leaf_value=_Nothing(), reward_model=reward,
        replan=name != "beam",
    )  # fmt: skip
    (result,) = search.generate(PROMPTS[:1], seed=0)
    assert result.score == optimum
    one = searcher(
        policy, BestOfNPlanner(tokens), tokens, proposal=proposal, reward_model=reward
    ).generate(PROMPTS[:1], seed=0)[0]
    assert one.score < optimum, "one step of lookahead is not enough, else this shows nothing"


def test_a_reward_model_with_another_vocabulary_scores_the_text_with_a_warning(
    policy: Policy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = TinyModel(vocabulary=300, hidden_size=16, layers=1, heads=2, context=256)
    build_tiny_model(
        ["How do I make a pie? Take apples.\n"] * 20, tmp_path / "m", size=sizes, seed=1
    )
    tokenizer = load_tokenizer(str(tmp_path / "m"))
    reward = SequenceRewardModel(
        load_scorer(str(tmp_path / "m"), init_head=True), TextEncoder(tokenizer, 256)
    )
    with caplog.at_level(logging.WARNING, "policies"):
        search = searcher(policy, BestOfNPlanner(3), 3, reward_model=reward)
    (record,) = [r for r in caplog.records if r.name == "policies.planning.searcher"]
    assert "another vocabulary" in record.getMessage()
    for result in search.generate(PROMPTS, seed=0):
        finished = result.response_finished
        alone = reward.score([result.prompt], [result.response], finished=finished)
        assert result.score == pytest.approx(float(alone[0]), abs=1e-4)
    caplog.clear()
    same = SequenceRewardModel(reward.model, policy.encoder)
    searcher(policy, BestOfNPlanner(3), 3, reward_model=same)
    assert "policies.planning.searcher" not in {r.name for r in caplog.records}


class _BrokenReward:
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        return torch.full((len(responses),), torch.nan)


@pytest.mark.parametrize(
    ("options", "prompt", "message"),
    [
        (
            {"reward_model": _BrokenReward()},
            PROMPTS[1],
            r"_BrokenReward scored nan for the response",
        ),
        ({"leaf_value": PartialReward(finished=False)}, PROMPTS[1], "cannot score unfinished"),
        ({}, "the bell " * 200, r"prompt 1 has \d+ tokens; required: at most"),
        ({"token_budget": 11}, PROMPTS[1], r"token_budget: found 11; required: at least 12"),
    ],
)
def test_what_a_search_cannot_begin_or_end_with_is_named(
    options: dict[str, object], prompt: str, message: str, policy: Policy
) -> None:
    with pytest.raises(ValueError, match=message):
        searcher(policy, GumbelMuZeroPlanner(2), 2, **options).generate(
            [PROMPTS[0], prompt], seed=0
        )

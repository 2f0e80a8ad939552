import logging

import pytest
import torch
from transformers import (
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OlmoConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import ROLLOUT, SegmentTree
from tests.fakes import policy_of

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 420}
GROUPED = {
    **SIZES,
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,  # at 0.02 attention is all but uniform and errors hide
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "mistral": MistralConfig(**GROUPED, sliding_window=None),
    "mistral, window of 4": MistralConfig(**GROUPED, sliding_window=4),
    "gemma": GemmaConfig(**GROUPED, head_dim=8),
    "gemma2, soft caps": Gemma2Config(
        **GROUPED, head_dim=8, sliding_window=4, attn_implementation="eager"
    ),
    "olmo": OlmoConfig(**GROUPED),
    "cohere": CohereConfig(**GROUPED, logit_scale=0.3),  # logits are not the head's output alone
    "gpt2": GPT2Config(vocab_size=420, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=64, initializer_range=0.3),
    "mamba": MambaConfig(vocab_size=420, hidden_size=32, num_hidden_layers=2, state_size=4),
}
BLOCKS = Proposal(unit="block", segment_tokens=3, max_new_tokens=20)
TEXTS = ["Write a short story about the baker.\n", "How?\n", "Tell me of the bell and the lake.\n"]


def prompts_of(policy: Policy) -> list[list[int]]:
    return [policy.encoder.prompt_ids(text) for text in TEXTS]


def assert_plain_run_agrees(tree: SegmentTree, node: int) -> None:
    """State, logits and log-probability of a node are those of one run over everything."""
    prompt, response = tree.segment(tree.root(node)).ids, tree.response_ids(node)
    with torch.inference_mode():
        out = tree.policy.model(
            input_ids=torch.tensor([prompt + response]), use_cache=False, output_hidden_states=True
        )
    chances = out.logits[0].float().log_softmax(-1)
    places = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    expected = float(chances[places, torch.tensor(response, dtype=torch.long)].sum())
    assert tree.log_probability(node) == pytest.approx(expected, abs=1e-3)
    if not tree.finished(node):
        hidden = out.hidden_states[-1][0, -1]
        torch.testing.assert_close(tree.hidden([node])[0], hidden, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(
            tree.log_probabilities([node])[0], chances[-1], atol=1e-4, rtol=1e-3
        )


@pytest.mark.parametrize("family", CONFIGS)
def test_sampled_segments_have_the_state_of_a_plain_run(family: str, policy: Policy) -> None:
    tree = SegmentTree(policy_of(CONFIGS[family], policy.encoder), BLOCKS, seed=1, max_rows=4)
    roots = tree.add_ids(prompts_of(policy))
    level = roots
    for depth in range(3):  # branches of unequal depth, in batches that mix prompts
        nodes = [*level, *level, level[0]]
        made = tree.extend(nodes, [0] * len(level) + [1] * len(level) + [2])
        for node in made:
            assert_plain_run_agrees(tree, node)
        level = [node for node in made if not tree.finished(node)][:4]
        if depth == 1:
            tree.keep(level)


@pytest.mark.parametrize("family", CONFIGS)
def test_ranked_tokens_have_the_state_of_a_plain_run(family: str, policy: Policy) -> None:
    tree = SegmentTree(policy_of(CONFIGS[family], policy.encoder), Proposal(unit="token"))
    level = tree.add_ids(prompts_of(policy))
    for depth in range(3):
        tokens, weights, chances = tree.ranked(level, 2)
        assert bool((weights[:, 0] >= weights[:, 1]).all())
        nodes = [node for node in level for _ in range(2)]
        made = tree.append(nodes, tokens.flatten().tolist(), chances.flatten().tolist())
        for node in made:
            assert_plain_run_agrees(tree, node)
        level = [node for node in made if not tree.finished(node)][:5]
        if depth == 1:
            tree.keep(level)


def test_a_window_longer_than_any_text_is_no_window(
    policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    model = policy_of(MistralConfig(**GROUPED, sliding_window=4096), policy.encoder)
    with caplog.at_level(logging.WARNING):
        tree = SegmentTree(model, BLOCKS)
        (node,) = tree.extend(tree.add_ids(prompts_of(policy)[:1]), [0])
    assert_plain_run_agrees(tree, node)
    assert not caplog.records


def test_a_segment_is_the_same_in_whatever_company_it_is_drawn(policy: Policy) -> None:
    def drawn(rows: int, order: list[int]) -> dict[tuple[int, int], list[int]]:
        tree = SegmentTree(
            policy, Proposal(unit="sentence", max_new_tokens=20), seed=5, max_rows=rows
        )
        roots = tree.add_ids(prompts_of(policy), numbers=[7, 8, 9])
        edges = [(prompt, slot) for prompt in order for slot in (0, 3)]
        made = tree.extend([roots[prompt] for prompt, _ in edges], [slot for _, slot in edges])
        return {edge: tree.response_ids(node) for edge, node in zip(edges, made, strict=True)}

    together = drawn(256, [0, 1, 2])
    assert drawn(1, [2, 1, 0]) == together  # one row, refilled five times
    assert drawn(2, [1, 2, 0]) == together
    assert len({tuple(ids) for ids in together.values()}) == 6


def test_rows_that_are_given_another_segment_draw_from_its_own_prefix(policy: Policy) -> None:
    sizes = {**GROUPED, "initializer_range": 0.6, "vocab_size": len(policy.encoder.tokenizer)}
    # Strong opinions, which differ from prefix to prefix, and segments of many lengths.
    strong = policy_of(LlamaConfig(**sizes), policy.encoder)
    proposal = Proposal(unit="step", delimiter="a", segment_tokens=12, max_new_tokens=24)
    tree = SegmentTree(strong, proposal, seed=5, max_rows=4)
    level = tree.add_ids(prompts_of(policy))
    for _ in range(2):
        nodes = [node for node in level for _ in range(5)]
        level = tree.extend(nodes, [0, 1, 2, 3, 4] * len(level))
        lengths = {len(tree.segment(node).ids) for node in level}
        assert len(lengths) > 3, "rows come free at different times"
        for node in level:
            assert_plain_run_agrees(tree, node)
        level = [node for node in level if not tree.finished(node)][:4]


def test_rows_that_wait_for_nothing_do_not_grow(policy: Policy) -> None:
    # Rows end early, late or are given one more segment: those that are done outlast their room.
    sizes = {**GROUPED, "vocab_size": len(policy.encoder.tokenizer)}
    model = policy_of(LlamaConfig(**sizes), policy.encoder).model
    model.generation_config.eos_token_id = list(range(40, 52))
    ending = Policy(model, policy.encoder, 256)
    for seed in range(12):
        tree = SegmentTree(
            ending, Proposal(unit="response", max_new_tokens=16), seed=seed, max_rows=8
        )
        (root,) = tree.add_ids(prompts_of(policy)[:1])
        made = tree.extend([root] * 16, range(16))
        assert len({tree.segment(node).length for node in made}) > 1
        for node in made:
            assert_plain_run_agrees(tree, node)


def test_draws_depend_on_seed_number_slot_and_attempt(policy: Policy) -> None:
    def ids(seed: int, number: int, slot: int, attempt: int) -> list[int]:
        tree = SegmentTree(policy, BLOCKS, seed=seed)
        roots = tree.add_ids(prompts_of(policy)[:1], numbers=[number])
        return tree.response_ids(tree.extend(roots, [slot], attempts=[attempt])[0])

    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert len({tuple(ids(*place)) for place in places}) == len(places)
    assert ids(*places[0]) == ids(*places[0])


def test_the_token_counters_agree_with_what_the_model_saw(policy: Policy) -> None:
    policy.new_prefixes()  # looks at the model once
    seen: list[int] = []

    def count(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        seen.append(kwargs["input_ids"].numel())

    hook = policy.model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    tree = SegmentTree(policy, Proposal(unit="sentence", max_new_tokens=24), max_rows=3)
    roots = tree.add_ids(prompts_of(policy))
    made = tree.extend([*roots, *roots], [0, 0, 0, 1, 1, 1])
    alive = [node for node in made if not tree.finished(node)]
    tree.extend(alive, [0] * len(alive))
    hook.remove()
    assert sum(map(tree.forward_tokens, roots)) + tree.padding_tokens == sum(seen)


def test_a_search_over_tokens_costs_the_prompt_and_the_new_nodes(policy: Policy) -> None:
    tree = SegmentTree(policy, Proposal(unit="token"))
    prompt = prompts_of(policy)[0]
    roots = tree.add_ids([prompt, [*prompt[:-1], 9]])
    level, nodes = roots, 0
    for _ in range(3):
        tokens, _, chances = tree.ranked(level, 1)
        level = tree.append(level, tokens[:, 0].tolist(), chances[:, 0].tolist())
        nodes += 1
    for root in roots:
        assert tree.forward_tokens(root) == len(prompt) + nodes
    assert tree.padding_tokens == 0


def test_tokens_are_counted_as_they_are_drawn(policy: Policy) -> None:
    tree = SegmentTree(policy, BLOCKS)
    roots = tree.add_ids(prompts_of(policy))
    made = tree.extend([roots[0], roots[0], roots[2]], [0, 1, 0])
    drawn = [len(tree.response_ids(node)) for node in made]
    assert tree.generated_tokens == {roots[0]: drawn[0] + drawn[1], roots[1]: 0, roots[2]: drawn[2]}


def test_a_chat_model_ends_at_any_of_its_end_tokens(policy: Policy) -> None:
    model = policy_of(LlamaConfig(**SIZES, intermediate_size=64), policy.encoder).model
    model.generation_config.eos_token_id = [policy.encoder.end_id, 7, 9]
    chat = Policy(model, policy.encoder, 256)
    tree = SegmentTree(chat, Proposal(unit="response", max_new_tokens=200))
    roots = tree.add_ids(prompts_of(policy) * 8)
    made = tree.extend(roots, [0] * len(roots))
    lasts = [tree.response_ids(node)[-1] for node in made]
    assert {7, 9} & set(lasts)
    for node in made:
        assert not {7, 9, policy.encoder.end_id} & set(tree.response_ids(node)[:-1])


def test_a_response_ends_at_its_token_limit_and_not_before_its_least(policy: Policy) -> None:
    end = policy.encoder.end_id
    head = policy.model.get_output_embeddings().weight
    proposal = Proposal(unit="response", max_new_tokens=7, min_new_tokens=4)
    with torch.no_grad():
        kept = head[end].clone()
        head[end] = 100 * head.abs().max()  # all but certain, or all but ruled out
        tree = SegmentTree(policy, proposal)
        roots = tree.add_ids(prompts_of(policy))
        made = tree.extend(roots * 4, [slot for slot in range(4) for _ in roots])
        head[end] = kept
    lengths = {tree.segment(node).length for node in made}
    assert all(tree.finished(node) for node in made)
    assert min(lengths) == 5, "the end token comes when it may, behind four others"
    assert max(lengths) <= 7


def test_a_rollout_goes_to_the_end_of_the_response(policy: Policy) -> None:
    tree = SegmentTree(policy, BLOCKS)
    (root,) = tree.add_ids(prompts_of(policy)[:1])
    (first,) = tree.extend([root], [0])
    rolled, segment = tree.extend([first, first], [ROLLOUT, 0])
    assert tree.finished(rolled)
    assert tree.response_ids(rolled)[:3] == tree.response_ids(first)
    assert len(tree.segment(segment).ids) <= 3
    assert_plain_run_agrees(tree, rolled)


def test_a_stop_string_ends_the_response_and_is_cut_off(policy: Policy) -> None:
    free = SegmentTree(policy, Proposal(unit="response", max_new_tokens=30), seed=2)
    roots = free.add_ids(prompts_of(policy))
    texts = [free.response_text(node) for node in free.extend(roots, [0] * 3)]
    middle = texts[0][len(texts[0]) // 2 :][:3]  # it may well begin inside a token
    for unit in ("response", "block"):
        proposal = Proposal(unit=unit, segment_tokens=2, max_new_tokens=30, stop=(middle, "\x00"))
        tree = SegmentTree(policy, proposal, seed=2)
        nodes = tree.extend(tree.add_ids(prompts_of(policy)), [0] * 3)
        while unit == "block" and not tree.finished(nodes[0]):
            nodes = tree.extend(nodes[:1], [0])
        if unit == "response":
            assert tree.response_text(nodes[0]) == texts[0][: texts[0].index(middle)]
        assert middle not in tree.response_text(nodes[0])
        if tree.segment(nodes[0]).length < 30 and unit == "response":
            whole = policy.encoder.tokenizer.decode(tree.response_ids(nodes[0]))
            assert middle in whole, "sampling stopped because of the stop string"


def test_a_step_ends_behind_its_delimiter(policy: Policy) -> None:
    free = SegmentTree(policy, Proposal(unit="response", max_new_tokens=40), seed=2)
    (node,) = free.extend(free.add_ids(prompts_of(policy)[:1]), [0])
    text = free.response_text(node)
    mark = text[len(text) // 3 :][:2]
    tree = SegmentTree(policy, Proposal(unit="step", delimiter=mark, max_new_tokens=40), seed=2)
    (step,) = tree.extend(tree.add_ids(prompts_of(policy)[:1]), [0])
    assert mark in tree.segment_text(step)
    before = tree.policy.encoder.tokenizer.decode(tree.segment(step).ids[:-1])
    assert mark not in before
    assert text.startswith(tree.segment_text(step))


def test_a_prompt_longer_than_the_context_is_an_error_before_the_search(policy: Policy) -> None:
    tree = SegmentTree(policy, Proposal(max_new_tokens=100))
    with pytest.raises(ValueError, match=r"prompt 1 has 300 tokens; required: at most 155"):
        tree.add_ids([[5, 6], [7] * 300])
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        tree.add_ids([[]])

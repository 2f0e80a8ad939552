import pytest
import torch
from transformers import (
    CohereConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from policies.kv_tree import KVTree
from policies.language_model import Policy
from policies.proposals import Proposal
from tests.fakes import policy_of

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 420}
GROUPED = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "mistral": MistralConfig(**GROUPED, sliding_window=None),
    "cohere": CohereConfig(**GROUPED, logit_scale=0.3),  # logits are not the head's output alone
    "gpt2": GPT2Config(vocab_size=420, n_embd=32, n_layer=2, n_head=4),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=64),
}
BLOCKS = Proposal(unit="block", segment_tokens=3, max_new_tokens=20)


def prompts_of(policy: Policy) -> list[list[int]]:
    texts = [
        "Write a short story about the baker.\n",
        "How?\n",
        "Tell me of the bell and the lake.\n",
    ]
    return [policy.encoder.prompt_ids(text) for text in texts]


def full_state(policy: Policy, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden state and logits after the last token, from one plain run over everything."""
    with torch.inference_mode():
        out = policy.model(
            input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True
        )
    return out.hidden_states[-1][0, -1], out.logits[0, -1].float()


@pytest.mark.parametrize("family", CONFIGS)
def test_every_node_of_the_tree_has_the_state_of_a_plain_run(family: str, policy: Policy) -> None:
    model = policy_of(CONFIGS[family], policy.encoder)
    tree = KVTree(model, BLOCKS)
    prompts = prompts_of(policy)
    roots = tree.add_prompts(prompts)
    assert tree._reencode is False, "a plain cache must be reused"
    generator = torch.Generator().manual_seed(1)
    level = roots
    for _ in range(3):  # branches of unequal depth, in batches that mix prompts
        made = tree.extend([*level, *level, roots[0]], generator=generator)
        level = [node for node in made if not tree.finished(node)]
        for node in level:
            prompt = prompts[roots.index(tree.root(node))]
            hidden, logits = full_state(model, prompt + tree.response_ids(node))
            torch.testing.assert_close(tree.hidden([node])[0], hidden, atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(
                tree._next_logits([tree._nodes[node]])[0], logits, atol=2e-5, rtol=1e-4
            )
        level = level[:3]


@pytest.mark.parametrize("reencode", [False, True])
def test_reused_and_recomputed_prefixes_draw_the_same_texts(reencode: bool, policy: Policy) -> None:
    def texts(again: bool) -> list[list[int]]:
        tree = KVTree(policy, BLOCKS, reencode=again)
        roots = tree.add_prompts(prompts_of(policy))
        generator = torch.Generator().manual_seed(3)
        first = tree.extend(roots, generator=generator)
        alive = [node for node in first if not tree.finished(node)]
        second = tree.extend(alive, generator=generator)
        return [tree.response_ids(node) for node in first + second]

    assert texts(reencode) == texts(False)


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**GROUPED, sliding_window=4),
        MambaConfig(vocab_size=420, hidden_size=32, num_hidden_layers=2, state_size=4),
    ],
    ids=["sliding window", "state space"],
)
def test_a_cache_that_cannot_be_shared_is_never_silently_wrong(
    config: PretrainedConfig, policy: Policy
) -> None:
    model = policy_of(config, policy.encoder)
    tree = KVTree(model, BLOCKS)
    prompts = prompts_of(policy)
    roots = tree.add_prompts(prompts)
    assert tree._reencode is True
    made = tree.extend(roots, generator=torch.Generator().manual_seed(0))
    for root, node, prompt in zip(roots, made, prompts, strict=True):
        assert tree.root(node) == root
        if not tree.finished(node):
            hidden, _ = full_state(model, prompt + tree.response_ids(node))
            torch.testing.assert_close(tree.hidden([node])[0], hidden, atol=2e-5, rtol=1e-4)


def test_tokens_are_counted_as_they_are_drawn(policy: Policy) -> None:
    tree = KVTree(policy, BLOCKS)
    roots = tree.add_prompts(prompts_of(policy))
    made = tree.extend([roots[0], roots[0], roots[2]], generator=torch.Generator().manual_seed(0))
    drawn = [len(tree.response_ids(node)) for node in made]
    assert tree.generated_tokens == {roots[0]: drawn[0] + drawn[1], roots[1]: 0, roots[2]: drawn[2]}
    seen: list[int] = []

    def count(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        seen.append(kwargs["input_ids"].numel())

    handle = policy.model.register_forward_pre_hook(count, with_kwargs=True)
    before = tree.forward_tokens
    alive = [node for node in made if not tree.finished(node)]
    tree.extend(alive, generator=torch.Generator().manual_seed(0))
    handle.remove()
    assert tree.forward_tokens - before == sum(seen)


def test_a_chat_model_ends_at_any_of_its_end_tokens(policy: Policy) -> None:
    model = policy_of(CONFIGS["llama"], policy.encoder).model
    model.generation_config.eos_token_id = [policy.encoder.end_id, 7, 9]
    chat = Policy(model, policy.encoder, 256)
    tree = KVTree(chat, Proposal(unit="response", max_new_tokens=200))
    roots = tree.add_prompts(prompts_of(policy) * 8)
    made = tree.extend(roots, generator=torch.Generator().manual_seed(0))
    lasts = [tree.response_ids(node)[-1] for node in made]
    assert {7, 9} & set(lasts)
    for node in made:
        assert not {7, 9, policy.encoder.end_id} & set(tree.response_ids(node)[:-1])


def test_a_response_ends_at_its_token_limit(policy: Policy) -> None:
    tree = KVTree(policy, Proposal(unit="response", max_new_tokens=7))
    made = tree.extend(
        tree.add_prompts(prompts_of(policy)), generator=torch.Generator().manual_seed(0)
    )
    assert all(tree.finished(node) and len(tree.response_ids(node)) <= 7 for node in made)


def test_forbidding_the_end_forbids_it_as_the_first_token_alone(policy: Policy) -> None:
    end = policy.encoder.end_id
    tree = KVTree(policy, BLOCKS)
    (root,) = tree.add_prompts(prompts_of(policy)[:1])
    head = policy.model.get_output_embeddings().weight
    bias = tree.hidden([root])[0]
    with torch.no_grad():
        kept = head[end].clone()
        head[end] = 50 * bias / bias.norm()  # the end token is now all but certain
        free = tree.extend([root], generator=torch.Generator().manual_seed(0))
        held = tree.extend([root], generator=torch.Generator().manual_seed(0), forbid_end=[True])
        head[end] = kept
    assert tree.stops_at_once(free[0])
    assert not tree.stops_at_once(held[0])
    assert tree.response_ids(held[0])[0] != end


def test_a_prompt_longer_than_the_context_is_an_error_before_the_search(policy: Policy) -> None:
    tree = KVTree(policy, Proposal(max_new_tokens=100))
    with pytest.raises(ValueError, match=r"prompt 1 has 300 tokens; required: at most 155"):
        tree.add_prompts([[5, 6], [7] * 300])
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        tree.add_prompts([[]])

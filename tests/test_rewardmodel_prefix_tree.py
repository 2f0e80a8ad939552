from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, LlamaConfig

from rewardmodel.prefix_cache.backbone import Backbone
from rewardmodel.prefix_cache.row_cache import available_memory
from rewardmodel.prefix_cache.tree import PrefixTree
from tests.prefix_growth import GROUPED, SHARING, VOCABULARY, Growth, language_model

# Rounding alone: the same numbers are added in another order. Hidden states are of order one, and
# a token more or less in mask_spec moves them by tenths.
ATOL = 5e-5


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", SHARING)
def test_every_state_of_random_growth_is_that_of_a_plain_run(family: str, attention: str) -> None:
    if family == "gemma2" and attention == "sdpa":
        pytest.skip("caps its attention's scores, which eager attention alone can")
    growth = Growth(language_model(SHARING[family], attention=attention))
    assert growth.backbone.shares
    assert growth.at_random() < ATOL


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "mistral, a window"])
def test_half_precision_agrees_as_far_as_it_rounds(family: str) -> None:
    config = SHARING[family].__class__.from_dict(
        {**SHARING[family].to_dict(), "initializer_range": 0.1}
    )
    growth = Growth(language_model(config).to(torch.bfloat16))
    assert growth.backbone.shares
    # bfloat16 has eight bits: neighbors near 2 are 1/64 apart. A run in pieces differs from a
    # whole one by some of these steps.
    assert growth.at_random() < 0.2


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_adapters_that_are_not_merged_are_seen(family: str) -> None:
    plain = language_model(SHARING[family])
    gpt2 = family == "gpt2"  # its matrices lie the other way round
    targets = ["c_attn"] if gpt2 else ["q_proj", "v_proj"]
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets, fan_in_fan_out=gpt2)
    growth = Growth(get_peft_model(plain, lora).eval())
    with torch.no_grad():
        for name, weight in growth.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    with growth.model.disable_adapter():
        without, _ = growth.plain([5, 6, 7, 8])
    assert (growth.plain([5, 6, 7, 8])[0] - without).abs().max() > 0.01
    assert growth.backbone.shares
    assert growth.at_random() < ATOL


def test_memory_that_was_never_written_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(self: torch.Tensor, *shape: int) -> torch.Tensor:
        return self.new_full(shape, torch.nan)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    # A masked column has no weight, but nothing times NaN is NaN.
    assert Growth(language_model(SHARING["gemma3"])).at_random() < ATOL


def test_a_row_and_a_tree_are_chosen_by_what_they_cost() -> None:
    growth = Growth(language_model(SHARING["llama"]))
    (root,) = growth.add_prompts(40)
    tree = growth.tree
    assert not tree._rows_pay([root] * 4, [[1]] * 4)
    assert tree._rows_pay([root] * 64, [[1] * 48] * 64)
    assert not tree._rows_pay([root, ~0], [[1] * 48, [1]])


def counted(model: Any) -> list[int]:
    """Collects how many tokens each forward pass is given."""
    seen: list[int] = []
    body = model.base_model
    body.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return seen


def test_all_tokens_are_counted_and_only_new_ones_are_stored() -> None:
    growth = Growth(language_model(SHARING["llama"]))
    seen = counted(growth.model)
    tree = growth.tree

    def total() -> int:
        return sum(tree.forward_tokens.values()) + tree.padding_tokens

    growth.compare = lambda nodes: None  # type: ignore[method-assign]
    growth._hold = lambda *state: None  # type: ignore[method-assign]
    growth.add_prompts(13, 5)
    assert (tree.forward_tokens, tree._cache.lengths) == ({0: 13, 1: 5}, [13, 5])
    for rows in (False, True):
        before = total()
        made = growth.feed(6, rows=rows)
        new = sum(len(growth.texts[node]) for node in made)
        assert total() == sum(seen)
        assert total() - before < new, "known tokens are not run again"
        assert sum(tree._cache.lengths) == sum(tree.forward_tokens.values())
    stored = list(tree._cache.lengths)
    growth.read(5)
    assert total() == sum(seen)
    assert tree._cache.lengths == stored, "what is read is not kept"
    growth.branch()
    assert total() == sum(seen)
    # Of 13 tokens that rows were fed, those of the three that were committed are kept.
    assert sum(tree._cache.lengths) - sum(stored) == 2 + 2 + 4


def test_rows_grow_beyond_their_first_room() -> None:
    growth = Growth(language_model(SHARING["qwen3"]))
    growth.add_prompts(3)
    room = growth.tree._cache.capacity
    for _ in range(6):
        growth.feed(12, rows=False)
    assert growth.tree._cache.capacity > room
    assert growth.worst < ATOL


def test_keeping_some_nodes_compacts_rows_and_drops_prompts() -> None:
    growth = Growth(language_model(SHARING["gemma3"]))
    first, second, _ = growth.add_prompts(11, 4, 7)
    tree = growth.tree
    growth.feed(3, rows=False)
    chain, _ = tree.feed([second], [[1, 2, 3]])
    growth.texts[chain[0]] = growth.texts[second] + [1, 2, 3]
    tree.keep([chain[0], first])
    growth.texts = {node: growth.texts[node] for node in (chain[0], first)}
    assert tree._cache.lengths == [7, 11]
    assert tree._nodes[chain[0]].path.tolist() == list(range(7))
    assert set(tree._nodes) == {chain[0], first}
    growth.compare([chain[0], first])
    growth.feed(4, rows=False)
    growth.branch()
    growth.add_prompts(20)
    assert growth.worst < ATOL
    tree.keep([])
    assert tree._cache.num_rows == 0
    growth.texts = {}
    growth.add_prompts(6, 8)
    growth.feed(3, rows=True)
    assert growth.worst < ATOL


def test_a_node_of_the_middle_of_another_has_no_state() -> None:
    growth = Growth(language_model(SHARING["llama"]))
    growth.add_prompts(9)
    handle = growth.divide()
    with pytest.raises(AssertionError, match="has no state"):
        growth.tree.hidden([handle])
    growth.tree.keep([handle])
    (made,), _ = growth.tree.feed([handle], [[4, 5]])
    growth.texts[made] = [*growth.texts[0][:8], 4, 5]
    growth.compare([made])
    assert growth.worst < ATOL


def test_a_row_never_needs_a_position_that_the_model_has_not() -> None:
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=40)
    growth = Growth(language_model(config))
    long, short = growth.add_prompts(38, 3)
    states = growth.tree.read([long, short], [[7], [8] * 20], rows=2)
    for line, ids in enumerate([growth.texts[long] + [7], growth.texts[short] + [8] * 20]):
        expected, _ = growth.plain(ids)
        torch.testing.assert_close(states.hidden[line], expected[-1], atol=ATOL, rtol=0)


def test_a_tree_says_what_its_tokens_weigh() -> None:
    tree = PrefixTree(Backbone(language_model(LlamaConfig(**GROUPED)), max_tokens=50,
                            language_head=True))  # fmt: skip
    assert tree.bytes_per_token() == 0
    tree.add_prompts([[1, 2, 3]])
    assert tree.bytes_per_token() == 3 * 2 * 2 * 8 * 4  # layers, keys and values, heads, d, bytes
    assert available_memory(torch.device("cpu")) > 0

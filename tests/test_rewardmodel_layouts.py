"""The same scores and the same gradients, however groups are laid out."""

import random
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from rewardmodel.training.batching.layout_choice import choose_layout
from rewardmodel.training.batching.layouts import PackedLayout, PlainLayout, PrefixLayout, first_fit
from rewardmodel.training.loss_config import LossConfig

SIZES: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "mistral, window": MistralConfig(**SIZES, sliding_window=6),
    "gemma 3": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=6, query_pre_attn_scalar=8),
    "gpt-2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=128,
                        pad_token_id=0),
    "gpt-neox": GPTNeoXConfig(**SIZES),
}  # fmt: skip


def model_of(config: PretrainedConfig, labels: int = 1) -> Any:
    torch.manual_seed(0)
    config.num_labels = labels
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for weight in model.parameters():  # a fresh head says all but nothing
        weight.data += 0.05 * torch.randn_like(weight)
    return model


def random_groups(count: int = 5, seed: int = 0) -> list[tuple[list[list[int]], int]]:
    draw = random.Random(seed)
    groups = []
    for _ in range(count):
        prompt = [draw.randrange(1, 60) for _ in range(draw.randrange(0, 20))]
        rests = [
            # Distinct first tokens, so that no more is shared than the prompt.
            [1 + k, *(draw.randrange(1, 60) for _ in range(draw.randrange(0, 9)))]
            for k in range(draw.randrange(2, 5))
        ]
        groups.append(([prompt + rest for rest in rests], len(prompt)))
    return groups


def layout_of(model: Any, name: str, **options: Any) -> Any:
    objective = LossConfig(layout=name, **options)  # type: ignore[arg-type]
    return choose_layout(model, objective, pad_id=0, max_tokens=64, checkpointing=False)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["prefix", "packed"])
def test_a_shared_prompt_changes_neither_score_nor_gradient(name: str, kind: str) -> None:
    model = model_of(CONFIGS[name])
    groups = random_groups()
    shared = layout_of(model, kind, pack_tokens=48)
    assert shared.name == kind
    found = {}
    for layout in (PlainLayout(0, shared.head), shared):
        model.zero_grad()
        scores = layout.scores(model, layout.collate(groups))
        (scores * torch.linspace(-1, 1, len(scores))[:, None]).sum().backward()
        gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
        found[layout.name] = (scores.detach(), gradients)
    plain, other = found["plain"], found[kind]
    assert plain[0].std() > 1e-3
    torch.testing.assert_close(other[0], plain[0], atol=2e-5, rtol=1e-4)
    assert other[1].keys() == plain[1].keys()
    for weight, gradient in plain[1].items():
        torch.testing.assert_close(other[1][weight], gradient, atol=1e-4, rtol=1e-3, msg=weight)


def test_the_plain_layout_is_the_models_own_logits() -> None:
    model = model_of(LlamaConfig(**SIZES))
    layout = layout_of(model, "plain")
    groups = random_groups()
    scores = layout.scores(model, layout.collate(groups))
    rows = [row for sequences, _ in groups for row in sequences]
    alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-4)


def test_the_last_token_counts_even_where_it_is_the_pad_token() -> None:
    model = model_of(LlamaConfig(**SIZES))
    groups = [([[5, 6, 7, 0], [5, 6, 8, 9]], 2)]  # the pad id stands at a real place
    for kind in ("plain", "prefix", "packed"):
        layout = layout_of(model, kind)
        scores = layout.scores(model, layout.collate(groups))
        hidden = model.model(input_ids=torch.tensor([[5, 6, 7, 0]])).last_hidden_state[0, -1]
        torch.testing.assert_close(scores[0], model.score(hidden), atol=1e-5, rtol=1e-4)


def test_several_heads_come_out_of_one_pass() -> None:
    model = model_of(LlamaConfig(**SIZES), labels=3)
    groups = random_groups()
    plain, prefix = layout_of(model, "plain"), layout_of(model, "prefix")
    expected = plain.scores(model, plain.collate(groups))
    assert expected.shape[1] == 3
    found = prefix.scores(model, prefix.collate(groups))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_an_encoder_takes_the_plain_layout_and_says_so_when_asked_for_another() -> None:
    sizes = {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
    model = model_of(BertConfig(**sizes))
    layout = choose_layout(model, LossConfig(), pad_id=0, max_tokens=64, checkpointing=False)
    assert layout.name == "plain"
    groups = random_groups(3)
    rows = [row for sequences, _ in groups for row in sequences]
    alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])
    found = layout.scores(model, layout.collate(groups))
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"layout: found 'prefix', and BertForSequence.* 'plain'"):
        layout_of(model, "prefix")


def test_checkpointing_activations_takes_the_layout_without_a_cache() -> None:
    model = model_of(LlamaConfig(**SIZES))
    options = {"pad_id": 0, "max_tokens": 64, "checkpointing": True}
    assert choose_layout(model, LossConfig(), **options).name == "packed"
    with pytest.raises(ValueError, match="'packed' one with gradient_checkpointing"):
        choose_layout(model, LossConfig(layout="prefix"), **options)


def test_a_layout_that_gives_other_scores_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(LlamaConfig(**SIZES))
    scores = PrefixLayout.scores
    monkeypatch.setattr(PrefixLayout, "scores", lambda *args: scores(*args) + 0.1)
    assert layout_of(model, "auto").name == "plain"
    assert "gives no or other scores in the prefix layout" in caplog.text


def test_tokens_are_computed_once_and_hardly_any_are_padding() -> None:
    model = model_of(LlamaConfig(**SIZES))
    groups = [([[*range(1, 31), 40, 41], [*range(1, 31), 50, 51]], 30)] * 4
    prefix = layout_of(model, "prefix").collate(groups)
    assert prefix["prefix_ids"].numel() + prefix["input_ids"].numel() == 4 * 34
    packed = layout_of(model, "packed", pack_tokens=68).collate(groups)
    assert packed["input_ids"].shape == (2, 68)
    plain = layout_of(model, "plain").collate(groups)
    assert plain["input_ids"].numel() == 8 * 32


def test_bins_hold_everything_once_and_none_is_over_full() -> None:
    draw = random.Random(1)
    sizes = [draw.randrange(1, 50) for _ in range(200)]
    bins = first_fit(sizes, 64)
    assert sorted(i for own in bins for i in own) == list(range(200))
    assert all(sum(sizes[i] for i in own) <= 64 for own in bins)
    assert len(bins) <= 11 / 9 * -(-sum(sizes) // 64) + 1


def test_rows_are_as_long_as_the_longest_group() -> None:
    model = model_of(LlamaConfig(**SIZES))
    packed = layout_of(model, "packed", pack_tokens=8)
    assert isinstance(packed, PackedLayout)
    groups = random_groups()
    plain = layout_of(model, "plain")
    torch.testing.assert_close(
        packed.scores(model, packed.collate(groups)),
        plain.scores(model, plain.collate(groups)),
        atol=2e-5,
        rtol=1e-4,
    )

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
)

from rewardmodel.prefix_cache.backbone import Backbone, PathMask, RowMask, TreeMask
from tests.prefix_growth import GROUPED, SHARING, SIZES, language_model

USUAL: dict[str, Any] = {**GROUPED, "initializer_range": 0.02}  # attention is all but uniform


def windowed(window: int, *, mixed: bool = False, **options: Any) -> PretrainedConfig:
    if mixed:
        layers = ["sliding_attention", "full_attention", "sliding_attention"]
        return Gemma3TextConfig(
            **{**USUAL, **options}, head_dim=8, sliding_window=window, layer_types=layers
        )
    return MistralConfig(**{**USUAL, **options}, sliding_window=window)


def trunk_of(config: PretrainedConfig, *, dtype: torch.dtype = torch.float32) -> Backbone:
    return Backbone(language_model(config).to(dtype), max_tokens=10_000, language_head=False)


def spoil(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    """Changes what tokens on a tree see: `wrong(mask_spec, end, window)` gives another of these."""
    right = TreeMask.visible

    def visible(self: TreeMask, shape: torch.Size, *, end: int, window: int | None) -> Any:
        mask_spec, window = wrong(self, window)
        return right(mask_spec, shape, end=end, window=window)

    monkeypatch.setattr(TreeMask, "visible", visible)


WINDOWS = {
    "no window": lambda window: None,
    "one token too many": lambda window: window and window + 1,
    "one token too few": lambda window: window and window - 1,
}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("window", [6, 64, 512])
@pytest.mark.parametrize("change", WINDOWS)
def test_a_wrong_window_is_found(
    change: str, window: int, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = windowed(window, mixed=mixed)
    assert trunk_of(config).shares
    spoil(monkeypatch, lambda mask_spec, size: (mask_spec, WINDOWS[change](size)))
    assert not trunk_of(config).shares


@pytest.mark.parametrize("change", WINDOWS)
def test_a_wrong_window_is_found_in_half_precision(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = windowed(6)
    assert trunk_of(config, dtype=torch.bfloat16).shares
    spoil(monkeypatch, lambda mask_spec, size: (mask_spec, WINDOWS[change](size)))
    assert not trunk_of(config, dtype=torch.bfloat16).shares


def _sees_the_other_branch(mask_spec: TreeMask, window: int | None) -> tuple[TreeMask, int | None]:
    paths = [np.arange(path[-1] + 1) for path in mask_spec.paths]
    return replace(mask_spec, paths=paths), window


def _misses_its_parent(mask_spec: TreeMask, window: int | None) -> tuple[TreeMask, int | None]:
    return replace(mask_spec, paths=[np.delete(path, -2) for path in mask_spec.paths]), window


@pytest.mark.parametrize("wrong", [_sees_the_other_branch, _misses_its_parent])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_a_wrong_mask_is_found(
    family: str, dtype: torch.dtype, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = type(SHARING[family]).from_dict(
        {**SHARING[family].to_dict(), "initializer_range": 0.02}
    )
    assert trunk_of(config, dtype=dtype).shares
    spoil(monkeypatch, wrong)
    assert not trunk_of(config, dtype=dtype).shares


def test_a_window_that_no_prefix_reaches_costs_nothing() -> None:
    model = language_model(windowed(64))
    assert Backbone(model, max_tokens=65, language_head=False)._windows == {64}
    assert Backbone(model, max_tokens=64, language_head=False)._windows == {None}


def test_rows_paths_and_trees_see_the_same() -> None:
    for window in (None, 3):
        rows = RowMask([4, 4]).visible(torch.Size([2, 2]), end=6, window=window)
        paths = PathMask([4, 4]).visible(torch.Size([2, 2]), end=6, window=window)
        tree = TreeMask([0, 1, 2, 3], [np.arange(5), np.arange(6)] * 2)
        seen = tree.visible(torch.Size([2, 2]), end=6, window=window)
        torch.testing.assert_close(rows, paths)
        torch.testing.assert_close(rows, seen)
    # Prefixes of 1 and 3 tokens, two new tokens in the last columns of both.
    seen = PathMask([1, 3]).visible(torch.Size([2, 2]), end=5, window=3).int().tolist()
    assert seen == [[[1, 0, 0, 1, 0], [1, 0, 0, 1, 1]], [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]]


@pytest.mark.parametrize("family", SHARING)
def test_the_head_alone_makes_logits_except_where_it_does_not(family: str) -> None:
    backbone = Backbone(language_model(SHARING[family]), max_tokens=100, language_head=True)
    assert backbone.head_makes_logits == (family not in ("cohere", "gemma2"))


def test_an_adapter_that_feeds_more_than_ids_is_run_as_a_whole() -> None:
    model = get_peft_model(
        language_model(LlamaConfig(**GROUPED)),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    )
    assert not Backbone(model.eval(), max_tokens=100, language_head=True).head_makes_logits


def test_an_encoder_cannot_share(caplog: pytest.LogCaptureFixture) -> None:
    config = BertConfig(**SIZES, intermediate_size=64)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with caplog.at_level(logging.WARNING, logger="rewardmodel.prefix_cache.backbone"):
        assert not Backbone(model, max_tokens=100, language_head=False).shares
    assert len(caplog.records) == 1

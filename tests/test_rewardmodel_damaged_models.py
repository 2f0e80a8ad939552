"""Damaged files of a model are named by their own name, before anything is built of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from policies.generation.language_model import Policy, load_language_model
from prefsearch.storage.weights import WeightsError
from rewardmodel.models.loading import load_reward_model
from tests.reward_folders import save_adapter, save_classifier, set_json

WEIGHTS = "model.safetensors"
LAYER = "model.layers.1.mlp.up_proj.weight"
DAMAGE = {
    "empty": b"",
    "cut": b'{"a": ',
    "nan": b'{\n"a": NaN}',
    "twice": b'{"a": 1,\n"a": 2}',
    "list": b"[]",
    "number": b"5",
    "bytes": b'{"a": "\xff"}',
    "deep": b"[" * 5000,
}


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json",
                                  "tokenizer_config.json", "special_tokens_map.json"])  # fmt: skip
def test_damaged_settings_of_a_policy_are_named(
    policy_folder: Path, tmp_path: Path, file: str, damage: str
) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    (folder / file).write_bytes(DAMAGE[damage])
    name = file.replace(".", r"\.")
    with pytest.raises(ValueError, match=rf"{name}(:\d+)?: .*required"):
        Policy.load(str(folder))


def test_a_tokenizer_of_other_content_is_named(policy_folder: Path, tmp_path: Path) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    for text in ('{"version": "1.0"}', '{"model": 5}'):
        (folder / "tokenizer.json").write_text(text)
        with pytest.raises(ValueError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
            Policy.load(str(folder))


@pytest.mark.parametrize("length", ["x", 0, -1, True, [64]])
def test_a_wrong_length_of_a_tokenizer_is_named(
    policy_folder: Path, tmp_path: Path, length: Any
) -> None:
    folder = save_classifier(policy_folder, tmp_path / "model", seed=0)
    set_json(folder / "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: found model_max_length"):
        load_reward_model(str(folder))


def test_a_wrong_configuration_is_not_blamed_on_the_tokenizer(
    policy_folder: Path, tmp_path: Path
) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    set_json(folder / "config.json", num_attention_heads=0)
    with pytest.raises(ValueError, match=r"no model could be loaded from .*ZeroDivisionError"):
        Policy.load(str(folder))


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("num_hidden_layers", 10**7, "20 tensors"),
        ("num_labels", 10**9, r"\d+ bytes"),
        ("hidden_size", 10**6, r"\d+ bytes"),
        ("vocab_size", 10**8, r"\d+ bytes"),
        ("intermediate_size", 10**6, r"\d+ bytes"),
        ("num_attention_heads", 10**9, r"\d+ bytes"),
    ],
)
def test_sizes_beyond_the_weights_are_not_built(
    policy_folder: Path, tmp_path: Path, name: str, value: int, held: str
) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    set_json(folder / "config.json", **{name: value})
    adapter = save_adapter(policy_folder, tmp_path / "adapter", seed=0)
    set_json(adapter / "adapter_config.json", base_model_name_or_path=str(folder))
    found = f"vocab_size 400 for a width of {value}" if name == "hidden_size" else f"{name} {value}"
    message = rf"config\.json: found {found}.* the weight files hold {held}"
    for load, source in (
        (Policy.load, folder), (load_language_model, folder), (load_reward_model, adapter),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            load(str(source))


@pytest.mark.parametrize("dtype", ["complex64", "int8", "uint8", "int16", "int32", "int64", "bool"])
@pytest.mark.parametrize("name", [LAYER, "model.norm.weight"])
def test_weights_of_another_kind_of_numbers_are_refused(
    policy_folder: Path, tmp_path: Path, dtype: str, name: str
) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    tensors[name] = tensors[name].to(getattr(torch, dtype))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for load in (Policy.load, load_language_model):
        with pytest.raises(WeightsError, match=rf"safetensors: the weight {name} is of dtype"):
            load(str(folder))


def test_an_adapter_of_whole_numbers_is_refused(policy_folder: Path, tmp_path: Path) -> None:
    adapter = save_adapter(policy_folder, tmp_path / "adapter", seed=0)
    file = adapter / "adapter_model.safetensors"
    for kind in (torch.complex64, torch.int8):
        save_file({name: w.to(kind) for name, w in load_file(file).items()}, file)
        with pytest.raises(WeightsError, match=r"adapter_model\.safetensors: the weight .*dtype"):
            load_reward_model(str(adapter))


@pytest.mark.parametrize(
    "name",
    ["model.layers.2.pooler.weight", "model.pooler.weight", "pooler.weight",
     "model.layers.2.inv_freq.weight", "model.layers.1.pooler.dense.weight"],
)  # fmt: skip
def test_left_over_weights_by_the_names_of_computed_ones_are_refused(
    policy_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    tensors[name] = torch.full((2, 2), torch.nan)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"is a reward model|has no place"):
        Policy.load(str(folder))


def test_a_buffer_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    config = DeepseekV3Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, moe_intermediate_size=8,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4,
        n_group=1, topk_group=1, num_experts_per_tok=2, n_shared_experts=1, q_lora_rank=8,
        kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, head_dim=4,
        first_k_dense_replace=1, max_position_embeddings=32,
    )  # fmt: skip
    DeepseekV3ForCausalLM(config).save_pretrained(tmp_path)
    load_language_model(str(tmp_path))
    tensors = load_file(tmp_path / WEIGHTS)
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    tensors[name][0] = torch.nan
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=rf"the weight {name} is not finite"):
        load_language_model(str(tmp_path))


def test_a_refused_model_draws_no_warning_beside_the_error(
    policy_folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = save_classifier(policy_folder, tmp_path / "model", seed=0)
    set_json(folder / "config.json", hidden_size=0)
    adapter = save_adapter(policy_folder, tmp_path / "adapter", seed=0)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file)
    recwarn.clear()
    for source in (folder, adapter):
        with pytest.raises(WeightsError):
            load_reward_model(str(source))
    assert not [str(w.message) for w in recwarn]

"""Every path that loads a model refuses weights that are missing, left over or not finite."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from policies.generation.language_model import Policy, fine_tune, load_language_model
from policies.planning.value_head import ValueHead
from prefsearch.storage.weights import WeightsError, require_finite_weights
from rewardmodel.models.adapter_members import load_adapter_members
from rewardmodel.models.averaging import average_weights
from rewardmodel.models.ensemble_file import write_ensemble
from rewardmodel.models.implicit import ImplicitRewardModel
from rewardmodel.models.loading import load_reward_model
from rewardmodel.models.token_value import TokenValueModel
from rewardmodel.pretrained.checkpoints import load_classifier
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model
from tests.reward_folders import save_adapter, save_classifier, set_json
from tests.test_rewardmodel_training import pairs

WEIGHTS = "model.safetensors"
LAYER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def scorer(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(policy_folder, tmp_path_factory.mktemp("scorer") / "model", seed=0)


@pytest.fixture(scope="module")
def steps(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps") / "model"
    return save_classifier(policy_folder, folder, seed=0, labels=2, tokens=True)


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], object], file: str = WEIGHTS) -> Path:
    tensors = load_file(folder / file)
    edit(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def drop(tensors: dict[str, Any]) -> None:
    del tensors[LAYER]


def add_layer(tensors: dict[str, Any]) -> None:
    tensors[LAYER.replace(".1.", ".2.")] = tensors[LAYER].clone()


def poison(tensors: dict[str, Any]) -> None:
    tensors[LAYER][0, 0] = torch.nan
    tensors["model.norm.weight"][0] = torch.inf


def other_shape(tensors: dict[str, Any]) -> None:
    tensors[LAYER] = tensors[LAYER][:-1].clone()


FAULTS = [
    (drop, rf"no weights for 1 parts .*{LAYER}; required: all of them"),
    (add_layer, r"has no place, such as model\.layers\.2\.mlp"),
    (poison, r"is not finite \(1 of its numbers .*; 2 of \d+ weights"),
    (other_shape, rf"other shapes than .*{LAYER} is \["),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("path", ["policy", "fine_tune", "implicit", "reference"])
def test_a_faulty_policy_is_refused(policy_folder, tmp_path, path, fault, message) -> None:
    whole = str(policy_folder)
    source = str(change(copied(policy_folder, tmp_path / "broken"), fault))
    rows = Dataset.from_dict({"prompt": ["a"], "completion": ["b"]})
    paths: dict[str, Callable[[], Any]] = {
        "policy": lambda: Policy.load(source),
        "fine_tune": lambda: fine_tune(source, rows, tmp_path / "o", optimization=OptimConfig()),
        "implicit": lambda: ImplicitRewardModel.load(source, reference=None),
        "reference": lambda: ImplicitRewardModel.load(whole, reference=source),
    }
    with pytest.raises(WeightsError, match=message) as raised:
        paths[path]()
    assert source in str(raised.value)


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("kind", ["sequence", "new", "ensemble", "process", "values"])
def test_a_faulty_classifier_is_refused(scorer, steps, tmp_path, kind, fault, message) -> None:
    whole = steps if kind == "process" else scorer
    source = str(change(copied(whole, tmp_path / "broken"), fault))
    if kind == "ensemble":
        write_ensemble(tmp_path / "both", [str(scorer), source])
    paths: dict[str, Callable[[], Any]] = {
        "new": lambda: load_classifier(source, task="SEQ_CLS", labels=1, init_head=True),
        "values": lambda: TokenValueModel.load(source),
        "ensemble": lambda: load_reward_model(str(tmp_path / "both")),
    }
    with pytest.raises(WeightsError, match=message):
        paths.get(kind, lambda: load_reward_model(source))()


def test_heads_of_another_use_are_no_fault(policy_folder, scorer, tmp_path) -> None:
    def old_buffers(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        tensors["v_head.summary.weight"] = torch.ones(1, 32)

    source = str(change(copied(policy_folder, tmp_path / "old"), old_buffers))
    assert Policy.load(source).context == 256
    untied = AutoModelForCausalLM.from_pretrained(policy_folder, tie_word_embeddings=False)
    untied.save_pretrained(tmp_path / "untied")
    assert "lm_head.weight" in load_file(tmp_path / "untied" / WEIGHTS)
    base = str(tmp_path / "untied")
    load_classifier(base, task="SEQ_CLS", labels=1, init_head=True)
    with pytest.raises(WeightsError, match="no trained head"):
        load_classifier(base, task="SEQ_CLS", labels=1, init_head=False)


def test_a_reward_model_is_no_policy(scorer, steps) -> None:
    for source in (scorer, steps):
        with pytest.raises(WeightsError, match=r"is a reward model .* holds the head score"):
            Policy.load(str(source))


def test_left_over_weights_of_a_trained_reward_model_are_named(scorer, tmp_path) -> None:
    source = copied(scorer, tmp_path / "gated")
    change(source, lambda tensors: tensors.update({"gating.weight": torch.ones(2, 2)}))
    with pytest.raises(WeightsError, match=r"has no place, such as gating\.weight"):
        load_reward_model(str(source))


def adapter_of(scorer: Path, tmp_path: Path, name: str) -> Path:
    return save_adapter(scorer, tmp_path / name, seed=1)


def poison_first(tensors: dict[str, Any]) -> None:
    tensors[min(tensors)].fill_(torch.inf)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda tensors: tensors.pop(min(tensors)), r"no weights for 1 parts of the adapter"),
        (lambda tensors: tensors.update(other=torch.ones(1)), r"holds 1 weights .*such as other"),
        (poison_first, "is not finite"),
    ],
)
@pytest.mark.parametrize("members", [1, 2])
def test_a_faulty_adapter_is_refused(scorer, tmp_path, fault, message, members) -> None:
    whole, broken = (adapter_of(scorer, tmp_path, name) for name in ("whole", "broken"))
    change(broken, fault, "adapter_model.safetensors")
    sources = [str(whole), str(broken)][-members:]
    with pytest.raises(WeightsError, match=message) as raised:
        load_adapter_members(sources)
    assert str(broken) in str(raised.value)


def test_a_faulty_base_of_an_adapter_is_refused(scorer, tmp_path) -> None:
    base = copied(scorer, tmp_path / "base")
    adapter = adapter_of(base, tmp_path, "adapter")
    change(base, drop)
    with pytest.raises(WeightsError, match=rf"{LAYER}; required.*\(the base of the adapter"):
        load_reward_model(str(adapter))


def test_an_adapter_of_an_adapter_is_refused(scorer, tmp_path) -> None:
    one, two = (adapter_of(scorer, tmp_path, name) for name in ("one", "two"))
    set_json(one / "adapter_config.json", base_model_name_or_path=str(two))
    set_json(two / "adapter_config.json", base_model_name_or_path=str(one))
    with pytest.raises(ValueError, match="an adapter itself; required: a whole model"):
        load_reward_model(str(one))


@pytest.mark.parametrize("fault", [poison, drop])
def test_faulty_weights_are_not_averaged(policy_folder, tmp_path, fault) -> None:
    sources = [save_classifier(policy_folder, tmp_path / f"m{i}", seed=i) for i in range(2)]
    for source in sources if fault is drop else sources[1:]:
        change(source, fault)
    with pytest.raises(WeightsError, match=rf"m[01].*({LAYER}|norm)"):
        average_weights([str(source) for source in sources], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda tensors: tensors.pop("layers.1.weight"), "1 missing, 0 too many"),
        (lambda tensors: tensors.update(more=torch.ones(1)), "0 missing, 1 too many"),
        (lambda tensors: tensors["layers.1.weight"].fill_(torch.nan), "is not finite"),
        (lambda tensors: tensors.update(shift=torch.ones(2)), r"shift: found shape \[2\]"),
    ],
)
def test_a_faulty_value_head_is_refused(tmp_path, fault, message) -> None:
    ValueHead(8).save(tmp_path / "head")
    change(tmp_path / "head", fault, "value_head.safetensors")
    with pytest.raises(WeightsError, match=message):
        ValueHead.load(tmp_path / "head")
    (tmp_path / "head" / "value_head.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        ValueHead.load(tmp_path / "head")
    (tmp_path / "head" / "value_head.json").write_text('{"hidden": 8}')
    with pytest.raises(ValueError, match=r"value_head\.json: found .*required: hidden_size"):
        ValueHead.load(tmp_path / "head")


def sharded(source: Path, folder: Path) -> Path:
    copied(source, folder)
    (folder / WEIGHTS).unlink()
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(folder, max_shard_size="40KB")
    return folder


def test_faulty_shards_are_named(policy_folder, tmp_path) -> None:
    whole = sharded(policy_folder, tmp_path / "whole")
    Policy.load(str(whole))
    first = min(whole.glob("model-*.safetensors")).name
    gone = copied(whole, tmp_path / "gone")
    (gone / first).unlink()
    with pytest.raises(WeightsError, match=rf"{first} is missing, and .*index\.json names it"):
        Policy.load(str(gone))
    short = copied(whole, tmp_path / "short")
    (short / first).write_bytes((whole / first).read_bytes()[:-20])
    with pytest.raises(WeightsError, match=rf"{first}, \d+ bytes, cannot be read as safetensors"):
        Policy.load(str(short))
    index = json.loads((whole / "model.safetensors.index.json").read_text())
    for change_map, message in (
        ({**index["weight_map"], "model.more": first}, r"holds no weight model\.more"),
        ({**index["weight_map"], "model.more": "../" + first}, "in the same folder"),
        ([], "required: the file of every weight"),
    ):
        set_json(whole / "model.safetensors.index.json", weight_map=change_map)
        with pytest.raises(WeightsError, match=message):
            Policy.load(str(whole))


def test_pickles_are_refused_before_they_are_read(policy_folder, scorer, tmp_path) -> None:
    folder = copied(policy_folder, tmp_path / "pickled")
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin holds weights as a pickle"):
        Policy.load(str(folder))
    adapter = adapter_of(scorer, tmp_path, "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(WeightsError, match=r"adapter_model\.bin holds weights as a pickle"):
        load_reward_model(str(adapter))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"config\.json: found model_type None among 0 settings"),
        ("[]", "found a JSON list; required: an object"),
        ("null", "found a JSON NoneType; required: an object"),
        ('"llama"', "found a JSON str; required: an object"),
        ('{"model_type": 3}', "found model_type 3"),
        ('{"model_type": ', r"config\.json:1: not JSON"),
        ("", r"config\.json:1: not JSON"),
        ('{"model_type": "no-such"}', "could be loaded from"),
    ],
)
def test_a_faulty_configuration_is_named(policy_folder, tmp_path, text, message) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    (folder / "config.json").write_text(text)
    for load in (load_language_model, Policy.load, load_reward_model):
        with pytest.raises(ValueError, match=message if load is load_language_model else "model"):
            load(str(folder))


def test_a_configuration_with_a_value_of_another_type_is_named(policy_folder, tmp_path) -> None:
    folder = copied(policy_folder, tmp_path / "model")
    for name, value in (("num_hidden_layers", "many"), ("hidden_size", None), ("rope_scaling", 3)):
        shutil.copy(policy_folder / "config.json", folder)
        set_json(folder / "config.json", **{name: value})
        with pytest.raises(ValueError, match="model"):
            load_language_model(str(folder))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "float8_e4m3fn",
                                   "float8_e5m2", "complex64", "int8"])  # fmt: skip
def test_weights_of_any_dtype_are_looked_at(dtype: str) -> None:
    weight = torch.ones(3, 2).to(getattr(torch, dtype))
    meta = torch.ones(2, device="meta")
    weights = [("whole", weight), ("none", weight[:0]), ("meta", meta), ("scalar", weight[0, 0])]
    require_finite_weights("m", weights, remedy="")
    if weight.is_floating_point() or weight.is_complex():
        broken = torch.full((2,), torch.nan).to(weight.dtype)
        with pytest.raises(WeightsError, match=r"m: the weight bad .*2 of its.*1 of 2 weights"):
            require_finite_weights("m", [("whole", weight), ("bad", broken)], remedy="")


def test_an_adapter_brings_its_own_head_in_place_of_another_shape_on_its_base(
    policy_folder: Path, tmp_path: Path
) -> None:
    base = save_classifier(policy_folder, tmp_path / "base", seed=1)
    train_reward_model(
        str(base),
        pairs(8),
        tmp_path / "adapter",
        optimization=OptimConfig(batch_size=4, lora_rank=2),
        objective=LossConfig(heads=2),
    )
    model = load_reward_model(str(tmp_path / "adapter"))
    assert model.member_scores(["a", "b"], ["c", "d"]).shape == (2, 2)

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from rewardmodel.models.averaging import average_weights
from rewardmodel.models.sequence import SequenceRewardModel
from tests.reward_folders import CLOSE, PROMPT, TEXTS, save_adapter, save_classifier, set_json

PROMPTS = [PROMPT] * 4


@pytest.fixture(scope="module")
def folders(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two reward models of one architecture, with shifts."""
    root = tmp_path_factory.mktemp("warm")
    return [
        save_classifier(policy_folder, root / f"m{i}", seed=i, reward_shift=float(i))
        for i in range(2)
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_every_weight_is_the_mean(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = average_weights([str(f) for f in folders], out, [3.0, 1.0])
    assert found["weights"] == [0.75, 0.25]
    first, second, made = (weights(folder) for folder in (*folders, out))
    assert set(made) == set(first)
    assert found["tensors"] == len(made)
    for name, weight in made.items():
        expected = 0.75 * first[name] + 0.25 * second[name]
        torch.testing.assert_close(weight, expected, atol=1e-6, rtol=1e-6, msg=name)
    model = SequenceRewardModel.load(str(out))
    assert model.model.config.reward_shift == 0.25
    assert model.score(PROMPTS, TEXTS).isfinite().all()


def test_the_mean_of_one_model_with_itself_is_that_model(
    folders: list[Path], tmp_path: Path
) -> None:
    average_weights([str(folders[1])] * 2, tmp_path / "out")
    expected = SequenceRewardModel.load(str(folders[1])).score(PROMPTS, TEXTS)
    found = SequenceRewardModel.load(str(tmp_path / "out")).score(PROMPTS, TEXTS)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_models_in_several_files_are_averaged_file_by_file(
    folders: list[Path], tmp_path: Path
) -> None:
    sharded = tmp_path / "sharded"
    AutoModelForSequenceClassification.from_pretrained(folders[0]).save_pretrained(
        sharded, max_shard_size="40KB"
    )
    AutoTokenizer.from_pretrained(folders[0]).save_pretrained(sharded)
    assert len(list(sharded.glob("*.safetensors"))) > 1
    average_weights([str(sharded), str(folders[1])], tmp_path / "several")
    average_weights([str(f) for f in folders], tmp_path / "one")
    scores = [
        SequenceRewardModel.load(str(tmp_path / name)).score(PROMPTS, TEXTS)
        for name in ("several", "one")
    ]
    torch.testing.assert_close(scores[0], scores[1], **CLOSE)


def test_adapters_are_merged_before_they_are_averaged(policy_folder: Path, tmp_path: Path) -> None:
    adapters = [save_adapter(policy_folder, tmp_path / f"a{i}", seed=i) for i in range(2)]
    average_weights([str(folder) for folder in adapters], tmp_path / "out")
    merged = [
        SequenceRewardModel.load(str(folder)).model.merge_and_unload().state_dict()
        for folder in adapters
    ]
    made = weights(tmp_path / "out")
    name = "model.layers.0.self_attn.q_proj.weight"
    for key in (name, "score.weight", "model.embed_tokens.weight"):
        expected = (merged[0][key] + merged[1][key]) / 2
        torch.testing.assert_close(made[key], expected, atol=1e-6, rtol=1e-5)
    factors = [load_file(folder / "adapter_model.safetensors") for folder in adapters]
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    a, b = (sum(f[f"{prefix}{x}.weight"] for f in factors) / 2 for x in "AB")
    base = weights(policy_folder)[name]
    assert not torch.allclose(made[name] - base, 2 * b @ a, atol=1e-3)  # alpha over rank is 2
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    SequenceRewardModel.load(str(tmp_path / "out")).score(PROMPTS, TEXTS)


def test_models_of_different_kinds_are_refused(
    policy_folder: Path, folders: list[Path], tmp_path: Path
) -> None:
    first = str(folders[0])
    out = tmp_path / "out"

    def refused(message: str, other: Path, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            average_weights([first, str(other)], out, **options)  # type: ignore[arg-type]
        assert not out.exists()

    bert = tmp_path / "bert"
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, vocab_size=400, num_labels=1)  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(bert)
    AutoTokenizer.from_pretrained(first).save_pretrained(bert)
    refused(r"config architectures differs: \['LlamaFor.*\['BertFor", bert)
    deeper = save_classifier(policy_folder, tmp_path / "deeper", seed=0)
    set_json(deeper / "config.json", rms_norm_eps=0.1)
    refused("config rms_norm_eps differs: 1e-06 in .*, 0.1 in", deeper)
    lacking = save_classifier(policy_folder, tmp_path / "lacking", seed=0)
    kept = weights(lacking)
    dropped = kept.pop("model.norm.weight")
    save_file(kept, lacking / "model.safetensors")
    refused("tensor model.norm.weight differs: there in .*, missing in", lacking)
    save_file({**kept, "model.norm.weight": dropped[:5].clone()}, lacking / "model.safetensors")
    refused(r"the shape of model.norm.weight differs: \[32\] in .*, \[5\] in", lacking)
    words = save_classifier(policy_folder, tmp_path / "words", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(words)
    refused("the tokenizer differs", words)
    refused("weights: found", folders[1], weights=[1.0, -1.0])
    with pytest.raises(ValueError, match="found 1 models to average"):
        average_weights([first], out)
    with pytest.raises(ValueError, match=r"holds no model.safetensors"):
        average_weights([first, str(tmp_path)], out)


def test_whole_numbers_are_kept_only_where_they_are_equal(
    policy_folder: Path, tmp_path: Path
) -> None:
    sources = [save_classifier(policy_folder, tmp_path / f"m{i}", seed=i) for i in range(2)]
    for count, folder in enumerate(sources):
        save_file(
            {**weights(folder), "steps": torch.tensor([7]), "parts": torch.tensor([count])},
            folder / "model.safetensors",
        )
    with pytest.raises(ValueError, match=r"tensor parts \(torch.int64\) differs between"):
        average_weights([str(folder) for folder in sources], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    save_file({**weights(sources[1]), "parts": torch.tensor([0])}, sources[1] / "model.safetensors")
    average_weights([str(folder) for folder in sources], tmp_path / "out")
    assert weights(tmp_path / "out")["steps"].tolist() == [7]

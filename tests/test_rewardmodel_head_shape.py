"""The number of labels is read from the weights, whatever config.json leaves out."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, LlamaForTokenClassification

from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.head_shape import head_labels
from tests.chat_models import (
    PROMPTS,
    REPLIES,
    chat_config,
    chat_tokenizer,
    template_scores,
    write_chat_policy,
    write_chat_scorer,
)
from tests.test_rewardmodel_input_format import write_encoder


def forget_labels(folder: Path) -> None:
    """Takes all that config.json says of labels away."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name in ("num_labels", "id2label", "label2id"):
        config.pop(name, None)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("how", ["whole", "sharded"])
def test_a_head_of_one_label_loads_without_num_labels(how, tmp_path):
    folder = tmp_path / "model"
    source = write_chat_scorer(folder, "qwen")
    expected = template_scores(source)[:, 0]
    if how == "sharded":
        model = AutoModelForSequenceClassification.from_pretrained(source)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="40KB")
        assert (folder / "model.safetensors.index.json").is_file()
    forget_labels(folder)
    assert head_labels(source, "SEQ_CLS") == 1
    found = load_reward_model(source).score(PROMPTS, REPLIES)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_several_heads_load_without_num_labels(tmp_path):
    folder = tmp_path / "model"
    source = write_chat_scorer(folder, "qwen", labels=3)
    expected = template_scores(source)
    forget_labels(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "reward_heads": 3}))
    found = load_reward_model(source).member_scores(PROMPTS, REPLIES).T
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_classifier_of_two_labels_is_still_refused(tmp_path):
    source = write_chat_scorer(tmp_path / "model", "qwen", labels=2)
    forget_labels(tmp_path / "model")
    with pytest.raises(ValueError, match="has 2 labels; required: 1"):
        load_reward_model(source)


def test_a_step_scorer_of_one_label_loads_without_num_labels(tmp_path):
    tokenizer = chat_tokenizer("qwen")
    folder = tmp_path / "model"
    LlamaForTokenClassification(chat_config(tokenizer, num_labels=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    expected = load_reward_model(str(folder)).score(PROMPTS, REPLIES)
    forget_labels(folder)
    torch.testing.assert_close(load_reward_model(str(folder)).score(PROMPTS, REPLIES), expected)


def test_an_encoders_head_is_found_by_its_own_name(tmp_path):
    source = write_encoder(tmp_path / "model", "roberta")
    forget_labels(tmp_path / "model")
    assert head_labels(source, "SEQ_CLS") == 1
    assert load_reward_model(source).score(["a"], ["b"]).shape == (1,)


def test_an_adapters_head_is_read_from_the_adapter(tmp_path):
    base = write_chat_scorer(tmp_path / "base", "qwen")
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapted = get_peft_model(
        model, LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], target_modules=["q_proj"])
    )
    adapted.save_pretrained(tmp_path / "adapter")
    chat_tokenizer("qwen").save_pretrained(tmp_path / "adapter")
    expected = load_reward_model(base).score(PROMPTS, REPLIES)
    forget_labels(tmp_path / "base")
    assert head_labels(str(tmp_path / "adapter"), "SEQ_CLS") == 1
    found = load_reward_model(str(tmp_path / "adapter")).score(PROMPTS, REPLIES)
    torch.testing.assert_close(found, expected)


def test_a_language_model_has_no_head(tmp_path):
    assert head_labels(write_chat_policy(tmp_path / "policy", "qwen"), "SEQ_CLS") is None

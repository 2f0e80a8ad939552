"""Encoders with a decoder are read right; models that read padding or other types are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import processors
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from prefsearch.config.settings import build
from rewardmodel.cli.data import inspect_data
from rewardmodel.cli.data_args import InspectArgs
from rewardmodel.cli.model_args import RewardTrainArgs
from rewardmodel.cli.train import train
from rewardmodel.models.loading import load_reward_model
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model
from tests.chat_models import write_chat_scorer
from tests.reward_folders import set_json
from tests.test_rewardmodel_input_format import (
    ANSWERS,
    QUESTIONS,
    pair_scores,
    pair_tokenizer,
    write_encoder,
)


def write_unusual(folder: Path, kind: str, *, last_type: int = 1) -> str:
    """Writes a random BART, T5 or XLNet with one label and a tokenizer of pairs."""
    tokenizer = pair_tokenizer("roberta" if kind == "bart" else "bert")
    begin, end = tokenizer.cls_token, tokenizer.sep_token
    ids = [(name, tokenizer.convert_tokens_to_ids(name)) for name in (begin, end)]
    shape: dict[str, Any] = {"vocab_size": len(tokenizer), "d_model": 32, "num_labels": 1}
    shape |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.sep_token_id}
    torch.manual_seed(0)
    if kind == "xlnet":
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end} {begin}:{last_type}",
            pair=f"$A {end} $B:1 {end}:1 {begin}:{last_type}",
            special_tokens=ids,
        )
        small: dict[str, Any] = {"n_layer": 2, "n_head": 2, "d_inner": 64, "initializer_range": 0.3}
        model: Any = XLNetForSequenceClassification(XLNetConfig(**shape, **small))
    elif kind == "t5":
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=ids
        )
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        small = {"d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
        small |= {"decoder_start_token_id": tokenizer.pad_token_id}
        model = T5ForSequenceClassification(T5Config(**shape, **small))
    else:
        small = {f"{part}_layers": 1 for part in ("encoder", "decoder")}
        small |= {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
        small |= {f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")} | {"init_std": 0.3}
        small |= {"decoder_start_token_id": tokenizer.sep_token_id}
        model = BartForSequenceClassification(BartConfig(**shape, **small))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_an_encoder_with_a_decoder_is_given_pairs_and_scores_as_transformers(kind, tmp_path):
    source = write_unusual(tmp_path / "model", kind)
    reward_model = load_reward_model(source)
    assert reward_model.encoder.input_format == "pair"
    expected = pair_scores(source)
    assert expected.std() > 1e-2
    torch.testing.assert_close(reward_model.score(QUESTIONS, ANSWERS), expected)


@pytest.mark.parametrize(
    ("options", "last_type", "message"),
    [
        ({}, 2, r"gives the tokens of a pair the types \[0, 0, 1, 1, 2\]; required: \[0, 0, 1, 1"),
        ({}, 1, "XLNetForSequenceClassification scores a text .* with padding on its right"),
        ({"input_format": "text"}, 2, "XLNetForSequenceClassification scores a text .* padding"),
    ],
)
def test_a_model_that_reads_padding_or_other_types_is_refused(
    options: dict[str, Any], last_type: int, message: str, tmp_path: Path
) -> None:
    source = write_unusual(tmp_path / "model", "xlnet", last_type=last_type)
    with pytest.raises(ValueError, match=rf"{message}.*Take another model"):
        load_reward_model(source, **options)
    pairs = Dataset.from_list([{"prompt": "Why?", "chosen": "So.", "rejected": "No."}])
    with pytest.raises(ValueError, match=message):
        train_reward_model(source, pairs, tmp_path / "t", optimization=OptimConfig(), **options)
    assert not (tmp_path / "t").exists()


# -------------------------------------------------------------------- encoders of pairs in commands


def write_chats(folder: Path) -> str:
    """Writes preferences of messages."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {k} + 2?"}],
            "chosen": [{"role": "assistant", "content": f"It is {k + 2}."}],
            "rejected": [{"role": "assistant", "content": "I do not think so."}],
        }
        for k in range(8)
    ]
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_data_are_inspected_as_the_pairs_that_an_encoder_is_given(tmp_path):
    source, data = write_encoder(tmp_path / "model", "bert"), write_chats(tmp_path)
    inspect_data(InspectArgs(dataset=data, model=source, out=str(tmp_path / "seen")))
    report = json.loads((tmp_path / "seen" / "data_report.json").read_text())
    encoder = load_reward_model(source).encoder
    longest = max(
        len(encoder.joined(f"What is {k} + 2?", reply))
        for k in range(8)
        for reply in (f"It is {k + 2}.", "I do not think so.")
    )
    assert report["tokens"]["longest"]["p100"] == longest


def test_data_are_inspected_in_the_form_that_a_model_was_trained_on(tmp_path):
    source, data = write_encoder(tmp_path / "model", "bert"), write_chats(tmp_path)
    set_json(tmp_path / "model" / "config.json", input_format={"version": 1, "name": "text"})
    with pytest.raises(ValueError, match="no chat template"):
        inspect_data(InspectArgs(dataset=data, model=source, out=str(tmp_path / "seen")))
    causal = write_chat_scorer(tmp_path / "causal", "mistral")
    (tmp_path / "causal" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        inspect_data(InspectArgs(dataset=data, model=causal, out=str(tmp_path / "seen")))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_transformer_from_scratch_is_given_the_pairs_that_the_encoder_is(kind, tmp_path):
    source, data = write_encoder(tmp_path / "model", kind), write_chats(tmp_path)
    out = tmp_path / "run"
    train(build(RewardTrainArgs,
        model=source, dataset=data, holdout=0.3, batch_size=4, max_length=64,
        scratch_baseline=True, out=str(out),
    ))  # fmt: skip
    found = json.loads((out / "steps" / "evaluate.json").read_text())["result"]
    assert "from scratch" in found["baselines"]
    scratch = load_reward_model(str(out / "scratch" / "model"))
    assert scratch.encoder.input_format == "pair"
    alone = load_reward_model(str(out / "scratch" / "model"), batch_size=1)
    scores = scratch.score(QUESTIONS, ANSWERS)
    torch.testing.assert_close(scores, alone.score(QUESTIONS, ANSWERS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "places"), [("bert", 512), ("roberta", 512)])
def test_a_length_that_the_tokenizer_only_claims_gives_way_to_the_model_s_places(
    kind, places, tmp_path
):
    source = write_encoder(tmp_path / "model", kind)
    set_json(tmp_path / "model" / "tokenizer_config.json", model_max_length=1024)
    reward_model = load_reward_model(source)
    assert reward_model.encoder.max_length == places
    assert reward_model.score(["Why? " * 400], ["No. " * 400]).isfinite().all()
    with pytest.raises(ValueError, match=f"has learned places for {places} tokens"):
        load_reward_model(source, max_length=1024)

"""Encoders of pairs are given two segments, as `tokenizer(question, answer)` makes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rewardmodel.data.conversation import Conversation
from rewardmodel.models.loading import load_reward_model
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model
from tests.chat_models import CORPUS, write_chat_scorer

QUESTIONS = ["What is 1 + 2?", "What is the best way to learn a language?", "Why?"]
ANSWERS = ["Speak it every day, with friends.", "No.", "It is 3. " * 12]


def pair_tokenizer(kind: str) -> Any:
    """A tokenizer with the special tokens and pairs of BERT, RoBERTa or DeBERTa."""
    roberta = kind == "roberta"
    begin, end, pad, unk = ("<s>", "</s>", "<pad>", "<unk>") if roberta else (
        "[CLS]", "[SEP]", "[PAD]", "[UNK]"
    )  # fmt: skip
    special = [begin, pad, end, unk]
    bpe = Tokenizer(models.BPE(unk_token=unk))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    middle = f"{end} {end} $B {end}" if roberta else f"{end} $B:1 {end}:1"
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {middle}",
        special_tokens=[(name, bpe.token_to_id(name)) for name in (begin, end)],
    )
    names: dict[str, Any] = {"cls_token": begin, "sep_token": end, "pad_token": pad}
    names |= {"bos_token": begin, "eos_token": end} if roberta else {}
    inputs = ["input_ids", "attention_mask", *([] if roberta else ["token_type_ids"])]
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token=unk, model_input_names=inputs, **names
    )


def write_encoder(folder: Path, kind: str) -> str:
    """Writes a random encoder with one label and its tokenizer."""
    tokenizer = pair_tokenizer(kind)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_labels": 1,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model: Any = {
        "bert": lambda: BertForSequenceClassification(BertConfig(**shape)),
        "roberta": lambda: RobertaForSequenceClassification(
            RobertaConfig(**shape, max_position_embeddings=514, type_vocab_size=1)
        ),
        "deberta": lambda: DebertaV2ForSequenceClassification(
            DebertaV2Config(**shape, type_vocab_size=2, pooler_hidden_size=32)
        ),
    }[kind]()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@torch.inference_mode()
def pair_scores(source: str, max_length: int | None = None) -> torch.Tensor:
    """Scores by transformers alone, of `tokenizer(question, answer)`."""
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    cut = {"truncation": True, "max_length": max_length} if max_length else {}
    rows = zip(QUESTIONS, ANSWERS, strict=True)
    made = [tokenizer(q, a, return_tensors="pt", **cut) for q, a in rows]
    return torch.tensor([model(**row).logits.item() for row in made])


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta"])
@pytest.mark.parametrize("max_length", [None, 24])
def test_an_encoder_scores_pairs_as_transformers_does(kind, max_length, tmp_path):
    source = write_encoder(tmp_path / "model", kind)
    reward_model = load_reward_model(source, max_length=max_length)
    expected = pair_scores(source, max_length)
    asked = [Conversation(({"role": "user", "content": text},)) for text in QUESTIONS]
    torch.testing.assert_close(reward_model.score(QUESTIONS, ANSWERS), expected)
    torch.testing.assert_close(reward_model.score(asked, ANSWERS), expected)
    torch.testing.assert_close(reward_model.session().score(QUESTIONS, ANSWERS), expected)
    repeated = reward_model.score([QUESTIONS[1]] * 3, ANSWERS)
    torch.testing.assert_close(repeated[1], expected[1])


def test_what_two_segments_cannot_hold_is_refused_by_name(tmp_path):
    model = load_reward_model(write_encoder(tmp_path / "model", "bert"))
    user = {"role": "user", "content": "Hi"}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    for prompt, reply, named in (
        (Conversation((user,), tools=({"type": "function"},)), "Yes", "tools"),
        (Conversation((user,), chat_template_kwargs={"a": 1}), "Yes", "chat_template_kwargs"),
        (Conversation((user,)), Conversation((call,)), "tool_calls"),
        (Conversation((user, call, user)), "Yes", r"3 messages \(user, assistant, user\)"),
    ):
        with pytest.raises(ValueError, match=f"found {named} for a model of question and answer"):
            model.score([prompt], [reply])
    named_reply = Conversation(({"role": "assistant", "content": "Yes", "name": "Bob"},))
    torch.testing.assert_close(
        model.score(["Hi"], ["Yes"]), model.score([Conversation((user,))], [named_reply])
    )


def test_the_user_may_say_that_it_is_one_text(tmp_path):
    source = write_encoder(tmp_path / "model", "bert")
    one = load_reward_model(source, input_format="text")
    assert one.encoder.joined("a", "b").count(one.encoder.tokenizer.sep_token_id) == 1
    assert not torch.allclose(one.score(QUESTIONS, ANSWERS), pair_scores(source))


def test_a_causal_model_is_given_one_text_whatever_its_tokenizer_does(tmp_path):
    source = write_chat_scorer(tmp_path / "model", "mistral")
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(source)
    (tmp_path / "model" / "chat_template.jinja").unlink(missing_ok=True)
    assert tokenizer("a", "b")["input_ids"].count(tokenizer.bos_token_id) == 2
    assert load_reward_model(source).encoder.input_format == "text"


@pytest.mark.parametrize(("chosen", "kept"), [("auto", "pair"), ("text", "text")])
def test_training_remembers_the_form(chosen, kept, tmp_path):
    source = write_encoder(tmp_path / "base", "bert")
    rows = [
        {"prompt": q, "chosen": a, "rejected": "I do not think so."}
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    folder = tmp_path / "trained"
    train_reward_model(
        source,
        Dataset.from_list(rows),
        folder,
        optimization=OptimConfig(epochs=1, batch_size=2, learning_rate=1e-3, max_length=64),
        objective=LossConfig(),
        input_format=chosen,
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["input_format"] == {"version": 1, "name": kept, "messages": False}
    reward_model = load_reward_model(str(folder))
    assert reward_model.encoder.input_format == kept
    if kept == "pair":
        expected = pair_scores(str(folder), 64)
        torch.testing.assert_close(reward_model.score(QUESTIONS, ANSWERS), expected)


def test_a_form_of_a_later_version_is_refused(tmp_path):
    source = write_encoder(tmp_path / "model", "bert")
    path = tmp_path / "model" / "config.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "input_format": {"version": 2, "name": "pair"}}))
    with pytest.raises(ValueError, match="required: version 1"):
        load_reward_model(source)


def test_a_pair_of_several_turns_is_refused(tmp_path):
    reward_model = load_reward_model(write_encoder(tmp_path / "model", "bert"))
    turns = ("user", "assistant", "user")
    prompt = Conversation(tuple({"role": role, "content": "x"} for role in turns))
    with pytest.raises(ValueError, match=r"found 3 messages .* required: one message"):
        reward_model.score([prompt], ["y"])

"""Reward models read conversations token for token as their chat template writes them."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForTokenClassification,
)

from prefsearch.cli.entry import main
from rewardmodel.data.chat_template import ChatTemplate
from rewardmodel.data.conversation import Conversation, prompts_of, row_of
from rewardmodel.data.preferences import load_preferences
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.implicit import ImplicitRewardModel
from rewardmodel.models.loading import load_reward_model
from rewardmodel.models.token_value import TokenValueModel
from rewardmodel.pretrained.tokenization import TextEncoder
from rewardmodel.training.batching.comparisons import tokenize_comparisons
from rewardmodel.training.loss_config import LossConfig
from tests.chat_models import (
    PARTS,
    PROMPTS,
    REPLIES,
    SHAPES,
    chat_config,
    chat_tokenizer,
    template_ids,
    template_scores,
    write_chat_policy,
    write_chat_scorer,
)
from tests.preference_rows import assistant, user, write
from tests.reward_folders import set_json

ON_TEXT = {"version": 1, "name": "text", "messages": False}
CLOSED = [name for name in SHAPES if name not in ("no-closer", "deepseek-r1")]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_conversation_has_the_ids_of_its_template(shape):
    tokenizer = chat_tokenizer(shape)
    encoder = TextEncoder(tokenizer, continues=False)
    for prompt, reply in zip(PROMPTS, REPLIES, strict=True):
        begin, end = encoder.pair(prompt, reply)
        assert begin + end == template_ids(tokenizer, prompt, reply)
        opening = tokenizer.apply_chat_template(
            list(prompt.messages), add_generation_prompt=True, return_dict=True
        )
        assert encoder.prompt_ids(prompt) == opening["input_ids"]
        assert end
        if shape != "deepseek-r1":  # its prompt alone opens a thought
            assert TextEncoder(tokenizer).pair(prompt, reply) == (begin, end)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_path_scores_as_transformers_does_on_the_templates_ids(shape, tmp_path):
    source = write_chat_scorer(tmp_path / "model", shape)
    expected = template_scores(source)[:, 0]
    reward_model = load_reward_model(source)
    found = {
        "score": reward_model.score(PROMPTS, REPLIES),
        "session": reward_model.session().score(PROMPTS, REPLIES),
        "shared": reward_model.score(PROMPTS[:1] * 6, REPLIES * 2)[:1],
        "ensemble": EnsembleRewardModel([reward_model]).session().score(PROMPTS, REPLIES),
        "values": TokenValueModel.load(source).score(PROMPTS, REPLIES),
    }
    for path, scores in found.items():
        torch.testing.assert_close(scores, expected[: len(scores)], atol=1e-4, rtol=1e-4, msg=path)


@pytest.mark.parametrize("shape", ["qwen", "gemma", "zephyr"])
def test_several_heads_score_as_transformers_does(shape, tmp_path):
    source = write_chat_scorer(tmp_path / "model", shape, labels=3)
    set_json(tmp_path / "model" / "config.json", reward_heads=3)
    found = load_reward_model(source).member_scores(PROMPTS, REPLIES).T
    torch.testing.assert_close(found, template_scores(source), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_rows_are_the_templates_ids(shape):
    tokenizer = chat_tokenizer(shape)
    rows = [row_of(p, chosen=r, rejected="No.") for p, r in zip(PROMPTS, REPLIES, strict=True)]
    made, counts = tokenize_comparisons(
        Dataset.from_list(rows), TextEncoder(tokenizer, continues=False), LossConfig(), seed=0
    )
    for row, prompt, reply in zip(made, PROMPTS, REPLIES, strict=True):
        expected = [template_ids(tokenizer, prompt, text) for text in (reply, "No.")]
        assert row["sequences"] == expected
    assert counts.cut == 0


@pytest.mark.parametrize("shape", CLOSED)
def test_text_that_was_rendered_gets_no_second_end_token(shape, tmp_path):
    tokenizer = chat_tokenizer(shape)
    row = row_of(PROMPTS[0], chosen=REPLIES[0], rejected="No.")
    path = write(tmp_path, row)
    pair = load_preferences(path, tokenizer=tokenizer)[0]
    found = TextEncoder(tokenizer).joined(pair["prompt"], pair["chosen"])
    expected = template_ids(tokenizer, PROMPTS[0], REPLIES[0])
    begin = tokenizer("")["input_ids"]
    if begin and expected[:1] != begin:  # text without a begin token gets the tokenizer's
        expected = begin + expected
    assert found == expected


def test_plain_text_still_ends_with_the_end_token():
    tokenizer = chat_tokenizer("qwen")
    ids = TextEncoder(tokenizer).joined("Question: 1 + 2?", " It is 3.")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids) == "Question: 1 + 2? It is 3.<|endoftext|>"


@pytest.mark.parametrize("shape", ["zephyr", "mistral"])
def test_plain_text_is_tokenized_as_one_where_tokenizers_add_a_space(shape):
    tokenizer = chat_tokenizer(shape, template=False)
    joined = TextEncoder(tokenizer).joined("Human: so?\n\nAssistant:", " Yes.")
    assert joined == [
        *tokenizer("Human: so?\n\nAssistant: Yes.")["input_ids"],
        tokenizer.eos_token_id,
    ]


@pytest.mark.parametrize("shape", CLOSED)
def test_an_unfinished_reply_is_not_closed(shape):
    tokenizer = chat_tokenizer(shape)
    encoder = TextEncoder(tokenizer)
    prompt, reply = PROMPTS[0], "It is"
    begin, end = encoder.pair(prompt, reply, finished=False)
    whole = encoder.joined(prompt, reply)
    assert len(begin + end) < len(whole)
    text = tokenizer.decode(begin + end)
    assert text.rstrip().endswith(reply)


@pytest.mark.parametrize("shape", ["qwen", "gemma", "zephyr", "phi-3"])
def test_accuracy_on_pairs_that_the_model_labeled_itself_is_one(shape, tmp_path):
    source = write_chat_scorer(tmp_path / "model", shape)
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = []
    for number in range(24):
        prompt = Conversation((user(f"What is {number} + 2?"),))
        replies = [f"It is {number + 2}.", f"No, I do not think so: {number * 7}"]
        with torch.inference_mode():
            ids = [torch.tensor([template_ids(tokenizer, prompt, r)]) for r in replies]
            first, second = (model(input_ids=row).logits.item() for row in ids)
        better, worse = replies if first > second else replies[::-1]
        rows.append(row_of(prompt, chosen=better, rejected=worse))
    path = write(tmp_path, *rows)
    found = evaluate_reward_model(
        load_reward_model(source), load_preferences(path, keep_messages=True), seed=0
    )
    assert found.accuracy.estimate == 1.0
    out = tmp_path / "found.json"
    command = ["reward", "evaluate", "--model", source, "--dataset", str(path), "--out", str(out)]
    assert main(command) == 0
    assert json.loads(out.read_text())["accuracy"]["estimate"] == 1.0


def test_nothing_is_written_behind_a_prompt_that_the_whole_does_not_begin_with(tmp_path):
    tokenizer = chat_tokenizer("deepseek-r1")
    with pytest.raises(ValueError, match=r"renders the prompt as.*<think>.*Set tokenizer.chat"):
        TextEncoder(tokenizer).pair(PROMPTS[0], REPLIES[0])
    rows = [row_of(p, chosen=r, rejected="No.") for p, r in zip(PROMPTS, REPLIES, strict=True)]
    path = write(tmp_path, *rows)
    kept = load_preferences(path, tokenizer=tokenizer, keep_messages=True)
    assert kept["chosen"] == [row["chosen"] for row in rows], "a reward model reads the whole"
    with pytest.raises(ValueError, match="renders the prompt as"):
        load_preferences(path, tokenizer=tokenizer)


def test_a_trained_model_reads_as_it_was_trained(tmp_path):
    base = write_chat_scorer(tmp_path / "base", "zephyr")
    rows = [
        row_of(Conversation((user(f"{n} + 2?"),)), chosen="3", rejected="No") for n in range(12)
    ]
    path = write(tmp_path, *rows)
    out = str(tmp_path / "run")
    command = ["reward", "train", "--model", base, "--dataset", str(path), "--epochs", "1"]
    command += ["--holdout", "0.3", "--out", out]
    assert main(command) == 0
    (folder,) = (tmp_path / "run").glob("**/model/config.json")
    found = load_reward_model(str(folder.parent))
    kept = json.loads(folder.read_text())["input_format"]
    assert kept == {"version": 1, "name": "text", "messages": True}
    expected = template_scores(str(folder.parent))[:, 0]
    torch.testing.assert_close(found.score(PROMPTS, REPLIES), expected, atol=1e-4, rtol=1e-4)


def test_a_template_that_reads_parts_is_given_parts(tmp_path):
    tokenizer = chat_tokenizer("qwen")
    tokenizer.chat_template = PARTS
    encoder = TextEncoder(tokenizer)
    for prompt, reply in zip(PROMPTS, REPLIES, strict=True):
        messages = [*prompt.messages, assistant(reply)]
        parted = [
            {**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages
        ]
        expected = tokenizer.apply_chat_template(parted, tokenize=True, return_dict=True)
        assert encoder.joined(prompt, reply) == expected["input_ids"]
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{% endfor %}"
    with pytest.raises(ValueError, match="shows no words of a user's message"):
        TextEncoder(tokenizer).pair(PROMPTS[0], REPLIES[0])


def test_whatever_a_template_fails_at_names_the_template(tmp_path):
    tokenizer = chat_tokenizer("qwen")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% for c in m['tool_calls'] or [] %}"
        "{% for k, v in c['function']['arguments'] | items %}{{ k }}={{ v }}{% endfor %}"
        "{% endfor %};{% endfor %}"
    )
    calls = [{"type": "function", "function": {"name": "f", "arguments": '{"city": "Oslo"}'}}]
    row = row_of(PROMPTS[0], chosen="Yes", rejected="No")
    row["chosen"] = [{"role": "assistant", "content": "", "tool_calls": calls}]
    path = write(tmp_path, row)
    assert load_preferences(path, tokenizer=tokenizer)[0]["chosen"] == "city=Oslo;"
    calls[0]["function"]["arguments"] = 3  # type: ignore[index]
    write(tmp_path, row)
    with pytest.raises(ValueError, match=r"p.jsonl:1: the chat template of .* refuses"):
        load_preferences(path, tokenizer=tokenizer)


def test_named_templates_without_a_default_are_no_template_for_text_and_an_error_for_messages():
    tokenizer = chat_tokenizer("qwen")
    tokenizer.chat_template = {"rag": tokenizer.chat_template, "tool_use": tokenizer.chat_template}
    encoder = TextEncoder(tokenizer)
    assert encoder.pair("Hi", " Yes")[1][-1] == encoder.end_id
    with pytest.raises(ValueError, match=r"named rag, tool_use, and none\s+named default"):
        encoder.pair(PROMPTS[0], REPLIES[0])


def test_a_model_trained_on_text_warns_of_messages(tmp_path, caplog):
    source = write_chat_scorer(tmp_path / "text", "zephyr")
    set_json(Path(source) / "config.json", input_format=ON_TEXT)
    model = load_reward_model(source)
    for _ in range(2):
        model.score(PROMPTS, REPLIES)
    assert caplog.text.count("was trained on plain text and is given messages") == 1


@pytest.mark.parametrize("path", ["score", "session"])
def test_texts_that_are_cut_draw_one_warning(path, tmp_path, caplog):
    model = load_reward_model(write_chat_scorer(tmp_path / path, "qwen"), max_length=40)
    scorer = model if path == "score" else model.session()
    scorer.score(PROMPTS[:1], ["Yes"])
    assert "were cut" not in caplog.text
    for _ in range(2):
        scorer.score(PROMPTS[:1] * 2, ["yes " * 60, "no " * 60])
    assert caplog.text.count("longer than the 40 tokens") == 1


def test_plain_prompts_of_a_chat_model_draw_one_warning(tmp_path, caplog):
    source = write_chat_scorer(tmp_path / "chat", "zephyr")
    model = load_reward_model(source)
    model.score(PROMPTS, REPLIES)
    rendered = model.encoder.template.prompt_text(PROMPTS[0])
    model.score([rendered], ["It is."])
    assert "plain text" not in caplog.text, "messages, and text that a template rendered"
    for _ in range(2):
        model.score(["How far is it?", "And now?"], ["Far.", "Near."])
    assert caplog.text.count("is given prompts of plain text, which it reads") == 1
    set_json(Path(source) / "config.json", input_format=ON_TEXT)
    (tmp_path / "chat").rename(tmp_path / "trained-on-text")
    load_reward_model(str(tmp_path / "trained-on-text")).score(["How far is it?"], ["Far."])
    assert caplog.text.count("is given prompts of plain text, which it reads") == 1


@pytest.mark.parametrize(("shape", "closing"), [("qwen", 2), ("mistral", 1)])
def test_a_reply_over_the_limit_keeps_what_closes_its_turn(shape, closing):
    tokenizer = chat_tokenizer(shape)
    begin, end = TextEncoder(tokenizer, 24).pair(PROMPTS[0], "It is 3. " * 40)
    assert len(begin + end) == 24
    whole = template_ids(tokenizer, PROMPTS[0], "It is 3. " * 40)
    assert end[-closing:] == whole[-closing:]


def test_a_model_without_a_template_refuses_messages():
    with pytest.raises(ValueError, match=r"no chat template.*set tokenizer.chat_template"):
        TextEncoder(chat_tokenizer("qwen", template=False)).pair(PROMPTS[0], "Yes.")


def test_tools_and_variables_reach_the_template():
    tokenizer = chat_tokenizer("qwen")
    tokenizer.chat_template = "{% if tools %}{{ tools[0].name }}{% endif %}{{ mood }}|" + str(
        tokenizer.chat_template
    )
    prompt = dataclasses.replace(
        PROMPTS[0], tools=({"name": "add"},), chat_template_kwargs={"mood": "calm"}
    )
    text = ChatTemplate(tokenizer).prompt_text(prompt)
    assert text.startswith("addcalm|")
    assert prompt != PROMPTS[0]


def test_conversations_come_back_from_a_dataset(tmp_path):
    tools = ({"name": "g", "parameters": {"x": 1}},)
    told = [
        {"prompt": [user("a")], "chosen": "b", "rejected": "c"},
        {"prompt": [user("d")], "chosen": "e", "rejected": "f", "tools": list(tools)},
    ]
    path = write(tmp_path, *told)
    first, second = prompts_of(load_preferences(path, keep_messages=True))
    assert first == Conversation((user("a"),))
    assert isinstance(second, Conversation)
    assert second.tools == tools


def test_text_and_messages_in_one_source_are_refused(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": [user("a")], "chosen": "b", "rejected": "c"},
    ]
    path = write(tmp_path, *rows)
    with pytest.raises(ValueError, match=r"p.jsonl:2: the prompt is messages"):
        load_preferences(path, keep_messages=True)


@pytest.mark.parametrize("shape", ["qwen", "gemma", "zephyr", "mistral"])
def test_the_implicit_reward_is_that_of_the_templates_reply(shape, tmp_path):
    source = write_chat_policy(tmp_path / "policy", shape)
    found = ImplicitRewardModel.load(source, reference=None, beta=1.0).score(PROMPTS, REPLIES)
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    encoder = TextEncoder(tokenizer)
    for prompt, reply, score in zip(PROMPTS, REPLIES, found, strict=True):
        ids = torch.tensor([template_ids(tokenizer, prompt, reply)])
        begin = len(encoder.pair(prompt, reply)[0])
        with torch.inference_mode():
            logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        taken = logs.gather(-1, ids[0, 1:, None])[begin - 1 :, 0]
        torch.testing.assert_close(score, taken.sum(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("shape", ["qwen", "gemma", "llama-3", "no-closer"])
def test_steps_stand_behind_the_templates_generation_prompt(shape, tmp_path):
    tokenizer = chat_tokenizer(shape)
    model = LlamaForTokenClassification(chat_config(tokenizer, num_labels=2)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (found,) = load_reward_model(str(tmp_path)).step_scores(PROMPTS[:1], [["It is 3."]])
    opening = tokenizer.apply_chat_template(
        list(PROMPTS[0].messages), add_generation_prompt=True, return_dict=True
    )["input_ids"]
    parts = [tokenizer(t, add_special_tokens=False).input_ids for t in ("It is 3.", "\n\n")]
    step = [token for part in parts for token in part]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([opening + step])).logits[0, -1]
    torch.testing.assert_close(found[0], logits.softmax(-1)[1])

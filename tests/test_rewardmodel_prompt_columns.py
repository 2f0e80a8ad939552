"""Columns that carry meaning reach the model, or are named: prompts, system messages, images."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from rewardmodel.cli.models import load_responses
from rewardmodel.data.conversation import Conversation
from rewardmodel.data.parsing.transcripts import prompt_end
from rewardmodel.data.preferences import load_demonstrations, load_preferences, load_prompts
from rewardmodel.data.rankings import load_rankings
from rewardmodel.data.rows import PreferenceDataError
from rewardmodel.data.steps import load_steps
from rewardmodel.evaluation.length.edits import load_edits
from rewardmodel.models.verifiers import load_references
from tests.preference_rows import assistant, user, word_tokenizer, write

PAIR = {"chosen": "The sea.", "rejected": "The rose."}
SYSTEM = {"system": "Be brief."}
# Every loader, with the columns that it reads beside the prompt.
LOADED: dict[Callable[..., Any], dict[str, Any]] = {
    load_preferences: {**PAIR, "subset": "x", "margin": 1, "confidence": 2},
    load_prompts: {},
    load_demonstrations: {"completion": "a"},
    load_rankings: {"responses": ["a", "b"], "ranks": [1, 2]},
    load_steps: {"completions": ["a"], "labels": [1]},
    load_references: {"answer": "7"},
}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


@pytest.mark.parametrize(
    "name",
    ["question", "Question", "instruction", "query", "context", "input", "problem", "post"],
)
def test_a_column_with_a_usual_name_is_the_prompt_and_a_warning_says_so(name, tmp_path, caplog):
    path = write(tmp_path, *({name: f"What is {k}?", **PAIR} for k in range(40)))
    with caplog.at_level(logging.WARNING):
        pairs = load_preferences(path)
    assert pairs["prompt"][:] == [f"What is {k}?" for k in range(40)]
    assert set(pairs["chosen"]) == {"The sea."}
    (record,) = caplog.records
    assert f"40 x prompt read from column {name!r}" in record.getMessage()


@pytest.mark.parametrize(
    ("columns", "joined"),
    [
        ({"instruction": "Translate", "input": "mer"}, "instruction+input"),
        ({"question": "Who?", "context": "A text."}, "context+question"),
    ],
)
def test_several_columns_are_named_and_the_advice_joins_them(columns, joined, tmp_path):
    path = write(tmp_path, {**columns, **PAIR})
    first, second = joined.split("+")
    with pytest.raises(PreferenceDataError, match=rf"prompt_column='{joined}'".replace("+", r"\+")):
        load_preferences(path)
    pair = load_preferences(path, prompt_column=joined)[0]
    assert pair["prompt"] == f"{columns[first]}\n\n{columns[second]}"
    assert load_preferences(path, prompt_column=first)[0]["prompt"] == columns[first]


SYSTEM_TURN = {"role": "system", "content": "Be brief."}
HISTORY = [user("Hi"), assistant("Hello.")]
WHO = [user("Who?")]


@pytest.mark.parametrize(
    ("columns", "joined", "turns"),
    [
        ({"history": HISTORY, "question": "Who?"}, "history+question", [*HISTORY, user("Who?")]),
        (
            {"context": "A text.", "messages": HISTORY, "question": "Who?", "input": "me"},
            "context+messages+question+input",
            [user("A text."), *HISTORY, user("Who?\n\nme")],
        ),
        (
            {"context": "A text.", "history": [SYSTEM_TURN, *HISTORY]},
            "history+context",
            [SYSTEM_TURN, *HISTORY, user("A text.")],
        ),
        ({"history": HISTORY, "messages": WHO}, "history+messages", [*HISTORY, *WHO]),
    ],
)
def test_messages_are_joined_with_texts_as_the_advice_says(columns, joined, turns, tmp_path):
    path = write(tmp_path, {**columns, **PAIR})
    with pytest.raises(PreferenceDataError, match=f"prompt_column={joined!r}".replace("+", r"\+")):
        load_preferences(path, keep_messages=True)
    pair = load_preferences(path, keep_messages=True, prompt_column=joined)[0]
    assert pair["prompt"] == turns
    assert pair["chosen"] == [assistant("The sea.")]


@pytest.mark.parametrize(
    ("before", "asked", "remedy"),
    [
        ("A text.", "a+b", "b+a"),
        (HISTORY, "a+b", "b+a"),
        ([SYSTEM_TURN, user("Hi")], "a+b", "b"),
    ],
)
def test_a_system_turn_behind_others_is_an_error_whose_remedy_works(
    before, asked, remedy, tmp_path
):
    path = write(tmp_path, {"a": before, "b": [SYSTEM_TURN, *HISTORY, user("Who?")], **PAIR})
    with pytest.raises(PreferenceDataError, match=f"prompt_column='{remedy}'".replace("+", r"\+")):
        load_preferences(path, keep_messages=True, prompt_column=asked)
    prompt = load_preferences(path, keep_messages=True, prompt_column=remedy)[0]["prompt"]
    assert [turn["role"] for turn in prompt].index("system") == 0


@pytest.mark.parametrize("name", ["conversations", "conversation", "dialogue", "messages"])
def test_demonstrations_are_read_from_conversations_by_any_usual_name(name, tmp_path, caplog):
    rows = [{name: [SYSTEM_TURN, *HISTORY, user("And?")]}] * 2
    with caplog.at_level(logging.WARNING):
        shown = load_demonstrations(write(tmp_path, *rows), keep_messages=True)[0]
    assert shown["prompt"] == [SYSTEM_TURN, user("Hi")]
    assert shown["completion"] == [assistant("Hello.")]
    noted = f"2 x conversation read from column {name!r}" in caplog.text
    assert noted == (name != "messages")


def test_preferences_beside_a_conversation_are_shown_as_preferences(tmp_path):
    path = write(tmp_path, {"conversations": [user("Who?")], **PAIR})
    shown = load_demonstrations(path, keep_messages=True)[0]
    assert shown["prompt"] == [user("Who?")]
    assert shown["completion"] == [assistant("The sea.")]


@pytest.mark.parametrize("options", [{}, {"prompt_column": "dialogs"}])
def test_a_completion_column_may_hold_the_whole_conversation(options, tmp_path):
    path = write(tmp_path, {"dialogs": HISTORY})
    shown = load_demonstrations(path, keep_messages=True, completion_column="dialogs", **options)
    assert shown[0]["prompt"] == HISTORY[:1]
    assert shown[0]["completion"] == HISTORY[1:]
    path = write(tmp_path, {"question": "Who?", "completion": HISTORY})
    with pytest.raises(PreferenceDataError, match="prompt_column='question'"):
        load_demonstrations(path, keep_messages=True)


def test_an_empty_input_is_no_part_of_the_prompt_but_a_later_one_is_an_error(tmp_path):
    rows = [
        {"instruction": "Sing", "input": "", **PAIR},
        {"instruction": "Add", "input": "1", **PAIR},
    ]
    path = write(tmp_path, *rows)
    assert load_preferences(path, limit=1)[0]["prompt"] == "Sing"
    with pytest.raises(PreferenceDataError, match=r"p.jsonl:2: .*'instruction', 'input' may each"):
        load_preferences(path)
    joined = load_preferences(path, prompt_column="instruction+input")
    assert joined["prompt"][:] == ["Sing", "Add\n\n1"]


def test_a_shared_first_word_is_no_prompt_unless_the_user_says_so(tmp_path):
    path = write(tmp_path, *({"frage": f"Was ist {k}?", **PAIR} for k in range(40)))
    with pytest.raises(PreferenceDataError, match=r"prompt_column=NAME .*implicit_prompt=True"):
        load_preferences(path)
    assert load_preferences(path, prompt_column="frage")[3]["prompt"] == "Was ist 3?"
    assert load_preferences(path, implicit_prompt=True)[3]["prompt"] == "The"
    named = write(tmp_path, {"question": "What?", **PAIR})
    assert load_preferences(named, implicit_prompt=True)[0]["prompt"] == "The"


def test_a_prompt_is_either_in_a_column_or_in_the_replies(tmp_path):
    path = write(tmp_path, {"q": "What?", **PAIR})
    with pytest.raises(
        ValueError, match=r"implicit_prompt is True, and the prompt's column is 'q'"
    ):
        load_preferences(path, prompt_column="q", implicit_prompt=True)


MARKED = [
    "\n\nHuman: Hi\n\nAssistant:",
    "\n\nHuman: Hi\n\nAssistant: Yes\n\nHuman: And?\n\nAssistant:",
    "User: Hi\nAssistant:",
    "Q: red?\n\nA:",
    "Question: red?\nAnswer:",
    "Below.\n\n### Instruction:\nSing\n\n### Input:\nC\n\n### Response:",
    "### Human: Hi\n### Assistant:",
    "**User:** Hi\n\n**Assistant:**",
    "A chat. USER: Hi ASSISTANT:",
    "<human>: Hi\n<bot>:",
    "GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant:",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|user|>\nHi</s>\n<|assistant|>\n",
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<s>[INST] Hi [/INST]",
    "SUBREDDIT: r/dogs\n\nTITLE: A\n\nPOST: Answer: B\n\nTL;DR:",
]


@pytest.mark.parametrize("prompt", MARKED)
def test_transcripts_are_split_behind_the_last_shared_answer_marker(prompt, tmp_path):
    path = write(tmp_path, {"chosen": f"{prompt} The sea.", "rejected": f"{prompt} The rose."})
    assert load_preferences(path).to_list() == [
        {"prompt": prompt, "chosen": " The sea.", "rejected": " The rose."}
    ]


@pytest.mark.parametrize(
    "shared",
    [
        "The",
        "A: ",
        "Answer: The",
        "\n\nAssistant: The",
        "I asked a User: hi, the Assistant",
        "Q: A",
    ],
)
def test_a_beginning_in_which_nobody_asks_and_is_answered_is_no_prompt(shared):
    assert prompt_end(shared) is None


def test_a_prompt_that_both_texts_repeat_is_read_once(tmp_path, caplog):
    prompt = "\n\nHuman: Where is the sea?\n\nAssistant:"
    row = {"prompt": prompt, "chosen": prompt + " Here.", "rejected": prompt + " Gone."}
    short = {"prompt": "The sea", "chosen": "The sea is here.", "rejected": "The sea is gone."}
    one = {**row, "rejected": " Gone."}
    data = load_preferences(write(tmp_path, row, short, one))
    assert data[0] == {"prompt": prompt, "chosen": " Here.", "rejected": " Gone."}
    assert data[1] == short, "a few words may be taken up by both"
    assert data[2] == one, "the other one does not repeat it"
    turns = "\n\nHuman: Hi\n\nAssistant:"  # three words, but turns
    marked = {"prompt": turns, "chosen": turns + " Yes", "rejected": turns + " No"}
    assert load_preferences(write(tmp_path, marked))[0]["chosen"] == " Yes"
    (scored,) = load_responses(
        str(write(tmp_path, {"prompt": turns, "responses": [turns + " Yes", turns + " No"]}))
    )
    assert scored["responses"] == [" Yes", " No"], "as in training"
    echo = {"prompt": turns, "completion": turns + " Yes"}
    assert load_demonstrations(write(tmp_path, echo))[0]["completion"] == echo["completion"]
    assert "reply begins with a copy of the prompt, kept" in caplog.text
    assert "prompt that all replies repeat read once" in caplog.text
    ranked = {"prompt": prompt, "responses": [row["rejected"], row["chosen"]], "ranks": [2, 1]}
    (ranking,) = load_rankings(write(tmp_path, ranked))
    assert ranking["responses"] == [" Gone.", " Here."]


def test_a_column_that_the_replies_repeat_is_left_aside_and_another_is_an_error(tmp_path, caplog):
    start = "\n\nHuman: What is red?\n\nAssistant:"
    replies = {"chosen": f"{start} A rose.", "rejected": f"{start} The sea."}
    with caplog.at_level(logging.WARNING):
        pair = load_preferences(write(tmp_path, {"question": "What is red?", **replies}))[0]
    assert pair["prompt"] == start
    assert "not used: column 'question'" in caplog.text
    path = write(tmp_path, {"context": "Roses are red.", **replies})
    with pytest.raises(PreferenceDataError, match=r"'context' holds something else"):
        load_preferences(path)
    assert load_preferences(path, implicit_prompt=True)[0]["prompt"] == start
    assert load_preferences(path, prompt_column="context")[0]["chosen"] == f"{start} A rose."


def test_messages_beside_a_question_that_they_lack_are_an_error(tokenizer, tmp_path):
    replies = {
        "chosen": [user("Hi"), assistant("Yes")],
        "rejected": [user("Hi"), assistant("No")],
    }
    path = write(tmp_path, {"context": "Elsewhere.", **replies})
    with pytest.raises(PreferenceDataError, match=r"'context' holds something else"):
        load_preferences(path, tokenizer=tokenizer)
    repeated = write(tmp_path, {"question": "Hi", "messages": replies["chosen"], **replies})
    pair = load_preferences(repeated, tokenizer=tokenizer)[0]
    assert pair["prompt"] == "<user>Hi</s><assistant>"


def test_replies_of_the_assistant_alone_answer_the_question_beside_them(tokenizer, tmp_path):
    row = {"question": "Hi", "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    pair = load_preferences(write(tmp_path, row), tokenizer=tokenizer)[0]
    assert pair == {"prompt": "<user>Hi</s><assistant>", "chosen": "Yes</s>", "rejected": "No</s>"}


def test_a_prompt_that_the_conversation_beside_it_lacks_is_counted(tokenizer, tmp_path, caplog):
    row = {"prompt": "Hello", "completion": [user("Hi"), assistant("Yes")]}
    with caplog.at_level(logging.WARNING):
        load_demonstrations(write(tmp_path, row), tokenizer=tokenizer)
    assert "1 x prompt not used, which the conversation beside it does not repeat" in caplog.text


@pytest.mark.parametrize(
    ("prompt", "opening", "expected"),
    [
        ([user("Hi")], [user("Hi")], [user("Hi")]),
        ([user("Hi ")], [user("Hi")], [user("Hi ")]),
        ([user("Hi")], [SYSTEM_TURN, user("Hi")], [SYSTEM_TURN, user("Hi")]),
        ([SYSTEM_TURN, user("Hi")], [user("Hi")], [SYSTEM_TURN, user("Hi")]),
        (WHO, [*HISTORY, *WHO], [*HISTORY, *WHO]),
    ],
)
def test_whole_conversations_beside_their_prompt_are_read_once(prompt, opening, expected, tmp_path):
    yes, no = [assistant("Yes")], [assistant("No")]
    row = {"prompt": prompt, "chosen": [*opening, *yes], "rejected": [*opening, *no]}
    (pair,) = load_preferences(write(tmp_path, row), keep_messages=True)
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (expected, yes, no)
    told = {"prompt": prompt, "completion": [*opening, *yes]}
    (shown,) = load_demonstrations(write(tmp_path, told), keep_messages=True)
    assert (shown["prompt"], shown["completion"]) == (expected, yes)
    (scored,) = load_responses(str(write(tmp_path, {"prompt": prompt, "response": row["chosen"]})))
    assert scored["prompt"] == Conversation(tuple(expected))
    assert scored["responses"] == ["Yes"]


def test_conversations_that_repeat_another_prompt_are_refused(tmp_path):
    other = [user("Who?"), assistant("Yes")]
    row = {"prompt": [user("Hi")], "chosen": other, "rejected": [user("Who?"), assistant("No")]}
    with pytest.raises(PreferenceDataError, match="replies are conversations that begin with"):
        load_preferences(write(tmp_path, row), keep_messages=True)
    with pytest.raises(PreferenceDataError, match="replies are conversations that begin with"):
        load_responses(str(write(tmp_path, {"prompt": [user("Hi")], "response": other})))


def test_messages_as_json_text_are_messages(tmp_path, caplog):
    row = {
        "prompt": json.dumps([user("Hi")]),
        "chosen": json.dumps([assistant("Yes")]),
        "rejected": json.dumps([assistant("No")]),
    }
    (pair,) = load_preferences(write(tmp_path, row), keep_messages=True)
    assert (pair["prompt"], pair["chosen"]) == ([user("Hi")], [assistant("Yes")])
    assert "messages read from the JSON text of 'prompt'" in caplog.text
    list_of_numbers = {"prompt": "[{1}] is", "chosen": "[{", "rejected": '[{"a": 1}]'}
    assert load_preferences(write(tmp_path, list_of_numbers))[0] == list_of_numbers


def test_a_prompt_that_ends_with_the_assistant_is_told(tmp_path, caplog):
    row = {"prompt": [user("Write a poem."), assistant("Roses are")]}
    load_prompts(write(tmp_path, row), keep_messages=True)
    assert "ends in a turn of the assistant: another turn follows it" in caplog.text


@pytest.mark.parametrize("name", ["system", "system_prompt", "System"])
def test_the_system_column_is_the_first_turn_of_messages(name, tokenizer, tmp_path):
    expected = "<system>Be brief.</s><user>Hi</s><assistant>"
    for row in (
        {"prompt": [user("Hi")], "chosen": "Yes", "rejected": "No"},
        {"prompt": "Hi", "chosen": [assistant("Yes")], "rejected": [assistant("No")]},
        {"chosen": [user("Hi"), assistant("Yes")], "rejected": [user("Hi"), assistant("No")]},
    ):
        path = write(tmp_path, {**row, name: "Be brief."})
        assert load_preferences(path, tokenizer=tokenizer)[0]["prompt"] == expected
    told = write(tmp_path, {"messages": [user("Hi"), assistant("Yes")], name: "Be brief."})
    assert load_demonstrations(told, tokenizer=tokenizer)[0]["prompt"] == expected
    asked = write(tmp_path, {"prompt": [user("Hi")], name: "Be brief."})
    assert load_prompts(asked, tokenizer=tokenizer) == [expected]


def test_the_system_column_is_a_paragraph_before_plain_text_everywhere(tmp_path, caplog):
    expected = "Be brief.\n\nWhat?"
    base = {"prompt": "What?", **SYSTEM}
    with caplog.at_level(logging.WARNING):
        pairs = load_preferences(write(tmp_path, {**base, **PAIR}, {"prompt": "a", **PAIR}))
    assert pairs["prompt"][:] == [expected, "a"]
    (record,) = caplog.records
    assert "1 x system message put before the text of the prompt" in record.getMessage()
    assert load_prompts(write(tmp_path, base)) == [expected]
    assert (
        load_demonstrations(write(tmp_path, {**base, "completion": "b"}))[0]["prompt"] == expected
    )
    ranked = {**base, "responses": ["a", "b"], "ranks": [1, 2]}
    assert load_rankings(write(tmp_path, ranked))[0]["prompt"] == expected
    assert load_preferences(write(tmp_path, ranked))[0]["prompt"] == expected
    steps = {**base, "completions": ["a"], "labels": [1]}
    assert load_steps(write(tmp_path, steps))[0]["prompt"] == expected
    edits = {**base, "original": "a", "edited": "b"}
    assert load_edits(str(write(tmp_path, edits)))[0]["prompt"] == expected
    assert load_references(write(tmp_path, {**base, "answer": "7"})) == {expected: "7"}
    start = "\n\nHuman: Hi\n\nAssistant:"
    talk = {"chosen": f"{start} a", "rejected": f"{start} b", **SYSTEM}
    assert load_preferences(write(tmp_path, talk))[0]["prompt"] == f"Be brief.{start}"


def test_orca_pairs_keep_system_and_question(tmp_path):
    row = {"system": "Be brief.", "question": "What?", **PAIR}
    pairs = load_preferences(write(tmp_path, row, {**row, "system": ""}))
    assert pairs["prompt"][:] == ["Be brief.\n\nWhat?", "What?"]


def test_a_system_message_that_stands_there_already_must_be_the_same(tokenizer, tmp_path):
    row = {
        "prompt": [SYSTEM_TURN, user("Hi")],
        "chosen": [assistant("Yes")],
        "rejected": [assistant("No")],
    }
    same = load_preferences(write(tmp_path, {**row, **SYSTEM}), tokenizer=tokenizer)[0]["prompt"]
    assert same.count("Be brief.") == 1
    other = write(tmp_path, {**row, "system": "Be long."})
    with pytest.raises(PreferenceDataError, match=r"'Be long\.' and .* 'Be brief\.'"):
        load_preferences(other, tokenizer=tokenizer)
    for wrong, message in (
        ({"system": ["Be brief."]}, "'system' holds list"),
        ({"system": "a", "system_prompt": "b"}, "'system', 'system_prompt'.* different"),
    ):
        with pytest.raises(PreferenceDataError, match=message):
            load_preferences(write(tmp_path, {"prompt": "x", **PAIR, **wrong}))


IMAGE = {"bytes": "x", "path": None}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("images", ["a.png"]),
        ("image", IMAGE),
        ("Image", "a.png"),
        ("videos", ["a.mp4"]),
        ("audio", {"array": [0.0]}),
    ],
)
def test_images_are_refused_by_name_in_every_loader(column, value, tmp_path):
    base = {"prompt": "What?", column: value}
    for load, row in LOADED.items():
        path = write(tmp_path, {**base, **row})
        with pytest.raises(
            PreferenceDataError, match=rf"p.jsonl:1: column '{column}' .*text alone"
        ):
            load(path)
        good = {**base, **row, "prompt": "Well?", column: None}
        assert len(load(write(tmp_path, {**base, **row}, good), on_bad_row="skip")) == 1


def test_one_warning_a_load_names_every_column_that_is_not_used(tmp_path, caplog):
    left = {"id": 3, "difficulty": "hard", "tools": "[]", "empty": None, "blank": ""}
    base = {"prompt": "What?", **left}
    for load, row in LOADED.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load(write(tmp_path, *({**base, **row, "prompt": f"What is {k}?"} for k in range(3))))
        (record,) = caplog.records
        assert record.getMessage().endswith("not used: columns 'id', 'difficulty', 'tools'")


def test_what_a_published_format_always_has_is_no_warning_but_the_rest_is(tmp_path, caplog):
    row = {
        **{"prompt": "p", "chosen": "a", "rejected": "b", "subset": "s", "id": 1},
        **{"chosen_model": "m", "rejected_model": "m"},
    }
    with caplog.at_level(logging.WARNING):
        load_preferences(write(tmp_path, row))
        assert not caplog.records
        load_preferences(write(tmp_path, {**row, "rubric": "r"}))
    (record,) = caplog.records
    assert record.getMessage().endswith("not used: column 'rubric'")


@pytest.mark.parametrize("column", ["question", "instruction+input"])
def test_rankings_take_their_prompt_from_a_column_that_is_named(column, tmp_path):
    row = {"question": "Who?", "instruction": "Sing", "input": "C"}
    ranked = write(tmp_path, {**row, "responses": ["a", "b"], "scores": [2, 1]})
    with pytest.raises(PreferenceDataError, match=r"'prompt' is missing.*prompt_column='question'"):
        load_rankings(ranked)
    expected = {"question": "Who?", "instruction+input": "Sing\n\nC"}[column]
    assert load_rankings(ranked, prompt_column=column)[0]["prompt"] == expected
    assert load_preferences(ranked, prompt_column=column)[0]["prompt"] == expected


TOOL_TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% for call in m.get('tool_calls') or [] %}<call>{{ call | tojson }}</call>{% endfor %}"
    "</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if thinking is false %}[no]{% endif %}{% endif %}"
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "default": None}},
            },
        },
    }
]
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}]
CHAT = {"prompt": [user("Hi")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_reach_the_template_as_trl_passes_them(as_text, tokenizer, tmp_path, caplog):
    tokenizer.chat_template = TOOL_TEMPLATE
    path = write(tmp_path, {**CHAT, "tools": json.dumps(TOOLS) if as_text else TOOLS})
    expected = tokenizer.apply_chat_template(
        CHAT["prompt"], tools=TOOLS, tokenize=False, add_generation_prompt=True
    )
    with caplog.at_level(logging.WARNING):
        assert load_preferences(path, tokenizer=tokenizer)[0]["prompt"] == expected
        assert load_prompts(path, tokenizer=tokenizer) == [expected]
        (prompt,) = load_prompts(path, keep_messages=True)
        assert isinstance(prompt, Conversation)
        assert list(prompt.tools or ()) == TOOLS
        told = write(tmp_path, {"messages": [user("Hi"), assistant("Yes")], "tools": TOOLS})
        assert load_demonstrations(told, tokenizer=tokenizer)[0]["prompt"] == expected
        ranked = {"prompt": CHAT["prompt"], "responses": ["a", "b"], "ranks": [1, 2]}
        found = load_rankings(write(tmp_path, {**ranked, "tools": TOOLS}), tokenizer=tokenizer)
        assert found[0]["prompt"] == expected
    assert "'tools'" not in caplog.text


def test_template_variables_reach_the_template(tokenizer, tmp_path):
    tokenizer.chat_template = TOOL_TEMPLATE.replace(
        "<{{ m['role'] }}>",
        "<{{ m['role'] }}>{% if m['role'] == 'assistant' and thinking is false %}[no]{% endif %}",
    )
    for thinking, prompt in (
        (True, "<user>Hi</s><assistant>"),
        (False, "<user>Hi</s><assistant>[no]"),
    ):
        variables = {"thinking": thinking, "other": None}
        path = write(tmp_path, {**CHAT, "chat_template_kwargs": variables})
        assert load_preferences(path, tokenizer=tokenizer).to_list() == [
            {"prompt": prompt, "chosen": "Yes</s>", "rejected": "No</s>"}
        ]


def test_arrow_s_nulls_in_tools_and_calls_are_not_shown(tokenizer, tmp_path):
    tokenizer.chat_template = TOOL_TEMPLATE
    turn = {"role": "assistant", "content": None, "tool_calls": CALL}
    other = [{"type": "function", "function": {"name": "time", "parameters": {"zone": "UTC"}}}]
    rows = [
        {**CHAT, "chosen": [turn], "tools": TOOLS},
        {**CHAT, "chosen": [assistant("Yes")], "tools": other},
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "p.parquet")
    first, second = load_preferences(tmp_path / "p.parquet", tokenizer=tokenizer).to_list()
    assert "null" not in second["prompt"]
    assert "zone" not in first["prompt"]
    assert first["chosen"] == tokenizer.apply_chat_template(
        [{"role": "assistant", "content": "", "tool_calls": CALL}], tokenize=False
    ).removeprefix("<assistant>")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tools": "[{"}, "'tools' holds str .*JSON where it is text"),
        ({"tools": {"name": "weather"}}, "'tools' holds dict .*list of JSON schemas"),
        ({"tools": ["weather"]}, "'tools' holds list .*list of JSON schemas"),
        ({"chat_template_kwargs": [1]}, "'chat_template_kwargs' holds list .*template variables"),
        ({"chat_template_kwargs": {"tokenize": True}}, "variables of the template, which tokenize"),
    ],
)
def test_tools_and_variables_that_are_none_are_bad_rows(columns, message, tokenizer, tmp_path):
    path = write(tmp_path, {**CHAT, **columns}, CHAT)
    with pytest.raises(PreferenceDataError, match=rf"p\.jsonl:1: .*{message}"):
        load_preferences(path, tokenizer=tokenizer)
    assert len(load_preferences(path, tokenizer=tokenizer, on_bad_row="skip")) == 1


def test_empty_tools_are_none(tokenizer, tmp_path):
    tokenizer.chat_template = TOOL_TEMPLATE.replace("{% if tools %}", "{% if tools is not none %}")
    for tools in ([], "[]", "", None):
        path = write(tmp_path, {**CHAT, "tools": tools})
        assert "<tools>" not in load_preferences(path, tokenizer=tokenizer)[0]["prompt"]


def test_parts_of_text_are_the_text_of_a_message(tokenizer, tmp_path):
    parts = [{"type": "text", "text": "Where "}, {"type": "text", "text": "is it?"}]
    row = {
        "prompt": [{"role": "user", "content": parts}],
        "chosen": [assistant("Here.")],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "Gone."}]}],
    }
    (found,) = load_preferences(write(tmp_path, row), keep_messages=True)
    assert found["prompt"] == [user("Where is it?")]
    assert found["rejected"] == [assistant("Gone.")]
    row["prompt"][0]["content"] = [{"type": "table", "rows": []}]
    with pytest.raises(PreferenceDataError, match="parts of type text"):
        load_preferences(write(tmp_path, row), keep_messages=True)


def test_a_picture_in_a_message_is_refused_by_name(tokenizer, tmp_path):
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    path = write(tmp_path, {**CHAT, "prompt": [turn]})
    with pytest.raises(PreferenceDataError, match=r"'prompt' holds a part of type 'image'"):
        load_preferences(path, tokenizer=tokenizer)

"""Converters from published formats, each on a real sample or on rows of the published shape."""

import logging
from typing import Any

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from rewardmodel.data.formats.registry import FORMATS, describe_formats, load_formats
from rewardmodel.data.formats.tldr import query_of, truncate_query
from rewardmodel.data.preferences import load_preferences, load_prompts
from rewardmodel.data.rewardbench import load_reward_bench, load_reward_bench_2
from rewardmodel.data.rows import PreferenceDataError
from tests.preference_rows import word_tokenizer, write
from tests.sample_data import HH, QA_FEEDBACK, is_small, read_sample


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(None)


@pytest.fixture
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


def without(row: dict, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}


def test_every_format_is_described_and_an_unknown_one_is_refused_with_the_list(tmp_path):
    lines = describe_formats().splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["auto", "plain", *FORMATS]
    with pytest.raises(ValueError, match=r"format is 'dpo'; required is one of:\n  auto: ") as told:
        load_preferences(write(tmp_path, {}), format="dpo")  # pyright: ignore[reportArgumentType]
    assert describe_formats() in str(told.value)


def test_no_format_recognizes_another_ones_rows_or_plain_rows():
    shapes = {
        "tldr": TLDR,
        "ultrafeedback": ULTRA,
        "rewardbench": BENCH,
        "rewardbench2": BENCH_2,
        "qa_feedback": QA_ROW,
        "scores": {"prompt": "a", "responses": ["b"], "scores": [1]},
        "rankings": {"prompt": "a", "responses": ["b"], "ranks": [1]},
    }
    for name, row in shapes.items():
        found = [f.name for f in load_formats() if any(s <= set(row) for s in f.signatures)]
        assert found == [name]
    for row in (
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1, "subset": "s"},
        {"prompt": "a", "completions": ["b"], "labels": [True]},  # process supervision
        {"question": "a", "answer": "b"},
    ):
        assert not [f for f in load_formats() if any(s <= set(row) for s in f.signatures)]


def test_hub_id_decides_the_format_and_what_is_asked_of_the_hub(monkeypatch):
    asked: list[tuple] = []

    def load_dataset(name: str, split: str, *, trust_remote_code: bool, **options: str) -> Dataset:
        assert trust_remote_code is False
        asked.append((name, split, options))
        return Dataset.from_list([TLDR])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    pairs = load_preferences("openai/summarize_from_feedback", split="validation")
    assert pairs["chosen"] == [" It was a dog."]
    export = {"data_dir": "comparisons", "revision": "refs/convert/parquet"}
    assert asked == [("openai/summarize_from_feedback", "validation", export)]
    with pytest.raises(PreferenceDataError, match=r"hh-rlhf/train\[0\]: 'chosen' is missing"):
        load_preferences("Anthropic/hh-rlhf")
    assert asked[-1] == ("Anthropic/hh-rlhf", "train", {})


def test_plain_leaves_the_columns_of_a_published_format_as_they_are(tmp_path):
    path = write(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c", **SCORES})
    assert load_preferences(path, format="plain").column_names == ["prompt", "chosen", "rejected"]
    assert load_preferences(path)["chosen_probability"] == [1.0]
    # Columns named by the user are plain too.
    assert (
        "chosen_probability"
        not in load_preferences(
            path, chosen_column="rejected", rejected_column="chosen"
        ).column_names
    )
    with pytest.raises(ValueError, match=r"format is 'ultrafeedback', which fixes the columns"):
        load_preferences(path, format="ultrafeedback", prompt_column="q")


@pytest.mark.parametrize("sample", HH)
def test_hh_sample_is_read_the_same_by_name_and_as_plain(sample):
    named = load_preferences(sample, format="hh")
    assert len(named) == len(read_sample(sample))
    assert named.to_list() == load_preferences(sample).to_list()


def test_hh_without_a_shared_assistant_turn_is_a_bad_row(tmp_path):
    row = {"chosen": "\n\nHuman: Hi there", "rejected": "\n\nHuman: Hi you"}
    path = write(tmp_path, row)
    assert len(load_preferences(path, format="plain", implicit_prompt=True)) == 1
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:1: the transcripts share .*Assistant"):
        load_preferences(path, format="hh")


TLDR: dict[str, Any] = {
    "info": {
        "id": "t3_1",
        "post": "First line.\nSecond line here.\nThird.",
        "title": "A title",
        "subreddit": "dogs",
        "site": None,
        "article": None,
    },
    "summaries": [
        {"text": " It was a cat.", "policy": "sup1", "note": None},
        {"text": "It was a dog.", "policy": "ref", "note": "good"},
    ],
    "choice": 1,
    "worker": "w",
    "batch": "batch3",
    "split": "valid1",
    "extra": {"confidence": 7},
}
ARTICLE = {
    **TLDR,
    "info": {"id": "x", "post": None, "title": None, "subreddit": None, "site": "cnn",
             "article": "One.\nTwo."},
    "batch": "cnndm0",
    "extra": {"confidence": None},
}  # fmt: skip


def test_tldr_has_the_published_query_confidence_and_batch(tmp_path):
    (first, second) = load_preferences(write(tmp_path, TLDR, ARTICLE)).to_list()
    assert first == {
        "prompt": "SUBREDDIT: r/dogs\n\nTITLE: A title\n\nPOST: First line.\nSecond line here.\n"
        "Third.\n\nTL;DR:",
        "chosen": " It was a dog.",
        "rejected": " It was a cat.",
        "confidence": 7.0,
        "subset": "valid1/batch3",
    }
    # Of articles the query ends in a line break, and no space is put before the summary.
    assert second["prompt"] == "Article:\nOne.\nTwo.\n\nTL;DR:\n"
    assert second["chosen"] == "It was a dog."
    assert second["confidence"] is None
    assert second["subset"] == "valid1/cnndm0"


def test_braces_in_a_post_are_text(tmp_path):
    row = {**TLDR, "info": {**TLDR["info"], "post": "a {title} {0} }{"}}
    assert "POST: a {title} {0} }{\n" in load_preferences(write(tmp_path, row))[0]["prompt"]


def test_tldr_extra_may_be_absent_but_the_batch_may_not(tmp_path):
    pair = load_preferences(write(tmp_path, without(TLDR, "extra", "worker")))[0]
    assert pair["confidence"] is None
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:1: 'batch' is missing"):
        load_preferences(write(tmp_path, without(TLDR, "batch")))


def test_query_is_cut_at_the_last_line_break_that_fits(tokenizer):
    info = TLDR["info"]
    assert truncate_query(tokenizer, info) == query_of(info)
    whole = len(query_of(info).split())  # 13 words
    assert whole == 13
    cut = truncate_query(tokenizer, info, max_tokens=12)
    assert "POST: First line.\nSecond line here.\n\nTL;DR:" in cut
    for room in (9, 10, 11):
        found = truncate_query(tokenizer, info, max_tokens=room)
        assert found.endswith("POST: First line.\n\nTL;DR:")
        assert len(found.split()) <= room
    # Too long in its first line alone: the line is cut, title and TL;DR stay.
    found = truncate_query(tokenizer, info, max_tokens=8)
    assert found.startswith("SUBREDDIT: r/dogs\n\nTITLE: A title\n\nPOST: First ")
    assert found.endswith("\n\nTL;DR:")
    assert len(found.split()) == 8
    with pytest.raises(PreferenceDataError, match=r"more than 6 tokens even with an empty 'post'"):
        truncate_query(tokenizer, info, max_tokens=6)


def test_query_tokens_cuts_while_loading_and_is_refused_elsewhere(tokenizer, tmp_path):
    path = write(tmp_path, TLDR, ARTICLE)
    pairs = load_preferences(path, tokenizer=tokenizer, query_tokens=10)
    assert pairs[0]["prompt"].endswith("First line.\n\nTL;DR:")
    assert pairs[1]["prompt"] == "Article:\nOne.\nTwo.\n\nTL;DR:\n"
    with pytest.raises(ValueError, match=r"query_tokens is 10 and there is no tokenizer"):
        load_preferences(path, query_tokens=10)
    plain = write(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"})
    for on_bad_row in ("error", "skip"):
        with pytest.raises(PreferenceDataError, match=r"query_tokens is 9 and the rows are plain"):
            load_preferences(plain, tokenizer=tokenizer, query_tokens=9, on_bad_row=on_bad_row)


def test_prompts_of_a_converted_format_come_once_each(tmp_path):
    path = write(tmp_path, TLDR, ARTICLE, {**TLDR, "choice": 0})
    assert load_prompts(path) == [query_of(TLDR["info"]), query_of(ARTICLE["info"])]


SCORES = {"score_chosen": 8.0, "score_rejected": 5.0}


def turns(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


BINARIZED = {
    "prompt": "Hi",
    "prompt_id": "1",
    "chosen": turns("Hi", "Yes"),
    "rejected": turns("Hi", "No"),
    "messages": turns("Hi", "Yes"),
    **SCORES,
}
ULTRA: dict[str, Any] = {
    "source": "evol_instruct",
    "instruction": "Name a color.",
    "models": ["a", "b", "c"],
    "completions": [
        {"model": "a", "response": "Red.", "overall_score": 7.5, "critique": "fine"},
        {"model": "b", "response": "Seven.", "overall_score": 2.0, "critique": "wrong"},
        {"model": "c", "response": "Blue.", "overall_score": 7.5, "critique": "fine"},
    ],
}


def test_binarized_ultrafeedback_has_ties_and_margins_only_where_asked(chat_tokenizer, tmp_path):
    path = write(tmp_path, BINARIZED, {**BINARIZED, "score_rejected": 8.0})
    pairs = load_preferences(path, tokenizer=chat_tokenizer)
    assert pairs[0] == {
        "prompt": "<user>Hi</s><assistant>",
        "chosen": "Yes</s>",
        "rejected": "No</s>",
        "chosen_probability": 1.0,
    }
    assert pairs["chosen_probability"] == [1.0, 0.5]
    with_margins = load_preferences(path, tokenizer=chat_tokenizer, margins=True)
    assert with_margins["margin"] == [3.0, 0.0]


def test_ultrafeedback_completions_give_all_pairs(chat_tokenizer, tmp_path):
    path = write(tmp_path, ULTRA)
    pairs = load_preferences(path, margins=True).to_list()
    found = [(p["chosen"], p["rejected"], p["chosen_probability"], p["margin"]) for p in pairs]
    assert found == [
        ("Red.", "Blue.", 0.5, 0.0),
        ("Red.", "Seven.", 1.0, 5.5),
        ("Blue.", "Seven.", 1.0, 5.5),
    ]
    assert {pair["prompt"] for pair in pairs} == {"Name a color."}
    assert "margin" not in load_preferences(path).column_names
    rendered = load_preferences(path, tokenizer=chat_tokenizer, limit=2).to_list()
    assert len(rendered) == 2
    assert rendered[0]["prompt"] == "<user>Name a color.</s><assistant>"
    assert rendered[0]["chosen"] == "Red.</s>"


def test_margins_are_refused_where_there_are_no_scores(tmp_path):
    with pytest.raises(PreferenceDataError, match=r"margins is True and the rows are tldr"):
        load_preferences(write(tmp_path, TLDR), margins=True)


BENCH = {
    "prompt": "What is 2 + 2?",
    "chosen": "Four.",
    "chosen_model": "human",
    "rejected": "Five.",
    "rejected_model": "unknown",
    "subset": "math-prm",
    "id": 17,
}
BENCH_2: dict[str, Any] = {
    "id": "tied:3",
    "prompt": "Name a color.",
    "chosen": ["Red.", "Blue."],
    "rejected": ["Seven.", "A dog.", "No."],
    "num_correct": 2,
    "num_incorrect": 3,
    "total_completions": 5,
    "models": ["x"] * 5,
    "subset": "Ties",
    "additional_metadata": None,
}


def test_reward_bench_keeps_subset_and_id(chat_tokenizer, tmp_path):
    path = write(tmp_path, BENCH, {**BENCH, "rejected": ""})
    expected = {"id": "17", "prompt": "What is 2 + 2?", "chosen": "Four.", "rejected": "Five.",
                "subset": "math-prm"}  # fmt: skip
    rows = load_reward_bench(path)
    assert rows[0] == expected
    assert rows[1]["rejected"] == ""  # a benchmark is scored on all of its rows
    rendered = load_reward_bench(path, tokenizer=chat_tokenizer, limit=1)[0]
    assert rendered["prompt"] == "<user>What is 2 + 2?</s><assistant>"
    assert rendered["chosen"] == "Four.</s>"
    assert load_reward_bench(path, tokenizer=chat_tokenizer)[1]["rejected"] == "</s>"
    pair = load_preferences(write(tmp_path, BENCH))[0]
    assert pair == without(expected, "id")


def test_reward_bench_2_keeps_lists_and_is_no_pairs(chat_tokenizer, tmp_path):
    single = {**BENCH_2, "id": "9", "chosen": ["Red."], "num_correct": 1, "subset": "Focus"}
    path = write(tmp_path, BENCH_2, single)
    rows = load_reward_bench_2(path)
    assert rows.column_names == ["id", "prompt", "chosen", "rejected", "subset"]
    assert rows[0] == {name: BENCH_2[name] for name in rows.column_names}
    assert rows["subset"] == ["Ties", "Focus"]
    rendered = load_reward_bench_2(path, tokenizer=chat_tokenizer)
    assert rendered[0]["chosen"] == ["Red.</s>", "Blue.</s>"]
    assert rendered[1]["rejected"] == ["Seven.</s>", "A dog.</s>", "No.</s>"]
    path = write(tmp_path, {**single, "rejected": ["", "A dog.", "No."]})
    rendered = load_reward_bench_2(path, tokenizer=chat_tokenizer)
    assert rendered[0]["rejected"] == ["</s>", "A dog.</s>", "No.</s>"]
    for on_bad_row in ("error", "skip"):
        with pytest.raises(PreferenceDataError, match=r"RewardBench 2.*load_reward_bench_2"):
            load_preferences(path, on_bad_row=on_bad_row)


@pytest.mark.parametrize(
    ("load", "row", "message"),
    [
        (
            load_reward_bench_2,
            {**BENCH_2, "chosen": []},
            r"'chosen' holds list \[\].*at least one text",
        ),
        (load_reward_bench_2, {**BENCH_2, "rejected": "No."}, "'rejected' holds str"),
        (
            load_reward_bench_2,
            {**BENCH_2, "num_correct": 1},
            "'num_correct' is 1 and 'chosen' holds 2 replies",
        ),
        (load_reward_bench_2, {**BENCH_2, "subset": None}, "'subset' holds NoneType"),
        (load_reward_bench_2, {**BENCH_2, "id": None}, "'id' is missing"),
        (load_reward_bench_2, {**BENCH_2, "prompt": " "}, "'prompt' holds str ' '; .*not blank"),
        (load_reward_bench, without(BENCH, "subset"), "'subset' is missing"),
        (load_reward_bench, {**BENCH, "chosen": None}, "'chosen' holds NoneType"),
    ],
)
def test_bad_row_of_a_benchmark_is_named(load, row, message, tmp_path):
    good = BENCH if load is load_reward_bench else BENCH_2
    with pytest.raises(PreferenceDataError, match=rf"p\.jsonl:2: .*{message}"):
        load(write(tmp_path, good, row))


QA_ROW: dict[str, Any] = {
    "question": "Who won?",
    "passages": [["The Cup", "The Cup\n\nThe Cup is held yearly.", "It was won by Ann."]],
    "gold": "Ann.",
    **{f"prediction {k}": text for k, text in enumerate(("Ann.", "Ben.", "Cem.", "Dan."), 1)},
    "feedback": {},
    "preference": [1, 2, 0, 1, 2, 0],
}


def test_qa_feedback_gives_six_pairs_with_ties(tmp_path):
    pairs = load_preferences(write(tmp_path, QA_ROW)).to_list()
    prompt = "Passage: The Cup\nThe Cup is held yearly. It was won by Ann.\n\n"
    assert {pair["prompt"] for pair in pairs} == {f"{prompt}Question: Who won?\n\nAnswer:"}
    assert [(p["chosen"], p["rejected"], p["chosen_probability"]) for p in pairs] == [
        (" Ann.", " Ben.", 1.0),
        (" Cem.", " Ann.", 1.0),
        (" Ann.", " Dan.", 0.5),
        (" Ben.", " Cem.", 1.0),
        (" Dan.", " Ben.", 1.0),
        (" Cem.", " Dan.", 0.5),
    ]


def test_identical_answers_are_left_out_and_counted(tmp_path, caplog):
    path = write(tmp_path, {**QA_ROW, "prediction 3": "Ann."})
    with caplog.at_level(logging.WARNING):
        assert len(load_preferences(path)) == 5
    assert "left out 1 and kept 5 (1 x identical answers)" in caplog.text
    same = {**QA_ROW, **{f"prediction {k}": "Ann." for k in range(1, 5)}}
    with pytest.raises(PreferenceDataError, match=r"no usable row. Left out 6 x identical"):
        load_preferences(write(tmp_path, same))


@pytest.mark.parametrize("sample", QA_FEEDBACK)
def test_every_comparison_of_the_qa_feedback_sample_is_kept(sample):
    originals = read_sample(sample)
    pairs = load_preferences(sample).to_list()
    labels = [label for row in originals for label in row["preference"]]
    assert len(pairs) == len(labels) == (60 if is_small(sample) else 3000)
    order = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    for index, (pair, label) in enumerate(zip(pairs, labels, strict=True)):
        row, places = originals[index // 6], order[index % 6]
        better, worse = places[::-1] if label == 2 else places
        assert pair["chosen"] == f" {row[f'prediction {better}']}"
        assert pair["rejected"] == f" {row[f'prediction {worse}']}"
        assert pair["chosen_probability"] == (0.5 if label == 0 else 1.0)
        assert pair["prompt"].endswith(f"Question: {row['question']}\n\nAnswer:")
        assert pair["prompt"].count("Passage: ") >= len(row["passages"])
    # One question of the small sample and two of the real one have no passages.
    bare = sum(pair["prompt"].startswith("Question: ") for pair in pairs)
    assert bare == (6 if is_small(sample) else 12)


def replies(*more: dict[str, Any]) -> dict[str, Any]:
    return {"completions": [*ULTRA["completions"], *more]}


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (TLDR, {"choice": 2}, "'choice' holds int 2; required is 0 or 1"),
        (TLDR, {"choice": True}, "'choice' holds bool True"),
        (TLDR, {"choice": None}, "'choice' holds NoneType None"),
        (TLDR, {"extra": {"confidence": 0}}, r"'confidence' holds int 0; .*number in \[1, 9\]"),
        (TLDR, {"extra": {"confidence": 10}}, "'confidence' holds int 10"),
        (TLDR, {"extra": {"confidence": "sure"}}, "'confidence' holds str 'sure'"),
        (TLDR, {"summaries": TLDR["summaries"][:1]}, "'summaries' holds list .*two objects"),
        (TLDR, {"summaries": [{"policy": "a"}, {"text": "b"}]}, "'text' is missing"),
        (TLDR, {"summaries": [{"text": ""}, {"text": "b"}]}, "text in both summaries"),
        (TLDR, {"summaries": [{"text": "b"}, {"text": "b"}]}, "chosen and rejected are identical"),
        (TLDR, {"info": {"post": "a", "title": "b"}}, "'subreddit' is missing; .*'title'"),
        (TLDR, {"info": None}, "'info' holds NoneType"),
        (TLDR, {"batch": 3}, "'batch' holds int 3; required is text"),
        (
            BINARIZED,
            {"score_chosen": float("nan")},
            "column 'score_chosen' holds NaN, a number that is not",
        ),
        (BINARIZED, {"score_chosen": None}, "'score_chosen' holds NoneType"),
        (BINARIZED, {"score_chosen": 4.0}, "score_chosen is 4 and score_rejected 5"),
        (BINARIZED, {"rejected": []}, "column 'rejected' is an empty list"),
        (ULTRA, {"completions": []}, "found 0 replies of which 0 differ; .*two"),
        (ULTRA, {"completions": ULTRA["completions"][:1]}, "found 1 replies of which 1 differ"),
        (ULTRA, {"completions": [ULTRA["completions"][0]] * 2}, "2 replies of which 1 differ"),
        (ULTRA, replies({"response": "x"}), "'overall_score' is missing"),
        (ULTRA, replies({"response": "", "overall_score": 1}), "none of them empty"),
        (
            ULTRA,
            replies({"response": "x", "overall_score": "N/A"}),
            "'overall_score' holds str 'N/A'",
        ),
        (ULTRA, {"completions": "text"}, "'completions' holds str"),
        (QA_ROW, {"preference": [1, 2, 0, 1, 2]}, "'preference' holds list .*six numbers"),
        (QA_ROW, {"preference": [1, 2, 3, 1, 2, 0]}, "'preference' holds list"),
        (QA_ROW, {"preference": [1, 2, True, 1, 2, 0]}, "'preference' holds list"),
        (QA_ROW, {"preference": ["1"] * 6}, "'preference' holds list"),
        (QA_ROW, {"prediction 2": " "}, "'prediction 2' holds str ' '; .*not blank"),
        (QA_ROW, {"prediction 4": None}, "'prediction 4' holds NoneType"),
        (QA_ROW, {"question": ""}, "'question' holds str ''"),
        (QA_ROW, {"passages": [[]]}, "'passages' holds list"),
        (QA_ROW, {"passages": "text"}, "'passages' holds str"),
    ],
)
def test_bad_row_is_named_and_counted(row, change, message, chat_tokenizer, tmp_path, caplog):
    path = write(tmp_path, row, {**row, **change})
    with pytest.raises(PreferenceDataError, match=rf"p\.jsonl:2: .*{message}"):
        load_preferences(path, tokenizer=chat_tokenizer)
    with caplog.at_level(logging.WARNING):
        pairs = load_preferences(path, tokenizer=chat_tokenizer, on_bad_row="skip")
    assert len(pairs) == len(load_preferences(write(tmp_path, row), tokenizer=chat_tokenizer))
    assert f"skipped 1 bad rows and kept {len(pairs)}" in caplog.text


def test_qa_feedback_that_lacks_a_field_is_named_when_asked_for(tmp_path):
    path = write(tmp_path, without(QA_ROW, "prediction 3"))
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:1: 'prediction 3' is missing"):
        load_preferences(path, format="qa_feedback")

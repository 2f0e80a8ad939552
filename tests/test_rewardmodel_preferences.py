"""Loading preferences, prompts and demonstrations from every kind of source, good and bad."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerFast

from rewardmodel.data.preferences import (
    load_demonstrations,
    load_preferences,
    load_prompts,
    split_by_prompt,
)
from rewardmodel.data.report import examine_preferences
from rewardmodel.data.rows import PreferenceDataError
from tests.preference_rows import TEMPLATE, assistant, user, word_tokenizer, write
from tests.sample_data import HH, is_small, read_sample

ROWS = [
    {"prompt": "What is red?", "chosen": " A rose.", "rejected": " The sea."},
    {"prompt": "What is blue?", "chosen": " The sea, mostly.", "rejected": " A rose."},
]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


GOOD = {"prompt": "a", "chosen": "b", "rejected": "c"}
CHAT = [user("Hi"), assistant("Yes")]
OTHER_CHAT = [user("Hi"), assistant("No")]
RENDERED = {"prompt": "<user>Hi</s><assistant>", "chosen": "Yes</s>", "rejected": "No</s>"}
SHOWN = (RENDERED["prompt"], RENDERED["chosen"])


def _zipped(path: Path) -> Path:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    return path.with_name(f"{path.name}.gz")


def _made(folder: Path, name: str) -> Path:
    path, rows = folder / name, Dataset.from_list(ROWS)
    if name == "p.json":
        path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    else:
        {"p.csv": rows.to_csv, "p.parquet": rows.to_parquet, "saved": rows.save_to_disk}[name](path)
    return path


def _saved_splits(folder: Path) -> Path:
    other = Dataset.from_list([{"prompt": "x", "chosen": "y", "rejected": "z"}])
    DatasetDict({"train": Dataset.from_list(ROWS), "test": other}).save_to_disk(folder / "saved")
    return folder / "saved"


def _parts(folder: Path) -> Path:
    write(folder, *ROWS[:1], name="part1.jsonl")
    write(folder, *ROWS[1:], name="part2.jsonl")
    return folder


def _folder(folder: Path) -> Path:
    (folder / "data" / "sub").mkdir(parents=True)
    write(folder / "data" / "sub", *ROWS[:1], name="train-00000-of-00002.jsonl")
    Dataset.from_list(ROWS[1:]).to_parquet(folder / "data" / "sub" / "train-00001-of-00002.parquet")
    write(folder / "data", {"prompt": "x", "chosen": "y", "rejected": "z"}, name="test.jsonl")
    (folder / "data" / "train_notes.txt").write_text("notes", encoding="utf-8")
    return folder / "data"


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: write(folder, *ROWS),
        lambda folder: write(folder, *ROWS, name="lines.json"),
        lambda folder: _zipped(write(folder, *ROWS)),
        lambda folder: _made(folder, "p.json"),
        lambda folder: _zipped(_made(folder, "p.json")),
        lambda folder: _made(folder, "p.parquet"),
        lambda folder: _made(folder, "p.csv"),
        lambda folder: _zipped(_made(folder, "p.csv")),
        lambda folder: _made(folder, "saved"),
        _saved_splits,
        _parts,
        _folder,
    ],
)
def test_every_kind_of_source_gives_the_same_pairs(make, tmp_path):
    source = make(tmp_path)
    for given in (source, str(source)):
        pairs = load_preferences(given)
        assert pairs.column_names == ["prompt", "chosen", "rejected"]
        assert pairs.to_list() == ROWS


def test_split_picks_the_files_or_the_saved_split(tmp_path):
    expected = [{"prompt": "x", "chosen": "y", "rejected": "z"}]
    assert load_preferences(_folder(tmp_path), split="test").to_list() == expected
    assert load_preferences(_saved_splits(tmp_path), split="test").to_list() == expected
    with pytest.raises(
        PreferenceDataError, match=r"no split 'dev'; choose one of .*'train', 'test'"
    ):
        load_preferences(tmp_path / "saved", split="dev")
    with pytest.raises(
        PreferenceDataError, match=r"no file for the split 'dev'; found .*test.jsonl"
    ):
        load_preferences(tmp_path / "data", split="dev")


def test_byte_order_mark_blank_lines_and_quoted_line_breaks_are_read(tmp_path):
    lines = tmp_path / "p.jsonl"
    lines.write_text("\ufeff" + "\n\n".join(json.dumps(r) for r in ROWS), encoding="utf-8")
    assert load_preferences(lines).to_list() == ROWS
    table = tmp_path / "p.csv"
    table.write_text('\ufeffprompt,chosen,rejected\n"a\nb","c,d",e\n', encoding="utf-8")
    assert load_preferences(table).to_list() == [
        {"prompt": "a\nb", "chosen": "c,d", "rejected": "e"}
    ]


def test_csv_field_longer_than_the_csv_default_is_read(tmp_path):
    row = {**GOOD, "chosen": "b" * 200_000}
    Dataset.from_list([row]).to_csv(tmp_path / "p.csv")
    assert load_preferences(tmp_path / "p.csv").to_list() == [row]


def test_limit_stops_after_so_many_pairs(tmp_path):
    path = write(tmp_path, *ROWS, {"broken": 1})
    assert load_preferences(path, limit=1).to_list() == ROWS[:1]
    assert len(load_preferences(path, limit=2)) == 2
    with pytest.raises(ValueError, match=r"limit is 0"):
        load_preferences(path, limit=0)


def test_margin_is_kept_as_float(tmp_path):
    path = write(tmp_path, {**ROWS[0], "margin": 2}, {**ROWS[1], "margin": 0.5})
    pairs = load_preferences(path)
    assert pairs["margin"] == [2.0, 0.5]
    assert pairs.features["margin"].dtype == "float64"
    pairs.to_csv(tmp_path / "p.csv")
    assert load_preferences(tmp_path / "p.csv")["margin"] == [2.0, 0.5]


def test_other_column_names_are_read_when_named(tmp_path):
    path = write(tmp_path, {"q": "a", "good": "b", "bad": "c"})
    pairs = load_preferences(path, prompt_column="q", chosen_column="good", rejected_column="bad")
    assert pairs.to_list() == [{"prompt": "a", "chosen": "b", "rejected": "c"}]


def split_one(tmp_path: Path, chosen: object, rejected: object, **options: Any) -> dict:
    path = write(tmp_path, {"chosen": chosen, "rejected": rejected})
    return load_preferences(path, **options)[0]


MORE = " Hello\n\nHuman: And?\n\nAssistant:"


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        (f"\n\nHuman: Hi\n\nAssistant:{MORE}", " Go on then.", " Go away."),
        ("\n\nHuman: Hi\n\nAssistant:", f"{MORE} Bye", " Hello there"),
    ],
)
def test_transcripts_are_split_after_the_last_shared_assistant_turn(
    prompt, chosen, rejected, tmp_path
):
    pair = split_one(tmp_path, prompt + chosen, prompt + rejected)
    assert pair == {"prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("The sky is  blue.", "The sky is  green.", "The sky is"),
        ("The sky is", "The sky is green.", "The sky"),
    ],
)
def test_other_text_is_split_at_white_space_where_the_user_says_that_it_holds_the_prompt(
    chosen, rejected, prompt, tmp_path
):
    with pytest.raises(PreferenceDataError, match=r"p.jsonl:1: .*marker.*implicit_prompt=True"):
        split_one(tmp_path, chosen, rejected)
    pair = split_one(tmp_path, chosen, rejected, implicit_prompt=True)
    assert pair["prompt"] == prompt
    assert pair["prompt"] + pair["chosen"] == chosen
    assert pair["prompt"] + pair["rejected"] == rejected


TURN = "\n\nHuman: Hi\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        *((text, text, "identical") for text in ("Yes", "The sky is blue.", f"{TURN} Yes")),
        ("Yes", "No", "p.jsonl:1: .*shared prompt.*prompt_column="),
        (TURN, f"{TURN} Hello", "empty after the shared prompt"),
    ],
)
def test_texts_without_a_prompt_and_two_replies_are_refused(chosen, rejected, message, tmp_path):
    with pytest.raises(PreferenceDataError, match=message):
        split_one(tmp_path, chosen, rejected)


def test_mistyped_prompt_column_is_not_taken_for_an_implicit_prompt(tmp_path):
    path = write(tmp_path, {"Prompts": "a", "chosen": "x b", "rejected": "x c"})
    with pytest.raises(PreferenceDataError, match=r"prompt_column='Prompts'"):
        load_preferences(path)


def test_messages_are_rendered_so_that_prompt_and_reply_make_the_whole(tokenizer, tmp_path):
    assert split_one(tmp_path, CHAT, OTHER_CHAT, tokenizer=tokenizer) == RENDERED
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert RENDERED["prompt"] + RENDERED["chosen"] == whole


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ([user("Hi")], [assistant("Yes")], [assistant("No")]),
        ("Hi", [assistant("Yes")], [assistant("No")]),
        ("Hi", CHAT, OTHER_CHAT),
        ([user("Hi")], CHAT, OTHER_CHAT),
        ([user("Hi")], "Yes", "No"),
    ],
)
def test_explicit_chat_prompt_in_every_combination(prompt, chosen, rejected, tokenizer, tmp_path):
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    path = write(tmp_path, row)
    assert load_preferences(path, tokenizer=tokenizer).to_list() == [RENDERED]


def test_prompt_text_beside_conversations_with_a_system_turn(tokenizer, tmp_path):
    system = {"role": "system", "content": "Be brief"}
    row = {
        "prompt": "Hi",
        "chosen": [system, user("Hi"), assistant("Yes")],
        "rejected": [system, user("Hi"), assistant("No")],
    }
    pair = load_preferences(write(tmp_path, row), tokenizer=tokenizer)[0]
    assert pair["prompt"] == "<system>Be brief</s><user>Hi</s><assistant>"


def test_implicit_chat_prompt_goes_back_to_where_both_are_answered(tokenizer, tmp_path):
    start = [user("Hi"), assistant("Yes")]
    pair = split_one(tmp_path, start, [*start, user("And?"), assistant("No")], tokenizer=tokenizer)
    assert pair["prompt"] == "<user>Hi</s><assistant>"
    assert pair["rejected"] == "Yes</s><user>And?</s><assistant>No</s>"
    chosen = [*start, user("And?"), assistant("No")]
    rejected = [*start, user("Or?"), assistant("No")]
    pair = split_one(tmp_path, chosen, rejected, tokenizer=tokenizer)
    assert pair["prompt"] == "<user>Hi</s><assistant>"


def test_nulls_that_arrow_adds_to_messages_do_not_hide_a_repeated_prompt(tokenizer, tmp_path):
    chosen = [user("Hi"), {**assistant("Yes"), "name": "bot"}]
    rows = [{"prompt": [user("Hi")], "chosen": chosen, "rejected": [user("Hi"), assistant("No")]}]
    Dataset.from_list(rows).to_parquet(tmp_path / "p.parquet")
    assert load_preferences(tmp_path / "p.parquet", tokenizer=tokenizer).to_list() == [RENDERED]


def test_messages_without_tokenizer_or_template_name_the_remedy(tokenizer, tmp_path):
    rows = [{"chosen": "x b", "rejected": "x c"}, {"chosen": CHAT, "rejected": OTHER_CHAT}]
    path = write(tmp_path, *rows, name="chat.jsonl")
    for on_bad_row in ("error", "skip"):  # not a row's fault: never skipped
        with pytest.raises(PreferenceDataError, match=r"chat.jsonl:2: .*no tok.*Pass tokenizer="):
            load_preferences(path, on_bad_row=on_bad_row, implicit_prompt=True)
    tokenizer.chat_template = None
    with pytest.raises(PreferenceDataError, match=r"no chat template.*set tokenizer.chat_template"):
        split_one(tmp_path, CHAT, OTHER_CHAT, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            TEMPLATE.replace("<assistant>{%", "<assistant><think>{%"),
            "<think>.*parting after 23 char",
        ),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ],
)
def test_template_that_cannot_render_the_pair_is_a_bad_row(template, message, tokenizer, tmp_path):
    tokenizer.chat_template = template
    with pytest.raises(PreferenceDataError, match=rf"p.jsonl:1: .*{message}"):
        split_one(tmp_path, CHAT, OTHER_CHAT, tokenizer=tokenizer)


def test_plain_text_is_not_rendered_even_with_a_tokenizer(tokenizer, tmp_path):
    path = write(tmp_path, *ROWS)
    assert load_preferences(path, tokenizer=tokenizer).to_list() == ROWS


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "'rejected' is missing; found .*'prompt', 'chosen'"),
        ({**GOOD, "rejected": None}, "'rejected' is null"),
        ({**GOOD, "chosen": ""}, "'chosen' is an empty str"),
        ({**GOOD, "chosen": []}, "'chosen' is an empty list"),
        ({**GOOD, "prompt": None}, "'prompt' is null"),
        ({**GOOD, "chosen": 3}, r"'chosen' holds int \(.3.\)"),
        ({**GOOD, "chosen": ["b"]}, "'chosen' holds list"),
        ({**GOOD, "chosen": {"text": "b"}}, "'chosen' holds dict"),
        ({**GOOD, "rejected": "b"}, "chosen and rejected are identical"),
        ({**GOOD, "rejected": CHAT}, "found text and messages as replies"),
        ({**GOOD, "rejected": [{"role": "assistant"}]}, r"message in column 'rejected'.*content"),
        ({"prompt": "a", "chosen": "b", "rejectd": "c"}, "nearest 'rejectd'.*rejected_column='rej"),
        ({"chosen": "b", "rejected": "c"}, "column 'prompt' is missing"),
        ([1, 2], "found a JSON list; required is an object"),
    ],
)
def test_bad_row_is_an_error_with_its_line_and_is_counted_when_skipped(
    row, message, tmp_path, caplog
):
    path = write(tmp_path, GOOD, row, {**GOOD, "prompt": "z"})
    with pytest.raises(PreferenceDataError, match=rf"p\.jsonl:2: .*{message}"):
        load_preferences(path)
    with caplog.at_level(logging.WARNING):
        pairs = load_preferences(path, on_bad_row="skip")
    assert pairs["prompt"] == ["a", "z"]
    (record,) = caplog.records
    assert "skipped 1 bad rows and kept 2 (1 x " in record.getMessage()


def label_rows(name: str, *values: object) -> list[dict]:
    return [{**GOOD, name: value} for value in values]


NOT_IN_FIRST = "that the first row lacks"


@pytest.mark.parametrize(
    ("rows", "message", "reason"),
    [
        *((label_rows("margin", 1.0, bad), "column 'margin' holds", "bad margin")
          for bad in (None, "wide", True)),
        *((label_rows("chosen_probability", 1, bad), r"[^:]*number in \[0, 1\], 0.5 for a t",
           "bad chosen_probability") for bad in (None, 1.2, -0.1, "likely", True)),
        *(([GOOD, *label_rows(name, None, 0.5)], f"column '{name}' holds 0.5, and",
           f"{name} {NOT_IN_FIRST}") for name in ("chosen_probability", "margin")),
        (label_rows("confidence", 1, "high"), "column 'confidence' holds str", "bad confidence"),
        (label_rows("subset", "a", ["a"]), "column 'subset' holds list", "bad subset"),
    ],
)  # fmt: skip
def test_bad_label_is_a_bad_row_and_not_passed_over(rows, message, reason, tmp_path, caplog):
    path = write(tmp_path, *rows)
    with pytest.raises(PreferenceDataError, match=rf"p\.jsonl:{len(rows)}: {message}"):
        load_preferences(path)
    with caplog.at_level(logging.WARNING):
        assert len(load_preferences(path, on_bad_row="skip")) == len(rows) - 1
    assert f"1 x {reason}" in caplog.text


def test_soft_labels_ties_confidence_and_subset_are_kept(tmp_path):
    rows = [
        {**GOOD, "chosen_probability": 0.8, "confidence": 3, "subset": "x"},
        {**GOOD, "prompt": "z", "chosen_probability": 0.5, "confidence": None, "subset": 7},
    ]
    path = write(tmp_path, *rows)
    pairs = load_preferences(path)
    assert pairs["chosen_probability"] == [0.8, 0.5]
    assert pairs["confidence"] == [3.0, None]
    assert pairs["subset"] == ["x", "7"]
    pairs.to_csv(tmp_path / "p.csv")
    assert load_preferences(tmp_path / "p.csv").to_list() == pairs.to_list()
    again = write(tmp_path, *pairs.to_list(), name="again.jsonl")
    assert load_preferences(again).to_list() == pairs.to_list()


def test_less_probable_reply_changes_places_with_the_other(tmp_path):
    rows = [{**GOOD, "chosen_probability": 0.25, "margin": 2.0}]
    path = write(tmp_path, *rows)
    assert load_preferences(path).to_list() == [
        {**GOOD, "chosen": "c", "rejected": "b", "margin": -2.0, "chosen_probability": 0.75}
    ]


def test_soft_label_by_another_name_must_be_in_every_row(tmp_path):
    rows = [{**GOOD, "agreement": "0.75"}, GOOD]
    path = write(tmp_path, *rows)
    assert "chosen_probability" not in load_preferences(path).column_names
    pairs = load_preferences(path, probability_column="agreement", limit=1)
    assert pairs["chosen_probability"] == [0.75]
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:2: column 'agreement' is missing"):
        load_preferences(path, probability_column="agreement")
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:1: column 'agreed' is missing"):
        load_preferences(path, probability_column="agreed")


def test_line_that_does_not_parse_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{{'prompt': 1}}\n", encoding="utf-8")
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:3: not JSON") as caught:
        load_preferences(path)
    assert caught.value.reason == "not JSON"
    assert len(load_preferences(path, on_bad_row="skip")) == 1


def test_bad_rows_of_lists_tables_and_saved_datasets_are_named_by_line_or_row(tmp_path):
    bad = [GOOD, {**GOOD, "chosen": None}]
    (tmp_path / "p.json").write_text(json.dumps(bad), encoding="utf-8")
    Dataset.from_list(bad).to_parquet(tmp_path / "p.parquet")
    Dataset.from_list(bad).save_to_disk(tmp_path / "saved")
    for name in ("p.json", "p.parquet", "saved"):
        with pytest.raises(PreferenceDataError, match=rf"{name}\[1\]: column 'chosen' is null"):
            load_preferences(tmp_path / name)
    table = tmp_path / "p.csv"
    table.write_text('prompt,chosen,rejected\n"a\nb",c,d\na,,c\n', encoding="utf-8")
    with pytest.raises(PreferenceDataError, match=r"p\.csv:4: column 'chosen' is an empty str"):
        load_preferences(table)
    table.write_text("prompt,chosen,rejected\na,b,c,d\na,b,c\n", encoding="utf-8")
    with pytest.raises(PreferenceDataError, match=r"p\.csv:2: found 4 fields .* 3 columns"):
        load_preferences(table)
    assert len(load_preferences(table, on_bad_row="skip")) == 1


def empty_dataset(path: Path) -> None:
    Dataset.from_dict({"chosen": [], "rejected": []}).save_to_disk(path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("saved", empty_dataset, "the dataset holds no row"),
        ("p.parquet", lambda path: path.write_bytes(b"no parquet"), "p.parquet: unreadable"),
        ("p.xlsx", Path.touch, r"ends in '\.xlsx'; required is one of \.jsonl"),
        ("folder", Path.mkdir, "holds no data file"),
        ("p.txt", lambda path: path.write_text("one\n"), r"p\.txt:1: column 'chosen' is missing"),
    ],
)
def test_a_source_without_preferences_is_named(name, make, message, tmp_path):
    make(tmp_path / name)
    with pytest.raises(PreferenceDataError, match=message):
        load_preferences(tmp_path / name)


def test_truncated_gzip_is_an_error_and_skipping_says_that_the_rest_is_lost(tmp_path, caplog):
    whole = gzip.compress("".join(f"{json.dumps(GOOD)}\n" for _ in range(5000)).encode())
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl\.gz: unreadable from here on"):
        load_preferences(path)
    with caplog.at_level(logging.WARNING):
        assert 0 < len(load_preferences(path, on_bad_row="skip")) < 5000
    assert "1 x unreadable rest of a file" in caplog.text


def test_skipping_counts_by_reason_in_one_warning(tmp_path, caplog):
    rows = [{**GOOD, "chosen": None}, GOOD, {**GOOD, "chosen": ""}, {**GOOD, "rejected": "b"}]
    path = write(tmp_path, *rows)
    with caplog.at_level(logging.WARNING):
        assert len(load_preferences(path, on_bad_row="skip")) == 1
    (record,) = caplog.records
    assert (
        "skipped 3 bad rows and kept 1 (2 x null or empty 'chosen', 1 x identical" in record.message
    )
    assert "p.jsonl:1" in record.message


def test_nothing_left_after_skipping_is_an_error_with_the_counts(tmp_path):
    path = write(tmp_path, {"a": 1}, {"a": 2})
    with pytest.raises(
        PreferenceDataError, match=r"no usable row. Skipped 2 x missing column 'chosen'.*p.jsonl:1"
    ):
        load_preferences(path, on_bad_row="skip")


def test_prompt_that_is_missing_in_a_later_row_is_not_taken_as_implicit(tmp_path):
    path = write(tmp_path, GOOD, {"chosen": "x b", "rejected": "x c"})
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:2: column 'prompt' is missing"):
        load_preferences(path)


def test_unknown_on_bad_row_is_refused(tmp_path):
    path = write(tmp_path, *ROWS)
    with pytest.raises(ValueError, match=r"on_bad_row is 'drop'; use \"error\" or \"skip\""):
        load_preferences(path, on_bad_row="drop")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("{folder}/preference.jsonl", "did you mean 'preferences.jsonl'"),
        ("{folder}/preferences.json", "did you mean 'preferences.jsonl'"),
        ("{folder}/nowhere/p.jsonl", r"holds no 'nowhere'; found \['preferences"),
        # A bare name of a file is not sought on the Hub.
        ("preference.jsonl", "does not exist.*did you mean 'preferences.jsonl'"),
        ("pair.csv", "did you mean 'pairs.csv'"),
    ],
)
def test_missing_path_names_its_neighbors(path, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, *ROWS, name="preferences.jsonl")
    if path.endswith(".csv"):
        (tmp_path / "pairs.csv").touch()
    with pytest.raises(PreferenceDataError, match=remedy):
        load_preferences(path.format(folder=tmp_path))


def test_hub_id_that_cannot_be_reached_says_so():
    with pytest.raises(PreferenceDataError, match=r"'nobody/nothing-here' is no file or folder"):
        load_preferences("nobody/nothing-here")


def test_hub_dataset_is_read_with_its_split(monkeypatch):
    asked = []

    def load_dataset(name: str, split: str, *, trust_remote_code: bool) -> Dataset:
        assert trust_remote_code is False
        asked.append((name, split))
        return Dataset.from_list([*ROWS, {**GOOD, "chosen": None}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert load_preferences("owner/name", split="test", limit=2).to_list() == ROWS
    assert asked == [("owner/name", "test")]
    with pytest.raises(
        PreferenceDataError, match=r"owner/name/train\[2\]: column 'chosen' is null"
    ):
        load_preferences("owner/name")


def test_prompts_come_from_a_column_a_text_file_or_preferences(tokenizer, tmp_path):
    path = write(tmp_path, {"question": "a"}, {"question": "a"}, name="q.jsonl")
    assert load_prompts(path, column="question") == ["a", "a"]
    with pytest.raises(PreferenceDataError, match=r"q\.jsonl:1: column 'prompt' is missing"):
        load_prompts(path)
    (tmp_path / "p.txt").write_text("first one\r\n\n second\n", encoding="utf-8")
    assert load_prompts(tmp_path / "p.txt") == ["first one", " second"]
    pairs = write(tmp_path, ROWS[1], ROWS[0], ROWS[1])
    assert load_prompts(pairs) == ["What is blue?", "What is red?"]
    assert load_prompts(pairs, limit=1) == ["What is blue?"]
    shared = "\n\nHuman: Hi\n\nAssistant:"
    implicit = [{"chosen": shared + " a", "rejected": shared + " b"}] * 2
    assert load_prompts(write(tmp_path, *implicit, name="i.jsonl")) == [shared]
    chat = write(tmp_path, {"prompt": [user("Hi")]}, name="c.jsonl")
    assert load_prompts(chat, tokenizer=tokenizer) == ["<user>Hi</s><assistant>"]


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        ({"prompt": "a", "completion": "b"}, {}, ("a", "b")),
        ({"prompt": "a", "response": "b"}, {}, ("a", "b")),
        (GOOD, {}, ("a", "b")),
        ({"chosen": "x y b", "rejected": "x y c"}, {"implicit_prompt": True}, ("x y", " b")),
        ({"q": "a", "r": "b"}, {"prompt_column": "q", "completion_column": "r"}, ("a", "b")),
        ({"messages": CHAT}, {}, SHOWN),
        ({"messages": [*CHAT, user("And?")]}, {}, SHOWN),
        ({"prompt": "Hello", "completion": CHAT}, {}, SHOWN),
        ({"prompt": [user("Hi")], "completion": [assistant("Yes")]}, {}, SHOWN),
    ],
)
def test_demonstrations_from_every_format(row, options, expected, tokenizer, tmp_path):
    path = write(tmp_path, row)
    shown = load_demonstrations(path, tokenizer=tokenizer, **options)
    assert shown.to_list() == [{"prompt": expected[0], "completion": expected[1]}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [user("Hi")]}, r"found messages of \['user'\]; .*assistant answers"),
        ({"messages": "Hi"}, "found messages of text"),
        ({"messages": [assistant("Yes")]}, r"found messages of .*assistant answers"),
        ({"prompt": "a", "answer": "b"}, "'completion' is missing.*completion_column="),
        ({"prompt": "a", "completion": ""}, "'completion' is an empty str"),
        ({"completion": "a"}, "'prompt' is missing"),
    ],
)
def test_bad_demonstration_is_named(row, message, tokenizer, tmp_path):
    path = write(tmp_path, row)
    with pytest.raises(PreferenceDataError, match=rf"p\.jsonl:1: .*{message}"):
        load_demonstrations(path, tokenizer=tokenizer)


def test_split_by_prompt_puts_no_prompt_on_both_sides_and_loses_no_row():
    rows = [
        {"prompt": f"p{index % 10}", "chosen": f"c{index}", "rejected": "r"} for index in range(40)
    ]
    train, test = split_by_prompt(Dataset.from_list(rows), holdout=0.3, seed=1)
    assert not set(train["prompt"]) & set(test["prompt"])
    assert len(set(test["prompt"])) == 3
    assert sorted([*train["chosen"], *test["chosen"]]) == sorted(row["chosen"] for row in rows)
    again = split_by_prompt(Dataset.from_list(rows), holdout=0.3, seed=1)[1]
    other = split_by_prompt(Dataset.from_list(rows), holdout=0.3, seed=2)[1]
    assert again.to_list() == test.to_list() != other.to_list()


def test_split_by_prompt_leaves_a_prompt_on_either_side_or_refuses():
    pairs = Dataset.from_list(ROWS)
    for holdout in (0.01, 0.99):
        assert [len(part) for part in split_by_prompt(pairs, holdout=holdout, seed=0)] == [1, 1]
    for holdout in (0.0, 1.0, 20.0):
        with pytest.raises(ValueError, match=rf"holdout is {holdout}"):
            split_by_prompt(pairs, holdout=holdout, seed=0)
    with pytest.raises(ValueError, match=r"found 1 distinct prompt"):
        split_by_prompt(pairs.select([0, 0]), holdout=0.5, seed=0)


def test_report_counts_duplicates_contradictions_and_lengths():
    def pair(prompt: str, chosen: str, rejected: str) -> dict:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    rows = [
        pair("p", "aaa", "b"),
        pair("p", "aaa", "b"),  # duplicate
        pair("p", "b", "aaa"),  # contradicts the first two
        pair("q", "b", "aaa"),  # another prompt: no contradiction
        pair("q", "c", "c"),
        pair("q", "d", "d"),
        pair("q", " ", "cc"),
    ]
    report = examine_preferences(Dataset.from_list(rows))
    assert (report.pairs, report.prompts) == (7, 2)
    assert (report.duplicate_pairs, report.contradictory_pairs) == (1, 1)
    assert (report.identical_pairs, report.blank_replies) == (2, 1)
    assert report.longer_chosen.estimate == pytest.approx(3 / 7)
    assert report.characters["chosen"]["p50"] == 1
    assert report.characters["rejected"]["p100"] == 3
    with pytest.raises(ValueError, match=r"found no pairs"):
        examine_preferences(Dataset.from_dict({"prompt": [], "chosen": [], "rejected": []}))


@pytest.mark.parametrize("sample", HH)
def test_every_pair_of_the_hh_sample_reconstructs_its_transcripts(sample, tmp_path):
    originals = read_sample(sample)
    pairs = load_preferences(sample)
    assert len(pairs) == len(originals) == (60 if is_small(sample) else 1800)
    for pair, original in zip(pairs.to_list(), originals, strict=True):
        assert pair["prompt"].endswith("\n\nAssistant:")
        assert pair["prompt"] + pair["chosen"] == original["chosen"]
        assert pair["prompt"] + pair["rejected"] == original["rejected"]
    report = examine_preferences(pairs)
    assert report.identical_pairs == sum(o["chosen"] == o["rejected"] for o in originals) == 0
    assert report.blank_replies == 2
    pairs.save_to_disk(tmp_path / "saved")
    assert load_preferences(tmp_path / "saved").to_list() == pairs.to_list()

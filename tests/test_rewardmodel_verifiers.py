"""Answers found and compared, on hand-made texts, hostile ones, and all of GSM8K."""

import gzip
import json
import re
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardmodel import PreferenceDataError, RewardModel
from rewardmodel.models.answers import (
    extract_answer,
    normalize_answer,
    same_answer,
)
from rewardmodel.models.verifiers import AnswerMatch, load_references
from tests.sample_data import GSM8K, read_sample


def write_lines(path: Path, rows: list) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


# --------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize(
    ("form", "text", "answer"),
    [
        ("gsm8k", "2 + 3 = 5\n#### 5", "5"),
        ("gsm8k", "#### 4\nNo.\n####  1,234 eggs \nQ: next", "1,234 eggs"),
        ("gsm8k", "####\n7", "7"),
        ("gsm8k", "the answer is 5", None),
        ("gsm8k", "1 ####  ", None),
        ("boxed", r"\boxed{3} and \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{3}, cut off: \boxed{\frac{1}{", "3"),
        ("boxed", r"\boxed{\boxed{5}}", "5"),
        ("boxed", r"\boxed {\{1, 2\}} }", r"\{1, 2\}"),
        ("boxed", r"\boxed{3} \boxed{ }", "3"),
        ("boxed", "5", None),
        ("number", "It was 3, then $1,234.50.", "$1,234.50"),
        ("number", "10 - 5 = 5-3", "3"),
        ("number", "that is -$5 now", "-$5"),
        ("number", "a loss of −5.", "−5"),
        ("number", "3 m^2, x2, H2O, cm^{2}", "3"),
        ("number", "2.5e3 eggs", "2.5e3"),
        ("number", "half, 1/2", "1/2"),
        ("number", r"so $\frac{3}{4}$ of it", r"$\frac{3}{4}"),
        ("number", "the 1,2345", "2345"),
        ("number", "costs Rs.5", "5"),
        ("number", "none", None),
        ("auto", "#### 4\n" + r"The answer is 5, \boxed{6}, 7", "6"),
        ("auto", "The answer is 5. #### 4\n7", "4"),
        ("auto", "#### Step 3\nThe answer is 5 because of 7", "5"),
        ("auto", "#### 3. Then\nso 8", "8"),
        ("auto", "The answer is 5.\nBut the final answer is: **18 eggs a day**. I had 3.", "18"),
        ("auto", "Answer: $3.50 per egg!", "$3.50"),
        ("auto", "Answer: 2 million", "2 million"),
        ("auto", "Answer: 5 pi", "5 pi"),
        ("auto", "The answer is 2 or 3", "2 or 3"),
        ("auto", "The answer is 3x + 1, as above.", "3x + 1, as above"),
        ("auto", "The answer is 18, since 9 * 2 = 18", "18"),
        ("auto", "**Answer:** North", "North"),
        ("auto", "The answer is $18$. I hope it is correct.", "$18$"),
        ("auto", "The answer is\n\n12%", "12%"),
        ("auto", "Answer:", None),
        ("auto", "So 3 and 4.", "4"),
        ("auto", "I do not know", None),
        ("auto", "", None),
        (r"regex:\((\w)\)", "(A) or (B)?", "B"),
        (r"regex:=\s*(?:a|b)?(\d*)", "= a", None),
    ],
)
def test_answer_is_found_where_the_form_says(form: str, text: str, answer: str | None) -> None:
    assert extract_answer(text, form) == answer


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("box", "found 'box'; required: one of auto, boxed, gsm8k, number"),
        ("regex:(", "no regular expression"),
        ("regex:a", "0 groups; required: 1"),
        ("regex:(a)(b)", "2 groups; required: 1"),
    ],
)
def test_unknown_forms_are_refused(form: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        extract_answer("text", form)
    with pytest.raises(ValueError, match=re.escape(message)):
        AnswerMatch({"a": "1"}, form=form)


# ------------------------------------------------------------------------------------ normalizing


@pytest.mark.parametrize(
    "group",
    [
        [
            "3",
            "3.0",
            "3.00",
            " 3. ",
            "+3",
            "$3",
            r"\$3.00",
            "3%",
            r"3\%",
            "3 percent",
            "6/2",
            "3e0",
        ],
        ["0.5", ".5", "1/2", r"\frac{1}{2}", r"\dfrac12", "$\\frac 1 2$", "5e-1", "2 / 4", "1/ 2"],
        ["-1/2", r"-\frac{1}{2}", r"\frac{-1}{2}", "−0.5", "1/-2"],
        ["5/2", r"2\frac{1}{2}", "2 1/2", "2.5", r"2 \tfrac{1}{2}"],
        ["1,234,567", "1234567", r"1{,}234{,}567", r"1\,234\,567", "$1,234,567.00"],
        ["30", r"30^\circ", r"30^{\circ}", "30 degrees", "30°", r"\text{30}", "30 dollars"],
        [r"\frac{x+1}{2}", "(x + 1)/2", r"\frac{ x + 1 }{2}"],
        [r"\left( 1, 2 \right)", "(1,2)", r"(1,\!2)", "( 1 ,2 )"],
        ["New York", "new  york.", r"\text{New York}", r"\textbf{ new york }"],
        ["x^2", "+x^2", "+ X ^ 2."],
        [r"\sqrt{2}", r"$\sqrt{2}$", r"\( \sqrt{2} \)"],
        ["1" + "0" * 400, "1e400", "10e399"],
    ],
    ids=lambda group: group[0][:20],
)
def test_equal_answers_are_written_alike(group: list[str]) -> None:
    assert {normalize_answer(answer) for answer in group} == {normalize_answer(group[0])}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("3", "-3"),
        ("2", "2 million"),
        ("5 cm", "5"),
        ("12", "1 2"),
        ("1234", "1, 234"),
        ("123", "1,23"),
        ("21/2", r"2\frac12"),
        ("0.3333333333333333", "1/3"),
        ("9007199254740993", "9007199254740992"),
        ("1/0", "2/0"),
        ("(1, 2)", "(12)"),
        ("x/2", "x"),
        ("nan", "inf"),
        ("1e999999999", "2e999999999"),
        ("5", "0.05"),
    ],
)
def test_different_answers_stay_different(a: str, b: str) -> None:
    assert not same_answer(a, b)


PIECES = st.sampled_from(
    [
        *"0123456789.,+-/%$ {}()~^\\!xE",
        *(r"\frac", r"\text{", r"\left", r"\!", r"\,", r"\ ", r"\boxed{", r"^\circ", r"\quad"),
        *("{1}", "{2}", "percent", "dollars", "\\\\", "\n", "−", "ß"),
    ]
)


@settings(deadline=None, max_examples=500)
@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=40))
def test_normalizing_twice_changes_nothing_and_never_fails(answer: str) -> None:
    once = normalize_answer(answer)
    assert normalize_answer(once) == once
    for form in ("auto", "boxed", "gsm8k", "number"):
        found = extract_answer(answer, form)
        assert found is None or found.strip() == found != ""


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6), st.text(alphabet="abc .,\n", max_size=30))
def test_any_fraction_is_found_and_equal_to_itself(number: object, before: str) -> None:
    text = f"{before} the answer is {number}.\n"
    assert same_answer(extract_answer(text) or "", str(number))
    assert same_answer(extract_answer(text, "number") or "", str(number))


@pytest.mark.parametrize(
    "hostile",
    [
        "9" * 200_000,
        "1," * 100_000,
        "1,111" * 40_000,
        r"\boxed{" * 30_000,
        "answer: " * 30_000,
        "answer:. " * 30_000,
        "#" * 200_000,
        "{" * 200_000,
        r"\frac" * 40_000,
        "^" * 200_000,
        "-" * 200_000,
        "1e" * 100_000,
        "1 " * 100_000,
        "18" + " " * 100_000 + "?",
        "18 " + "a " * 100_000 + "?",
        "1e999/1e-999",
        "9" * 500 + "/" + "9e-999",
        r"\text{" * 80 + "1" + "}" * 80,
        "__import__('os')",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_cost_little_time(hostile: str) -> None:
    began = time.perf_counter()
    for form in ("auto", "boxed", "gsm8k", "number"):
        extract_answer(hostile, form)
        extract_answer("#### " + hostile, form)
    normalize_answer(hostile)
    # Quadratic work would take minutes on these lengths.
    assert time.perf_counter() - began < 5


# --------------------------------------------------------------------------------------- matching


def test_answer_match_scores_one_for_the_right_answer() -> None:
    verifier = AnswerMatch({"2+3": "5", "half": r"\frac{1}{2}"})
    assert isinstance(verifier, RewardModel)
    prompts = ["2+3", "2+3", "half", "half"]
    responses = ["It is 5.00", "It is 6", "#### 0.5", "no idea"]
    scores = verifier.score(prompts, responses)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [1, 0, 1, 0] == verifier(prompts, responses)
    assert verifier.score([], []).shape == (0,)
    assert AnswerMatch({"2+3": "5"}, form="boxed")(["2+3"], ["It is 5"]) == [0.0]


def test_answer_match_refuses_what_it_does_not_know() -> None:
    verifier = AnswerMatch({"2+3": "5"})
    with pytest.raises(ValueError, match=r"the prompt 'Q: 2\+3'.*one of the 1 prompts"):
        verifier.score(["Q: 2+3"], ["5"])
    with pytest.raises(ValueError, match="shorter"):
        verifier.score(["2+3", "2+3"], ["5"])
    with pytest.raises(ValueError, match="the answer to '2' is ' '"):
        AnswerMatch({"1": "1", "2": " "})


# ---------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_references_are_read_from_the_usual_columns(tmp_path: Path, name: str) -> None:
    rows = [
        {"question": "a", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
        {"problem": "b", "solution": r"so $\boxed{\frac{1}{2}}$"},
        {"prompt": "c", "answer": "Paris "},
        {"prompt": "d", "answer": 7},
        {"prompt": "e", "answer": 0.25, "solution": r"\boxed{no}"},
        {"prompt": "d", "answer": "7.0"},
    ]
    references = load_references(write_lines(tmp_path / name, rows))
    assert references == {"a": "2", "b": r"\frac{1}{2}", "c": "Paris", "d": "7", "e": "0.25"}
    named = [{"q": "a", "gold": "1", "answer": "2"}]
    path = write_lines(tmp_path / f"named-{name}", named)
    assert load_references(path, prompt_column="q", answer_column="gold") == {"a": "1"}
    assert AnswerMatch.load(path, prompt_column="q", form="number")(["a"], ["2"]) == [1.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "b", "answer": "1"}, r"rows.jsonl:2: column 'prompt' is missing.*prompt_column="),
        ({"prompt": "b", "gold": "1"}, r"rows.jsonl:2: column 'answer' is missing.*answer_column="),
        ({"prompt": "b", "answer": None}, r"rows.jsonl:2: column 'answer' is null"),
        ({"prompt": "b", "answer": True}, r"rows.jsonl:2: column 'answer' holds bool"),
        ({"prompt": "b", "answer": float("nan")}, r"rows.jsonl:2: column 'answer' holds NaN"),
        ({"prompt": "b", "answer": " "}, r"rows.jsonl:2: column 'answer' holds no answer"),
        ({"prompt": "", "answer": "1"}, r"rows.jsonl:2: column 'prompt' is an empty"),
        (
            {"prompt": [{"role": "user", "content": "b"}], "answer": "1"},
            r"rows.jsonl:2: .*messages",
        ),
        ({"prompt": "a", "answer": "2"}, r"rows.jsonl:2: the answer is '2' and an earlier .*'1'"),
        ([1], r"rows.jsonl:2: found a JSON list"),
    ],
)
def test_bad_rows_are_errors_with_their_place(tmp_path: Path, row: object, message: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "1"}, row])
    with pytest.raises(PreferenceDataError, match=message):
        load_references(path)
    assert load_references(path, on_bad_row="skip") == {"a": "1"}
    assert load_references(path, limit=1) == {"a": "1"}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PreferenceDataError, match="does not exist"):
        load_references(tmp_path / "none.jsonl")


@pytest.mark.parametrize("gsm8k", GSM8K)
def test_every_gold_solution_of_gsm8k_verifies_and_no_changed_one(gsm8k: Path) -> None:
    rows = read_sample(gsm8k)
    prompts = [row["question"] for row in rows]
    gold = [row["answer"] for row in rows]
    wrong = [
        re.sub(r"#### (.*)", lambda m: f"#### {int(m[1].replace(',', '')) + 1}", text)
        for text in gold
    ]
    assert len(rows) == {"gsm8k": 5, "test": 1319, "train": 7473}[gsm8k.name.partition(".")[0]]
    for form in ("auto", "gsm8k", "number"):
        verifier = AnswerMatch.load(gsm8k, form=form)
        assert verifier.score(prompts, gold).mean() == 1
        assert verifier.score(prompts, wrong).sum() == 0
    # The same numbers as a sentence, in a box, and with a currency sign.
    spoken = [re.sub(r"#### (.*)", r"The answer is $\1 eggs.", text) for text in gold]
    boxed = [re.sub(r"#### (.*)", r"\\boxed{\1.00}", text) for text in gold]
    verifier = AnswerMatch.load(gsm8k)
    assert verifier.score(prompts, spoken).mean() == 1
    assert verifier.score(prompts, boxed).mean() == 1

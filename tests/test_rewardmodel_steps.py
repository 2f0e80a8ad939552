import json
from pathlib import Path

import pytest

from rewardmodel.data.rows import PreferenceDataError
from rewardmodel.data.steps import load_steps, split_steps, step_ids
from rewardmodel.pretrained.tokenization import TextEncoder
from tests.fakes import Words

GOOD = {"prompt": "1 + 1?", "completions": ["One.", "Two."], "labels": [True, 0.25]}


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class StepWords(Words):
    """Words whose blank line is the token 9."""

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return super().__call__(text.replace("|", " 9 "), add_special_tokens=add_special_tokens)


def test_steps_are_read_with_their_labels_as_numbers(tmp_path: Path) -> None:
    data = load_steps(write(tmp_path / "s.jsonl", GOOD, {**GOOD, "labels": [0, 1], "more": 3}))
    assert data.column_names == ["prompt", "completions", "labels"]
    assert data["completions"][0] == ["One.", "Two."]
    assert data["labels"][:] == [[1.0, 0.25], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [True]}, "found 2 completions and 1 labels; required is a label for each step"),
        ({"completions": ["One.", "  "]}, "step 1 is '  '; required is text"),
        ({"completions": ["One.", 3]}, "step 1 is 3; required is text"),
        ({"completions": [], "labels": []}, r"column 'completions': found \[\]"),
        ({"labels": [1, 2]}, r"label 1 is 2; required is true, false or a number in \[0, 1\]"),
        ({"labels": [1, None]}, "label 1 is None"),
        ({"labels": "1, 0"}, "column 'labels': found '1, 0'"),
        ({"prompt": None}, "column 'prompt' is null"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "s.jsonl", GOOD, {**GOOD, **change})
    with pytest.raises(PreferenceDataError, match=rf"s.jsonl:2: .*{message}"):
        load_steps(path)
    assert len(load_steps(path, on_bad_row="skip")) == 1


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", {"prompt": "a", "steps": ["b"], "labels": [1]})
    with pytest.raises(PreferenceDataError, match=r"'completions': found no such column among"):
        load_steps(path)


def test_a_response_is_split_at_separators() -> None:
    assert split_steps("One.\n\nTwo.\n\n") == ["One.", "Two."]
    assert split_steps("One.\n\n \n\nTwo.\nThree.") == ["One.", "Two.\nThree."]
    assert split_steps("One.\nTwo.", "\n") == ["One.", "Two."]
    assert split_steps("") == split_steps(" \n\n ") == [""]


def test_a_step_ends_with_its_separator_and_has_the_same_ids_whatever_follows() -> None:
    encoder = TextEncoder(StepWords(), None)
    whole = step_ids(encoder, "3 4", ["5 6", "7"], separator="|")
    assert (whole.prompt, whole.steps, whole.ends) == ([1, 3, 4], [5, 6, 9, 7, 9], [2, 4])
    assert (whole.lost, whole.cut) == (0, False)
    first = step_ids(encoder, "3 4", ["5 6"], separator="|")
    assert whole.steps[: len(first.steps)] == first.steps
    with pytest.raises(ValueError, match="found no steps"):
        step_ids(encoder, "3 4", [], separator="|")


def test_the_prompt_is_cut_before_the_steps_are() -> None:
    prompt, steps = "3 4 5 6", ["7", "8"]
    some = step_ids(TextEncoder(StepWords(), 6), prompt, steps, separator="|")
    assert (some.prompt, some.steps, some.ends) == ([1, 6], [7, 9, 8, 9], [1, 3])
    assert (some.lost, some.cut) == (0, True)
    few = step_ids(TextEncoder(StepWords(), 4), prompt, steps, separator="|")
    assert (few.prompt, few.steps, few.ends, few.lost) == ([6], [7, 9, 8], [1, 2], 1)

"""JSON is written and read strictly; an error names the place."""

import ast
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefsearch.storage.json_text import JsonFault, json_text, parse_json, read_json, unusable_text

ROOT = Path(__file__).resolve().parent.parent
PLAIN = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_json_is_written_in_one_place() -> None:
    for package in ("atari_bridge", "prefsearch", "policies", "rewardmodel", "search"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path == ROOT / "prefsearch" / "storage" / "json_text.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                writes = isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps")
                if writes and isinstance(node.value, ast.Name):
                    assert node.value.id != "json", f"{path}:{node.lineno}: write with json_text"
                if isinstance(node, ast.ImportFrom) and node.module == "json":
                    assert not {a.name for a in node.names} & {"dump", "dumps"}, path


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@given(PLAIN)
def test_values_come_back_or_are_refused(value: Any) -> None:
    if _is_finite(value):
        assert json.loads(json_text(value)) == value
        assert json_text(value, ascii_only=True).isascii()
    else:
        with pytest.raises(ValueError, match="required: a finite number"):
            json_text(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1.0, math.nan], "b": math.inf}, r"value\['a'\]\[1\]: found nan"),
        ({"a": {1, 2}}, r"value\['a'\]: found a set"),
        ({"a": Path("b")}, "PosixPath is not JSON serializable"),
    ],
)
def test_the_first_bad_value_is_named(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        json_text(value)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    lambda below: st.lists(below) | st.dictionaries(st.text('ab"\\{}:, ü'), below),
    max_leaves=20,
)


@given(ANY, st.sampled_from([None, 1]), st.booleans())
def test_every_value_is_read_as_python_reads_it(
    value: Any, indent: int | None, escaped: bool
) -> None:
    assert parse_json(json.dumps(value, indent=indent, ensure_ascii=escaped)) == value


FAULTS: dict[str, tuple[str, str]] = {
    "key": ('"a": {"k": 1,\n "x": {"k": 2},\n "\\u006b": 3}', "a key given twice: 'k'"),
    "NaN": ('"a": [1,\n "NaN",\n NaN]', "NaN, a number that is not finite"),
    "infinity": ('"a": 1,\n "b": "-Infinity",\n "c": -Infinity', "'c' holds -Infinity"),
    "large": ('"a": [1e400,\n 2\n]', "1e400, a number that is too large"),
    "surrogate": ('"a": 1,\n "b": "\\\\ud800",\n "c": "\\ud800"', "'c' holds a lone surrogate"),
    "NUL in a name": ('"a": 1,\n "b": 2,\n "c\\u0000": 3', "holds a NUL character"),
    "syntax": ('"a": 1,\n "b": 2,\n "c": 3,', "not JSON"),
    "comma": ('"a": 1,\n "b" 2', "not JSON"),
}
LINES = {"large": 2, "comma": 3, "syntax": 5}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_names_file_and_line(name: str, tmp_path: Path) -> None:
    text, message = FAULTS[name]
    path = tmp_path / "config.json"
    path.write_text("{\n" + text + "\n}", encoding="utf-8")
    with pytest.raises(ValueError, match="required is JSON in UTF-8") as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}:{LINES.get(name, 4)}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("depth", [201, 990, 100_000])
def test_depth_and_digits_are_faults_and_no_recursion(depth: int) -> None:
    with pytest.raises(JsonFault, match="nested deeper than 200") as caught:
        parse_json("\n[" * depth + "]" * depth)
    assert caught.value.line in (1, 202)
    with pytest.raises(JsonFault, match=r"99\.\.\. of 5000 characters, a number of too many dig"):
        parse_json("[" + "9" * 5000 + "]")


def test_file_that_is_no_json_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": 1,\n"b": "\xff"}')
    with pytest.raises(ValueError, match=r"config\.json:2: not UTF-8"):
        read_json(path)
    path.write_text("[1]", encoding="utf-8")
    assert read_json(path) == [1]
    with pytest.raises(ValueError, match=r"config\.json: found a JSON list; required: an object"):
        read_json(path, mapping=True)
    path.unlink()
    with pytest.raises(OSError, match="could not read it"):
        read_json(path)
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"config\.json: found a pipe"):
        read_json(path)


def test_unusable_text_says_where_it_is() -> None:
    assert unusable_text({"a": ["fine", {"b": "x\ud800"}]}) == (
        "'a'[1]['b'] holds a lone surrogate, '\\ud800', at character 2",
        "a lone surrogate",
    )
    assert unusable_text("\0", nul=False) is None
    assert unusable_text("😀 \u2028 \x1b") is None

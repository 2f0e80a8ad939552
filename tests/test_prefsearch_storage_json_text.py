import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefsearch.storage.json_text import json_text

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


def test_the_first_bad_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"value\['a'\]\[1\]: found nan"):
        json_text({"a": [1.0, math.nan], "b": math.inf})


def test_what_json_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="set"):
        json_text({"a": {1, 2}})

"""Rows as text, one JSON object a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from search.evaluation.json_text import json_text


def json_lines(rows: Sequence[Mapping[str, Any]] | Dataset) -> str:
    """Rows as JSON lines."""
    return "".join(json_text(dict(row)) + "\n" for row in rows)

"""Rows as text, one JSON object a line."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset


def json_lines(rows: Sequence[Mapping[str, Any]] | Dataset) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)

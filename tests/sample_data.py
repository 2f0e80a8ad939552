"""Samples of published data sets: small hand-made ones, and real ones beside the checkout."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

_SMALL = Path(__file__).parent / "data"
_REAL = Path(__file__).parents[2] / "shared" / "data"


def samples(small: str, *real: str) -> list[Any]:
    """Parameters of a test: the small sample, and the real ones where they are there."""
    found: list[Any] = [pytest.param(_SMALL / small, id="small")]
    for path in (_REAL / name for name in real):
        skip = pytest.mark.skipif(not path.is_file(), reason=f"the sample {path} is absent")
        found.append(pytest.param(path, id=path.name, marks=skip))
    return found


HH = samples("hh.jsonl", "hh-rlhf/harmless-base-1800.jsonl.gz")
QA_FEEDBACK = samples("qa_feedback.json", "qa-feedback/dev_feedback.json.gz")
GSM8K = samples("gsm8k.jsonl", "gsm8k/test.jsonl.gz", "gsm8k/train.jsonl.gz")


def read_sample(path: Path) -> list[dict[str, Any]]:
    """The rows of a sample, as they are in its file."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return json.loads(text) if text.startswith("[") else [json.loads(x) for x in text.splitlines()]


def is_small(path: Path) -> bool:
    """Whether a sample is a hand-made one, whose counts are its own."""
    return path.parent == _SMALL

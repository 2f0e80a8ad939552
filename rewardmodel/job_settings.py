"""What the jobs behind the doors share: settings as runs keep them, rows as JSON lines."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from datasets import Dataset

Config = TypeVar("Config", bound=Any)


def json_lines(rows: Sequence[Mapping[str, Any]] | Dataset) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)


def settings_of(job: Any) -> dict[str, Any]:
    """A job's settings as a run keeps them: all but where it is and whether it is resumed."""
    return {k: v for k, v in asdict(job).items() if k not in ("out", "resume")}


def fields_of(config: type[Config], job: Any) -> Config:
    """The settings of one of a job's bases alone, such as how to train."""
    return config(**{field.name: getattr(job, field.name) for field in dataclasses.fields(config)})

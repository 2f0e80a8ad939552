"""`prefsearch reward split`: preference pairs looked at and divided before training."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rewardmodel.job_settings import json_lines
from rewardmodel.preferences import load_preferences, preference_report, split_by_prompt
from rewardmodel.rows import OnBadRow
from search.evaluation.records import write_json_atomic, write_text_atomic
from search.evaluation.settings import check_types, require


@dataclass
class SplitJob:
    """Split preference pairs by prompt into train.jsonl and test.jsonl, and report on them.

    Attributes:
        dataset: Preference pairs, as for `train`.
        split: Split of a hub dataset or folder.
        holdout: Share of the prompts that go to test.jsonl.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        seed: Of the split.
        out: Folder for train.jsonl, test.jsonl and data_report.json.
    """

    dataset: str = ""
    split: str = "train"
    holdout: float = 0.1
    limit: int | None = None
    on_bad_row: OnBadRow = "error"
    seed: int = 0
    out: str = "runs/split"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(0 < self.holdout < 1, "holdout", self.holdout, "in (0, 1)")


def split(job: SplitJob) -> None:
    """Splits text pairs; see `SplitJob`."""
    data = load_preferences(
        job.dataset, split=job.split, on_bad_row=job.on_bad_row, limit=job.limit
    )
    folder = Path(job.out)
    parts = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    for name, part in zip(("train", "test"), parts, strict=True):
        write_text_atomic(folder / f"{name}.jsonl", json_lines(part))
    write_json_atomic(folder / "data_report.json", preference_report(data))
    Console().print(f"{len(parts[0])} and {len(parts[1])} pairs: {folder}")

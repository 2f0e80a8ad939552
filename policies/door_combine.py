"""The verb of `prefsearch policy` that puts evaluations of several seeds together: combine."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from policies.evaluation import Record
from policies.gain_report import records_with_clusters, write_gain_pages
from policies.measuring import load_pool
from policies.pooled import Pool
from search.evaluation.run_directory import RunDirectory
from search.evaluation.settings import check_types, require

_COMPARED = ("gold", "leaf", "unit", "max_new_tokens", "temperature", "top_k", "top_p")


@dataclass
class CombineJob:
    """Put evaluations of several seeds into one report, its intervals over the seeds.

    Attributes:
        runs: Folders of `prefsearch policy evaluate`, one a seed: best of policies and reward
            models that were trained anew with each. Methods and budgets are compared where all
            runs have them.
        out: Folder of the report.
        resume: Write the report again in that folder.
    """

    runs: list[str] = field(default_factory=list)
    out: str = "runs/combined"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(len(self.runs) >= 2, "runs", self.runs, "at least 2 folders of evaluations")
        once = len(set(self.runs)) == len(self.runs)
        require(once, "runs", self.runs, "different folders; name each folder once")


def combine(job: CombineJob) -> None:
    """Writes the report; see `CombineJob`.

    Raises:
        ValueError: If a folder holds no finished evaluation, two are the same, or they differ in
            what makes their scores comparable.
    """
    settings = {folder: _settings(Path(folder)) for folder in job.runs}
    _require_comparable(settings)
    records: list[dict[str, Any]] = []
    pools: dict[Any, Pool] = {}
    for name in settings:
        run = RunDirectory(Path(name))
        pools[name] = load_pool(run)
        records += [{**record, "run": name} for record in records_with_clusters(run)]
    kept = _common(records, list(settings))
    models = {(one.get("policy"), one.get("reward_model")) for one in settings.values()}
    note = ""
    if len(models) == 1:
        note = (
            "All runs have one policy and one reward model: their seeds differ in draws alone, and "
            "nothing is known of models that were trained with another seed."
        )
    out = RunDirectory.open(job.out, {"runs": job.runs}, resume=job.resume)
    console = Console()
    console.print(
        write_gain_pages(
            out,
            kept,
            pools,
            subtitle=f"{len(settings)} evaluations",
            configuration={"runs": settings},
            note=note,
        )
    )
    if note:
        console.print(note)
    console.print(f"Open {out.report} in a browser.")


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of a finished evaluation."""
    if not (folder / "summary.json").is_file():
        raise ValueError(
            f"{folder} holds no summary.json, required: a finished `prefsearch policy evaluate`. "
            "Finish it with --resume, or name another folder in runs"
        )
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def _require_comparable(settings: dict[str, dict[str, Any]]) -> None:
    """Refuses the same evaluation twice, and evaluations whose scores mean different things."""
    first, *others = settings
    seen: dict[str, str] = {}
    for folder, values in settings.items():
        made = json.dumps(values, sort_keys=True)
        if made in seen:
            raise ValueError(
                f"{seen[made]} and {folder} have the same settings, seed included, so they are one "
                "sample; evaluate with another --seed, and best with models trained with it"
            )
        seen[made] = folder
    for folder in others:
        for key in _COMPARED:
            mine, theirs = settings[first].get(key), settings[folder].get(key)
            if mine != theirs:
                raise ValueError(
                    f"{first} was evaluated with {key} {mine!r} and {folder} with {theirs!r}; "
                    "required: the same. Leave one out, or evaluate it again"
                )


def _common(records: list[dict[str, Any]], runs: list[str]) -> list[Record]:
    """Records of the methods and budgets that every run has."""
    having: dict[tuple[str, str], set[str]] = {}
    for record in records:
        having.setdefault((record["method"], record["budget"]), set()).add(record["run"])
    kept = {cell for cell, found in having.items() if len(found) == len(runs)}
    return [record for record in records if (record["method"], record["budget"]) in kept]

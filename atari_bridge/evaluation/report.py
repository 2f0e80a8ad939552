"""A run's page: its curve, where its time went, and what it was."""

import json
from pathlib import Path
from typing import Any

import yaml

from atari_bridge.evaluation.figures import learning_curve
from prefsearch.report.page import Report
from prefsearch.run.directory import RunDirectory
from prefsearch.statistics.intervals import seed_interval_from
from prefsearch.storage.files import read_records


def write_report(run: RunDirectory) -> Path:
    """Writes `report.html` of what a run has measured so far."""
    rows = read_records(run.metrics) if run.metrics.is_file() else []
    parts = [row for row in rows if row["step"].startswith("part-")]
    evaluations = [row for row in rows if row["step"].startswith("evaluation-")]
    settings = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    game = settings["game"]
    done = parts[-1] if parts else {"decisions": 0, "frames": 0, "updates": 0}
    report = Report(
        f"{game}: an agent that plans with what it learned",
        subtitle=f"{done['decisions']:,} decisions, {done['frames']:,} emulator frames, "
        f"{done['updates']:,} updates, seed {settings['seed']}",
    )
    if evaluations:
        _returns(report, run, evaluations, parts, game)
    if parts:
        _time(report, parts)
    report.section("What it was").settings("Settings", settings)
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    return report.settings("Environment", environment).write(run.report)


def _returns(
    report: Report,
    run: RunDirectory,
    evaluations: list[dict[str, Any]],
    parts: list[dict[str, Any]],
    game: str,
) -> None:
    learning_curve(evaluations, parts, run.figures / "returns", title=f"{game}: return of a game")
    last = evaluations[-1]["search_return"]["estimate"]
    report.section(
        "Returns",
        "Whole games with raw rewards; bands are 95 % intervals over games of this one training "
        "run, and say nothing of other seeds.",
    ).figure(
        run.figures / "returns.svg",
        alt=f"Return against emulator frames, ending at {last:.4g} with search",
        caption="Evaluated returns with and without search, and returns of self-play.",
    )
    table = [
        {
            "decisions": row["decisions"],
            "frames": row["frames"],
            "updates": row["updates"],
            **{
                name: seed_interval_from(row[f"{name}_return"])
                for name in ("search", "sampled", "policy")
            },
        }
        for row in evaluations
    ]
    headings = {
        "decisions": "decisions",
        "frames": "frames",
        "updates": "updates",
        "search": "search, best action",
        "sampled": "search, sampled action",
        "policy": "the policy alone, sampled",
    }
    report.table(
        table,
        headings,
        caption=f"Evaluations: mean return of a game [95 % interval] {table[-1]['search'].scope}.",
    )


def _time(report: Report, parts: list[dict[str, Any]]) -> None:
    names = {
        "play_seconds": "self-play with its searches",
        "batch_seconds": "waiting for batches: frames, targets, reanalysis",
        "update_seconds": "updates",
        "search_seconds": "searches of play and reanalysis, in the above or beside them",
    }
    total = sum(part["seconds"] for part in parts)
    spent = {name: sum(part.get(name, 0.0) for part in parts) for name in names}
    rows = [
        {"part": label, "seconds": spent[name], "share": f"{spent[name] / total:.0%}"}
        for name, label in names.items()
    ]
    report.section("Where the time went").table(
        rows, caption=f"Wall clock of {total:.0f} seconds of training."
    )
    losses = [{"decisions": part["decisions"], **part["losses"]} for part in parts[-20:]]
    report.section("Losses").table(losses, caption="Means over the updates of the last parts.")

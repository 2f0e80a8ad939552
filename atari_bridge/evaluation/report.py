"""The report of a training run: learning curve, time, losses and settings."""

# pyright: reportUnknownMemberType=false
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prefsearch.report.page import Report
from prefsearch.report.plotting import FAINT, PALETTE, label_text, open_canvas
from prefsearch.run.directory import RunDirectory
from prefsearch.statistics.seed_intervals import seed_interval_from
from prefsearch.storage.files import read_records

_LABELS = {
    "search": "search, best action",
    "sampled": "search, sampled action",
    "policy": "policy only, sampled",
}


def write_report(run: RunDirectory) -> Path:
    """Writes `report.html` of a run."""
    rows = read_records(run.metrics) if run.metrics.is_file() else []
    parts = [row for row in rows if row["step"].startswith("part-")]
    evaluations = [row for row in rows if row["step"].startswith("evaluation-")]
    settings = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    game = settings["game"]
    done = parts[-1] if parts else {"decisions": 0, "frames": 0, "updates": 0}
    report = Report(
        f"{game}: a planning agent and its training run",
        subtitle=f"{done['decisions']:,} decisions, {done['frames']:,} emulator frames, "
        f"{done['updates']:,} updates, seed {settings['seed']}",
    )
    if evaluations:
        _returns(report, run, evaluations, parts, game)
    if parts:
        _time(report, parts)
    report.section("Settings").settings("Settings", settings)
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    return report.settings("Environment", environment).write(run.report)


def learning_curve(
    evaluations: Sequence[Mapping[str, Any]],
    parts: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    title: str,
) -> tuple[Path, Path]:
    """Plots returns against emulator frames: evaluations with intervals, self-play as dots.

    Args:
        evaluations: Results with `frames` and `NAME_return` of `estimate`, `low` and `high`.
        parts: Summaries with `frames` and `mean_return`, which may be None.
        path: Where to write; PNG and SVG.
        title: Over the figure.

    Returns:
        Paths of the PNG and the SVG.
    """
    with open_canvas(7.2, 4.4) as (figure, save):
        axis = figure.subplots()
        played = [part for part in parts if part.get("mean_return") is not None]
        axis.plot(
            [part["frames"] for part in played],
            [part["mean_return"] for part in played],
            ".",
            color=FAINT,
            markersize=4,
            label="self-play, with noise",
        )
        for rank, (name, label) in enumerate(_LABELS.items()):
            rows = [row for row in evaluations if f"{name}_return" in row]
            frames = [row["frames"] for row in rows]
            low = [row[f"{name}_return"]["low"] for row in rows]
            high = [row[f"{name}_return"]["high"] for row in rows]
            color = PALETTE[rank]
            axis.fill_between(frames, low, high, color=color, alpha=0.18, linewidth=0)
            means = [row[f"{name}_return"]["estimate"] for row in rows]
            axis.plot(frames, means, color=color, marker="os^"[rank], markersize=5, label=label)
        axis.set_xlabel("emulator frames")
        axis.set_ylabel("return of a game, 95 % over games")
        axis.set_title(label_text(title))
        axis.legend()
        return save(path)


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
        "Whole games with raw rewards; bands are 95 % intervals over the games of this training "
        "run, not over training seeds.",
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
            **{name: seed_interval_from(row[f"{name}_return"]) for name in _LABELS},
        }
        for row in evaluations
    ]
    headings = {name: name for name in ("decisions", "frames", "updates")} | _LABELS
    report.table(
        table,
        headings,
        caption=f"Evaluations: mean return of a game [95 % interval] {table[-1]['search'].scope}.",
    )


def _time(report: Report, parts: list[dict[str, Any]]) -> None:
    names = {
        "play_seconds": "self-play, searches included",
        "batch_seconds": "waiting for batches: frames, targets, reanalysis",
        "update_seconds": "updates",
        "search_seconds": "searches of self-play and reanalysis, included above or in parallel",
    }
    total = sum(part["seconds"] for part in parts)
    spent = {name: sum(part.get(name, 0.0) for part in parts) for name in names}
    rows = [
        {"part": label, "seconds": spent[name], "share": f"{spent[name] / total:.0%}"}
        for name, label in names.items()
    ]
    report.section("Time").table(rows, caption=f"Wall clock of {total:.0f} seconds of training.")
    losses = [{"decisions": part["decisions"], **part["losses"]} for part in parts[-20:]]
    report.section("Losses").table(losses, caption="Means over the updates of the last parts.")

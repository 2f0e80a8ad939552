"""Trains CartPole by its configuration and keeps how long games last on the way.

    python benchmarks/cartpole.py             # a few minutes on two cores

Writes `docs/results/cartpole.json` and the figures of docs/atari.md. A run that was stopped goes on
from its checkpoint, with the same source files only.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from atari_bridge.door_train import TrainJob, train
from benchmarks.documents import update
from benchmarks.provenance import ROOT, hold_sources, provenance
from doors.command_line import parse
from prefsearch import shipped_configurations
from search.evaluation.records import read_records, write_json_atomic

NAME = "cartpole"
RETURNS = ("search_return", "sampled_return", "policy_return")


def curve(run: Path) -> list[dict[str, Any]]:
    """The evaluations of a run in order: decisions, updates and three intervals over games."""
    return [
        {key: row[key] for key in ("decisions", "updates", *RETURNS)}
        for row in read_records(run / "metrics.jsonl")
        if row["step"].startswith("evaluation")
    ]


def main(arguments: list[str] | None = None) -> None:
    """Trains and writes."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decisions", type=int, help="default: those of the configuration")
    parser.add_argument("--run", type=Path, default=Path("runs/cartpole_benchmark"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / f"{NAME}.json")
    own = parser.parse_args(words)
    command = ["python", "benchmarks/cartpole.py", *words]
    about = provenance(NAME, command, seeds=[own.seed])
    hold_sources(own.run, NAME)
    config = str(shipped_configurations()[f"atari_bridge/{NAME}"])
    flags = ["--config", config, "--out", str(own.run), "--seed", str(own.seed), "--resume", "true"]
    if own.decisions:
        flags += ["--total_decisions", str(own.decisions)]
    job = parse(TrainJob, flags, prog=NAME)
    train(job)
    write_json_atomic(
        own.out,
        {"provenance": about, "games": job.evaluation_games, "curve": curve(own.run)},
    )
    update(own.out)


if __name__ == "__main__":
    main()

"""The door of reward models: `prefsearch reward VERB`."""

import sys
from collections.abc import Sequence

from prefsearch.cli.command_line import run_command
from rewardmodel.cli import data as door_data
from rewardmodel.cli import evaluate as door_evaluate
from rewardmodel.cli import models as door_models
from rewardmodel.cli import train as door_train
from rewardmodel.cli import world as door_world

COMMANDS = {
    "inspect": (door_data.InspectJob, door_data.inspect_data),
    "convert": (door_data.ConvertJob, door_data.convert),
    "split": (door_data.SplitJob, door_data.split),
    "train": (door_train.TrainJob, door_train.train),
    "train_steps": (door_models.TrainStepsJob, door_models.train_steps),
    "evaluate": (door_evaluate.EvaluateJob, door_evaluate.evaluate),
    "score": (door_models.ScoreJob, door_models.score),
    "average": (door_models.AverageJob, door_models.average),
    "ensemble": (door_models.EnsembleJob, door_models.ensemble),
    "world": (door_world.WorldJob, door_world.world),
    "label": (door_world.LabelJob, door_world.label),
}


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code."""
    return run_command("prefsearch reward", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

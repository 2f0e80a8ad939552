"""The door of reward models: `prefsearch reward VERB`."""

import sys
from collections.abc import Sequence

from rewardmodel import door_data, door_evaluate, door_train, door_world
from rewardmodel.command_line import run_door

VERBS = {
    "train": (door_train.TrainJob, door_train.train),
    "evaluate": (door_evaluate.EvaluateJob, door_evaluate.evaluate),
    "split": (door_data.SplitJob, door_data.split),
    "world": (door_world.WorldJob, door_world.world),
    "label": (door_world.LabelJob, door_world.label),
}


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code."""
    return run_door("prefsearch reward", VERBS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

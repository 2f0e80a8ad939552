"""The door of reward models: `prefsearch reward VERB`."""

import sys
from collections.abc import Sequence

from rewardmodel import doors
from rewardmodel.command_line import run_door

VERBS = {
    "train": (doors.TrainJob, doors.train),
    "evaluate": (doors.EvaluateJob, doors.evaluate),
    "split": (doors.SplitJob, doors.split),
    "world": (doors.WorldJob, doors.world),
    "label": (doors.LabelJob, doors.label),
}


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code."""
    return run_door("prefsearch reward", VERBS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

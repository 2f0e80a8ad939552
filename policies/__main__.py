"""The door of policies: `prefsearch policy VERB`."""

import sys
from collections.abc import Sequence

from policies import doors
from rewardmodel.command_line import run_door

VERBS = {
    "sft": (doors.SftJob, doors.sft),
    "sample": (doors.SampleJob, doors.sample),
    "value": (doors.ValueJob, doors.value),
    "plan": (doors.PlanJob, doors.plan),
    "finetune": (doors.FinetuneJob, doors.finetune),
    "evaluate": (doors.EvaluateJob, doors.evaluate),
}


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code."""
    return run_door("prefsearch policy", VERBS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

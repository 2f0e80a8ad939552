"""The door of policies: `prefsearch policy VERB`."""

import sys
from collections.abc import Sequence

from policies.cli import combine as door_combine
from policies.cli import evaluate as door_evaluate
from policies.cli import search as door_search
from policies.cli import train as door_train
from prefsearch.cli.command_line import run_command

COMMANDS = {
    "sft": (door_train.SftJob, door_train.sft),
    "sample": (door_search.SampleJob, door_search.sample),
    "value": (door_train.ValueJob, door_train.value),
    "plan": (door_search.PlanJob, door_search.plan),
    "finetune": (door_train.FinetuneJob, door_train.finetune),
    "evaluate": (door_evaluate.EvaluateJob, door_evaluate.evaluate),
    "combine": (door_combine.CombineJob, door_combine.combine),
}


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code."""
    return run_command("prefsearch policy", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

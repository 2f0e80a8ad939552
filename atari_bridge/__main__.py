"""The door of games: `prefsearch atari VERB`."""

import sys
from collections.abc import Sequence

from atari_bridge.cli import evaluate as door_evaluate
from atari_bridge.cli import play as door_play
from atari_bridge.cli import train as door_train
from prefsearch.cli.command_line import run_command

COMMANDS = {
    "train": (door_train.TrainJob, door_train.train),
    "evaluate": (door_evaluate.EvaluateJob, door_evaluate.evaluate),
    "play": (door_play.PlayJob, door_play.play),
}


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code."""
    return run_command("prefsearch atari", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

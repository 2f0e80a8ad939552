"""The door of the demo: `prefsearch demo`."""

from collections.abc import Sequence

from doors.command_line import run_door
from policies.demo import DemoConfig, run_demo


def main(argv: Sequence[str]) -> int:
    """Runs the demo and returns the exit code."""
    return run_door("prefsearch", {"demo": (DemoConfig, run_demo)}, ["demo", *argv])

"""The door of the demo: `prefsearch demo`."""

from collections.abc import Sequence

from policies.demo import DemoConfig, run_demo
from prefsearch.cli.command_line import run_door


def main(argv: Sequence[str]) -> int:
    """Runs the demo and returns the exit code."""
    return run_door("prefsearch", {"demo": (DemoConfig, run_demo)}, ["demo", *argv])

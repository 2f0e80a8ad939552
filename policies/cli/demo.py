"""The door of the demo: `prefsearch demo`."""

from collections.abc import Sequence

from policies.demo import DemoConfig, run_demo
from prefsearch.cli.command_line import run_command


def main(argv: Sequence[str]) -> int:
    """Runs the demo and returns the exit code."""
    return run_command("prefsearch", {"demo": (DemoConfig, run_demo)}, ["demo", *argv])

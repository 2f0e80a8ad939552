"""Settings of `prefsearch atari train` from the shipped configurations."""

from pathlib import Path

from atari_bridge.cli.args import AtariTrainArgs
from benchmarks.harness.worker import Json
from prefsearch.cli.command_line import parse
from prefsearch.cli.entry import shipped_configurations


def shipped_job(
    name: str, out: Path | str, changes: Json, words: tuple[str, ...] = ()
) -> AtariTrainArgs:
    """A configuration with changes.

    Args:
        name: Of a file in `configs/atari_bridge`, without ending.
        out: Folder of the run.
        changes: By flag.
        words: Further `--flag value` pairs.
    """
    flags = [word for key, value in changes.items() for word in (f"--{key}", str(value))]
    config = str(shipped_configurations()[f"atari_bridge/{name}"])
    return parse(AtariTrainArgs, ["--config", config, "--out", str(out), *flags, *words], prog=name)

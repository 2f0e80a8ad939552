"""The one command `prefsearch`: maps verbs to the packages' doors.

Doors are imported only when they are opened, so that `prefsearch --help` answers at once.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefsearch.cli.signals import OrderlyExit

COMMANDS = {
    "demo": ("policies.cli.demo", "the whole story in minutes: train, search, fine-tune, report"),
    "reward": ("rewardmodel.__main__", "reward models: train, evaluate, split, world, label"),
    "policy": (
        "policies.__main__",
        "policies: sft, sample, value, plan, finetune, evaluate",
    ),
    "atari": (
        "atari_bridge.__main__",
        "games: train, evaluate, play (MuZero family on Atari and gymnasium)",
    ),
    "tree": ("search.viewer.cli", "search trees: show one as HTML, text or JSON"),
}


def shipped_configurations() -> dict[str, Path]:
    """The YAML files that come with the project, by name (`demo`, `reward/train_demo`)."""
    here = Path(__file__).resolve().parents[2]
    for folder in (here / "configs", here / "prefsearch_configs"):  # a checkout, an installed wheel
        if folder.is_dir():
            files = sorted(folder.rglob("*.yaml"))
            return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    return {}


def resolve_configuration(argv: Sequence[str]) -> list[str]:
    """Replaces the name of a shipped configuration after `--config` by its path.

    Raises:
        FileNotFoundError: If there is neither a file nor a shipped configuration of that name.
    """
    resolved = [part for word in argv for part in _split_flag(word)]
    if resolved.count("--config") > 1:  # the door's to refuse
        return resolved
    for at, word in enumerate(resolved[1:], start=1):
        # What is there but no file of settings is the door's to refuse.
        there = os.path.exists(os.path.expanduser(word))
        if resolved[at - 1] != "--config" or word.startswith("--") or there:
            continue
        shipped = shipped_configurations()
        found = shipped.get(word.removesuffix(".yaml"))
        if found is None:
            names = ", ".join(shipped) or "none"
            raise FileNotFoundError(
                f"--config: found {word[:200]!r}, no file and no shipped configuration; "
                f"required: a YAML file, or one of {names}"
            )
        resolved[at] = str(found)
    return resolved


def _split_flag(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--config=") else [word]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    Args:
        argv: Without the program's name; None takes the process's, which ends afterwards.
    """
    # Before anything heavy, so that Ctrl-C is answered while torch is imported.
    from prefsearch.cli.signals import OrderlyExit, open_missing_streams

    open_missing_streams()
    code = 0
    with OrderlyExit() as exit_code:
        try:
            code = _run(list(sys.argv[1:] if argv is None else argv), exit_code)
            exit_code.flush()
        except OSError as error:  # of the output; what a door does not take itself
            if exit_code.takes(error) or os.environ.get("PREFSEARCH_TRACEBACK"):
                raise
            sys.stderr.write(f"error: {error}\n")
            code = 2
    if argv is None:
        exit_code.end_at_once()
    return exit_code.value or code


def _run(words: list[str], exit_code: "OrderlyExit") -> int:
    if not words or words[0] in ("-h", "--help"):
        lines = [
            "usage: prefsearch COMMAND ...",
            "",
            "Plan against a learned model of the human.",
            "",
        ]
        lines += [f"  {name:<8} {what}" for name, (_, what) in COMMANDS.items()]
        lines += ["", "`prefsearch COMMAND --help` explains one. Shipped configurations:"]
        lines += [f"  {name}" for name in shipped_configurations()]
        sys.stdout.write("\n".join(lines) + "\n")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0].lower(), COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        sys.stderr.write(
            f"error: prefsearch: unknown command {words[0][:80]!r}; {hint}choose one of "
            f"{', '.join(COMMANDS)}\n"
        )
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle OpenMP threads that spin double the time of small models wherever cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        arguments = resolve_configuration(words[1:])
    except FileNotFoundError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    try:
        with exit_code.at_once():
            door = importlib.import_module(COMMANDS[words[0]][0])
    except ImportError as error:  # an installation that lacks a package
        if os.environ.get("PREFSEARCH_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 2
    return int(door.main(arguments))


if __name__ == "__main__":
    sys.exit(main())

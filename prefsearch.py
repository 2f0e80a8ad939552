"""The one command `prefsearch`: maps verbs to the packages' doors.

Doors are imported only when they are opened, so that `prefsearch --help` answers at once.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DOORS = {
    "demo": ("policies.demo_door", "the whole story in minutes: train, search, fine-tune, report"),
    "reward": ("rewardmodel.__main__", "reward models: train, evaluate, split, world, label"),
    "policy": (
        "policies.__main__",
        "policies: sft, sample, value, plan, finetune, evaluate",
    ),
    "atari": (
        "atari_bridge.__main__",
        "games: train, evaluate, play (MuZero family on Atari and gymnasium)",
    ),
    "tree": ("search.__main__", "search trees: show one as HTML, text, DOT or JSON"),
}


def shipped_configurations() -> dict[str, Path]:
    """The YAML files that come with the project, by name (`demo`, `reward/train_demo`)."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here / "prefsearch_configs"):  # a checkout, an installed wheel
        if folder.is_dir():
            files = sorted(folder.rglob("*.yaml"))
            return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    return {}


def resolve_configuration(argv: Sequence[str]) -> list[str]:
    """Replaces the name of a shipped configuration after `--config` by its path."""
    resolved = [part for word in argv for part in _split_flag(word)]
    if "--config" not in resolved[:-1]:
        return resolved
    at = resolved.index("--config") + 1
    if not Path(resolved[at]).is_file():
        shipped = shipped_configurations()
        found = shipped.get(resolved[at].removesuffix(".yaml"))
        if found is None:
            names = ", ".join(shipped) or "none"
            raise FileNotFoundError(
                f"--config: found {resolved[at]!r}, no file and no shipped configuration; "
                f"required: a YAML file, or one of {names}"
            )
        resolved[at] = str(found)
    return resolved


def _split_flag(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--config=") else [word]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        lines = [
            "usage: prefsearch COMMAND ...",
            "",
            "Plan against a learned model of the human.",
            "",
        ]
        lines += [f"  {name:<8} {what}" for name, (_, what) in DOORS.items()]
        lines += ["", "`prefsearch COMMAND --help` explains one. Shipped configurations:"]
        lines += [f"  {name}" for name in shipped_configurations()]
        sys.stdout.write("\n".join(lines) + "\n")
        return 0
    if words[0] not in DOORS:
        sys.stderr.write(f"prefsearch: unknown command {words[0]!r}; choose {', '.join(DOORS)}\n")
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle OpenMP threads that spin double the time of small models wherever cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        arguments = resolve_configuration(words[1:])
    except FileNotFoundError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return int(importlib.import_module(DOORS[words[0]][0]).main(arguments))


if __name__ == "__main__":
    sys.exit(main())

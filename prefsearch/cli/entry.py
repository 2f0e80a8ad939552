"""Entry point of `prefsearch`: finds a command, validates its arguments and runs it."""

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefsearch.cli.commands import COMMANDS, Command
from prefsearch.cli.signals import GracefulExit, close_bars, open_missing_streams
from prefsearch.config.checks import nearest, shown


def shipped_configurations() -> dict[str, Path]:
    """Bundled YAML configurations, by name (`demo`, `rewardmodel/train_demo`)."""
    here = Path(__file__).resolve().parents[2]
    for folder in (here / "configs", here / "prefsearch_configs"):  # a checkout, an installed wheel
        if folder.is_dir():
            files = sorted(folder.rglob("*.yaml"))
            return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    return {}


def resolve_configuration(argv: Sequence[str]) -> list[str]:
    """Replaces the name of a bundled configuration after `--config` by its path.

    Raises:
        ValueError: If there is neither a file nor a shipped configuration of that name.
    """
    resolved = [part for word in argv for part in _split_flag(word)]
    if resolved.count("--config") > 1:  # refused when the flags are read
        return resolved
    for at, word in enumerate(resolved[1:], start=1):
        # What is there but no file of settings is refused when it is read.
        there = os.path.exists(os.path.expanduser(word))
        if resolved[at - 1] != "--config" or word.startswith("--") or there:
            continue
        shipped = shipped_configurations()
        found = shipped.get(word.removesuffix(".yaml"))
        if found is None:
            names = ", ".join(shipped) or "none"
            raise ValueError(
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
    open_missing_streams()
    code = 0
    with GracefulExit() as exit_code:
        try:
            code = _find_and_run(list(sys.argv[1:] if argv is None else argv))
            exit_code.flush()
        except OSError as error:  # of the output, which a command does not handle itself
            if exit_code.takes(error) or os.environ.get("PREFSEARCH_TRACEBACK"):
                raise
            sys.stderr.write(f"error: {error}\n")
            code = 2
    if argv is None:
        exit_code.end_at_once()
    return exit_code.value or code


def _find_and_run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        _write_help()
        return 0
    if words[0] not in COMMANDS:
        return _refuse_word("prefsearch", "command", words[0], COMMANDS)
    prog, subcommands, rest = f"prefsearch {words[0]}", COMMANDS[words[0]].subcommands, words[1:]
    if "" in subcommands:
        return run_command(prog, subcommands[""], rest)
    if not rest or rest[0] in ("-h", "--help"):
        _write_group_help(prog, subcommands)
        return 0
    if rest[0] not in subcommands:
        return _refuse_word(prog, "subcommand", rest[0], subcommands)
    return run_command(f"{prog} {rest[0]}", subcommands[rest[0]], rest[1:])


def _refuse_word(prog: str, kind: str, word: str, known: Mapping[str, object]) -> int:
    near, names = nearest(word, known), ", ".join(known)
    sys.stderr.write(f"error: {prog}: unknown {kind} {shown(word)}; {near}choose one of {names}\n")
    return 2


def _write_help() -> None:
    lines = ["usage: prefsearch COMMAND ...", "", "Plan against a learned model of the human.", ""]
    lines += [f"  {name:<8} {group.help}" for name, group in COMMANDS.items()]
    lines += ["", "`prefsearch COMMAND --help` explains one. Shipped configurations:"]
    lines += [f"  {name}" for name in shipped_configurations()]
    sys.stdout.write("\n".join(lines) + "\n")


def _write_group_help(prog: str, subcommands: Mapping[str, Command]) -> None:
    lines = [f"usage: {prog} SUBCOMMAND [--config FILE.yaml] [--flag value ...]", ""]
    for name, command in subcommands.items():
        lines.append(f"  {name:<10} {(command.load_args().__doc__ or '').strip().splitlines()[0]}")
    lines += ["", f"`{prog} SUBCOMMAND --help` explains the flags."]
    sys.stdout.write("\n".join(lines) + "\n")


def run_command(prog: str, command: Command, argv: Sequence[str]) -> int:
    """Validates the arguments of a command and runs it.

    Args:
        prog: The command, such as `prefsearch reward train`.
        command: What to run.
        argv: Its flags.

    Returns:
        The exit code: 0, or 2 for a mistake of the user, reported in one line;
        `PREFSEARCH_TRACEBACK=1` shows where it arose.
    """
    from prefsearch.cli.command_line import as_flags, parse
    from prefsearch.run.directory import remove_unused_runs
    from prefsearch.storage.visible_text import visible

    configure_logging()
    config: type = object
    with GracefulExit() as exit_code:
        try:
            config = command.load_args()
            args = parse(config, resolve_configuration(argv), prog=prog)
            if hasattr(args, "check_inputs"):
                args.check_inputs()
            with exit_code.at_once():
                run = command.load_run()
            configure_transformers()
            exit_code.settings = args
            run(args)
            exit_code.flush()
        # A missing extra is an ImportError that names what to install; a loss that is not finite
        # ends a run with its name.
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            if exit_code.takes(error) or os.environ.get("PREFSEARCH_TRACEBACK"):
                raise
            remove_unused_runs()
            close_bars()  # or the line would stand behind one
            message = str(error) if config is object else as_flags(str(error), config)
            sys.stderr.write(f"error: {visible(message)}\n")
            return 2
    return exit_code.value


def configure_logging() -> None:
    """Configures logging, and libraries that read environment variables at import."""
    from rich.logging import RichHandler

    from prefsearch.cli.console import VisibleFormatter

    handler = RichHandler(show_path=False)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level="WARNING", handlers=[handler])
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle OpenMP threads that spin double the time of small models wherever cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def configure_transformers() -> None:
    """Silences warnings and progress bars of transformers, if it is imported."""
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()


if __name__ == "__main__":
    sys.exit(main())

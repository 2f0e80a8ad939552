"""From a command line and a YAML file to a checked configuration, for every door.

A door is a table of verbs; each verb has a dataclass, whose docstring is the help, and a job.
Mistakes of the user end with one line and exit code 2; `PREFSEARCH_TRACEBACK=1` shows where they
arose.
"""

import argparse
import contextlib
import dataclasses
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, cast, get_args

from rich.logging import RichHandler

from prefsearch.cli.configuration_file import read_configuration
from prefsearch.cli.console import VisibleFormatter
from prefsearch.cli.outputs import home_expanded
from prefsearch.cli.overwriting import require_kept
from prefsearch.cli.signals import OrderlyExit, close_bars
from prefsearch.config.checks import describe_bounds, describe_type, nearest, setting_hint, shown
from prefsearch.config.flags import Given, asks_for_help, read_flags
from prefsearch.config.numerals import read_float, read_int
from prefsearch.run.directory import withdraw_unused_runs
from prefsearch.storage.visible_text import visible

# A keyword argument with a text, True, a stand-in or a tokenizer, not yet said to be Python's.
_ADVICE = re.compile(
    r"""\b(?P<name>[a-z_]+)="""
    r"""(?P<value>'[^'\n]*'|"[^"\n]*"|\{(?:[^{}\n]|\{[^{}\n]*\})*\}|True\b|NAME\b|AutoTokenizer\.from_pretrained\(NAME\))"""
    r"""(?! \(in Python\))"""
)
_Job = tuple[type, Callable[[Any], None]]


def field_help(config: type) -> dict[str, str]:
    """Collects what the docstrings of a dataclass and its bases say of each field."""
    described: dict[str, str] = {}
    for base in reversed(config.__mro__):
        _, _, attributes = (base.__doc__ or "").partition("Attributes:")
        for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", attributes, re.MULTILINE):
            described[name] = " ".join(text.split()).replace("`", "").replace("%", "%%")
    return described


def parse(config: type, argv: Sequence[str], *, prog: str) -> Any:
    """Parses `--config FILE.yaml` and `--flag value` into a dataclass instance.

    Args:
        config: The dataclass.
        argv: Without the program's name.
        prog: The command, for the help.

    Raises:
        ValueError: If the file is missing or no mapping, a flag or key is unknown or given twice,
            or a value is wrong.
        SystemExit: After the help.
    """
    parser = _open_parser(config, prog)
    if asks_for_help(argv):
        parser.print_help()
        sys.stdout.flush()
        raise SystemExit(0)
    given = read_flags(parser, argv)
    file = given.pop("config", None)
    if file is None:
        return config(**_read(given))
    path = home_expanded(file.values[0], "config")
    settings = config(**{**read_configuration(path, config), **_read(given)})
    for output in settings.outputs() if hasattr(settings, "outputs") else ():
        require_kept(
            {"config": path},
            files=output.files,
            folders=output.replaced_folders,
            setting=output.setting,
        )
    return settings


def _read(given: Mapping[str, Given]) -> dict[str, Any]:
    """The values of flags, as their actions read them.

    Raises:
        ValueError: If one cannot be read; the message names the flag.
    """
    values: dict[str, Any] = {}
    for name, one in given.items():
        kind: Any = one.action.type
        try:
            found = [kind(word) for word in one.values]
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{one.flag}: {error}") from error
        many = one.action.nargs == "+"
        values[name] = found if many else found[0] if found else one.action.const
    return values


def _open_parser(config: type, prog: str) -> Any:
    """Knows the flags of a dataclass and their help; what is typed is read by `_read`."""
    from trl import TrlParser

    first_line = (config.__doc__ or "").strip().splitlines()[0]
    parser: Any = TrlParser(
        [cast(Any, config)], prog=prog, description=first_line, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file or name of a shipped one.")
    helped = field_help(config)
    for action in parser._actions:
        if action.dest not in helped:
            continue
        hint = setting_hint(config, action.dest)
        if action.type is not None:
            action.type = _reader(action, hint)
        if action.choices is not None:  # the reader's to check, as null may be none of them
            action.metavar, action.choices = f"{{{','.join(map(str, action.choices))}}}", None
        bounds = describe_bounds(hint)
        default = action.default not in (None, "==SUPPRESS==")
        facts = ["default: %(default)s"] if default else []
        facts += [f"required: {bounds}"] if bounds else []
        action.help = helped[action.dest] + (f" ({'; '.join(facts)})" if facts else "")
    return parser


def _reader(action: argparse.Action, hint: Any) -> Callable[[str], Any]:
    """Reads a flag's words as its type does, and the "null" of YAML as None where that is allowed.

    Args:
        action: The parser's, whose type and choices are read.
        hint: Of the setting.
    """
    kind: Any = {int: read_int, float: read_float}.get(cast(Any, action.type), action.type)
    choices, optional = action.choices, NoneType in get_args(hint)

    def read(text: str) -> Any:
        if optional and text == "null":
            return None
        with contextlib.suppress(ValueError, argparse.ArgumentTypeError):
            value = kind(text)
            if choices is None or value in choices:
                return value
        raise argparse.ArgumentTypeError(
            f"found {shown(text)}; required: {describe_type(hint)}. Correct the value"
        )

    return read


def as_flags(message: str, config: type) -> str:
    """Writes the keyword arguments that a message advises as the flags of a command.

    Messages are written for Python: `prompt_column='question'` becomes `--prompt_column question`,
    `flag=True` becomes `--flag`. What the command has no flag for is said to be Python's.

    Args:
        message: Of an error.
        config: The command's dataclass. Its `FLAGS`, if it has any, map names of arguments to names
            of fields where they differ.
    """
    fields = {field.name for field in dataclasses.fields(config)}
    others: Mapping[str, str] = getattr(config, "FLAGS", {})

    def flag(found: re.Match[str]) -> str:
        name = others.get(found["name"], found["name"])
        if name not in fields:
            return f"{found[0]} (in Python)"
        value = found["value"]
        if value[0] == "{":
            return f"{found[0]} (in Python)"
        if value == "True":
            return f"--{name}"
        if value[0] in "'\"":
            value = shlex.quote(value[1:-1])
        return f"--{name} {'NAME' if '(' in value else value}"

    return _ADVICE.sub(flag, message)


def for_python(error: ValueError) -> ValueError:
    """Marks the advice of an error as Python's: of a file that no flag of the command is for.

    Args:
        error: Of a file beside the main one.
    """
    marked = _ADVICE.sub(
        lambda found: found[0] if found["name"] == "on_bad_row" else f"{found[0]} (in Python)",
        str(error),
    )
    return ValueError(marked)


def configure_logging() -> None:
    """Sets up logging and progress bars for a command."""
    handler = RichHandler(show_path=False)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level="WARNING", handlers=[handler])
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A door that uses transformers has imported it by now; the others do not wait for it.
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        # "Loading weights" for a second each, and that a fresh head was not in the checkpoint.
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()


def run_command(prog: str, verbs: Mapping[str, _Job], argv: Sequence[str]) -> int:
    """Runs one verb of a door.

    Args:
        prog: The door's command, such as `prefsearch reward`.
        verbs: The configuration and the job of each verb.
        argv: The verb and its flags.

    Returns:
        The exit code: 0, or 2 for a mistake of the user.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"usage: {prog} VERB [--config FILE.yaml] [--flag value ...]", "", "verbs:"]
        for name, (config, _) in verbs.items():
            lines.append(f"  {name:<10} {(config.__doc__ or '').strip().splitlines()[0]}")
        lines += ["", f"`{prog} VERB --help` explains the flags."]
        sys.stdout.write("\n".join(lines) + "\n")
        return 0
    if argv[0] not in verbs:
        near = nearest(argv[0], verbs)
        sys.stderr.write(
            f"error: {prog}: unknown verb {shown(argv[0])}; {near}choose one of "
            f"{', '.join(verbs)}\n"
        )
        return 2
    config, job = verbs[argv[0]]
    configure_logging()
    with OrderlyExit() as exit_code:
        try:
            settings = parse(config, argv[1:], prog=f"{prog} {argv[0]}")
            exit_code.settings = settings
            job(settings)
            exit_code.flush()
        # A missing extra is an ImportError that names what to install; a loss that is not finite
        # ends a run with its name.
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            if exit_code.takes(error) or os.environ.get("PREFSEARCH_TRACEBACK"):
                raise
            withdraw_unused_runs()
            close_bars()  # or the line would stand behind one
            sys.stderr.write(f"error: {visible(as_flags(str(error), config))}\n")
            return 2
    return exit_code.value

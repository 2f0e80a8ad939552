"""From a command line and a YAML file to a checked configuration, for every door.

A door is a table of verbs; each verb has a dataclass, whose docstring is the help, and a job.
Mistakes of the user end with one line and exit code 2; `PREFSEARCH_TRACEBACK=1` shows where they
arose.
"""

import dataclasses
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, cast, get_args, get_type_hints

import yaml
from rich.logging import RichHandler

from doors.console import VisibleFormatter
from search.evaluation.settings import check_value
from search.evaluation.visible_text import visible

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
        ValueError: If the file is missing or no mapping, a key is unknown, or a value is wrong.
    """
    from trl import TrlParser

    first_line = (config.__doc__ or "").strip().splitlines()[0]
    parser: Any = TrlParser([cast(Any, config)], prog=prog, description=first_line)
    parser.add_argument("--config", metavar="FILE", help="YAML file or name of a shipped one.")
    helped, types = field_help(config), get_type_hints(config)
    for action in parser._actions:
        if action.type is not None and NoneType in get_args(types.get(action.dest)):
            action.type = _or_null(action.type)
        default = " (default: %(default)s)" if action.default not in (None, "==SUPPRESS==") else ""
        if action.dest in helped:
            action.help = helped[action.dest] + default
    arguments = list(argv)
    if "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 == len(arguments):
            raise ValueError("--config: found nothing after it; required: a YAML file")
        _check_yaml(arguments[at + 1], config)
    (parsed, *_) = parser.parse_args_and_config(arguments)
    return parsed


def _or_null(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads what `kind` reads, and the "null" of YAML as None."""

    def read(text: str) -> Any:
        return None if text == "null" else kind(text)

    read.__name__ = getattr(kind, "__name__", "value")  # argparse names it in its errors
    return read


def _check_yaml(path: str, config: type) -> None:
    """Refuses a configuration file that is no mapping or has keys that the dataclass lacks."""
    known = [field.name for field in dataclasses.fields(config)]
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path}: cannot be read as YAML ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: found {type(values).__name__}; required: a mapping of settings")
    unknown = sorted(set(values) - set(known) - {"env"})
    if unknown:
        raise ValueError(
            f"{path}: unknown setting {', '.join(unknown)}; required: some of {', '.join(known)}"
        )
    for name, value in values.items():
        if name != "env" and not _is_number(value):
            check_value(config, name, value)


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


def _is_number(value: object) -> bool:
    """Whether a text is a number that YAML did not take for one, as `1e-3`; the parser does."""
    try:
        float(value if isinstance(value, str) else "no")
    except ValueError:
        return False
    return True


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


def run_door(prog: str, verbs: Mapping[str, _Job], argv: Sequence[str]) -> int:
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
        sys.stderr.write(f"{prog}: unknown verb {argv[0]!r}; choose one of {', '.join(verbs)}\n")
        return 2
    config, job = verbs[argv[0]]
    configure_logging()
    try:
        job(parse(config, argv[1:], prog=f"{prog} {argv[0]}"))
    # A missing extra is an ImportError that names what to install; a loss that is not finite ends a
    # run with its name.
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get("PREFSEARCH_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {visible(as_flags(str(error), config))}\n")
        return 2
    return 0

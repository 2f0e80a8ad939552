"""Parsing of command-line flags and a YAML file into validated settings.

Flags come from the fields of a dataclass and their help from its docstring. `argparse` formats the
help alone: it would take abbreviations, keep the last of two values, and ask for what is missing
before it names what it does not know.
"""

import argparse
import contextlib
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from prefsearch.cli.configuration_file import read_configuration, read_float, read_int
from prefsearch.cli.outputs import HasOutputs, home_expanded, require_kept
from prefsearch.config.checks import (
    alternatives,
    describe_bounds,
    describe_type,
    is_writable,
    nearest,
    shown,
    without_bounds,
)
from prefsearch.config.settings import Setting, build, settings_of_class

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
_HELP = ("-h", "--help")
# What begins as a negative number, as -1e-3 does.
_NEGATIVE_NUMBER = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)
# A keyword argument with a text, True or a stand-in, not yet marked as Python's.
_ADVICE = re.compile(
    r"""\b(?P<name>[a-z_]+)="""
    r"""(?P<value>'[^'\n]*'|"[^"\n]*"|\{(?:[^{}\n]|\{[^{}\n]*\})*\}|True\b|NAME\b|AutoTokenizer\.from_pretrained\(NAME\))"""
    r"""(?! \(in Python\))"""
)


@dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        setting: The setting that it gives; "config" and "help" are the command's own.
        names: As it may be written, with hyphens too; none for a word without a flag.
        words: How many words it takes: "one", "any" of them, "many" (at least one) or "none".
        read: From a word to the value.
        constant: The value of the flag alone.
        metavar: What stands for the words in the help.
        help: One paragraph.
    """

    setting: str
    names: tuple[str, ...]
    words: Literal["one", "any", "many", "none"] = "one"
    read: Callable[[str], object] = str
    constant: object = None
    metavar: str | None = None
    help: str = ""


@dataclass
class Given:
    """A flag of the command line with its values."""

    written: str
    flag: Flag
    values: list[str] = field(default_factory=list)
    joined: bool = False

    @property
    def full(self) -> bool:
        """Whether another word would be one too many."""
        most = {"one": 1, "any": 1, "many": 2**31, "none": 0}[self.flag.words]
        return self.joined or len(self.values) >= most

    @property
    def shown(self) -> str:
        """The values, for a message."""
        return " ".join(map(shown, self.values)) or "no value"


def parse(config: type[Config], argv: Sequence[str], *, prog: str) -> Config:
    """Parses `--config FILE.yaml` and `--flag value` into settings.

    Args:
        config: A dataclass. Its class attribute `POSITIONAL`, if any, names the setting that is
            given without a flag.
        argv: Without the program's name.
        prog: The command, for the help.

    Raises:
        ValueError: If the file is missing or no mapping, a flag or key is unknown or given twice,
            or a value is wrong.
        SystemExit: After the help.
    """
    flags = _flags_of(config)
    if any(word in _HELP for word in argv):
        sys.stdout.write(_format_help(config, flags, prog))
        sys.stdout.flush()
        raise SystemExit(0)
    given = _split(flags, argv, prog)
    file = given.pop("config", None)
    values = {name: _value(one) for name, one in given.items()}
    if file is None:
        return build(config, **values)
    path = home_expanded(file.values[0], "config")
    settings = build(config, **{**read_configuration(path, config), **values})
    for output in settings.outputs() if isinstance(settings, HasOutputs) else ():
        require_kept(
            {"config": path},
            files=output.files,
            folders=output.replaced_folders,
            setting=output.setting,
        )
    return settings


def _flags_of(config: type) -> list[Flag]:
    positional = getattr(config, "POSITIONAL", None)
    found = [Flag("help", ("-h", "--help"), "none", help="Show this help.")]
    if positional is None:
        about = "YAML file or name of a shipped one."
        found.append(Flag("config", ("--config",), metavar="FILE", help=about))
    for setting in settings_of_class(config).values():
        found += _flags_of_setting(setting, positional=setting.name == positional)
    return found


def _flags_of_setting(setting: Setting, *, positional: bool) -> list[Flag]:
    """The flags of a setting; a boolean that defaults to true also has its negation."""
    name, words = setting.name, "one"
    kind = without_bounds(next(p for p in alternatives(setting.hint) if p is not NoneType))
    if get_origin(kind) in (list, tuple):
        words, kind = "many", without_bounds(get_args(kind)[0])
    elif kind is bool:
        words = "any"
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    facts = [] if setting.default in (None, "") else [f"default: {_plain(setting.default)}"]
    bounds = describe_bounds(setting.hint)
    facts += [f"required: {bounds}"] if bounds else []
    about = setting.help + (f" ({'; '.join(facts)})" if facts else "")
    metavar = f"{{{','.join(map(str, choices))}}}" if choices else name.upper()
    written = () if positional else _spellings(name)
    flags = [Flag(name, written, words, _reader(setting.hint, kind), True, metavar, about)]
    if kind is bool and setting.default is True:
        flags.append(Flag(name, _spellings(f"no_{name}"), "none", constant=False))
    return flags


def _spellings(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _reader(hint: object, kind: object) -> Callable[[str], object]:
    """Builds the parser of a type; "null" is None where allowed."""
    readers: dict[object, Callable[[str], object]] = {
        int: read_int,
        float: read_float,
        bool: _read_bool,
    }
    choices = get_args(kind) if get_origin(kind) is Literal else ()

    def read(word: str) -> object:
        if word == "null" and NoneType in alternatives(hint):
            return None
        with contextlib.suppress(ValueError):
            value = readers.get(kind, str)(word)
            if not choices or value in choices:
                return value
        raise ValueError(f"found {shown(word)}; required: {describe_type(hint)}. Correct the value")

    return read


def _read_bool(word: str) -> bool:
    for value, names in ((True, "yes true t y 1"), (False, "no false f n 0")):
        if word.lower() in names.split():
            return value
    raise ValueError


def _format_help(config: type, flags: Sequence[Flag], prog: str) -> str:
    description, _, more = (config.__doc__ or "").partition("\n\n")
    examples = more.partition("Attributes:")[0] if getattr(config, "POSITIONAL", None) else ""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description.strip(),
        epilog=re.sub(r"(?m)^ {4}", "", examples).strip() or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    counts = {"one": None, "any": "?", "many": "+"}
    for flag in flags:
        about = flag.help.replace("%", "%%")
        if flag.words == "none":
            parser.add_argument(*flag.names, action="store_true", help=about)
        elif flag.names:
            nargs: Any = counts[flag.words]
            parser.add_argument(*flag.names, nargs=nargs, metavar=flag.metavar, help=about)
        else:
            parser.add_argument(flag.setting, metavar=flag.metavar, help=about)
    return parser.format_help()


def _split(flags: Sequence[Flag], argv: Sequence[str], prog: str) -> dict[str, Given]:
    """Splits a command line into flags with values, keyed by setting.

    Raises:
        ValueError: If a flag is unknown or given twice, a word belongs to none, or a value is
            missing.
    """
    for word in argv:
        if not is_writable(word):
            raise ValueError(
                f"command line: found {shown(word)}; required: text in UTF-8, without NUL. Rename "
                "the file, or write the value in UTF-8"
            )
    named = {name: flag for flag in flags for name in flag.names}
    positional = [flag for flag in flags if not flag.names]
    found: list[Given] = []
    for word in argv:
        name, joined, value = word.partition("=")
        if name in named:
            found.append(Given(name, named[name], [value] if joined else [], bool(joined)))
        elif _is_flag(word):
            known = [flag.names[0] for flag in flags if flag.names]
            hint = f"{nearest(name, known)}`{prog} --help` explains the flags"
            if found and not found[-1].full and not found[-1].values:
                hint += f". If it is the value, write {found[-1].written}={shown(word)[1:-1]}"
            raise ValueError(f"unrecognized arguments: {shown(name)[1:-1]}; {hint}")
        elif (not found or found[-1].full) and positional:
            found.append(Given(positional[0].metavar or "", positional.pop(0), [word]))
        elif not found or found[-1].full:
            after = f" after {found[-1].written}, which has its value" if found else ""
            raise ValueError(
                f"found the word {shown(word)}{after}; required: flags, each with its value, as "
                f"--flag value. `{prog} --help` explains them"
            )
        else:
            found[-1].values.append(word)
    return _each_once(found)


def _each_once(found: Sequence[Given]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for one in found:
        if not one.values and one.flag.words in ("one", "many"):
            raise ValueError(f"{one.written}: found nothing after it; required: a value")
        if one.values and one.flag.words == "none":
            raise ValueError(f"{one.written}: found {one.shown}; required: the flag alone")
        other = given.setdefault(one.flag.setting, one)
        if other is not one:
            remedy = "Leave one of them out"
            if one.flag.words == "many":
                remedy += ", or write all values behind one flag"
            raise ValueError(
                f"{one.written}: found twice, with {other.shown} and {one.shown}; required: once. "
                f"{remedy}"
            )
    return given


def _is_flag(word: str) -> bool:
    """Whether a word is a flag; negative numbers and words with spaces are values."""
    dashed = len(word) > 1 and word[0] == "-" and " " not in word
    return dashed and not _NEGATIVE_NUMBER.match(word)


def _value(one: Given) -> object:
    """The value of a flag.

    Raises:
        ValueError: If it cannot be read; the message names the flag.
    """
    try:
        found = [one.flag.read(word) for word in one.values]
    except ValueError as error:
        raise ValueError(f"{one.written}: {error}") from error
    if one.flag.words == "many":
        return found
    return found[0] if found else one.flag.constant


def as_flags(message: str, config: type) -> str:
    """Rewrites keyword arguments in a message as command-line flags.

    Messages are written for Python: `prompt_column='question'` becomes `--prompt_column question`,
    `flag=True` becomes `--flag`. What the command has no flag for is marked as Python's.

    Args:
        message: Of an error.
        config: The command's dataclass. Its `FLAGS`, if it has any, map names of arguments to names
            of settings where they differ.
    """
    settings = settings_of_class(config)
    others: Mapping[str, str] = getattr(config, "FLAGS", {})

    def flag(found: re.Match[str]) -> str:
        name, value = others.get(found["name"], found["name"]), found["value"]
        if name not in settings or value[0] == "{":
            return f"{found[0]} (in Python)"
        if value == "True":
            return f"--{name}"
        if value[0] in "'\"":
            value = shlex.quote(value[1:-1])
        return f"--{name} {'NAME' if '(' in value else value}"

    return _ADVICE.sub(flag, message)


def for_python(error: ValueError) -> ValueError:
    """Marks an error whose advice refers to Python arguments, not to command-line flags.

    Args:
        error: Of a file beside the main one.
    """
    marked = _ADVICE.sub(
        lambda found: found[0] if found["name"] == "on_bad_row" else f"{found[0]} (in Python)",
        str(error),
    )
    return ValueError(marked)

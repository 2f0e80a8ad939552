"""The words of a command line, checked before any is read: which flags there are, each given once.

`argparse` takes abbreviations, the last of two values, and asks for what is missing before it
names what it does not know. Here a slip of the keyboard is named first.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from prefsearch.config.checks import is_writable, nearest, shown

NEGATIVE_NUMBER = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)
"""What begins as a negative number, as -1e-3 does, which `argparse` takes for a flag."""
_HELP = ("-h", "--help")


def require_writable(words: Sequence[str]) -> None:
    """Refuses words that are no text, such as file names in an encoding of long ago.

    Raises:
        ValueError: Naming the first.
    """
    for word in words:
        if not is_writable(word):
            raise ValueError(
                f"command line: found {shown(word)}; required: text in UTF-8, without NUL. Rename "
                "the file, or write the value in UTF-8"
            )


@dataclass
class Given:
    """A flag as it was given.

    Attributes:
        flag: As it was written.
        action: What the parser knows of it.
        values: The words after it.
        closed: Whether its value was joined to it by "=".
    """

    flag: str
    action: argparse.Action
    values: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def full(self) -> bool:
        """Whether another word would be one too many."""
        return self.closed or len(self.values) >= {None: 1, "?": 1, "+": 2**31}.get(
            self.action.nargs, 0
        )

    @property
    def shown(self) -> str:
        """The values in a message; those of a flag that needs none are true."""
        return " ".join(map(shown, self.values)) or "no value"


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the help is asked for, whatever else is."""
    return any(word in _HELP for word in argv)


def read_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> dict[str, Given]:
    """Splits a command line into flags with their values.

    Args:
        parser: Knows the flags, and how many words there may be beside them.
        argv: Without the program's name.

    Returns:
        The flags by the name of their setting.

    Raises:
        ValueError: If a flag is unknown or given twice, a word belongs to none, or a value is
            missing.
    """
    require_writable(argv)
    actions = parser._option_string_actions
    names = [action.option_strings[0] for action in parser._actions if action.option_strings]
    others = sum(not action.option_strings for action in parser._actions)
    found: list[Given] = []
    for word in argv:
        name, joined, value = word.partition("=")
        if name in actions:
            found.append(Given(name, actions[name], [value] if joined else [], bool(joined)))
        elif _is_flag(word):
            hint = f"{nearest(name, names)}`{parser.prog} --help` explains the flags"
            if found and not found[-1].full and not found[-1].values:
                hint += f". If it is the value, write {found[-1].flag}={shown(word)[1:-1]}"
            raise ValueError(f"unrecognized arguments: {shown(name)[1:-1]}; {hint}")
        elif (not found or found[-1].full) and others:
            others -= 1
        elif not found or found[-1].full:
            after = f" after {found[-1].flag}, which has its value" if found else ""
            raise ValueError(
                f"found the word {shown(word)}{after}; required: flags, each with its value, as "
                f"--flag value. `{parser.prog} --help` explains them"
            )
        else:
            found[-1].values.append(word)
    given: dict[str, Given] = {}
    for one in found:
        if not one.values and one.action.nargs in (None, "+"):
            raise ValueError(f"{one.flag}: found nothing after it; required: a value")
        if one.values and one.action.nargs == 0:
            raise ValueError(f"{one.flag}: found {one.shown}; required: the flag alone")
        other = given.setdefault(one.action.dest, one)
        if other is not one:
            remedy = "Leave one of them out"
            if one.action.nargs == "+":
                remedy += ", or write all values behind one flag"
            raise ValueError(
                f"{one.flag}: found twice, with {other.shown} and {one.shown}; required: once. "
                f"{remedy}"
            )
    return given


def _is_flag(word: str) -> bool:
    """Whether a word can only be meant as a flag; texts with spaces and numbers are values."""
    return len(word) > 1 and word[0] == "-" and " " not in word and not NEGATIVE_NUMBER.match(word)

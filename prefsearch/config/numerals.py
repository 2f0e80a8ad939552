"""Numbers in the texts of users: decimal digits, read as they are written or not at all.

Python and YAML 1.1 take more: 1_000, digits of other scripts, 010 for eight and 1:30 for ninety.
Such a text more likely is a slip, or means another number to its author.
"""

import re

_WHOLE = r"[-+]?(?:0|[1-9][0-9]*)"
_INTEGER = re.compile(_WHOLE)
_FLOAT = re.compile(
    rf"(?:{_WHOLE}(?:\.[0-9]*)?|[-+]?\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.?(?:inf|infinity|nan)",  # to be refused by name
    re.IGNORECASE,
)


def read_int(text: str) -> int:
    """Reads an integer.

    Raises:
        ValueError: If it is anything but decimal digits, behind a sign or not.
    """
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no integer in decimal digits")
    return int(text)


def read_float(text: str) -> float:
    """Reads a number such as 3, 0.5, -1e-3 or inf.

    Raises:
        ValueError: If it is anything else.
    """
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no number in decimal digits")
    lowered = text.lower()
    return float(lowered.replace(".", "") if lowered.endswith(("inf", "y", "nan")) else lowered)

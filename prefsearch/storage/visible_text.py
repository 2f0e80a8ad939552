"""Escaping of control characters for terminals, and of invalid characters for XML."""

from __future__ import annotations

import re

# Controls of C0 and C1 but tab and line feed, surrogates, and what turns the direction of text.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    r"""Escapes control characters and unencodable characters, as in \x1b."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable(text: str) -> str:
    """Replaces characters invalid in XML and HTML, such as control characters."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)

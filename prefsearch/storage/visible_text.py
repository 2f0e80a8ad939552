"""Text for a terminal, its control characters shown as escapes."""

from __future__ import annotations

import re

# Controls of C0 and C1 but tab and line feed, surrogates, and what turns the direction of text.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Writes characters that a terminal would obey, or cannot encode, as escapes such as \x1b."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)

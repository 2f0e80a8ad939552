"""Finds numbers in the documents that look measured and stand outside a block of figures.

A number in prose cannot be checked against results and goes stale in silence. What looks measured
is an interval, a decimal fraction, a percentage, or a number (in digits or a word) before a unit of
time, size, rate or count. `ALLOWED` lists those that were set, not measured, each with its reason.
"""

import re
from collections.abc import Mapping
from pathlib import Path

DEFINITION = "part of a definition, a published protocol or a format"
SETTING = "a setting, chosen and not measured"
NEED = "what a user needs to have installed"
_WORDS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|"
    "fifty|sixty|hundred|thousand|million|billion|half|third|quarter|fifth|tenth|twentieth"
)
_NUMBER = rf"(?:[-−+]?\d[\d,]*(?:\.\d+)?|\b(?:{_WORDS})\b)"
_SYMBOLS = "%|×|x|s|ms|KB|kB|MB|MiB|GB|GiB"
_UNITS = (
    r"seconds?|minutes?|hours?|days?|percent|times|fold|points?|tokens?|nats|bits|methods|prompts|"
    r"pairs|comparisons|cells|rounds|games|decisions|updates|frames|responses|preferences|"
    r"simulations|epochs|steps|million|billion|of human"
)
_PATTERNS = (
    re.compile(r"\[[-−+]?\d[\d,.]*, [-−+]?\d[\d,.]*\]"),
    re.compile(r"(?<![\w.])[-−+]?\d+\.\d+(?![\w.])"),
    re.compile(rf"(?<![\w.]){_NUMBER} ?(?:{_SYMBOLS})(?!\w)"),
    re.compile(rf"(?<![\w.]){_NUMBER}(?:[ -]\w+)?[ -](?:{_UNITS})(?!\w)", re.IGNORECASE),
    re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?!\w)"),
    re.compile(rf"\bfactor of {_NUMBER}", re.IGNORECASE),
    re.compile(r"\b(?:half|third|quarter|fifth|tenth|twentieth)s? (?:of|as)\b", re.IGNORECASE),
    re.compile(r"\b(?:twice|thrice|tenfold|halves|doubles)\b", re.IGNORECASE),
)
ALLOWED: Mapping[str, Mapping[str, str]] = {
    "CHANGELOG.md": {"Nine methods by name": DEFINITION},
    "README.md": {"Python 3.11": NEED},
    "docs/atari.md": {
        "the 26 games": DEFINITION,
        "`code` = 4 emulator frames": DEFINITION,
        "100,000 decisions, 400,000 frames": DEFINITION,
        "skips four frames": DEFINITION,
        "the last two frames pooled": DEFINITION,
        "four frames stacked": DEFINITION,
        "a cap of 108,000 frames": DEFINITION,
        "| 99 % |": SETTING,
        "64×64 grey, 4 frames": SETTING,
    },
    "docs/reward_models.md": {
        "four answers, six comparisons with ties": DEFINITION,
        "0.5 is a tie": DEFINITION,
        "twice the batch": SETTING,
        "a quarter of the training pairs": SETTING,
    },
    "docs/text_search.md": {
        "the worse half of the unfinished": DEFINITION,
        "drops half of the responses": DEFINITION,
    },
}


def prose(text: str) -> str:
    """A document without blocks of figures, code and link targets, in one line.

    Comments of fenced code stay: durations are written there.
    """
    text = re.sub(r"<!-- figures: (.+?) -->.*?<!-- end of figures: \1 -->", " ", text, flags=re.S)
    text = re.sub(
        r"```.*?```",
        lambda code: "; ".join(re.findall(r"# (.*)", code.group())),
        text,
        flags=re.S,
    )
    text = re.sub(r"`[^`]*`", "`code`", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"\s+", " ", text)


def loose_figures(text: str, allowed: Mapping[str, str]) -> list[str]:
    """What looks measured outside blocks, each with the words around it.

    Args:
        text: A document.
        allowed: Phrases that may stand, as `prose` gives them, with the reason.
    """
    text = prose(text)
    for phrase in allowed:
        text = text.replace(phrase, "…")
    found = []
    spans = sorted({match.span() for pattern in _PATTERNS for match in pattern.finditer(text)})
    last = 0
    for begin, end in spans:
        if begin >= last:
            found.append(f"{text[begin:end]!r} in {text[max(0, begin - 40) : end + 40]!r}")
        last = max(last, end)
    return found


def loose_in(root: Path) -> list[str]:
    """The loose figures of all documents of a repository, each with its document."""
    documents = [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]
    return [
        f"{name}: {figure}"
        for path in documents
        for name in [path.relative_to(root).as_posix()]
        for figure in loose_figures(path.read_text(encoding="utf-8"), ALLOWED.get(name, {}))
    ]

"""Finds numbers in the documents that are outside a block of figures.

A number in prose cannot be checked against results and goes stale in silence. So every number in
digits or words is named, and words that compare by one (doubled, three-quarters, an order of
magnitude); one and two only before a unit, as they are everyday words. Headings, code, links,
versions and years of papers are left out: a setting is written in backticks. `ALLOWED` lists the
few that are neither measured nor a setting, each with its reason. Pictures of results outside a
block are found, too, since a block's note is to cover them.
"""

import re
from collections.abc import Mapping
from pathlib import Path

DEFINITION = "part of a definition, a published protocol or a format"
NEED = "what a user needs to have installed"
_LARGE = (
    "three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    "seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|"
    "thousands?|millions?|billions?|dozens?|scores of|tens of"
)
_SMALL = "one|two|half|third|quarter"  # everyday words, and numbers only before a unit
_UNITS = (
    r"seconds?|minutes?|hours?|days?|percent|times|fold|points?|tokens?|nats|bits|methods|prompts|"
    r"pairs|comparisons|cells|rounds|games|decisions|updates|frames|responses|preferences|"
    r"simulations|epochs|steps|seeds|of human"
)
_PARTS = "half|halves|third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|twentieth|hundredth"
_PATTERNS = (
    # Digits, unless they belong to a name such as Qwen3, best-of-16 or Apache-2.0.
    re.compile(r"(?<!\w)(?<!\w[-–.])[-−+±≈~<>$]?(?:\d|\.\d)[\w.,]*(?: ?[%×])?"),
    re.compile(rf"\b(?:{_LARGE})(?:[ -](?:{_UNITS}))?\b", re.IGNORECASE),
    re.compile(rf"\b(?:{_SMALL})[ -](?:\w+[ -])?(?:{_UNITS})\b", re.IGNORECASE),
    re.compile(rf"\b(?:one|two) (?:in|of|out of) (?:{_SMALL}|{_LARGE})\b", re.IGNORECASE),
    re.compile(rf"\b(?:factor|order|orders) of (?:magnitude|{_SMALL}|{_LARGE})\b", re.IGNORECASE),
    re.compile(rf"\b(?:{_PARTS})s? (?:of|as|an?|the)\b", re.IGNORECASE),
    re.compile(rf"\b\w+[ -](?:{_PARTS})s\b", re.IGNORECASE),
    re.compile(
        r"\b(?:twice|thrice|\w+fold|halv(?:e[sd]?|ing)|doubl(?:e[sd]|ing)|tripl(?:e[sd]|ing)|"
        r"quadrupl(?:e[sd]|ing))\b",
        re.IGNORECASE,
    ),
    re.compile(r"\bmost (?:of the )?(?:prompts|pairs|cells|games|seeds|tables)\b", re.IGNORECASE),
)
# Numbers that name something: versions, years of papers, the steps of a numbered list.
_NAMES = re.compile(
    r"(?<![\w.])\d+\.\d+\.\d+(?![\w.])|(?<=et al\. )\d{4}\b|^ *\d+\. ", re.MULTILINE
)
ALLOWED: Mapping[str, Mapping[str, str]] = {
    "README.md": {"Python 3.11": NEED},
    "docs/atari.md": {"the 26 games": DEFINITION},
    "docs/reward_models.md": {"with twice the batch": DEFINITION},
}


def prose(text: str) -> str:
    """A document without blocks of figures, headings, code, link targets and names, in one line.

    Comments of fenced code stay: durations are written there.
    """
    text = _outside_blocks(text)
    text = re.sub(
        r"```.*?```",
        lambda code: "; ".join(re.findall(r"(?<!\S)# (.*)", code.group())),
        text,
        flags=re.S,
    )
    text = re.sub(r"`[^`]*`", "`code`", text)
    text = re.sub(r"^#+ .*$", " ", text, flags=re.M)
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "]", text)
    return re.sub(r"\s+", " ", _NAMES.sub("…", text))


def _outside_blocks(text: str) -> str:
    return re.sub(r"<!-- figures: (.+?) -->.*?<!-- end of figures: \1 -->", " ", text, flags=re.S)


def unsourced_numbers(text: str, allowed: Mapping[str, str]) -> list[str]:
    """Numbers and pictures of results outside blocks, numbers with the words around them.

    Args:
        text: A document.
        allowed: Phrases that are allowed, as `prose` gives them, with the reason.
    """
    pictures = re.findall(r"\]\(([^)]*results/[^)]*\.(?:png|svg))\)", _outside_blocks(text))
    text = prose(text)
    for phrase in allowed:
        text = text.replace(phrase, "…")
    found = [f"the picture {path}" for path in pictures]
    spans = sorted({match.span() for pattern in _PATTERNS for match in pattern.finditer(text)})
    last = 0
    for begin, end in spans:
        if begin >= last:
            found.append(f"{text[begin:end]!r} in {text[max(0, begin - 40) : end + 40]!r}")
        last = max(last, end)
    return found


def unsourced_in(root: Path) -> list[str]:
    """The loose figures of all documents of a repository, each with its document."""
    documents = [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]
    return [
        f"{name}: {figure}"
        for path in documents
        for name in [path.relative_to(root).as_posix()]
        for figure in unsourced_numbers(path.read_text(encoding="utf-8"), ALLOWED.get(name, {}))
    ]

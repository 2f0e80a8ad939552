"""Extracting the final answer of a response, and normalizing answers for comparison.

Responses may come from a search against these rules, so they are strict: numbers are equal as
fractions, all else as strings; nothing is evaluated, and the work is at most linear in the text's
length.
"""

import functools
import re
from fractions import Fraction

FORMS = ("auto", "boxed", "gsm8k", "number")
"""Named answer forms; a string `regex:...` with one group is a form too."""

_REGEX = "regex:"
# Longer answers are compared as they stand: LaTeX is unwrapped in time quadratic in the length, and
# Python refuses to read numbers of more than 4,300 digits.
_LONGEST = 512

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = rf"(?:{_DIGITS}(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}}(?!\w))?"
_SCANNED = re.compile(
    # What only holds digits: names such as x2, exponents such as cm^2.
    r"[A-Za-z_]\w*|\^\s*(?:\{[^{}]*\}|[-+]?[0-9]+)"
    # A minus after a digit, letter or bracket subtracts.
    r"|(?P<number>(?:(?<![\w)\]}])[-−])?(?:\\?\$-?)?"
    rf"(?:\\[dt]?frac\s*\{{[0-9]+\}}\s*\{{[0-9]+\}}|{_NUMBER}(?:/{_DIGITS})?))"
)
_NUMBER_THEN_WORDS = re.compile(
    rf"(?P<number>[-+−]?(?:\\?\$\s?-?)?{_NUMBER}(?:/{_DIGITS})?(?:\s?\\?%)?\$?)"
    # A word goes, with all after it, unless it changes the number or makes it one of several.
    r"(?:[,;]?\s+(?!(?:hundred|thousand|million|billion|trillion|dozen|cents?|[ap]\.?m|pi|and|or|to"
    r"|times|plus|minus|over|by)\b)(?:[A-Za-z][A-Za-z'-]+|a)\b.*)?[.!]*",
    re.IGNORECASE,
)
_PHRASE = re.compile(r"\banswers?\W{0,4}(?:\b(?:is|are)\b|=|:)[\s:*]*", re.IGNORECASE)
# So far a sentence is read that states an answer.
_LINE = re.compile(r"[^\n]{0,300}")
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)

_WRITTEN = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]{{1,3}})?"
_RATIONAL = re.compile(
    r"(?P<sign>[-+]?)\s*(?:(?P<whole>[0-9]+)\s+(?=[0-9]+\s*/\s*[0-9]))?"
    rf"(?P<over>{_WRITTEN})(?:\s*/\s*(?P<under>[-+]?\s*{_WRITTEN}))?"
    r"\s*(?:%|percent|°|degrees?|dollars?|usd)?"
)
_COMMAND = re.compile(
    r"(?<!\\)\\(?:(?P<fraction>[dtc]?frac)|text(?:bf|it|rm)?|math(?:rm|bf)|mbox|fbox|boxed)(?![a-z])"
)
_DROPPED = re.compile(r"(?<!\\)\\(?:(?:left|right|displaystyle)(?![a-z])|[!,()\[\]]|(?=%))|\\?\$")
_SPACES = re.compile(r"(?<!\\)\\(?:[;: ]|q?quad(?![a-z]))|~|\s+")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|(?<!\\)\\degree(?![a-z])")


def extract_answer(text: str, form: str = "auto", *, finished: bool = True) -> str | None:
    r"""Finds the answer that a response states.

    Args:
        text: A response.
        form: Where answers stand. `"gsm8k"`: the rest of the line after the last `####`.
            `"boxed"`: in the last `\boxed{...}` whose braces are balanced. `"number"`: the last
            number. `"auto"`: the first of these that is there, in this order: boxed, a number
            after `####`, the sentence after "answer is" or "answer:", the last number; from
            `####` and from the sentence, what follows a number in words is dropped ("18 eggs").
            `"regex:PATTERN"`: the one group of the pattern's last match.
        finished: Whether the response is whole. Of one that was cut off the last word is left out,
            which may be half a word, and no number is taken that nothing marks as the answer.

    Returns:
        The answer as written, without spaces around it; None where there is none.

    Raises:
        ValueError: If there is no such form, or the pattern is no regular expression with one
            group.
    """
    if not finished:
        begun = text.rstrip()
        text = begun[: max((at for at, c in enumerate(begun) if c.isspace()), default=0)]
    if form.startswith(_REGEX):
        found = None
        for match in _user_pattern(form).finditer(text):
            found = match[1]
    elif form == "gsm8k":
        found = _after_hashes(text)
    elif form == "boxed":
        found = _last_boxed(text)
    elif form == "number":
        found = _last_number(text) if finished else None
    elif form == "auto":
        hashes = _without_words(_after_hashes(text) or "")
        if _rational(_tidy(hashes)) is None:
            hashes = ""  # a heading of Markdown
        found = _last_boxed(text) or hashes or _last_phrase(text)
        if found is None and finished:
            found = _last_number(text)
    else:
        raise ValueError(
            f"answer form: found {form!r}; required: one of {', '.join(FORMS)}, or "
            f'"{_REGEX}PATTERN" with one group'
        )
    return (found or "").strip() or None


def normalize_answer(answer: str) -> str:
    r"""Writes an answer such that equal answers are equal strings.

    Numbers become fractions in lowest terms: "3", "3.0", "+3.", "$3.00", "3 %" are "3"; "0.5",
    "1/2", "\frac{1}{2}" are "1/2"; "2\frac{1}{2}" is "5/2"; "1,234" is "1234". A percent sign,
    degrees and dollars are dropped, without scaling; other units are not: "5 cm" is not "5". In
    all else case, spaces, `$`, a final period, a leading plus and LaTeX's `\text{}`, `\frac{}{}`,
    `\left`, `\right`, `\!` and the like do not count. Idempotent. Of answers over 512 characters
    only case and spaces are normalized.
    """
    text = _tidy(answer)
    number = _rational(text)
    if number is None and len(text) <= _LONGEST:
        # No space next to a sign; one after a comma, lest "1, 234" become a number.
        text = re.sub(r"\s*([^\w\s])\s*", r"\1", text).lstrip("+")
        text = text.replace(",", ", ").rstrip(" .")
        number = _rational(text)
    return text if number is None else str(number)


def same_answer(a: str, b: str) -> bool:
    """Whether two answers are equal once normalized."""
    return normalize_answer(a) == normalize_answer(b)


def stated_answer(text: str) -> str:
    """The answer that a worked solution ends in: behind `####`, in a box, or all of it."""
    return _after_hashes(text) or _last_boxed(text) or text


# --------------------------------------------------------------------------------------- finding


@functools.lru_cache(maxsize=16)
def _user_pattern(form: str) -> re.Pattern[str]:
    source = form.removeprefix(_REGEX)
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise ValueError(
            f"answer form: {source!r} is no regular expression ({error}); mend it, or use one of "
            f"{', '.join(FORMS)}"
        ) from error
    if pattern.groups != 1:
        raise ValueError(
            f"answer form: {source!r} has {pattern.groups} groups; required: 1, around the answer. "
            "Write (?:...) for groups that do not hold it"
        )
    return pattern


def _after_hashes(text: str) -> str | None:
    _, hashes, rest = text.rpartition("####")
    return rest.lstrip().partition("\n")[0].strip() or None if hashes else None


def _last_boxed(text: str) -> str | None:
    """The content of the balanced box that begins last and is not empty."""
    opened: list[int | None] = []
    start = end = -1
    for match in _BRACES.finditer(text):
        token = match[0]
        if token.startswith("\\") and token.endswith("{") and len(token) > 2:
            opened.append(match.end())
        elif token == "{":
            opened.append(None)
        elif token == "}" and opened:
            begun = opened.pop()
            if begun is not None and begun > start and text[begun : match.start()].strip():
                start, end = begun, match.start()
    return text[start:end] if start >= 0 else None


def _last_phrase(text: str) -> str | None:
    """The text behind the last "answer is ...", to the end of its sentence."""
    for match in reversed([*_PHRASE.finditer(text)]):
        line = _LINE.match(text, match.end())
        phrase = re.split(r"[.!]+(?:\s|$)", line[0] if line else "", maxsplit=1)[0]
        if phrase := phrase.strip(" *`_\"'"):
            return _without_words(phrase)
    return None


def _without_words(phrase: str) -> str:
    """Drops words that follow a number; all else stays as it is."""
    match = _NUMBER_THEN_WORDS.fullmatch(phrase.strip())
    return match["number"] if match else phrase.strip()


def _last_number(text: str) -> str | None:
    found = None
    for match in _SCANNED.finditer(text):
        found = match["number"] or found
    return found


# ------------------------------------------------------------------------------------ normalizing


def _tidy(answer: str) -> str:
    """Lower case, single spaces, no LaTeX around or inside numbers and words."""
    text = " ".join(answer.casefold().replace("−", "-").split())
    before = None
    while text != before and len(text) <= _LONGEST:
        before = text
        text = _DROPPED.sub("", _DEGREES.sub("°", text))
        text = _open_commands(re.sub(r"\{\s*,\s*\}", ",", text))
        text = _SPACES.sub(" ", text).strip().rstrip(" .")
    return text


def _open_commands(text: str) -> str:
    r"""Replaces `\text{a}` by a and `\frac{a}{b}` by a/b."""
    # From the last to the first: arguments hold no command any more, and places stay.
    for match in reversed([*_COMMAND.finditer(text)]):
        first = _argument(text, match.end(), bare=match["fraction"] is not None)
        if first is None:
            continue
        opened, end = first
        if match["fraction"]:
            second = _argument(text, end, bare=True)
            if second is None:
                continue
            under, end = second
            opened = f"{_in_brackets(opened)}/{_in_brackets(under)}"
            # 2\frac12 is two and a half, not 21/2.
            opened = " " * text[: match.start()][-1:].isalnum() + opened
            opened += " " * text[end : end + 1].isalnum()
        text = text[: match.start()] + opened + text[end:]
    return text


def _argument(text: str, start: int, *, bare: bool) -> tuple[str, int] | None:
    """The braced group at `start`, or where allowed one bare letter or digit, and its end."""
    while text[start : start + 1] == " ":
        start += 1
    if bare and text[start : start + 1].isalnum():
        return text[start], start + 1
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return (text[start + 1 : place].strip(), place + 1) if place > start else None
    return None


def _in_brackets(term: str) -> str:
    return term if re.fullmatch(r"[-+]?[\w.,]+", term) else f"({term})"


def _rational(text: str) -> Fraction | None:
    """The number that a text is, if it is one and nothing else."""
    match = _RATIONAL.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    under = _fraction(match["under"] or "1")
    if under == 0:
        return None
    number = Fraction(match["whole"] or 0) + _fraction(match["over"]) / under
    return -number if match["sign"] == "-" else number


def _fraction(text: str) -> Fraction:
    return Fraction("".join(text.replace(",", "").split()))

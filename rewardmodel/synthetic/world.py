"""The synthetic task: a writer of texts of every quality, and a reader that counts their features.

The *writer* answers a request with a few sentences and makes the mistakes people make: it strays,
repeats itself, breaks the order, goes on too long, ends flatly. The *reader* turns any text into a
few counts, of which `rewardmodel.synthetic.human` makes a utility. Requests are in
`rewardmodel.synthetic.requests`; things may be mentioned in any role.

Everything is seeded by `random.Random`, whose sequence is the same on every machine.
"""

import functools
import random
import re
from dataclasses import dataclass

from datasets import Dataset

from rewardmodel.synthetic.phrases import ASIDES, FLAT_ENDINGS, GENRES, MARKER_RANK, Genre
from rewardmodel.synthetic.requests import Request, requested_things, sample_requests, things_in

_VIVID_SLOT = re.compile(r"<([^>]*)> ?")
_SENTENCE = re.compile(r"[^.!?]+[.!?]?")

# ----------------------------------------------------------------------------------------- writer


def _render(template: str, fills: dict[str, str], rng: random.Random, *, vivid: float) -> str:
    """Fills a template; each vivid word is written with probability `vivid`."""

    def choose(match: re.Match[str]) -> str:
        return rng.choice(match[1].split("|")) + " " if rng.random() < vivid else ""

    sentence = _VIVID_SLOT.sub(choose, template).format(**fills)
    return sentence[0].upper() + sentence[1:]


def write_response(request: Request, rng: random.Random) -> str:
    """Writes one answer of uneven quality."""
    genre = request.genre
    fills = dict(zip(genre.slots, request.things, strict=True))
    vivid = rng.choice((0.1, 0.3, 0.5, 0.9))
    sentences = []
    if rng.random() < 0.85:
        sentences.append(
            _render(rng.choice(list(genre.openings.values())), fills, rng, vivid=vivid)
        )
    events = list(genre.middles)
    count = rng.choices((1, 2, 3, 4, 5, 6, 7), weights=(14, 28, 26, 15, 9, 5, 3))[0]
    for position in range(count):
        if rng.random() < 0.12:
            sentences.append(rng.choice(list(ASIDES.values())))
            continue
        strayed = dict(fills)
        if rng.random() < 0.15:
            slot = rng.randrange(len(genre.slots))
            strayed[genre.slots[slot]] = rng.choice(genre.things[slot])
        body = genre.middles[rng.choice(events)]
        if rng.random() < 0.7:
            marker = rng.choice(genre.middle_markers[2 * position >= count])
            if rng.random() < 0.15:
                marker = rng.choice(genre.middle_markers[rng.randrange(2)])
            body = f"{marker} {body}"
        sentences.append(_render(body, strayed, rng, vivid=vivid))
    close = rng.random()
    if close < 0.45:
        sentences.append(_render(rng.choice(list(genre.endings.values())), fills, rng, vivid=vivid))
    elif close < 0.75:
        sentences.append(rng.choice(list(FLAT_ENDINGS.values())))
    if rng.random() < 0.12:
        first, second = rng.randrange(len(sentences)), rng.randrange(len(sentences))
        sentences[first], sentences[second] = sentences[second], sentences[first]
    return " ".join(sentences)


def demonstrations(count: int, *, seed: int) -> Dataset:
    """Makes demonstrations for supervised fine-tuning, columns `prompt` and `completion`."""
    rng = random.Random(f"demonstrations-{seed}")
    requests = sample_requests(count, seed=seed)
    return Dataset.from_dict(
        {
            "prompt": [request.prompt for request in requests],
            "completion": [write_response(request, rng) for request in requests],
        }
    )


# ----------------------------------------------------------------------------------------- reader


@dataclass(frozen=True)
class Features:
    """The reader's counts for one response.

    Attributes:
        covered: Requested things that the response mentions, 0 to 3.
        relevant: Sentences that are known and name no other thing.
        vivid: Vivid words.
        strays: Sentences off the topic or unknown.
        repeats: Sentences whose event occurred before.
        order_breaks: Sentences whose opening words belong earlier than the sentence before.
        closes: 1 if the last sentence closes the text well, -1 if flatly, else 0.
        sentences: All sentences.
    """

    covered: int
    relevant: int
    vivid: int
    strays: int
    repeats: int
    order_breaks: int
    closes: int
    sentences: int


def _sentence_pattern(template: str, genre: Genre) -> re.Pattern[str]:
    """The regular expression of all sentences of a template."""
    nouns = dict(zip(genre.slots, genre.things, strict=True))
    parts = []
    for piece in re.split(r"(<[^>]*> ?|\{\w+\})", template):
        if piece.startswith("<"):
            parts.append(rf"(?:(?:{piece.rstrip()[1:-1]}) ?)?")
        elif piece.startswith("{"):
            parts.append(f"(?:{'|'.join(map(re.escape, nouns[piece[1:-1]]))})")
        else:
            parts.append(re.escape(piece))
    markers = "|".join(MARKER_RANK)
    return re.compile(rf"(?:(?:{markers}) )?{''.join(parts)}", re.I)


@functools.cache
def _patterns() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """Every known kind of sentence: (event, role, pattern)."""
    found = []
    for genre in GENRES:
        groups = (("middle", genre.middles), ("opening", genre.openings), ("ending", genre.endings))
        for role, group in groups:
            found += [
                (event, role, _sentence_pattern(text, genre)) for event, text in group.items()
            ]
    fixed = (("flat", FLAT_ENDINGS), ("aside", ASIDES))
    for role, group in fixed:
        found += [(event, role, re.compile(re.escape(text), re.I)) for event, text in group.items()]
    return tuple(found)


@functools.cache
def _vivid() -> re.Pattern[str]:
    words: set[str] = set()
    for genre in GENRES:
        for group in (genre.openings, genre.middles, genre.endings):
            for template in group.values():
                words.update(*(slot.split("|") for slot in _VIVID_SLOT.findall(template)))
    return re.compile(rf"\b(?:{'|'.join(sorted(words))})\b", re.I)


@functools.lru_cache(maxsize=65536)
def _read_sentence(sentence: str) -> tuple[str, str, frozenset[str], int, int | None]:
    """Returns (event, role, things named, vivid words, rank of the opening words)."""
    event, role = "", "senseless"
    for name, kind, pattern in _patterns():
        if pattern.fullmatch(sentence):
            event, role = name, kind
            break
    named = things_in(sentence)
    rank = next((r for m, r in MARKER_RANK.items() if sentence.startswith(m + " ")), None)
    return event, role, named, len(_vivid().findall(sentence)), rank


def read_response(prompt: str, response: str) -> Features:
    """Counts the features of a response.

    Raises:
        ValueError: If the prompt names nothing of this world.
    """
    requested = requested_things(prompt)
    sentences = [match.strip() for match in _SENTENCE.findall(response) if match.strip()]
    mentioned: set[str] = set()
    seen: set[str] = set()
    relevant = vivid = strays = repeats = breaks = closes = 0
    last_rank = 0
    for sentence in sentences:
        event, role, named, words, rank = _read_sentence(sentence)
        closes = {"ending": 1, "flat": -1}.get(role, 0)
        vivid += words
        if role in ("aside", "senseless") or named - requested:
            strays += 1
        elif role != "flat":
            relevant += 1
            mentioned |= named
        if event:
            repeats += event in seen
            seen.add(event)
        if rank is not None:
            breaks += rank < last_rank
            last_rank = rank
    return Features(
        covered=len(mentioned & requested),
        relevant=relevant,
        vivid=vivid,
        strays=strays,
        repeats=repeats,
        order_breaks=breaks,
        closes=closes,
        sentences=len(sentences),
    )

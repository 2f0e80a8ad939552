"""The embedded world: requests, texts of every quality, and a simulated human who judges them.

Three parts, read from top to bottom. A *writer* answers a request with a few sentences and makes
the mistakes people make: it strays, repeats itself, tells things out of order, goes on too long,
ends flatly. A *reader* takes any text apart into a handful of countable features. A *human* weighs
these into a utility, the **gold** score, and chooses between two texts with noise. The gold score
labels preference pairs and judges results; no policy, reward model or planner ever sees it. What
is asked of the writer is in `rewardmodel.synthetic.requests`. The human wants each asked thing to
be mentioned and no other; which role it plays in the text is the same to the human.

The utility is built so that search has something to find. Most merits add up sentence by sentence,
so choosing well on the way pays; some (order, ending, repetition, length) only the whole text
shows. Two merits turn into faults past a point: vivid words and length. A reward model that saw
few labels learns "more is better" and can be over-optimized (Gao et al. 2022,
https://arxiv.org/abs/2210.10760).

Everything is seeded by `random.Random`, whose sequence is the same on every machine.
"""

import functools
import math
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset

from prefsearch.config.bounds import CountOrZero, NonNegative, Positive, Weight
from prefsearch.config.checks import check_types
from rewardmodel.data.conversation import last_text, row_of
from rewardmodel.data.parsing.finished import PAIR_COLUMNS
from rewardmodel.data.sources.tables import gather
from rewardmodel.synthetic.phrases import ASIDES, FLAT_ENDINGS, GENRES, MARKER_RANK, Genre
from rewardmodel.synthetic.requests import Request, asked_things, sample_requests, things_in

_VIVID_SLOT = re.compile(r"<([^>]*)> ?")
_SENTENCE = re.compile(r"[^.!?]+[.!?]?")

# ----------------------------------------------------------------------------------------- writer


def _render(template: str, fills: dict[str, str], rng: random.Random, *, vivid: float) -> str:
    """Fills a template's slots; each vivid word is written with probability `vivid`."""

    def choose(match: re.Match[str]) -> str:
        return rng.choice(match[1].split("|")) + " " if rng.random() < vivid else ""

    sentence = _VIVID_SLOT.sub(choose, template).format(**fills)
    return sentence[0].upper() + sentence[1:]


def write_response(request: Request, rng: random.Random) -> str:
    """Writes one answer of uneven quality: the demonstrations of the embedded world."""
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
    """What the reader counts in one response.

    Attributes:
        covered: Asked things that the response mentions, 0 to 3.
        relevant: Sentences that make sense and name nothing foreign.
        vivid: Vivid words.
        strays: Sentences off the topic or without sense.
        repeats: Sentences whose event was told before.
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
    """The regular expression of all sentences that a template can make."""
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
    """Takes a response apart.

    Raises:
        ValueError: If the prompt asks for nothing that this world knows.
    """
    asked = asked_things(prompt)
    sentences = [match.strip() for match in _SENTENCE.findall(response) if match.strip()]
    mentioned: set[str] = set()
    told: set[str] = set()
    relevant = vivid = strays = repeats = breaks = closes = 0
    last_rank = 0
    for sentence in sentences:
        event, role, named, words, rank = _read_sentence(sentence)
        closes = {"ending": 1, "flat": -1}.get(role, 0)
        vivid += words
        if role in ("aside", "senseless") or named - asked:
            strays += 1
        elif role != "flat":
            relevant += 1
            mentioned |= named
        if event:
            repeats += event in told
            told.add(event)
        if rank is not None:
            breaks += rank < last_rank
            last_rank = rank
    return Features(
        covered=len(mentioned & asked),
        relevant=relevant,
        vivid=vivid,
        strays=strays,
        repeats=repeats,
        order_breaks=breaks,
        closes=closes,
        sentences=len(sentences),
    )


# ------------------------------------------------------------------------------------------ human


@dataclass(frozen=True)
class SimulatedHuman:
    """A person with known tastes who chooses between two responses.

    Choices follow Davidson's extension of Bradley and Terry to ties (Davidson 1970,
    https://doi.org/10.1080/01621459.1970.10481082): with `s = exp(utility / temperature)`,
    `P(a) : P(tie) : P(b) = s_a : ties * sqrt(s_a s_b) : s_b`.

    Attributes:
        temperature: Noise of a choice, in units of utility.
        ties: How readily the human calls two equal texts equal; 0 never does.
    """

    temperature: Positive = 0.5
    ties: NonNegative = 0.25
    per_covered: Weight = 0.5
    per_relevant: Weight = 0.4
    relevant_limit: CountOrZero = 5
    per_vivid: Weight = 0.4
    vivid_limit: CountOrZero = 4
    overwrought: Weight = -0.6
    per_stray: Weight = -0.7
    per_repeat: Weight = -0.8
    per_order_break: Weight = -0.6
    per_close: Weight = 0.8
    sentence_limit: CountOrZero = 6
    per_excess: Weight = -0.8
    sentence_minimum: CountOrZero = 3
    per_shortfall: Weight = -0.5

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)

    def utility(self, prompt: str, response: str) -> float:
        """The gold score of one response; higher is better."""
        seen = read_response(prompt, response)
        return (
            self.per_covered * seen.covered
            + self.per_relevant * min(seen.relevant, self.relevant_limit)
            + self.per_vivid * min(seen.vivid, self.vivid_limit)
            + self.overwrought * max(seen.vivid - self.vivid_limit, 0)
            + self.per_stray * seen.strays
            + self.per_repeat * seen.repeats
            + self.per_order_break * seen.order_breaks
            + self.per_close * seen.closes
            + self.per_excess * max(seen.sentences - self.sentence_limit, 0)
            + self.per_shortfall * max(self.sentence_minimum - seen.sentences, 0)
        )

    def utilities(self, prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        """Gold scores of paired prompts and responses; of messages, the last is what was asked."""
        pairs = zip(map(last_text, prompts), responses, strict=True)
        return [self.utility(prompt, response) for prompt, response in pairs]

    def choose(self, first: float, second: float, rng: random.Random) -> int:
        """Chooses between two utilities: 1 for the first, -1 for the second, 0 for a tie."""
        gap = (first - second) / self.temperature
        strengths = (math.exp(gap / 2), self.ties, math.exp(-gap / 2))
        return rng.choices((1, 0, -1), weights=strengths)[0]

    def label(
        self,
        prompts: Sequence[Any],
        firsts: Sequence[str],
        seconds: Sequence[str],
        *,
        seed: int,
        finished: Sequence[tuple[bool, bool]] | None = None,
    ) -> tuple[Dataset, int]:
        """Labels pairs of responses as a person would.

        Pairs of equal or empty texts are not shown to the human; ties are counted and left out,
        since a Bradley-Terry loss has no place for them.

        Args:
            prompts: B prompts.
            firsts: B responses.
            seconds: B other responses.
            seed: Of the choices.
            finished: Whether first and second are finished, of each pair; None says nothing.

        Returns:
            A dataset in TRL's explicit preference format (`prompt`, `chosen`, `rejected`), with
            `chosen_finished` and `rejected_finished` if that is known, and the number of ties.
        """
        rng = random.Random(f"labels-{seed}")
        rows: list[dict[str, Any]] = []
        tied = 0
        told = [None] * len(prompts) if finished is None else finished
        for prompt, first, second, ended in zip(prompts, firsts, seconds, told, strict=True):
            if first == second or not first or not second:
                continue
            asked = last_text(prompt)
            choice = self.choose(self.utility(asked, first), self.utility(asked, second), rng)
            if choice == 0:
                tied += 1
                continue
            better, worse = (first, second) if choice > 0 else (second, first)
            row = row_of(prompt, chosen=better, rejected=worse)
            if ended is not None:
                row |= dict(zip(PAIR_COLUMNS, ended if choice > 0 else ended[::-1], strict=True))
            rows.append(row)
        if not rows:
            return Dataset.from_dict({"prompt": [], "chosen": [], "rejected": []}), tied
        return gather(rows), tied

    def describe(self) -> dict[str, float]:
        """The tastes by name, for a report."""
        return asdict(self)

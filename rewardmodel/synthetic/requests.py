"""Requests of the synthetic task, and their split into training and held-out ones.

A prompt's *assignment* is the set of things that it names, whatever the wording and the roles. The
simulated human's utility depends on the set only, so the split is a function of the set, the same
for every seed.

Held-out assignments stand in one fixed order, the genres alternating. Each seed evaluates on a
slice of its own, one prompt per assignment, so that prompts of neighboring seeds never coincide.
"""

import functools
import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rewardmodel.synthetic.phrases import GENRES, Genre

_HELD_OUT_SHARE = 0.5
_SLICE = 256  # held-out prompts of a seed, unless more are requested
_Nouns = tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True)
class Request:
    """A prompt with the things it asks for; `things[i]` fills `genre.slots[i]`."""

    genre: Genre
    things: tuple[str, ...]
    prompt: str

    @property
    def assignment(self) -> str:
        """The set of things: what `assignment_of` reads from the prompt."""
        return _name(self.things)


def _name(things: Iterable[str]) -> str:
    return "+".join(sorted(things))


def _is_held_out(things: Iterable[str]) -> bool:
    digest = hashlib.sha256(_name(things).encode()).digest()
    return digest[0] < 256 * _HELD_OUT_SHARE


@functools.cache
def _pattern(nouns: _Nouns) -> re.Pattern[str]:
    known = {noun for genre in nouns for group in genre for noun in group}
    longest_first = sorted(known, key=lambda noun: (-len(noun), noun))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.I)


def _nouns() -> _Nouns:
    return tuple(genre.things for genre in GENRES)


def things_in(text: str) -> frozenset[str]:
    """The things of this world that a text names, in lower case."""
    return frozenset(noun.lower() for noun in _pattern(_nouns()).findall(text))


def assignment_of(prompt: str) -> str:
    """The set of things that a prompt names, as text; the cluster of a prompt in statistics.

    Raises:
        ValueError: If the prompt names nothing of this world.
    """
    return _name(requested_things(prompt))


def requested_things(prompt: str) -> frozenset[str]:
    """The things that a prompt names.

    Raises:
        ValueError: If it names nothing of this world.
    """
    requested = things_in(prompt)
    if not requested:
        raise ValueError(
            f"nothing in the prompt {prompt!r} is of the synthetic task; required: a prompt of "
            "the synthetic task (rewardmodel.synthetic.requests.sample_requests). For other "
            "prompts measure with a reward model or a function of your own"
        )
    return requested


@functools.cache
def _held_out_order(nouns: _Nouns) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """All held-out assignments as (index of the genre, things in the order of its slots)."""
    by_genre = []
    for genre, slots in enumerate(nouns):
        orders: dict[str, list[tuple[str, ...]]] = {}
        for things in itertools.product(*slots):
            if len(set(things)) == len(things) and _is_held_out(things):
                orders.setdefault(_name(things), []).append(things)
        rng = random.Random(f"held-out-{genre}")
        chosen = [(genre, rng.choice(same)) for same in orders.values()]
        rng.shuffle(chosen)
        by_genre.append(chosen)
    # Every slice holds as many of each genre; what is left over of the larger one is not used.
    return tuple(itertools.chain.from_iterable(zip(*by_genre, strict=False)))


def count_held_out() -> int:
    """The number of held-out assignments, all seeds together."""
    return len(_held_out_order(_nouns()))


def count_disjoint_seeds(count: int) -> int:
    """The number of consecutive seeds with `count` held-out prompts each and none in common."""
    return count_held_out() // _width(count)


def _width(count: int) -> int:
    most = count_held_out()
    if count > most:
        raise ValueError(
            f"count is {count}; required: at most {most}, all held-out assignments. Ask for fewer, "
            "or add things to rewardmodel.synthetic.phrases"
        )
    return min(max(count, _SLICE), most)


def _worded(genre: Genre, things: tuple[str, ...], rng: random.Random) -> Request:
    template = rng.choice(genre.requests)
    filled = template.format(**dict(zip(genre.slots, things, strict=True)))
    return Request(genre, things, filled + "\n")


def _training_requests(rng: random.Random) -> Iterator[Request]:
    while True:
        genre = rng.choice(GENRES)
        things: list[str] = []
        for nouns in genre.things:
            things.append(rng.choice([noun for noun in nouns if noun not in things]))
        if not _is_held_out(things):
            yield _worded(genre, tuple(things), rng)


def sample_requests(count: int, *, seed: int, held_out: bool = False) -> list[Request]:
    """Draws requests; no assignment is on both sides of `held_out`.

    Args:
        count: How many. Training requests may repeat; held-out ones have an assignment each.
        seed: Of the draw. A seed's held-out requests are a slice of one fixed order: those of
            fewer than `count_disjoint_seeds(count)` consecutive seeds have no assignment in
            common, and a smaller `count` takes the first of a larger one's (up to 256).
        held_out: Whether to draw from the assignments kept for evaluation, half of all.

    Raises:
        ValueError: If `count` is not positive, or more than all held-out assignments.
    """
    if count < 1:
        raise ValueError(f"count is {count}; required: at least 1 request")
    if not held_out:
        rng = random.Random(f"requests-{seed}")
        return list(itertools.islice(_training_requests(rng), count))
    start = seed % count_disjoint_seeds(count) * _width(count)
    chosen = _held_out_order(_nouns())[start : start + count]
    return [
        _worded(GENRES[genre], things, random.Random(f"wording-{_name(things)}"))
        for genre, things in chosen
    ]

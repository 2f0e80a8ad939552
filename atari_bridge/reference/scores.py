"""Published scores on Atari 100k, and human-normalized scores.

The scores and their sources are in `atari_100k.json`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean, median
from typing import Any

from scipy.stats import trim_mean


@dataclass(frozen=True)
class PublishedAgent:
    """Scores of one agent after 100,000 decisions (400,000 frames) of each game.

    Attributes:
        name: As its paper writes it.
        source: Of the scores.
        precision: Of the scores.
        scores: Raw score by game, 26 games.
    """

    name: str
    source: str
    precision: str
    scores: Mapping[str, float]

    def human_normalized(self) -> dict[str, float]:
        """Its scores by game on the scale of `human_normalized`."""
        return {game: human_normalized(game, score) for game, score in self.scores.items()}


@dataclass(frozen=True)
class Aggregate:
    """Aggregates of one agent's human-normalized scores; 1 is human level.

    Attributes:
        mean: Over games.
        median: Over games.
        iqm: Interquartile mean over games, where each is the mean of its runs; over all runs of
            all games it is a little lower.
    """

    mean: float
    median: float
    iqm: float


@cache
def _data() -> dict[str, Any]:
    text = files("atari_bridge.reference").joinpath("atari_100k.json").read_text(encoding="utf-8")
    return json.loads(text)


def games() -> tuple[str, ...]:
    """The 26 games of Atari 100k, sorted."""
    return tuple(sorted(_data()["normalizers"]["human"]))


def agents() -> tuple[str, ...]:
    """Names of the agents with published scores."""
    return tuple(_data()["agents"])


def random_score(game: str) -> float:
    """The score of a random policy in a game.

    Raises:
        ValueError: If the game is not one of the 26.
    """
    return _normalizer("random", game)


def human_score(game: str) -> float:
    """The score of a human in a game.

    Raises:
        ValueError: If the game is not one of the 26.
    """
    return _normalizer("human", game)


def _normalizer(policy: str, game: str) -> float:
    scores: dict[str, float] = _data()["normalizers"][policy]
    if game not in scores:
        raise ValueError(
            f"game: found {game!r}, which has no human score here; required: one of "
            f"{', '.join(games())}. Correct the name, or report raw scores"
        )
    return scores[game]


def human_normalized(game: str, score: float) -> float:
    """A raw score on a scale where a random policy has 0 and a human 1.

    Raises:
        ValueError: If the game is not one of the 26.

    Source: Mnih et al. 2015, without the factor 100.
    """
    low, high = random_score(game), human_score(game)
    return (score - low) / (high - low)


def published(agent: str) -> PublishedAgent:
    """The published scores of an agent.

    Raises:
        ValueError: If the agent is not known, naming those that are.
    """
    entries: dict[str, Any] = _data()["agents"]
    if agent not in entries:
        raise ValueError(
            f"agent: found {agent!r}; required: one of {', '.join(entries)}. Correct the name"
        )
    return PublishedAgent(name=agent, **entries[agent])


def aggregate(normalized: Iterable[float]) -> Aggregate:
    """Aggregates human-normalized scores, one for each game.

    Raises:
        ValueError: If there are none.

    Source: Agarwal et al. 2021, for the interquartile mean.
    """
    scores = list(normalized)
    if not scores:
        raise ValueError("found no scores; required: at least one game's. Evaluate a game first")
    return Aggregate(fmean(scores), median(scores), float(trim_mean(scores, 0.25)))

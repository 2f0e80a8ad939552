"""Published scores: the aggregates that the papers and their raw data give come out again."""

from pathlib import Path

import pytest

import atari_bridge.reference
from atari_bridge.reference.scores import (
    Aggregate,
    agents,
    aggregate,
    games,
    human_normalized,
    human_score,
    published,
    random_score,
)


def test_random_is_zero_and_human_is_one_in_all_26_games() -> None:
    assert len(games()) == 26
    for game in games():
        assert human_normalized(game, random_score(game)) == 0
        assert human_normalized(game, human_score(game)) == pytest.approx(1.0)


def test_well_known_scores_normalize_as_published() -> None:
    assert human_normalized("Boxing", 0.1) == 0
    assert human_normalized("Breakout", 414.1) == pytest.approx(14.319, abs=1e-3)  # 412.4 / 28.8
    assert human_normalized("Pong", -20.7 + 35.3 / 2) == pytest.approx(0.5)


# Tolerance: half a unit of the last digit; CURL and SPR are kept by whole points of score.
@pytest.mark.parametrize(
    ("agent", "mean", "median"),
    [
        ("CURL", 0.261, 0.092),
        ("SPR", 0.616, 0.396),
        ("MuZero", 0.562, 0.227),
        ("EfficientZero", 1.943, 1.090),
        ("IRIS", 1.046, 0.289),
        ("DIAMOND", 1.459, 0.373),
        ("DreamerV3", 1.175, 0.420),
    ],
)
def test_means_and_medians_of_the_published_scores_come_out(
    agent: str, mean: float, median: float
) -> None:
    found = aggregate(published(agent).human_normalized().values())
    assert found.mean == pytest.approx(mean, abs=6e-4)
    assert found.median == pytest.approx(median, abs=6e-4)


def test_interquartile_means_over_games_come_out() -> None:
    for agent, iqm in (("EfficientZero", 1.047), ("MuZero", 0.288)):
        found = aggregate(published(agent).human_normalized().values())
        assert found.iqm == pytest.approx(iqm, abs=6e-4)


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    found = aggregate([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0])
    assert found == Aggregate(mean=90.125, median=3.5, iqm=3.5)  # (2 + 3 + 4 + 5) / 4


def test_every_agent_has_a_source_and_a_score_for_every_game() -> None:
    for agent in agents():
        found = published(agent)
        assert found.name == agent
        assert found.source
        assert found.precision
        assert set(found.scores) == set(games())


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"game: found 'CartPole-v1'.*required: one of Alien"):
        human_normalized("CartPole-v1", 500)
    with pytest.raises(ValueError, match=r"agent: found 'AlphaZero'.*EfficientZero"):
        published("AlphaZero")
    with pytest.raises(ValueError, match="found no scores"):
        aggregate([])


def test_the_data_lies_inside_the_package_that_the_wheel_carries() -> None:
    folder = Path(atari_bridge.reference.__file__).parent
    assert (folder / "atari_100k.json").is_file()

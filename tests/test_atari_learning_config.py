"""LearningConfig: the published defaults and what it refuses."""

from typing import Any

import pytest

from atari_bridge.learning.config import LearningConfig


def test_defaults_are_efficient_zeros() -> None:
    config = LearningConfig()
    assert config.discount == pytest.approx(0.997**4, abs=1e-9)
    assert (config.unroll_steps, config.td_steps, config.lookahead) == (5, 5, 10)
    assert config.bootstrap == "network"
    assert config.unroll_scaling == "all"


def test_beta_rises_to_one_over_the_run_and_stays() -> None:
    config = LearningConfig(priority_beta=0.4)
    assert [config.beta(p) for p in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([0.4, 0.7, 1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unroll_steps", 0),
        ("td_steps", 2.5),
        ("discount", 0.0),
        ("discount", 1.01),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("clip_gradient", float("inf")),
        ("value_weight", -1.0),
        ("reanalyze_policy", 1.1),
        ("priority_beta", -0.1),
        ("momentum", 1.0),
        ("batch_size", "256"),
        ("bootstrap", "oracle"),
        ("augmentation", True),
        ("optimizer", "lion"),
        ("search_value_after", -1),
        ("decay_updates", 0),
    ],
)
def test_a_bad_value_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: found"):
        LearningConfig(**{name: value})

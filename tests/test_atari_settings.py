"""Settings of games: published defaults, and bad values refused by name."""

from typing import Any

import pytest

from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.learning.config import LearningConfig
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.replay.config import ReplayConfig
from atari_bridge.training.config import TrainSchedule, WorkerSettings

NAN, INFINITE = float("nan"), float("inf")
BAD: dict[type, list[tuple[str, Any]]] = {
    EnvironmentConfig: [
        ("game", ""), ("num_envs", 0), ("frame_skip", 0), ("frame_stack", 0), ("image_size", 7),
        ("noop_max", -1), ("repeat_action_probability", 1.0), ("repeat_action_probability", "0.25"),
        ("max_episode_frames", 0), ("grayscale", 1),
    ],
    NetworkConfig: [
        ("support_bins", 600), ("channels", 5), ("lstm_size", 0), ("network", "transformer"),
    ],
    ReplayConfig: [("priority_eps", 0.0), ("priority_exponent", -1.0), ("replay_capacity", 0)],
    LearningConfig: [
        ("unroll_steps", 0), ("td_steps", 2.5), ("discount", 0.0), ("discount", 1.01),
        ("learning_rate", 0.0), ("learning_rate", NAN), ("max_grad_norm", INFINITE),
        ("value_weight", -1.0), ("reanalyze_policy", 1.1), ("priority_beta", -0.1),
        ("momentum", 1.0), ("batch_size", "256"), ("bootstrap", "oracle"), ("augmentation", True),
        ("optimizer", "lion"), ("search_value_after", -1), ("decay_updates", 0),
    ],
    TrainSchedule: [("updates_per_decision", -1.0), ("train_every", 0), ("keep_checkpoints", 0)],
    WorkerSettings: [("play_workers", -1), ("reanalyze_workers", 1.5), ("worker_gpus", -0.5)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, *pair) for kind, pairs in BAD.items() for pair in pairs]
)
def test_a_bad_value_is_refused_by_its_name(kind: type, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: found"):
        kind(**{name: value})


def test_defaults_are_efficient_zeros() -> None:
    config = LearningConfig()
    assert config.discount == pytest.approx(0.997**4, abs=1e-9)
    assert (config.unroll_steps, config.td_steps, config.lookahead) == (5, 5, 10)
    assert (config.bootstrap, config.unroll_scaling) == ("network", "all")


def test_beta_rises_to_one_over_the_run_and_stays() -> None:
    config = LearningConfig(priority_beta=0.4)
    assert [config.beta(p) for p in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([0.4, 0.7, 1.0, 1.0])

"""Learning games from nothing, in minutes: from numbers and from pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefsearch.cli.entry import main

gymnasium = pytest.importorskip("gymnasium", reason="pip install 'prefsearch[atari]'")


def last_evaluation(run: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["step"].startswith("evaluation")][-1]


@pytest.mark.slow
def test_the_shipped_configuration_learns_cartpole_to_195(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--config", "atari_bridge/cartpole", "--out", str(out), "--seed", "7"]
    assert main(["atari", "train", *words, "--total_decisions", "12000"]) == 0
    final = last_evaluation(out)
    assert final["decisions"] == 12_000
    assert final["search_return"]["low"] > 195


class Catch(gymnasium.Env):  # pyright: ignore[reportUntypedBaseClass]
    """A dot falls for seven moves; a bat below it goes left, stays or goes right. 1 or -1."""

    observation_space = gymnasium.spaces.Box(0, 255, (16, 16, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self._column, self._row, self._bat = int(self.np_random.integers(8)), 0, 4
        return self._show(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, Any]:
        self._bat = min(max(self._bat + int(action) - 1, 0), 7)
        self._row += 1
        over = self._row == 7
        reward = (1.0 if self._bat == self._column else -1.0) if over else 0.0
        return self._show(), reward, over, False, {}

    def _show(self) -> np.ndarray:
        picture = np.zeros((16, 16, 1), np.uint8)
        row, column, bat = 2 * self._row, 2 * self._column, 2 * self._bat
        picture[row : row + 2, column : column + 2] = 255
        picture[14:16, bat : bat + 2] = 128
        return picture


_CATCH = {
    "num_envs": 8,
    "frame_stack": 2,
    "network": "compact",
    "channels": 8,
    "hidden_size": 64,
    "support": 5,
    "support_bins": 21,
    "value_prefix": "false",
    "normalization": "layer",
    "projection_size": 64,
    "prediction_size": 32,
    "num_simulations": 8,
    "replay_capacity": 20_000,
    "unroll_steps": 3,
    "reanalyze_policy": 0.25,
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup_updates": 50,
    "value_weight": 0.5,
    "unroll_scaling": "unrolled",
    "target_update_interval": 100,
    "augmentation": "none",
    "total_decisions": 8_000,
    "learning_starts": 500,
    "updates_per_decision": 0.3,
    "final_updates": 0,
    "train_every": 40,
    "evaluation_games": 64,
    "threads": 1,
}


@pytest.mark.slow
def test_a_falling_dot_is_caught_from_pixels(tmp_path: Path) -> None:
    gymnasium.register("PrefsearchCatch-v0", entry_point=lambda **_: Catch())
    words = [word for name, value in _CATCH.items() for word in (f"--{name}", str(value))]
    out = tmp_path / "run"
    assert main(["atari", "train", "--game", "PrefsearchCatch-v0", "--out", str(out), *words]) == 0
    final = last_evaluation(out)
    assert final["search_return"]["estimate"] > 0.9  # random play: -0.75

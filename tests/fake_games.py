"""A game whose every number is known beforehand, and a model of it that knows nothing."""

import numpy as np
import torch
from torch import Tensor

from atari_bridge.environments.interface import VectorStep
from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import MuZeroNetwork
from search import RootOutput, StepOutput


def small_network(
    name: str, shape: tuple[int, ...], *, num_actions: int, **changes: object
) -> MuZeroNetwork:
    """A network with the same weights each time, for observations of a shape."""
    torch.manual_seed(0)
    sizes = {
        "channels": 4,
        "hidden_size": 16,
        "support": 5,
        "support_bins": 11,
        "lstm_size": 8,
        "projection_size": 12,
        "prediction_size": 6,
    }
    config = NetworkConfig(network=name, **(sizes | changes))  # pyright: ignore[reportArgumentType]
    return build_network(config, frame_shape=shape, num_actions=num_actions)


class Countdown:
    """N games that count their decisions in their pictures, and end after `length` of them.

    Every picture is `[1, 2, 2]` and holds the decisions taken so far; the reward of a decision is
    its number plus the action / 10. A life is lost at each decision of `deaths`. Odd seeds end by
    the clock (truncated), even ones by themselves (terminated).
    """

    num_actions = 3
    frame_skip = 4
    observation_shape = (1, 2, 2)
    observation_dtype = np.dtype(np.uint8)
    action_meanings = ("NOOP", "UP", "DOWN")

    def __init__(self, num_envs: int, *, length: int, deaths: tuple[int, ...] = ()) -> None:
        self.num_envs = num_envs
        self._length, self._deaths = length, deaths
        self._made = np.zeros(num_envs, np.int64)
        self.seeds = np.zeros(num_envs, np.int64)
        self.resets: list[tuple[int, int]] = []
        self.closed = False

    def reset(self, env_index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        self._made[env_index] = 0
        self.seeds[env_index] = seeds
        self.resets += list(zip(env_index.tolist(), seeds.tolist(), strict=True))
        return self._show()

    def step(self, actions: np.ndarray) -> VectorStep:
        assert not (self._made >= self._length).any(), "a game that is over was stepped"
        self._made += 1
        over = self._made == self._length
        by_clock = self.seeds % 2 == 1
        return VectorStep(
            observation=self._show(),
            reward=(self._made + actions / 10).astype(np.float32),
            terminated=over & ~by_clock,
            truncated=over & by_clock,
            life_lost=np.isin(self._made, self._deaths),
        )

    def close(self) -> None:
        self.closed = True

    def _show(self) -> np.ndarray:
        return np.broadcast_to(self._made[:, None, None, None], (self.num_envs, 1, 2, 2)).astype(
            np.uint8
        )


class SeenModel:
    """A planning model whose value of a state is the newest pixel of its stack, and no rewards."""

    num_actions = 3

    def __init__(self) -> None:
        self.roots: list[Tensor] = []

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        self.roots.append(observation.clone())
        rows = len(observation)
        newest = observation[:, -1].float().flatten(1)[:, 0]  # [B]
        return RootOutput(
            prior_logits=torch.zeros(rows, 3),
            value=newest,
            valid_actions=torch.ones(rows, 3, dtype=torch.bool),
            embedding={"seen": newest},
        )

    def step(
        self,
        embedding: dict[str, Tensor],
        action: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        rows = len(action)
        return StepOutput(
            prior_logits=torch.zeros(rows, 3),
            value=embedding["seen"],
            valid_actions=torch.ones(rows, 3, dtype=torch.bool),
            embedding=dict(embedding),
            reward=torch.zeros(rows),
            discount=torch.ones(rows),
        )

"""MuZero Reanalyze: policies and values of stored rows, by new searches and the target network.

Source: Schrittwieser et al. 2021.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.targets import Horizon
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.replay.rows import FrameWindow, Window
from search import Planner

_MAX_ROOTS = 2048  # observations that the model evaluates at a time


class ObservationStacks:
    """Stacks frames into observations, on the device."""

    def __init__(self, window: FrameWindow, device: torch.device) -> None:
        self._frames = torch.as_tensor(window.frames).to(device)  # [B, F, ...]
        self._index = torch.as_tensor(window.stack_index).to(device)  # [B, W, S]

    def at(self, row: np.ndarray, step: np.ndarray) -> Tensor:
        """`[M, S*C, H, W]`: the observations at `step` of `row`, `[M]` int each."""
        rows = torch.as_tensor(row).to(self._frames.device)
        index = self._index[rows, torch.as_tensor(step).to(self._frames.device)]  # [M, S]
        stacked = self._frames[rows[:, None], index]  # [M, S, C, H, W] or [M, 1, D]
        return stacked.flatten(1, 2) if stacked.ndim == 5 else stacked.squeeze(1)

    def block(self, start: int, stop: int) -> Tensor:
        """`[B, stop - start, S*C, H, W]`: the observations of a range of steps of all rows."""
        rows, steps = np.arange(len(self._frames)), np.arange(start, stop)
        grid = np.meshgrid(rows, steps, indexing="ij")
        flat = self.at(grid[0].ravel(), grid[1].ravel())
        return flat.view(len(rows), len(steps), *flat.shape[1:])


def _parts(total: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, total, size)]


@dataclass(frozen=True)
class Reanalyzer:
    """Recomputes policies and values of stored rows.

    Attributes:
        config: Of the targets.
        model: The target network as a planning model.
        planner: Of the new searches.
    """

    config: LearningConfig
    model: NetworkModel
    planner: Planner

    def policies(
        self,
        window: Window,
        stacks: ObservationStacks,
        *,
        generator: np.random.Generator,
        search_generator: torch.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Policies `[B, K+1, A]`, of a share of the rows from new searches.

        Returns:
            The policies; root values `[B, K+1]` of the searches, 0 where none was made; and
            `[B]` bool, which rows were searched.
        """
        steps = self.config.unroll_steps + 1
        policy = window.policy[:, :steps].copy()
        value = np.zeros(policy.shape[:2], np.float32)
        fresh = np.zeros(len(policy), bool)
        count = round(self.config.reanalyze_policy * len(policy))
        fresh[generator.permutation(len(policy))[:count]] = True
        at = np.nonzero(window.alive[:, :steps] & fresh[:, None])
        for part in _parts(len(at[0]), _MAX_ROOTS):
            row, step = at[0][part], at[1][part]
            found = self.planner.plan(self.model, stacks.at(row, step), generator=search_generator)
            policy[row, step] = found.action_weights.float().cpu().numpy()
            value[row, step] = found.value.float().cpu().numpy()
        return policy, value, fresh

    def values(
        self,
        window: Window,
        stacks: ObservationStacks,
        horizon: Horizon,
        *,
        search_generator: torch.Generator,
    ) -> np.ndarray:
        """Values `[B, W]`, recomputed where n-step returns end."""
        value = window.value.copy()
        if self.config.bootstrap == "played":
            return value
        at = np.nonzero(horizon.reads(value.shape[1]))
        for part in _parts(len(at[0]), _MAX_ROOTS):
            row, step = at[0][part], at[1][part]
            observation = stacks.at(row, step)
            if self.config.bootstrap == "search":
                plan = self.planner.plan(self.model, observation, generator=search_generator)
                found = plan.value
            else:
                with torch.inference_mode():
                    found = self.model.root(observation, generator=search_generator).value
            value[row, step] = found.float().cpu().numpy()
        return value

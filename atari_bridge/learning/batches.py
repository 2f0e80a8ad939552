"""Makes batches of sampled rows: observations, reanalysis and targets.

All is computed with the target network, which changes only when it is refreshed, so a batch can be
made during the update before it.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.targets import (
    Horizon,
    Targets,
    make_targets,
    off_policy_horizon,
    value_horizon,
    with_search_values,
)
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import FrameWindow, Sample, Window
from search import Planner

_MAX_ROOTS = 2048  # observations that the model evaluates at a time


@dataclass(frozen=True)
class Batch:
    """B rows, ready for an update; targets as in `learning.targets.Targets`.

    Attributes:
        observation: `[B, S*C, H, W]` uint8, or `[B, D]` float32; of the sampled rows.
        future: `[B, K, ...]`, of the K rows after them, for self-supervision, or None.
        weight: `[B]` importance weights, not yet normalized over processes.
        action: `[B, K]` int64.
        reward: `[B, K]`.
        value: `[B, K+1]`.
        policy: `[B, K+1, A]`.
        reward_mask: `[B, K]` bool.
        value_mask: `[B, K+1]` bool.
        policy_mask: `[B, K+1]` bool.
        observed: `[B, K+1]` bool.
    """

    observation: Tensor
    future: Tensor | None
    weight: Tensor
    action: Tensor
    reward: Tensor
    value: Tensor
    policy: Tensor
    reward_mask: Tensor
    value_mask: Tensor
    policy_mask: Tensor
    observed: Tensor


@dataclass(frozen=True)
class BatchMaker:
    """Makes batches.

    Attributes:
        config: How targets are made.
        model: The target network, as a planning model.
        planner: The planner of reanalysis.
        clip_rewards: Whether rewards are replaced by their signs.
        prefix_horizon: Steps of a value prefix; None: rewards.
        with_future: Whether batches have `future`.
        device: Where batches are put.
    """

    config: LearningConfig
    model: NetworkModel
    planner: Planner
    clip_rewards: bool
    prefix_horizon: int | None
    with_future: bool
    device: torch.device

    def make(
        self,
        replay: Replay,
        sample: Sample,
        *,
        decisions_made: int,
        updates_made: int,
        generator: np.random.Generator,
        search_generator: torch.Generator,
    ) -> Batch:
        """Makes the batch of B sampled rows.

        Args:
            replay: Of the rows.
            sample: The rows and their weights.
            decisions_made: In the run so far; the age of a row is counted from here.
            updates_made: In the run so far.
            generator: Chooses the rows to reanalyze, and actions past an episode's end.
            search_generator: Source of the searches' noise.
        """
        config = self.config
        length = config.lookahead + 1
        window = replay.window(sample.index, length)
        stacks = _Stacks(replay.frames(sample.index, length), self.device)
        age = decisions_made - window.made_at[:, 0]
        td = np.full(len(age), config.td_steps)
        if config.off_policy_correction:
            td = off_policy_horizon(age, config.td_steps, config.correction_interval)
        horizon = value_horizon(
            alive=window.alive,
            bootstrap=window.bootstrap,
            terminated=window.terminated,
            td=td,
            unroll_steps=config.unroll_steps,
        )
        policy, searched, fresh = self._reanalyze(
            window, stacks, generator=generator, search_generator=search_generator
        )
        targets = make_targets(
            action=window.action,
            reward=window.reward,
            terminated=window.terminated,
            alive=window.alive,
            bootstrap=window.bootstrap,
            policy=policy,
            values=self._values(window, stacks, horizon, search_generator=search_generator),
            horizon=horizon,
            discount=config.discount,
            prefix_horizon=self.prefix_horizon,
            clip_rewards=self.clip_rewards,
            generator=generator,
        )
        after = config.search_value_after
        if after is not None and updates_made >= after:
            old = (age > config.search_value_age) & fresh
            targets = with_search_values(targets, searched=searched, rows=old)
        return self._batch(stacks, targets, sample.weight)

    def _batch(self, stacks: "_Stacks", targets: Targets, weight: np.ndarray) -> Batch:
        """Moves all tensors to the device."""
        rows = np.arange(len(weight))
        steps = self.config.unroll_steps
        named = {f.name: torch.as_tensor(getattr(targets, f.name)) for f in fields(targets)}
        return Batch(
            observation=stacks.at(rows, np.zeros_like(rows)),
            future=stacks.block(1, steps + 1) if self.with_future else None,
            weight=torch.as_tensor(weight).to(self.device),
            **{name: tensor.to(self.device) for name, tensor in named.items()},
        )

    def _reanalyze(
        self,
        window: Window,
        stacks: "_Stacks",
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

    def _values(
        self,
        window: Window,
        stacks: "_Stacks",
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


class _Stacks:
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

"""Makes batches of sampled rows: observations, reanalysis and targets.

All is computed with the target network, which changes only when it is refreshed, so a batch can be
made during the update before it.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.reanalyze import ObservationStacks, Reanalyzer
from atari_bridge.learning.targets import (
    Targets,
    make_targets,
    off_policy_horizon,
    value_horizon,
    with_search_values,
)
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import Sample


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
        reanalyzer: Recomputes policies and values.
        clip_rewards: Whether rewards are replaced by their signs.
        prefix_horizon: Steps of a value prefix; None: rewards.
        with_future: Whether batches have `future`.
        device: Where batches are put.
    """

    config: LearningConfig
    reanalyzer: Reanalyzer
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
        stacks = ObservationStacks(replay.frames(sample.index, length), self.device)
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
        policy, searched, fresh = self.reanalyzer.policies(
            window, stacks, generator=generator, search_generator=search_generator
        )
        targets = make_targets(
            action=window.action,
            reward=window.reward,
            terminated=window.terminated,
            alive=window.alive,
            bootstrap=window.bootstrap,
            policy=policy,
            values=self.reanalyzer.values(
                window, stacks, horizon, search_generator=search_generator
            ),
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

    def _batch(self, stacks: ObservationStacks, targets: Targets, weight: np.ndarray) -> Batch:
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

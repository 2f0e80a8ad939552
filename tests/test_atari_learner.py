"""One update: the priorities of its rows, and what it does not change."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.learner import Learner
from tests.parallel_learner import network, random_batch

CONFIG = LearningConfig(
    unroll_steps=2, learning_rate=0.1, warmup_updates=0, target_update_interval=2
)


def begin() -> Learner:
    return Learner(
        network(),
        network(),
        CONFIG,
        accelerator=Accelerator(cpu=True),
        generator=torch.Generator().manual_seed(0),
    )


def test_priorities_are_the_errors_of_root_values_and_zero_where_nothing_is_known() -> None:
    learner, batch = begin(), random_batch(0)
    with torch.no_grad():
        logits = learner.network.prediction(
            learner.network.representation(batch.observation)
        ).value_logits
        wrong = (learner.network.support.decode(logits) - batch.value[:, 0]).abs()
    known = batch.value_mask[:, 0]
    assert 0 < known.sum() < len(known), "else this shows nothing"
    found = torch.from_numpy(learner.update(batch).priorities)
    torch.testing.assert_close(found, torch.where(known, wrong, 0.0))


def test_a_loss_that_is_not_finite_stops_the_update_before_any_weight_is_changed() -> None:
    learner, batch = begin(), random_batch(0)
    batch = replace(batch, observation=torch.full_like(batch.observation, torch.inf))
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"update 1: found .*'total': nan"):
        learner.update(batch)
    assert learner.updates == 0
    for name, tensor in learner.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_target_network_follows_at_its_interval_alone() -> None:
    learner = begin()
    weight = learner.target_network.state_dict()
    first = {name: tensor.clone() for name, tensor in weight.items()}
    due: list[bool] = []
    for number in range(3):
        due.append(learner.refresh_target())
        learner.update(random_batch(number))
        same = all(torch.equal(weight[name], first[name]) for name in first)
        assert same == (number < 2)
    assert due == [False, False, True]

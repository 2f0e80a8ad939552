"""The unrolled loss: which weights each part trains, and which targets reach nothing."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atari_bridge.learning.batches import Batch
from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.losses import Losses
from atari_bridge.learning.unrolled_loss import UnrolledLoss, halve_gradient
from atari_bridge.networks.interface import MuZeroNetwork
from tests.fake_games import small_network

B, K, A = 5, 3, 4
KINDS: list[tuple[str, tuple[int, ...]]] = [
    ("residual", (4, 12, 12)),
    ("compact", (4, 10, 10)),
    ("dense", (6,)),
]
each_kind = pytest.mark.parametrize(("name", "shape"), KINDS)
PARTS = ("encoder", "step", "backbone", "policy_head", "value_head", "value_prefix", "auxiliary")
PLAIN = LearningConfig(unroll_steps=K, augmentation="none", entropy_weight=0.0)
ONLY = {
    part: replace(
        PLAIN,
        **{f"{other}_weight": 0.0 for other in ("reward", "value", "policy", "self_supervised")}
        | {f"{part}_weight": 1.0},
    )
    for part in ("reward", "value", "policy", "self_supervised", "entropy")
}


def make(
    name: str = "dense", shape: tuple[int, ...] = (6,), **changes: Any
) -> tuple[MuZeroNetwork, MuZeroNetwork]:
    """A network with heads away from 0, and its target network."""
    network = small_network(name, shape, num_actions=A, **changes)
    for head in (network.policy_head, network.value_head, network.value_prefix):
        for module in [] if head is None else head.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.3)
    return network, copy.deepcopy(network).requires_grad_(False)


def draw_batch(shape: tuple[int, ...] = (6,)) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def seen(*leading: int) -> Tensor:
        drawn = torch.rand(*leading, *shape, generator=generator)
        return (255 * drawn).byte() if len(shape) == 3 else drawn

    return Batch(
        observation=seen(B),
        future=seen(B, K),
        weight=torch.ones(B),
        action=torch.randint(A, (B, K), generator=generator),
        reward=torch.randn(B, K, generator=generator),
        value=torch.randn(B, K + 1, generator=generator),
        policy=torch.rand(B, K + 1, A, generator=generator).softmax(dim=-1),
        reward_mask=torch.ones(B, K, dtype=torch.bool),
        value_mask=torch.ones(B, K + 1, dtype=torch.bool),
        policy_mask=torch.ones(B, K + 1, dtype=torch.bool),
        observed=torch.ones(B, K + 1, dtype=torch.bool),
    )


def losses_of(
    networks: tuple[MuZeroNetwork, MuZeroNetwork], batch: Batch, config: LearningConfig = PLAIN
) -> Losses:
    """Losses of a batch, after their gradients went back."""
    networks[0].zero_grad()
    loss = UnrolledLoss(*networks, config)
    losses, _ = loss(batch, batch.weight, torch.Generator().manual_seed(2))
    losses.total.backward()
    return losses


def trained_parts(network: MuZeroNetwork) -> set[str]:
    """Parts of which some weight has a gradient."""
    return {
        part
        for part in PARTS
        for parameter in getattr(network, part).parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }


@each_kind
@pytest.mark.parametrize(
    ("part", "trains"),
    [
        ("reward", {"encoder", "step", "value_prefix"}),
        ("value", {"encoder", "step", "backbone", "value_head"}),
        ("policy", {"encoder", "step", "backbone", "policy_head"}),
        ("entropy", {"encoder", "step", "backbone", "policy_head"}),
        ("self_supervised", {"encoder", "step", "auxiliary"}),
    ],
)
def test_each_part_of_the_loss_trains_what_predicts_it(
    name: str, shape: tuple[int, ...], part: str, trains: set[str]
) -> None:
    networks = make(name, shape)
    losses_of(networks, draw_batch(shape), ONLY[part])
    assert trained_parts(networks[0]) == trains


@each_kind
def test_all_parts_together_give_every_weight_a_gradient(name: str, shape: tuple[int, ...]) -> None:
    networks = make(name, shape)
    held = {id(p) for p in UnrolledLoss(*networks, PLAIN).parameters()}
    assert held == {id(p) for p in networks[0].parameters()}
    losses = losses_of(networks, draw_batch(shape))
    assert losses.total.isfinite()
    without = [n for n, p in networks[0].named_parameters() if p.grad is None]
    assert without == []
    assert trained_parts(networks[0]) == set(PARTS)


@pytest.mark.parametrize(
    ("masks", "untrained"),
    [
        (("policy_mask",), {"policy_head"}),
        (("value_mask",), {"value_head"}),
        (("reward_mask",), {"value_prefix"}),
        (("observed",), {"auxiliary"}),
        (("policy_mask", "value_mask"), {"policy_head", "value_head", "backbone"}),
        (("policy_mask", "value_mask", "reward_mask", "observed"), set(PARTS)),
    ],
)
def test_what_does_not_count_trains_nothing(masks: tuple[str, ...], untrained: set[str]) -> None:
    networks, batch = make(), draw_batch()
    none = {name: torch.zeros_like(getattr(batch, name)) for name in masks}
    losses = losses_of(networks, replace(batch, **none))
    assert set(PARTS) - trained_parts(networks[0]) == untrained
    assert losses.total.isfinite()


@pytest.mark.parametrize(
    ("mask", "target"),
    [("policy_mask", "policy"), ("value_mask", "value"), ("reward_mask", "reward")],
)
def test_a_target_counts_exactly_where_its_mask_says(mask: str, target: str) -> None:
    networks, batch = make(normalization="layer", self_supervised="none"), draw_batch()
    counts = torch.ones_like(getattr(batch, mask))
    counts[2, 1] = False
    batch = replace(batch, **{mask: counts})
    total = losses_of(networks, batch).total
    changed = getattr(batch, target).clone()
    changed[2, 1] = changed[0, 0]
    torch.testing.assert_close(
        losses_of(networks, replace(batch, **{target: changed})).total, total
    )
    changed[3, 1] = changed[0, 0]
    other = losses_of(networks, replace(batch, **{target: changed})).total
    assert not torch.isclose(other, total)


def test_what_was_not_seen_is_not_compared() -> None:
    networks, batch = make(self_supervised="reconstruction"), draw_batch()
    assert batch.future is not None
    observed = torch.ones_like(batch.observed)
    observed[2, 2] = False  # after two steps: the second of `future`
    future = batch.future.clone()
    future[2, 1] = 7
    part = losses_of(networks, replace(batch, observed=observed)).self_supervised
    same = losses_of(networks, replace(batch, observed=observed, future=future)).self_supervised
    other = losses_of(networks, replace(batch, future=future)).self_supervised
    torch.testing.assert_close(same, part)
    assert other > part + 1


@pytest.mark.parametrize("kind", ["none", "consistency", "spr", "contrastive", "reconstruction"])
def test_no_kind_of_self_supervision_trains_or_changes_the_target_network(kind: str) -> None:
    networks = make("compact", (4, 10, 10), self_supervised=kind)
    target = networks[1].train()
    for parameter in target.parameters():
        parameter.requires_grad_(True)  # even so
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    losses = losses_of(networks, draw_batch((4, 10, 10)))
    assert all(parameter.grad is None for parameter in target.parameters())
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert bool(losses.self_supervised) == (kind != "none")


def test_what_was_seen_later_trains_no_encoder_by_itself() -> None:
    # Of two encodings that were both free to move, the easiest agreement is that all look alike.
    networks, batch = make(normalization="layer"), draw_batch()
    assert batch.future is not None
    future, observation = (x.clone().requires_grad_() for x in (batch.future, batch.observation))
    losses_of(
        networks,
        replace(batch, observation=observation, future=future),
        ONLY["self_supervised"],
    )
    assert future.grad is None
    assert observation.grad is not None
    assert observation.grad.any()


def test_spr_is_taught_by_the_target_network_and_consistency_by_the_learner() -> None:
    for kind, follows in (("spr", True), ("consistency", False), ("contrastive", False)):
        networks, batch = make(self_supervised=kind), draw_batch()
        before = losses_of(networks, batch).self_supervised
        assert networks[1].auxiliary is not None
        with torch.no_grad():
            for parameter in networks[1].auxiliary.parameters():
                parameter.add_(0.3)
        after = losses_of(networks, batch).self_supervised
        assert bool(torch.isclose(before, after)) != follows, kind


class Straight(nn.Module):
    """A step that passes its state on, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, hidden: Tensor, action: Tensor) -> Tensor:
        return hidden * self.weight


def encoder_gradient(counted: int, part: str) -> Tensor:
    """Of the state at the root, from one part's loss after `counted` steps alone."""
    networks = make(
        scale_hidden=False, value_prefix=False, normalization="layer", self_supervised="none"
    )
    network, batch = networks[0], draw_batch()
    assert network.reward_head is not None
    nn.init.normal_(list(network.reward_head.parameters())[-2], std=0.3)
    network.step = Straight()
    network.encoder = nn.Linear(6, 16)
    mask = torch.zeros(B, K + 1, dtype=torch.bool)
    mask[:, counted] = True
    flat = torch.full_like(batch.value, 0.7)
    batch = replace(
        batch,
        value=flat,
        reward=flat[:, 1:],
        value_mask=mask if part == "value" else torch.zeros_like(mask),
        reward_mask=mask[:, 1:] if part == "reward" else torch.zeros_like(mask[:, 1:]),
        policy_mask=torch.zeros_like(mask),
    )
    config = replace(ONLY[part], unroll_scaling="all")
    losses_of(networks, batch, config)
    assert network.encoder.weight.grad is not None
    return network.encoder.weight.grad


def test_each_step_passes_half_of_the_gradient_that_comes_from_later_ones() -> None:
    root, first, second, third = (encoder_gradient(k, "value") for k in range(K + 1))
    torch.testing.assert_close(first, root)  # what is predicted of a state reaches it in full
    torch.testing.assert_close(second, first / 2)
    torch.testing.assert_close(third, first / 4)
    first, second, third = (encoder_gradient(k, "reward") for k in (1, 2, 3))
    assert first.abs().max() > 0
    torch.testing.assert_close(second, first / 2)
    torch.testing.assert_close(third, first / 4)


def test_halving_changes_no_value_and_no_other_leaf() -> None:
    hidden, age = torch.randn(3, 4), torch.tensor([0, 1, 2])
    halved = halve_gradient({"hidden": hidden, "age": age})
    assert torch.equal(halved["hidden"], hidden)
    assert halved["age"] is age


def test_the_decoded_root_values_are_those_of_the_value_head() -> None:
    networks, batch = make(normalization="layer"), draw_batch()
    network = networks[0]
    _, values = UnrolledLoss(*networks, PLAIN)(batch, batch.weight, torch.Generator())
    logits = network.prediction(network.representation(batch.observation)).value_logits
    torch.testing.assert_close(values, network.support.decode(logits))
    assert not values.requires_grad


def test_parts_are_the_cross_entropies_of_their_targets() -> None:
    networks, batch = make(normalization="layer", self_supervised="none"), draw_batch()
    network = networks[0]
    losses = losses_of(networks, batch)
    latent = network.representation(batch.observation)
    reward, value, policy = [], [], []
    for k in range(K + 1):
        if k > 0:
            dynamics = network.dynamics(latent, batch.action[:, k - 1])
            latent = dynamics.latent
            target = network.support.encode(batch.reward[:, k - 1])
            reward.append(-(target * dynamics.reward_logits.log_softmax(-1)).sum(-1))
        prediction = network.prediction(latent)
        target = network.support.encode(batch.value[:, k])
        value.append(-(target * prediction.value_logits.log_softmax(-1)).sum(-1))
        policy.append(-(batch.policy[:, k] * prediction.policy_logits.log_softmax(-1)).sum(-1))
    torch.testing.assert_close(losses.reward, torch.stack(reward).mean())
    torch.testing.assert_close(losses.value, torch.stack(value).mean())
    torch.testing.assert_close(losses.policy, torch.stack(policy).mean())


def test_images_are_augmented_and_vectors_are_not() -> None:
    config = replace(PLAIN, augmentation="shift_intensity")
    for name, shape in (("compact", (4, 10, 10)), ("dense", (6,))):
        networks, batch = make(name, shape, self_supervised="none"), draw_batch(shape)
        plain, changed = losses_of(networks, batch), losses_of(networks, batch, config)
        assert bool(torch.isclose(plain.total, changed.total)) == (name == "dense")


def test_bytes_are_read_as_shares_of_255() -> None:
    for kind in ("consistency", "reconstruction"):
        networks = make("compact", (4, 10, 10), self_supervised=kind)
        batch = draw_batch((4, 10, 10))
        assert batch.future is not None
        shares = replace(batch, observation=batch.observation / 255, future=batch.future / 255)
        one, other = losses_of(networks, batch), losses_of(networks, shares)
        torch.testing.assert_close(one.total, other.total)


def test_updates_bring_the_loss_down() -> None:
    networks, batch = make("compact", (4, 10, 10)), draw_batch((4, 10, 10))
    optimizer = torch.optim.SGD(networks[0].parameters(), lr=0.1)
    totals = []
    for _ in range(12):
        totals.append(losses_of(networks, batch).total.item())
        optimizer.step()
    assert totals[-1] < totals[0] - 0.5

"""MuZero networks: shapes, fresh outputs, independence of rows, states, value prefixes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from atari_bridge.networks.building import build_network, compile_functions
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.residual import halvings
from tests.fake_games import small_network

ACTIONS = 5
SMALL = {"hidden_size": 24, "lstm_size": 7, "prefix_horizon": 3}
KINDS = [
    ("residual", (12, 96, 96)),
    ("residual", (4, 64, 64)),
    ("residual", (6, 10, 10)),
    ("residual", (2, 8, 8)),
    ("compact", (12, 96, 96)),
    ("compact", (4, 64, 64)),
    ("compact", (6, 10, 10)),
    ("compact", (2, 8, 8)),
    ("compact", (3, 40, 36)),
    ("dense", (7,)),
]
each_kind = pytest.mark.parametrize(("name", "shape"), KINDS)


def make(name: str, shape: tuple[int, ...], **changes: object) -> MuZeroNetwork:
    return small_network(name, shape, num_actions=ACTIONS, **(SMALL | changes))


def trained(network: MuZeroNetwork) -> MuZeroNetwork:
    """Heads away from 0 and statistics away from (0, 1), as after some updates."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.add_(0.3 * torch.randn(module.weight.shape, generator=generator))
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_(generator=generator).mul_(0.1)
    return network


def seen(shape: tuple[int, ...], rows: int = 3) -> Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(2))


@each_kind
@pytest.mark.parametrize("value_prefix", [True, False])
@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_shapes_are_those_of_the_interface(
    name: str, shape: tuple[int, ...], value_prefix: bool, normalization: str
) -> None:
    network = make(name, shape, value_prefix=value_prefix, normalization=normalization)
    latent = network.representation(seen(shape))
    dynamics = network.dynamics(latent, torch.tensor([0, 4, 2]))
    prediction = network.prediction(dynamics.latent)
    assert prediction.policy_logits.shape == (3, ACTIONS)
    assert prediction.value_logits.shape == dynamics.reward_logits.shape == (3, 11)
    assert (network.value_prefix is not None) is value_prefix
    names = {"hidden", "lstm_h", "lstm_c", "age"} if value_prefix else {"hidden"}
    assert latent.keys() == dynamics.latent.keys() == names
    for name, leaf in latent.items():
        assert leaf.shape == dynamics.latent[name].shape
        assert leaf.dtype == dynamics.latent[name].dtype


def test_states_of_atari_images_are_six_by_six_planes() -> None:
    network = make("residual", (12, 96, 96))
    assert network.representation(seen((12, 96, 96), 2))["hidden"].shape == (2, 4, 6, 6)
    assert [halvings(side, side) for side in (8, 10, 24, 64, 84, 96)] == [0, 1, 2, 3, 4, 4]


@each_kind
def test_a_fresh_network_predicts_equal_actions_and_values_of_zero(
    name: str, shape: tuple[int, ...]
) -> None:
    network = make(name, shape).eval()
    latent = network.representation(seen(shape))
    dynamics = network.dynamics(latent, torch.tensor([0, 4, 2]))
    for state in (latent, dynamics.latent):
        prediction = network.prediction(state)
        assert not prediction.policy_logits.any()
        assert network.support.decode(prediction.value_logits).abs().max() < 1e-4
    assert network.support.decode(dynamics.reward_logits).abs().max() < 1e-4


@each_kind
@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_evaluated_rows_do_not_depend_on_each_other(
    name: str, shape: tuple[int, ...], normalization: str
) -> None:
    network = trained(make(name, shape, normalization=normalization)).eval()
    observation, action = seen(shape), torch.tensor([0, 4, 2])

    def answers(rows: slice) -> list[Tensor]:
        latent = network.representation(observation[rows])
        dynamics = network.dynamics(latent, action[rows])
        prediction = network.prediction(dynamics.latent)
        leaves = [dynamics.latent[name].float() for name in sorted(dynamics.latent)]
        return [prediction.policy_logits, prediction.value_logits, dynamics.reward_logits, *leaves]

    together = answers(slice(0, 3))
    assert together[0].std(dim=0).max() > 1e-4  # rows differ at all
    for row in range(3):
        alone = answers(slice(row, row + 1))
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[row], atol=1e-5, rtol=1e-4)


@each_kind
def test_rows_normalized_by_layer_are_independent_in_training_too(
    name: str, shape: tuple[int, ...]
) -> None:
    network = trained(make(name, shape, normalization="layer")).train()
    observation = seen(shape)
    together = network.prediction(network.representation(observation)).policy_logits
    alone = network.prediction(network.representation(observation[1:2])).policy_logits
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=1e-4)


@each_kind
def test_actions_lead_to_different_states(name: str, shape: tuple[int, ...]) -> None:
    network = make(name, shape).eval()
    latent = network.representation(seen(shape, 1).expand(ACTIONS, *shape))
    after = network.dynamics(latent, torch.arange(ACTIONS)).latent["hidden"].flatten(1)
    distances = torch.cdist(after, after) + torch.eye(ACTIONS)
    assert distances.min() > 1e-3


@each_kind
def test_a_step_whose_layers_add_nothing_leaves_the_state_as_it_is(
    name: str, shape: tuple[int, ...]
) -> None:
    network = make(name, shape).eval()
    for parameter in network.step.parameters():
        nn.init.zeros_(parameter)
    before = network.representation(seen(shape))
    after = network.dynamics(before, torch.tensor([0, 4, 2])).latent
    torch.testing.assert_close(after["hidden"], before["hidden"])


@each_kind
def test_every_state_spans_0_to_1(name: str, shape: tuple[int, ...]) -> None:
    network = trained(make(name, shape)).eval()
    latent = network.representation(10 * seen(shape))
    for _ in range(3):
        hidden = latent["hidden"].flatten(1)
        torch.testing.assert_close(hidden.amin(dim=1), torch.zeros(3))
        torch.testing.assert_close(hidden.amax(dim=1), torch.ones(3))
        latent = network.dynamics(latent, torch.tensor([0, 4, 2])).latent


def test_a_constant_state_is_scaled_to_0_and_carries_a_finite_gradient() -> None:
    network = make("dense", (7,))
    network.encoder = nn.Linear(7, 24)
    nn.init.zeros_(network.encoder.weight)
    nn.init.ones_(network.encoder.bias)
    hidden = network.representation(seen((7,)))["hidden"]
    hidden.sum().backward()
    assert not hidden.any()
    assert network.encoder.bias.grad is not None
    assert network.encoder.bias.grad.isfinite().all()


def test_states_may_be_left_as_they_are() -> None:
    network = trained(make("dense", (7,), scale_hidden=False)).eval()
    assert network.representation(10 * seen((7,)))["hidden"].abs().max() > 1.5


def test_an_observation_of_another_shape_is_refused_with_both_shapes() -> None:
    network = make("compact", (4, 64, 64))
    with pytest.raises(ValueError, match=r"\[2, 4, 63, 64\].*\[B, 4, 64, 64\]"):
        network.representation(torch.zeros(2, 4, 63, 64))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("dense", (4, 64, 64), "required: residual or compact"),
        ("compact", (7,), "required: dense"),
        ("residual", (7,), "required: dense"),
        ("compact", (4, 7, 64), "required: at least 8x8"),
    ],
)
def test_a_network_that_does_not_fit_the_observations_is_refused(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, shape)


def test_a_value_prefix_begins_anew_after_its_horizon_in_each_row_by_itself() -> None:
    network = trained(make("dense", (7,))).eval()
    prefix = network.value_prefix
    assert prefix is not None
    hidden = torch.rand(4, 24, generator=torch.Generator().manual_seed(3))
    fresh = prefix.begin(4, like=hidden)
    memory = {name: leaf.clone() for name, leaf in fresh.items()}
    memory["lstm_h"] += torch.linspace(0.1, 1, 4)[:, None]
    memory["lstm_c"] += 0.5
    memory["age"] = torch.tensor([0, 1, 2, 1])
    logits, after = prefix(hidden, memory)
    assert after["age"].tolist() == [1, 2, 0, 2]
    ended = torch.tensor([False, False, True, False])
    for name in ("lstm_h", "lstm_c"):
        assert (after[name] == fresh[name]).all(dim=1).tolist() == ended.tolist()
    # The last step before a new beginning still sums from its beginning.
    begun, _ = prefix(hidden, fresh)
    assert not torch.isclose(logits, begun).all(dim=1).any()


@pytest.mark.parametrize("leaf", ["lstm_h", "lstm_c"])
def test_a_prefix_trains_through_its_memory_up_to_its_horizon(leaf: str) -> None:
    network = trained(make("dense", (7,)))
    prefix = network.value_prefix
    assert prefix is not None
    for steps, reached in ((2, True), (3, True), (4, False)):
        hidden = torch.rand(4, steps, 24).requires_grad_()
        memory = prefix.begin(4, like=hidden)
        logits = hidden
        for step in range(steps):
            kept = {name: memory[name].detach() for name in ("lstm_h", "lstm_c") if name != leaf}
            logits, memory = prefix(hidden[:, step], memory | kept)
        logits[:, 0].square().sum().backward()
        assert hidden.grad is not None
        assert bool(hidden.grad[:, 0].any()) is reached


def test_convolved_states_keep_the_channels_of_a_pixel_side_by_side() -> None:
    network = make("residual", (4, 64, 64))
    latent = network.representation(seen((4, 64, 64)))
    after = network.dynamics(latent, torch.tensor([0, 4, 2]))
    for state in (latent["hidden"], after.latent["hidden"]):
        assert state.is_contiguous(memory_format=torch.channels_last)


def test_the_defaults_have_as_many_weights_as_published() -> None:
    network = build_network(NetworkConfig(), frame_shape=(12, 96, 96), num_actions=18)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(8.4e6, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [False, True])
def test_a_compiled_network_keeps_its_names_and_outputs(prefix: bool) -> None:
    plain = trained(make("dense", (7,), value_prefix=prefix, normalization="layer"))
    compiled = compile_functions(copy.deepcopy(plain))
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert {"representation", "prediction", "dynamics"} <= vars(compiled).keys()
    assert compiled.auxiliary is not None
    assert {"loss", "project"} <= vars(compiled.auxiliary).keys()
    for rows in (3, 4):  # the second size compiles a form of any size
        seen = torch.randn(rows, 7, generator=torch.Generator().manual_seed(rows))
        action = torch.arange(rows) % ACTIONS
        outputs = []
        for network in (plain, compiled):
            network.zero_grad()
            dynamics = network.dynamics(network.representation(seen), action)
            policy = network.prediction(dynamics.latent).policy_logits
            assert network.auxiliary is not None
            hidden = dynamics.latent["hidden"]
            with torch.no_grad():
                target = network.auxiliary.project(hidden)
            auxiliary = network.auxiliary.loss(hidden, target)
            (dynamics.reward_logits.square() + auxiliary[:, None]).sum().backward()
            gradient = network.encoder[0].weight.grad  # pyright: ignore[reportIndexIssue]
            outputs.append((hidden, dynamics.reward_logits, policy, auxiliary, gradient))
        for one, other in zip(*outputs, strict=True):
            torch.testing.assert_close(other, one, atol=2e-4, rtol=1e-3)

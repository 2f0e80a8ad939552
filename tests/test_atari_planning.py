"""A network as a model to plan with: rewards of steps, searches, what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from search import GumbelMuZeroPlanner, MuZeroPlanner, Planner
from search.model import evaluate_root, evaluate_step
from tests.fake_games import small_network

KINDS: list[tuple[str, tuple[int, ...]]] = [
    ("residual", (4, 16, 16)),
    ("compact", (4, 36, 36)),
    ("dense", (6,)),
]
each_kind = pytest.mark.parametrize(("name", "shape"), KINDS)


def make(name: str = "dense", shape: tuple[int, ...] = (6,), **changes: Any) -> MuZeroNetwork:
    """A network whose heads are away from 0, as after some updates."""
    defaults = {"prefix_horizon": 2, "self_supervised": "none"}
    network = small_network(name, shape, num_actions=3, **(defaults | changes))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    return network


def seen(shape: tuple[int, ...], rows: int = 4) -> Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1))


@each_kind
@pytest.mark.parametrize("value_prefix", [True, False])
@pytest.mark.parametrize(
    "planner",
    [
        GumbelMuZeroPlanner(8),
        MuZeroPlanner(8, mode="efficientzero"),
        MuZeroPlanner(8, mode="mctx"),
        MuZeroPlanner(8, leaves_per_step=2),
        GumbelMuZeroPlanner(8, backend="torch"),
    ],
)
def test_every_search_plans_with_a_network(
    name: str, shape: tuple[int, ...], value_prefix: bool, planner: Planner
) -> None:
    model = NetworkModel(make(name, shape, value_prefix=value_prefix), discount=0.9)
    found = planner.plan(model, seen(shape), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.action_weights.sum(dim=1), torch.ones(4))
    assert found.action.shape == (4,)
    assert found.value.isfinite().all()


@each_kind
def test_what_a_model_answers_keeps_the_contract(name: str, shape: tuple[int, ...]) -> None:
    model = NetworkModel(make(name, shape), discount=0.9)
    with torch.inference_mode():
        root = evaluate_root(model, seen(shape))
        step = evaluate_step(model, root.embedding, action=torch.tensor([0, 1, 2, 0]))
        again = evaluate_step(model, step.embedding, action=torch.tensor([0, 1, 2, 0]))
    assert root.valid_actions.all()
    assert again.valid_actions.all()
    assert again.discount.tolist() == pytest.approx([0.9] * 4)
    assert root.prior_logits.std() > 1e-3


def walk(model: NetworkModel, actions: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Rewards `[4]` of the model, and prefixes `[4]` of its network, along a line of actions."""
    rewards, prefixes = [], []
    embedding = model.root(seen((6,))).embedding
    latent = model.network.representation(seen((6,)))
    for number in actions:
        action = torch.full((4,), number)
        step = model.step(embedding, action)
        dynamics = model.network.dynamics(latent, action)
        rewards.append(step.reward)
        prefixes.append(model.network.support.decode(dynamics.reward_logits))
        embedding, latent = step.embedding, dynamics.latent
    return rewards, prefixes


def test_rewards_are_differences_of_prefixes_that_begin_anew_after_the_horizon() -> None:
    rewards, prefixes = walk(NetworkModel(make(), discount=0.9), [0, 1, 2, 0, 1])
    first, second, third, fourth, fifth = prefixes
    assert first.abs().min() > 1e-3
    torch.testing.assert_close(rewards[0], first)
    torch.testing.assert_close(rewards[1], second - first)
    torch.testing.assert_close(rewards[2], third)
    torch.testing.assert_close(rewards[3], fourth - third)
    torch.testing.assert_close(rewards[4], fifth)


def test_rows_of_different_depth_in_one_step_keep_their_own_prefixes() -> None:
    model = NetworkModel(make(), discount=0.9)
    embeddings = [model.root(seen((6,), 1)).embedding]
    for action in (0, 1, 2):
        embeddings.append(model.step(embeddings[-1], torch.tensor([action])).embedding)
    mixed = {name: torch.cat([e[name] for e in embeddings]) for name in embeddings[0]}
    together = model.step(mixed, torch.tensor([2, 2, 2, 2]))
    for row, embedding in enumerate(embeddings):
        alone = model.step(embedding, torch.tensor([2]))
        torch.testing.assert_close(together.reward[row], alone.reward[0])
        torch.testing.assert_close(together.value[row], alone.value[0])
    assert together.embedding["age"].tolist() == [1, 0, 1, 0]


def test_without_a_prefix_the_reward_is_what_the_head_says() -> None:
    network = make(value_prefix=False)
    model = NetworkModel(network, discount=0.9)
    root = model.root(seen((6,)))
    step = model.step(root.embedding, torch.tensor([0, 1, 2, 0]))
    with torch.inference_mode():
        dynamics = network.dynamics(dict(root.embedding), torch.tensor([0, 1, 2, 0]))
        expected = network.support.decode(dynamics.reward_logits)
    torch.testing.assert_close(step.reward, expected)
    assert expected.abs().min() > 1e-3


def test_bytes_are_read_as_shares_of_255() -> None:
    # Scaled states would hide the size of what is seen: the encoder has no biases.
    network = make("compact", (4, 36, 36), scale_hidden=False)
    model = NetworkModel(network, discount=0.9)
    pixels = (255 * seen((4, 36, 36))).round()
    of_bytes, of_floats = model.root(pixels.byte()), model.root(pixels / 255)
    torch.testing.assert_close(of_bytes.prior_logits, of_floats.prior_logits)


def test_planning_leaves_the_weights_the_statistics_and_the_observation_alone() -> None:
    network = make("compact", (4, 36, 36)).train()
    observation = seen((4, 36, 36))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept = observation.clone()
    GumbelMuZeroPlanner(4).plan(NetworkModel(network, discount=0.9), observation)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(observation, kept)


def test_a_network_that_has_learned_since_is_evaluated_all_the_same() -> None:
    network = make("compact", (4, 36, 36))
    model = NetworkModel(network, discount=0.9)
    value = model.root(seen((4, 36, 36))).value
    network.train()  # as a learner does before each update
    torch.testing.assert_close(model.root(seen((4, 36, 36))).value, value)


def test_what_a_search_found_can_be_trained_on() -> None:
    model = NetworkModel(make(), discount=0.9)
    found = GumbelMuZeroPlanner(4).plan(model, seen((6,)))
    weight = torch.ones(4, 3, requires_grad=True)
    (weight * found.action_weights).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    "observe",
    [lambda: torch.zeros(2, 4, 35, 36), lambda: torch.zeros(2, 3, 36, 36, dtype=torch.uint8)],
)
def test_an_observation_of_another_shape_is_refused(observe: Callable[[], Tensor]) -> None:
    model = NetworkModel(make("compact", (4, 36, 36)), discount=0.9)
    with pytest.raises(ValueError, match=r"found shape \[2, .*required \[B, 4, 36, 36\]"):
        GumbelMuZeroPlanner(4).plan(model, observe())


def test_weights_that_are_no_numbers_are_named_by_the_search() -> None:
    network = make()
    with torch.no_grad():
        next(network.value_head.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="value, row 0: found nan"):
        GumbelMuZeroPlanner(4).plan(NetworkModel(network, discount=0.9), seen((6,)))


def test_half_precision_gives_nodes_of_single_precision_and_nearly_the_same_answers() -> None:
    network = make()
    exact, rough = (
        NetworkModel(network, discount=0.9, amp_dtype=d) for d in (None, torch.bfloat16)
    )
    one, other = exact.root(seen((6,))), rough.root(seen((6,)))
    assert {leaf.dtype for leaf in other.embedding.values()} == {torch.float32, torch.int64}
    assert other.value.dtype == other.prior_logits.dtype == torch.float32
    assert not torch.equal(one.prior_logits, other.prior_logits)
    action = torch.tensor([0, 1, 2, 0])
    after, roughly = exact.step(one.embedding, action), rough.step(other.embedding, action)
    torch.testing.assert_close(roughly.reward, after.reward, atol=0.1, rtol=0.1)
    torch.testing.assert_close(roughly.value, after.value, atol=0.1, rtol=0.1)

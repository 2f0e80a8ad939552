"""Self-supervised losses: where gradients go, and what is learned."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from atari_bridge.networks.config import SelfSupervision
from atari_bridge.networks.self_supervised import (
    ConsistencyLoss,
    InfoNCELoss,
    Reconstruction,
    SelfSupervisedLoss,
    build_auxiliary,
)

ROWS, FEATURES = 6, 8
Batches = Callable[[int], tuple[Tensor, Tensor]]
PROJECTED: list[SelfSupervision] = ["consistency", "spr", "contrastive"]


def make(kind: SelfSupervision, frame: tuple[int, ...] = (5,)) -> SelfSupervisedLoss:
    torch.manual_seed(0)
    auxiliary = build_auxiliary(kind, features=FEATURES, frame=frame, projection=10, prediction=4)
    assert auxiliary is not None
    return auxiliary


def learn(auxiliary: SelfSupervisedLoss, steps: int, lr: float, batch: Batches) -> list[float]:
    """The loss of each step; `batch` makes the step's states and targets."""
    optimizer = torch.optim.Adam(auxiliary.parameters(), lr=lr)
    losses = []
    for step in range(steps):
        loss = auxiliary.loss(*batch(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", PROJECTED)
def test_the_gradient_reaches_imagined_states_and_weights_and_no_target(
    kind: SelfSupervision,
) -> None:
    auxiliary = make(kind)
    hidden = draw(ROWS, FEATURES).requires_grad_()
    target = draw(ROWS, 10, seed=2).requires_grad_()
    loss = auxiliary.loss(hidden, target)
    assert loss.shape == (ROWS,)
    loss.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum(dim=1).min() > 0
    assert target.grad is None
    for name, parameter in auxiliary.named_parameters():
        assert parameter.grad is not None, name
    first = next(auxiliary.parameters()).grad
    assert first is not None
    assert first.any()


@pytest.mark.parametrize("frame", [(5,), (3, 20, 12)])
def test_reconstruction_trains_states_and_decoder_and_no_pixel(frame: tuple[int, ...]) -> None:
    auxiliary = make("reconstruction", frame)
    hidden = draw(ROWS, FEATURES).requires_grad_()
    target = draw(ROWS, *frame, seed=2).requires_grad_()
    auxiliary.loss(hidden, target).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.any()
    assert target.grad is None
    assert all(p.grad is not None and p.grad.any() for p in auxiliary.parameters())


def test_states_of_planes_are_flattened() -> None:
    planes = draw(ROWS, 2, 2, 2)
    for kind in PROJECTED:
        auxiliary = make(kind).eval()
        assert torch.equal(auxiliary.project(planes), auxiliary.project(planes.flatten(1)))


def test_each_kind_has_its_teacher_and_none_is_nothing() -> None:
    sources = {kind: make(kind).target_source for kind in (*PROJECTED, "reconstruction")}
    assert sources == {
        "consistency": "network",
        "spr": "target_network",
        "contrastive": "network",
        "reconstruction": "pixels",
    }
    assert build_auxiliary("none", features=1, frame=(1,), projection=1, prediction=1) is None


def test_consistency_is_minus_the_cosine_of_prediction_and_projection() -> None:
    auxiliary = make("consistency").eval()
    assert isinstance(auxiliary, ConsistencyLoss)
    hidden, target = draw(ROWS, FEATURES), draw(ROWS, 10, seed=2)
    predicted = auxiliary.predictor(auxiliary.projector(hidden))
    for row in range(ROWS):
        one, other = predicted[row], target[row]
        cosine = (one @ other) / (one.norm() * other.norm())
        assert auxiliary.loss(hidden, target)[row].item() == pytest.approx(-cosine.item(), abs=1e-5)


def test_learning_consistency_turns_predictions_to_their_targets() -> None:
    auxiliary = make("consistency")
    hidden, target = draw(ROWS, FEATURES), draw(ROWS, 10, seed=2)
    losses = learn(auxiliary, 60, 0.02, lambda _: (hidden, target))
    assert losses[-1] < -0.8 < -0.5 < losses[0]


def test_contrast_learns_to_pick_out_the_right_row() -> None:
    auxiliary = make("contrastive")
    turn = torch.linalg.qr(draw(FEATURES, FEATURES, seed=3)).Q

    def batch(step: int) -> tuple[Tensor, Tensor]:
        imagined = draw(16, FEATURES, seed=10 + step)
        with torch.no_grad():
            return imagined, auxiliary.project(imagined @ turn)

    before = learn(auxiliary, 150, 0.01, batch)[0]
    assert before > 2.0  # log(16) is 2.77
    held_out = draw(16, FEATURES, seed=5)
    with torch.no_grad():
        target = auxiliary.project(held_out @ turn)
        right = auxiliary.loss(held_out, target).mean()
        wrong = auxiliary.loss(held_out, target.roll(1, dims=0)).mean()
    assert right < 0.7
    assert wrong > right + 2


def test_contrast_is_the_cross_entropy_of_similarities() -> None:
    auxiliary = make("contrastive")
    assert isinstance(auxiliary, InfoNCELoss)
    nn.init.eye_(auxiliary.predictor.weight)
    nn.init.zeros_(auxiliary.predictor.bias)
    hidden = draw(ROWS, FEATURES)
    target = auxiliary.project(hidden).detach()
    unit = target / target.norm(dim=1, keepdim=True)
    similarity = (unit @ unit.T) / 0.1
    expected = similarity.logsumexp(dim=1) - similarity.diagonal()
    torch.testing.assert_close(auxiliary.loss(hidden, target), expected)


@pytest.mark.parametrize("frame", [(1, 8, 8), (3, 20, 13), (1, 10, 10)])
def test_reconstruction_judges_the_newest_frame_of_a_stack_alone(frame: tuple[int, ...]) -> None:
    auxiliary = make("reconstruction", frame).eval()
    hidden = draw(ROWS, FEATURES)
    stack = torch.rand(ROWS, 4 * frame[0], *frame[1:])
    loss = auxiliary.loss(hidden, stack)
    assert loss.shape == (ROWS,)
    older, newest = stack.clone(), stack.clone()
    older[:, : -frame[0]] = 0
    newest[:, -frame[0] :] = 0
    torch.testing.assert_close(auxiliary.loss(hidden, older), loss)
    assert not torch.isclose(auxiliary.loss(hidden, newest), loss).any()


def test_reconstruction_learns_pixels_and_numbers() -> None:
    for frame in ((2, 10, 12), (5,)):
        auxiliary = make("reconstruction", frame)
        assert isinstance(auxiliary, Reconstruction)
        hidden = draw(ROWS, FEATURES)
        brightness = torch.linspace(0, 1, ROWS).view(ROWS, *[1] * len(frame))
        target = brightness.expand(ROWS, *frame)
        losses = learn(auxiliary, 80, 0.02, lambda _, h=hidden, t=target: (h, t))
        spread = target.var(dim=0).mean().item()  # what a picture alike for all rows leaves
        assert losses[-1] < 0.5 * spread < losses[0]

"""Losses of an unroll: their values, where gradients go, and where none may go."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from atari_bridge.learning.losses import (
    Losses,
    MaskedLoss,
    combine,
    entropy,
    scale_gradient,
    soft_cross_entropy,
)

WEIGHTS = {"reward": 1.0, "value": 0.25, "policy": 1.0, "entropy": 0.0, "self_supervised": 2.0}
Parts = dict[str, MaskedLoss]


def part(loss: Tensor, mask: Tensor | None = None) -> MaskedLoss:
    return MaskedLoss(loss, torch.ones_like(loss, dtype=torch.bool) if mask is None else mask, 1.0)


def unroll_losses(batch: int = 2, steps: int = 4, *, fill: float = 1.0) -> Parts:
    """Every loss `fill`, every prediction counts; leaves that take a gradient."""
    columns = {"reward": steps, "self_supervised": steps}
    return {
        name: part(torch.full((batch, columns.get(name, steps + 1)), fill, requires_grad=True))
        for name in WEIGHTS
    }


def combined(
    losses: Parts, scaling: str = "all", rows: Tensor | None = None, **weights: float
) -> Losses:
    """The loss, after its gradients went back."""
    weighted = {
        name: replace(one, weight=(-1 if name == "entropy" else 1) * (WEIGHTS | weights)[name])
        for name, one in losses.items()
    }
    batch, steps = losses["reward"].loss.shape
    found = combine(
        weighted,
        unroll_steps=steps,
        row_weights=torch.ones(batch) if rows is None else rows,
        unroll_scaling=scaling,  # pyright: ignore[reportArgumentType]
    )
    found.total.backward()
    return found


def gradient(of: Tensor | MaskedLoss) -> Tensor:
    tensor = of.loss if isinstance(of, MaskedLoss) else of
    assert tensor.grad is not None
    return tensor.grad


def test_cross_entropy_of_a_soft_target_is_its_mean_log_probability() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.8, 0.0001]]))
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    # .5 ln 2 + .5 ln 4 = 1.5 ln 2; the second row's logits sum to 1.0001
    expected = torch.tensor([1.5 * 0.693147, 0.223144 + 0.0001])
    torch.testing.assert_close(soft_cross_entropy(logits, target), expected, atol=1e-5, rtol=0)


def test_cross_entropy_has_the_gradient_of_softmax_and_none_for_the_target() -> None:
    logits = torch.randn(3, 5, 7, requires_grad=True)
    target = torch.rand(3, 5, 7).softmax(-1).requires_grad_()
    soft_cross_entropy(logits, target).sum().backward()
    torch.testing.assert_close(logits.grad, (logits.softmax(-1) - target).detach())
    assert target.grad is None


def test_cross_entropy_of_half_precision_logits_is_computed_in_float32() -> None:
    logits = torch.randn(4, 601, dtype=torch.bfloat16)
    target = torch.rand(4, 601).softmax(-1)
    found = soft_cross_entropy(logits, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, soft_cross_entropy(logits.float(), target))


def test_entropy_is_greatest_for_equal_logits_and_falls_with_certainty() -> None:
    found = entropy(torch.tensor([[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([1.386294, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaled_gradient_leaves_the_values_exactly_as_they_are(dtype: torch.dtype) -> None:
    state = torch.randn(5, 3).to(dtype).requires_grad_()
    scaled = scale_gradient(state, 0.3)
    assert torch.equal(scaled, state)
    (2 * scaled).sum().backward()
    torch.testing.assert_close(gradient(state), torch.full((5, 3), 0.6, dtype=dtype))
    age = torch.arange(3)
    assert scale_gradient(age, 0.5) is age


def test_scaling_the_state_at_each_step_halves_the_gradient_step_by_step() -> None:
    state = torch.ones(1, requires_grad=True)
    unrolled = state
    for _ in range(3):
        unrolled = scale_gradient(unrolled, 0.5)
    unrolled.sum().backward()
    assert gradient(state).item() == 0.125


def test_unrolled_scaling_counts_the_root_once_and_each_unrolled_step_a_kth() -> None:
    losses = unroll_losses(batch=1, steps=4)
    found = combined(losses, "unrolled", entropy=0.5)
    torch.testing.assert_close(
        gradient(losses["policy"]), torch.tensor([[1, 0.25, 0.25, 0.25, 0.25]])
    )
    torch.testing.assert_close(gradient(losses["value"]), 0.25 * gradient(losses["policy"]))
    torch.testing.assert_close(gradient(losses["entropy"]), -0.5 * gradient(losses["policy"]))
    torch.testing.assert_close(gradient(losses["reward"]), torch.full((1, 4), 0.25))
    torch.testing.assert_close(gradient(losses["self_supervised"]), torch.full((1, 4), 0.5))
    # 1 + .25 * 2 + 2 - .5 * 2 + 2 * 1, each part's unroll summing to 1 or 2
    assert found.total.item() == pytest.approx(4.5)
    losses = unroll_losses(batch=1, steps=4)
    combined(losses)  # all scaling divides the root, too
    torch.testing.assert_close(gradient(losses["policy"]), torch.full((1, 5), 0.25))


def test_rows_count_by_their_importance_in_the_mean_over_the_batch() -> None:
    losses = unroll_losses(batch=2, steps=1)
    rows = torch.tensor([1.0, 0.25], requires_grad=True)
    combined(losses, "unrolled", rows)
    torch.testing.assert_close(
        gradient(losses["policy"]), torch.tensor([[0.5, 0.5], [0.125, 0.125]])
    )
    assert rows.grad is None


def test_predictions_that_do_not_count_get_no_gradient_even_if_infinite() -> None:
    mask = torch.tensor([[True, True, False, False, False], [True] * 5])
    policy = torch.where(mask, 1.0, torch.inf).requires_grad_()
    losses = unroll_losses() | {"policy": part(policy, mask)}
    found = combined(losses)
    assert torch.isfinite(found.total)
    torch.testing.assert_close(gradient(policy), torch.where(mask, 0.125, 0.0))
    assert found.policy.item() == 1  # the mean over the seven that count
    assert gradient(losses["value"]).all()


def test_parts_are_plain_means_without_gradient() -> None:
    losses = unroll_losses(fill=3.0)
    found = combined(losses, rows=torch.tensor([0.1, 0.2]), value=0.0)
    for name in WEIGHTS:
        assert getattr(found, name).item() == pytest.approx(3.0)
        assert not getattr(found, name).requires_grad


def test_a_self_supervised_loss_of_the_root_counts_as_the_root_does() -> None:
    extra = torch.ones(1, 5, requires_grad=True)
    combined(unroll_losses(batch=1) | {"self_supervised": part(extra)}, "unrolled")
    torch.testing.assert_close(gradient(extra), torch.tensor([[2, 0.5, 0.5, 0.5, 0.5]]))


def test_wrong_shapes_and_names_are_refused() -> None:
    losses = unroll_losses()
    short = {"value": part(losses["value"].loss, losses["reward"].mask)}
    for changed, scaling, message in (
        (short, "all", "value: found losses"),
        ({"policy": part(torch.ones(2, 6))}, "all", "losses at 6 positions; required: 4"),
        ({}, "half", "unroll_scaling: found 'half'"),
    ):
        with pytest.raises(ValueError, match=message):
            combined(losses | changed, scaling)

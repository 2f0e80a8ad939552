"""Scalars as distributions: what a transform and two bins keep of a number."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atari_bridge.networks.scalars import ScalarSupport, inverse_transform, transform

REWARDS = st.floats(-1e6, 1e6, allow_nan=False)


def exact_transform(value: float) -> float:
    size = math.sqrt(abs(value) + 1) - 1
    return math.copysign(size, value) + 0.001 * value


@given(REWARDS)
def test_the_transform_is_the_published_one(value: float) -> None:
    found = transform(torch.tensor(value, dtype=torch.float64)).item()
    assert found == pytest.approx(exact_transform(value), rel=1e-12, abs=1e-12)


@given(REWARDS)
def test_the_transform_is_undone_however_large_the_number(value: float) -> None:
    there = transform(torch.tensor(value, dtype=torch.float64))
    assert inverse_transform(there).item() == pytest.approx(value, rel=1e-9, abs=1e-12)


@given(st.floats(-1e5, 1e5, width=32))
def test_small_and_large_numbers_survive_in_single_precision(value: float) -> None:
    back = inverse_transform(transform(torch.tensor(value))).item()
    # Relative to the number itself, however near to 0 it is.
    assert back == pytest.approx(value, rel=4e-6, abs=1e-30)


@pytest.mark.parametrize("bins", [41, 81, 601])
def test_encoding_keeps_the_mean(bins: int) -> None:
    support = ScalarSupport(-20, 20, bins)
    value = torch.tensor([-300.0, -1.0, -0.01, 0.0, 0.3, 1.0, 7.0, 400.0])
    encoded = support.encode(value)
    torch.testing.assert_close(encoded.sum(dim=-1), torch.ones(8))
    torch.testing.assert_close(encoded @ support.centers, transform(value), atol=2e-5, rtol=1e-5)
    assert int((encoded > 0).sum(dim=-1).max()) <= 2
    assert float(encoded.min()) >= 0


@given(st.lists(st.floats(-400, 400, width=32), min_size=1, max_size=6))
def test_decoding_undoes_encoding(values: list[float]) -> None:
    support = ScalarSupport(-20, 20, 41)
    value = torch.tensor(values)
    decoded = support.decode(support.encode(value).log())
    torch.testing.assert_close(decoded, value, atol=1e-4, rtol=1e-4)


def test_a_number_on_a_bin_has_that_bin_alone() -> None:
    support = ScalarSupport(-2, 2, 5)
    value = inverse_transform(torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64))
    assert support.encode(value).argmax(dim=-1).tolist() == [0, 2, 4]


def test_what_lies_beyond_the_support_counts_as_its_end() -> None:
    support = ScalarSupport(-2, 2, 5)
    encoded = support.encode(torch.tensor([-1e9, 1e9]))
    assert encoded.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_leading_axes_are_kept_and_integers_are_taken() -> None:
    support = ScalarSupport(-5, 5, 11)
    assert support.encode(torch.zeros(2, 3)).shape == (2, 3, 11)
    assert support.encode(torch.tensor([1, -2])).dtype == torch.float32
    assert support.decode(torch.zeros(2, 3, 11)).shape == (2, 3)


def test_equal_logits_mean_0_exactly() -> None:
    assert ScalarSupport(-300, 300, 601).decode(torch.zeros(601)).abs().item() < 1e-4


def test_decoding_half_precision_logits_is_done_in_single_precision() -> None:
    support = ScalarSupport(-20, 20, 41)
    logits = torch.linspace(-1, 1, 41).bfloat16()
    decoded = support.decode(logits)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, support.decode(logits.float()))


def test_cross_entropy_with_an_encoding_leads_to_the_encoded_number() -> None:
    support = ScalarSupport(-20, 20, 41)
    logits = torch.zeros(41, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(100):
        loss = -(support.encode(torch.tensor(5.5)) * logits.log_softmax(-1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert support.decode(logits).item() == pytest.approx(5.5, abs=0.1)


def test_the_support_is_made_anew_rather_than_saved() -> None:
    assert ScalarSupport(-5, 5, 11).state_dict() == {}

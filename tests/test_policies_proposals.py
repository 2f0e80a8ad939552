import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import policies.generation.nucleus as nucleus_sampling
from policies.generation.nucleus import nucleus
from policies.generation.proposals import Proposal


def by_sorting(probabilities: Tensor, top_p: float) -> Tensor:
    """The definition: the likeliest first, of equals the lower id, while those before hold less."""
    ordered, places = probabilities.sort(stable=True, dim=-1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)
    return torch.zeros_like(probabilities).scatter(-1, places, ordered)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 5),
    size=st.integers(1, 300),
    levels=st.integers(1, 40),
    spread=st.sampled_from([0.0, 0.1, 1.0, 4.0, 20.0]),
    top_p=st.floats(1e-6, 1.0, exclude_max=True),
)
def test_the_nucleus_is_that_of_sorting(
    seed: int, rows: int, size: int, levels: int, spread: float, top_p: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few levels make equal probabilities, also at the edge.
    drawn = torch.randint(levels, (rows, size), generator=generator) / levels
    for logits in (drawn, torch.randn(rows, size, generator=generator)):
        for dtype in (torch.float32, torch.float64):
            probabilities = (spread * logits).to(dtype).softmax(-1)
            found = nucleus(probabilities, top_p)
            assert torch.equal(found, by_sorting(probabilities, top_p))


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_a_large_vocabulary_is_not_sorted_with_its_places(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = spread * torch.randn(8, 49_152, generator=torch.Generator().manual_seed(0))
    probabilities = logits.softmax(-1)
    wanted = by_sorting(probabilities, 0.95)
    monkeypatch.setattr(nucleus_sampling, "_nucleus_by_places", None)
    monkeypatch.setattr(torch.Tensor, "sort", None)
    assert torch.equal(nucleus(probabilities, 0.95), wanted)


def test_of_equally_likely_tokens_the_lower_ids_are_proposed() -> None:
    even = torch.full((1, 8), 1 / 8).log()
    assert Proposal(top_p=0.5).weights(even).nonzero()[:, 1].tolist() == [0, 1, 2, 3]
    uneven = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]]).log()
    assert Proposal(top_p=0.5).weights(uneven).nonzero()[:, 1].tolist() == [1, 2]

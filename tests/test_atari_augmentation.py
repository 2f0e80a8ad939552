"""Augmentation: what a shift and an intensity do to a stack, and that draws are a stack's own."""

import numpy as np
import pytest
import torch

from atari_bridge.learning.augmentation import augment, random_intensity, random_shift
from atari_bridge.learning.config import AugmentationName


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """One `[C, H, W]` stack read `down` rows and `right` columns further on, edges repeated."""
    _, height, width = image.shape
    out = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            source = (min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1))
            out[:, y, x] = image[:, source[0], source[1]]
    return out


def move_of(before: np.ndarray, after: np.ndarray, pixels: int) -> tuple[int, int]:
    """The one move within `pixels` that explains a whole stack."""
    moves = [
        (down, right)
        for down in range(-pixels, pixels + 1)
        for right in range(-pixels, pixels + 1)
        if np.array_equal(shifted(before, down, right), after)
    ]
    assert len(moves) == 1
    return moves[0]


def test_every_stack_moves_as_a_whole_within_four_pixels_in_every_direction() -> None:
    images = torch.rand(80, 2, 7, 6)
    found = random_shift(images, generator=generator())
    assert found.shape == images.shape
    moves = [
        move_of(before, after, 4)
        for before, after in zip(images.numpy(), found.numpy(), strict=True)
    ]
    for axis in (0, 1):
        assert {move[axis] for move in moves} == set(range(-4, 5))
    assert len(set(moves)) > 20  # the two directions are drawn apart


def test_steps_of_an_unroll_are_stacks_of_their_own() -> None:
    images = torch.rand(1, 3, 7, 6).expand(30, 3, 7, 6).reshape(6, 5, 3, 7, 6)
    found = random_shift(images, generator=generator())
    assert found.shape == images.shape
    assert len({stack.numpy().tobytes() for stack in found.flatten(0, 1)}) > 15


def test_intensity_multiplies_a_stack_by_one_number_near_one() -> None:
    images = torch.rand(2000, 2, 2, 2) + 0.5
    factor = random_intensity(images, generator=generator()) / images
    torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(factor))
    one = factor[:, 0, 0, 0]
    assert one.min() >= 0.9 - 1e-6
    assert one.max() <= 1.1 + 1e-6
    assert one.mean().item() == pytest.approx(1.0, abs=0.004)
    assert one.std().item() == pytest.approx(0.048, abs=0.003)  # .05, less what clipping takes


def test_names_choose_the_steps_and_draws_come_from_the_generator_alone() -> None:
    images = torch.rand(5, 4, 48, 48)
    assert augment(images, "none", generator=generator()) is images
    shift = augment(images, "shift", generator=generator())
    assert torch.equal(shift, random_shift(images, generator=generator(), pixels=2))
    intensity = augment(images, "intensity", generator=generator())
    assert torch.equal(intensity, random_intensity(images, generator=generator()))
    source = generator()
    both = random_intensity(random_shift(images, generator=source, pixels=2), generator=source)
    torch.manual_seed(99)
    assert torch.equal(augment(images, "shift_intensity", generator=generator()), both)
    assert not torch.equal(augment(images, "shift_intensity", generator=generator(1)), both)


def test_the_images_given_stay_as_they_were() -> None:
    images = torch.rand(5, 4, 48, 48)
    before = images.clone()
    augment(images, "shift_intensity", generator=generator())
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["none", "shift", "intensity", "shift_intensity"])
def test_bytes_become_what_their_shares_of_255_become(name: AugmentationName) -> None:
    images = torch.randint(256, (6, 5, 3, 8, 9), dtype=torch.uint8)
    before = images.clone()
    found = augment(images, name, generator=generator())
    expected = augment(images.float() / 255, name, generator=generator())
    torch.testing.assert_close(found, expected)
    assert torch.equal(images, before)


def test_vectors_integers_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="augmentation 'none' for vectors"):
        augment(torch.rand(5, 4), "shift", generator=generator())
    with pytest.raises(ValueError, match="of bytes or floats"):
        augment(torch.zeros(5, 4, 8, 8, dtype=torch.int64), "intensity", generator=generator())
    with pytest.raises(ValueError, match="found 'blur'"):
        augment(torch.rand(5, 4, 8, 8), "blur", generator=generator())  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_gpu_shifts_as_the_cpu_does_with_the_same_generator() -> None:
    images = torch.rand(16, 4, 32, 32)
    cpu = augment(images, "shift_intensity", generator=generator())
    gpu = augment(images.cuda(), "shift_intensity", generator=generator())
    torch.testing.assert_close(gpu.cpu(), cpu)


@pytest.mark.parametrize(("height", "pixels"), [(96, 4), (52, 2), (10, 1)])
def test_small_images_are_moved_less(height: int, pixels: int) -> None:
    images = torch.rand(200, 1, height, height)
    moved = augment(images, "shift", generator=generator())
    assert torch.equal(moved, random_shift(images, generator=generator(), pixels=pixels))

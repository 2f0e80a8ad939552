import pytest
import torch

from rewardmodel.prefix_cache.path_cache import PathCache
from rewardmodel.prefix_cache.row_cache import RowCache, padded, token_places

CPU = torch.device("cpu")
HEADS, WIDE = 2, 3


def numbered(rows: int, width: int, *, first: int) -> torch.Tensor:
    """Keys [rows, heads, width, d] whose tokens are numbered from `first` on."""
    numbers = torch.arange(rows * width).view(rows, 1, width, 1) + float(first)
    head = torch.arange(HEADS).view(1, HEADS, 1, 1) / 10
    return (numbers + head).expand(rows, HEADS, width, WIDE).contiguous()


def feed(cache: RowCache, counts: list[int], *, first: int) -> torch.Tensor:
    """Feeds two layers a pass of numbered tokens; returns the columns in mask_spec of the first."""
    width = max(counts)
    cache.reserve(cache.length + width)
    cache.expect(counts, width, CPU)
    new = numbered(len(counts), width, first=first)
    seen, _ = cache.update(new, -new, 0)
    cache.update(2 * new, -2 * new, 1)
    return seen


def tokens(cache: RowCache, *, layer: int = 0) -> list[list[float]]:
    """The first head's tokens of each row; checks that all else follows them."""
    held = cache.row_layers()[layer]
    found = []
    for row, length in enumerate(cache.lengths):
        keys, values = held.keys[row, :, :length], held.values[row, :, :length]
        torch.testing.assert_close(values, -keys)
        torch.testing.assert_close(keys[1, :, 0], keys[0, :, 0] + 0.1 * (layer + 1))
        found.append(keys[0, :, 2].tolist())
    return found


def test_rows_of_unequal_length_take_tokens_behind_their_own() -> None:
    cache = RowCache(2, 8)
    feed(cache, [3, 2], first=0)
    assert tokens(cache) == [[0, 1, 2], [3, 4]]
    seen = feed(cache, [1, 2], first=10)
    assert tokens(cache) == [[0, 1, 2, 10], [3, 4, 12, 13]]
    assert tokens(cache, layer=1) == [[0, 2, 4, 20], [6, 8, 24, 26]]
    assert seen.shape == (2, HEADS, 4, WIDE)
    feed(cache, [1, 1], first=20)  # rows of one length are written as a block
    assert cache.writes.start == 4
    assert tokens(cache) == [[0, 1, 2, 10, 20], [3, 4, 12, 13, 21]]
    assert (cache.get_seq_length(), cache.get_mask_sizes(1, 0)) == (5, (5, 0))


def test_room_at_least_doubles_and_nothing_is_lost() -> None:
    cache = RowCache(1, 4)
    feed(cache, [4], first=0)
    cache.reserve(4)
    assert cache.capacity == 4
    feed(cache, [1], first=4)
    assert cache.capacity == 8
    cache.reserve(30)
    assert cache.capacity == 30
    assert tokens(cache) == [[0, 1, 2, 3, 4]]
    with pytest.raises(AssertionError, match="capacity is reserved"):
        cache.expect([26], 26, CPU)


def test_tokens_are_selected_joined_and_copied() -> None:
    cache = RowCache(2, 6)
    feed(cache, [5, 3], first=0)
    chosen = cache.select(
        torch.tensor([1, 0, 0]),
        padded([[2, 0], [4], [0, 1, 3]], 3),
        capacity=5,
        lengths=[2, 1, 3],
    )
    assert (chosen.num_rows, chosen.capacity) == (3, 5)
    assert tokens(chosen) == [[7, 5], [4], [0, 1, 3]]
    assert RowCache(0, 0).joined(cache) is cache
    both = cache.joined(chosen)
    assert tokens(both, layer=1) == [[0, 2, 4, 6, 8], [10, 12, 14], [14, 10], [8], [0, 2, 6]]
    both.copy_from(
        cache,
        source=token_places([1, 0], [[0, 1], [4]], CPU),  # type: ignore[list-item]
        target=token_places([3, 2], [[1, 2], [0]], CPU),  # type: ignore[list-item]
    )
    both.lengths[3] = 3
    assert tokens(both)[2:4] == [[4, 5], [4, 5, 6]]
    assert both.bytes_per_token() == 2 * 2 * HEADS * WIDE * 4
    assert RowCache(1, 1).bytes_per_token() == 0


def test_paths_are_laid_out_with_new_tokens_behind_and_kept_where_asked() -> None:
    source = RowCache(2, 9)
    feed(source, [5, 4], first=0)
    lengths = list(source.lengths)
    write = token_places([0, 1], [[0, 1], [0]], CPU), token_places([1, 0], [[4, 5], [5]], CPU)  # type: ignore[list-item]
    for kept in (None, write):
        cache = PathCache(
            source,
            torch.tensor([1, 0]),
            padded([[0, 3], [4, 2, 0]], 3),
            width=2,
            write=kept,
        )
        assert (cache.get_seq_length(), cache.get_mask_sizes(2), cache.end) == (3, (5, 0), 5)
        new = numbered(2, 2, first=50)
        for layer in (0, 1):
            factor = layer + 1
            keys, values = cache.update(factor * new, -factor * new, layer)
            torch.testing.assert_close(values, -keys)
            assert keys[0, 0, [0, 1, 3, 4], 0].tolist() == [factor * t for t in (5, 8, 50, 51)]
            assert keys[1, 0, :, 1].tolist() == [factor * t for t in (4, 2, 0, 52, 53)]
        assert source.lengths == lengths
    source.lengths = [6, 6]
    assert tokens(source, layer=1) == [[0, 2, 4, 6, 8, 104], [10, 12, 14, 16, 100, 102]]

"""Forward passes over runs of tokens behind cached prefixes.

There are two equivalent ways: over whole trees, each prompt a row in which a mask gives every token
its own prefix; or over rows, each run behind a copy of its prefix. The first copies nothing, but
every token attends over its whole tree.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rewardmodel.prefix_cache.backbone import Backbone, PathMask, TreeMask
from rewardmodel.prefix_cache.path_cache import PathCache
from rewardmodel.prefix_cache.row_cache import RowCache, padded, token_places
from rewardmodel.prefix_cache.states import States, pick

_COPY = 8  # what copying a prefix's token costs, in attention entries
_PASS_TOKENS = 512  # a smaller forward pass costs about as much as one of so many


def rows_cost_less(
    cache: RowCache,
    rows: Sequence[int],
    known: Sequence[int],
    counts: Sequence[int],
    *,
    hidden_size: int,
) -> bool:
    """Whether runs cost less as rows than in one pass over trees.

    Costs are counted in entries of attention matrices; the weights of a layer are worth six times
    the hidden size per token. Each run has a row of the cache, tokens before it, and its own.
    """
    token = 6 * hidden_size
    ends = list(cache.lengths)
    by_rows = 0
    for row, before, count in zip(rows, known, counts, strict=True):
        ends[row] += count
        by_rows += count * (token + before + count) + _COPY * before
    width = max(end - length for end, length in zip(ends, cache.lengths, strict=True))
    return by_rows < len(ends) * width * (token + max(ends))


def run_trees(
    backbone: Backbone,
    cache: RowCache,
    rows: Sequence[int],
    paths: Sequence[np.ndarray],
    runs: Sequence[Sequence[int]],
) -> tuple[States, int]:
    """Runs and stores tokens in one forward pass, with one row for each row of the cache.

    Each run has a row of the cache, and a path: the columns of its prefix and of the run itself,
    which are, of each row, the free ones in order.

    Returns:
        The states after each token of all runs, in order, and the number of padding tokens.
    """
    counts = [0] * cache.num_rows
    lines, slots, seen = [], [], []  # of each token
    for row, path, run in zip(rows, paths, runs, strict=True):
        lines += [row] * len(run)
        slots += range(counts[row], counts[row] + len(run))
        seen += [path[: len(path) - len(run) + 1 + i] for i in range(len(run))]
        counts[row] += len(run)
    width = max(counts)
    fed = np.zeros((2, cache.num_rows, width), np.int64)  # ids, positions
    fed[0, lines, slots] = np.concatenate([np.asarray(run, np.int64) for run in runs])
    fed[1, lines, slots] = [len(path) - 1 for path in seen]
    ids, positions = torch.from_numpy(fed).to(backbone.device)
    cache.reserve(max(n + count for n, count in zip(cache.lengths, counts, strict=True)))
    cache.expect(counts, width, backbone.device)
    queries = np.asarray(lines) * width + np.asarray(slots)
    output = backbone.run(ids, TreeMask(queries, seen), positions, cache)
    return states_at(output, torch.from_numpy(queries)), ids.numel() - len(queries)


def run_rows(
    backbone: Backbone,
    cache: RowCache,
    rows: Sequence[int],
    prefixes: Sequence[np.ndarray],
    runs: Sequence[Sequence[int]],
    *,
    columns: Sequence[np.ndarray] | None = None,
) -> tuple[States, int]:
    """Runs tokens in one forward pass, a row per run; stores them if `columns` are given.

    Args:
        backbone: The model.
        cache: Of the prefixes.
        rows: Row of each run there.
        prefixes: Columns of each run's prefix.
        runs: Tokens, none empty.
        columns: Where each run goes, or None to store nothing.

    Returns:
        The states after each token of all runs, in order, and the number of padding tokens.
    """
    device = backbone.device
    known = [len(prefix) for prefix in prefixes]
    counts = [len(run) for run in runs]
    width = max(counts)
    places = token_places(range(len(runs)), [np.arange(n) for n in counts], device)
    path_cache = PathCache(
        cache,
        torch.tensor(rows, device=device),
        padded(prefixes, max(known)).to(device),
        width=width,
        write=None if columns is None else (places, token_places(rows, columns, device)),
    )
    # Padding takes the last token's position: there may be none behind it.
    slot = torch.arange(width).minimum(torch.tensor(counts)[:, None] - 1)  # [R, W]
    positions = (torch.tensor(known)[:, None] + slot).to(device)
    ids = padded(runs, width).to(device)
    output = backbone.run(ids, PathMask(known), positions, path_cache)
    states = states_at(output, places[0] * width + places[1])
    return states, ids.numel() - sum(counts)


def states_at(output: tuple[Tensor, Tensor | None], places: Tensor) -> States:
    """The states at flat places [M] of a forward pass [R, W]."""
    hidden, logits = output
    flat = States(hidden.flatten(0, 1), None if logits is None else logits.flatten(0, 1))
    return pick(flat, places)


def last_places(runs: Sequence[Sequence[int]]) -> Tensor:
    """Index of each run's last token among the tokens of all runs, int64 [R]."""
    return torch.tensor([len(run) for run in runs]).cumsum(0) - 1


def batches(runs: Sequence[Sequence[int]], *, rows: int) -> list[list[int]]:
    """Indices of runs in batches of at most `rows`, runs of similar length together."""
    made: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(runs)), key=lambda i: -len(runs[i])):
        # Much shorter runs would be mostly padding; small passes do not pay, either.
        shorter = bool(made) and len(runs[i]) < 0.75 * len(runs[made[-1][0]])
        if not made or len(made[-1]) == rows or (shorter and tokens >= _PASS_TOKENS):
            made.append([])
            tokens = 0
        made[-1].append(i)
        tokens += len(runs[i])
    return made

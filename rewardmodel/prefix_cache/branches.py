"""Rows that hold one prefix each and go on token by token.

For long runs, as whole responses are, where a row that holds one prefix alone is shorter than the
whole tree it comes from. What is to be kept goes back into the tree in the end.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rewardmodel.prefix_cache.backbone import RowMask
from rewardmodel.prefix_cache.kept_states import States
from rewardmodel.prefix_cache.row_cache import padded, token_places

if TYPE_CHECKING:  # a tree makes its branches
    from rewardmodel.prefix_cache.tree import PrefixTree


class Branches:
    """R rows that each hold one prefix and take one token after the other."""

    def __init__(self, tree: "PrefixTree", parents: Sequence[int], *, room: int) -> None:
        """Copies the prefixes of `parents`; see `PrefixTree.branches`."""
        self._tree = tree
        nodes = [tree._nodes[parent] for parent in parents]
        device = tree.backbone.device
        lengths = [len(node.path) for node in nodes]
        self._parents = list(parents)
        self._starts = lengths
        self._cache = tree._cache.select(
            torch.tensor(tree._rows_of(nodes), device=device),
            padded([node.path for node in nodes], max(lengths)).to(device),
            capacity=max(lengths) + room,
            lengths=lengths,
        )

    @torch.inference_mode()
    def feed(self, tokens: Tensor, *, live: Sequence[int]) -> States:
        """Gives each row one token.

        Args:
            tokens: int64 [R].
            live: The rows that are not merely carried along.
        """
        cache, tree = self._cache, self._tree
        starts = list(cache.lengths)
        device = tree.backbone.device
        counts = [0] * len(starts)  # rows that are merely carried along do not grow
        for line in live:
            counts[line] = 1
        cache.expect(counts, 1, device)
        hidden, logits = tree.backbone.run(
            tokens[:, None], RowMask(starts), torch.tensor(starts, device=device)[:, None], cache
        )
        for line in live:
            tree.forward_tokens[tree._nodes[self._parents[line]].prompt] += 1
        tree.idle_tokens += len(starts) - len(live)
        return States(hidden[:, 0], None if logits is None else logits[:, 0])

    @torch.inference_mode()
    def keep(self, lines: Sequence[int]) -> None:
        """Drops all rows but these."""
        cache, device = self._cache, self._tree.backbone.device
        lengths = [cache.lengths[line] for line in lines]
        whole = torch.arange(max(lengths), device=device).expand(len(lines), -1)
        self._cache = cache.select(
            torch.tensor(lines, device=device), whole, capacity=cache.capacity, lengths=lengths
        )
        self._parents = [self._parents[line] for line in lines]
        self._starts = [self._starts[line] for line in lines]

    @torch.inference_mode()
    def restart(self, lines: Sequence[int], parents: Sequence[int]) -> None:
        """Gives rows another prefix to go on from, no longer than the longest of the beginning."""
        tree, cache, device = self._tree, self._cache, self._tree.backbone.device
        nodes = [tree._nodes[parent] for parent in parents]
        counts = [len(node.path) for node in nodes]
        cache.copy_from(
            tree._cache,
            source=token_places(tree._rows_of(nodes), [node.path for node in nodes], device),
            target=token_places(lines, [np.arange(count) for count in counts], device),
        )
        for line, parent, count in zip(lines, parents, counts, strict=True):
            self._parents[line], self._starts[line] = parent, count
            cache.lengths[line] = count

    @torch.inference_mode()
    def commit(self, lines: Sequence[int], states: States) -> list[int]:
        """Puts what rows were fed into the tree, as nodes behind their parents.

        Args:
            lines: Rows, each fed at least one token.
            states: After their last tokens, [len(lines), ...].

        Returns:
            A handle for each.
        """
        tree, cache, device = self._tree, self._cache, self._tree.backbone.device
        nodes = [tree._nodes[self._parents[line]] for line in lines]
        source = [np.arange(self._starts[line], cache.lengths[line]) for line in lines]
        target = tree._allot(nodes, [len(own) for own in source])
        tree._cache.copy_from(
            cache,
            source=token_places(lines, source, device),
            target=token_places(tree._rows_of(nodes), target, device),
        )
        paths = [np.append(node.path, own) for node, own in zip(nodes, target, strict=True)]
        # Their tokens were counted as they were fed.
        return tree._add([node.prompt for node in nodes], paths, states, [()] * len(lines))

"""Trees of token prefixes under prompts: every token is given to the model once.

A node is a run of tokens behind its parent's; its path from the prompt is a prefix. The keys and
values of each prompt's whole tree are in one cache row, where a mask gives every token its own
prefix. Three methods extend known nodes:

- `feed` adds runs behind any prompts and branches: in one forward pass over the trees where the
runs
  are short, as in a search over tokens, or as rows behind copies of their prefixes where that costs
  less;
- `read` returns the states at the ends of runs, and keeps nothing;
- `branches` extends many prefixes at once token by token, where each token depends on the model's
  output before it; `commit` stores what is to be kept.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from rewardmodel.prefix_cache.backbone import Backbone, RowMask
from rewardmodel.prefix_cache.base import Node, Prefixes
from rewardmodel.prefix_cache.passes import (
    batches,
    last_places,
    rows_cost_less,
    run_rows,
    run_trees,
    states_at,
)
from rewardmodel.prefix_cache.row_cache import RowCache, padded, token_places
from rewardmodel.prefix_cache.states import States, joined, pick

_PASS = 16_384  # tokens of one forward pass, prefixes included; bounds its activations
_SPARE = 64  # columns beside the first prompts
_Node = Node[np.ndarray]


class PrefixTree(Prefixes[np.ndarray]):
    """Prefixes of a model that can share a cache (`Backbone.shares`).

    A path holds the columns of the whole prefix in the prompt's row, int32 [tokens].
    """

    def __init__(self, backbone: Backbone) -> None:
        """Makes an empty tree."""
        assert backbone.shares, "other models take rewardmodel.prefix_cache.rerun"
        super().__init__(backbone)
        self._cache = RowCache(0, 0)
        self._rows: dict[int, int] = {}  # of each prompt

    def bytes_per_token(self) -> int:
        """See `Prefixes`."""
        return self._cache.bytes_per_token()

    @torch.inference_mode()
    def add_prompts(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """See `Prefixes`."""
        handles = [self._next + i for i in range(len(prompts))]
        self._next += len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        while order:
            width = len(prompts[order[0]])
            count = max(1, _PASS // width)
            batch, order = order[:count], order[count:]
            cache = RowCache(len(batch), width + _SPARE)
            lengths = [len(prompts[i]) for i in batch]
            cache.expect(lengths, width, self.backbone.device)
            ids = padded([prompts[i] for i in batch], width).to(self.backbone.device)
            states = states_at(
                self.backbone.run_first(ids, cache),
                torch.arange(len(batch)) * width + torch.tensor(lengths) - 1,
            )
            self.padding_tokens += ids.numel() - sum(lengths)
            places = self._kept.add(states)
            for line, i in enumerate(batch):
                self._rows[handles[i]] = self._cache.num_rows + line
                path = np.arange(lengths[line], dtype=np.int32)
                self._nodes[handles[i]] = _Node(handles[i], path, places[line])
                self.forward_tokens[handles[i]] = lengths[line]
            self._cache = self._cache.joined(cache)
        return handles

    @torch.inference_mode()
    def feed(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]]
    ) -> tuple[list[int], States]:
        """See `Prefixes`."""
        if self._rows_pay(parents, runs):
            return self._feed_rows(parents, runs)
        return self._feed_trees(parents, runs)

    @torch.inference_mode()
    def read(self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, rows: int) -> States:
        """See `Prefixes`."""
        nodes = [self._nodes[parent] for parent in parents]
        found, order = [], []
        for batch in batches(runs, rows=rows):
            mine, fed = [nodes[i] for i in batch], [runs[i] for i in batch]
            states, idle = run_rows(
                self.backbone, self._cache, self._rows_of(mine), [node.path for node in mine], fed
            )
            found.append(pick(states, last_places(fed)))
            order += batch
            self.padding_tokens += idle
            for node, run in zip(mine, fed, strict=True):
                self.forward_tokens[node.prompt] += len(run)
        return pick(joined(found), torch.tensor(order).argsort())

    def branches(self, parents: Sequence[int], *, room: int) -> "RowBranches":
        """See `Prefixes`."""
        return RowBranches(self, parents, room=room)

    @torch.inference_mode()
    def keep(self, nodes: Iterable[int]) -> None:
        """See `Prefixes`; rows are compacted, and prompts without a node dropped."""
        self._keep_states(nodes)
        by_prompt: dict[int, list[_Node]] = {}
        for node in self._nodes.values():
            by_prompt.setdefault(node.prompt, []).append(node)
        # Columns keep their order; the order of a prefix is that of its path alone.
        columns = []
        for mine in by_prompt.values():
            seen = np.zeros(self._cache.capacity, bool)
            for node in mine:
                seen[node.path] = True
            old = np.flatnonzero(seen)
            new = np.zeros(self._cache.capacity, np.int32)
            new[old] = np.arange(len(old), dtype=np.int32)
            for node in mine:
                node.path = new[node.path]
            columns.append(old)
        if by_prompt:
            lengths = [len(old) for old in columns]
            device = self.backbone.device
            self._cache = self._cache.select(
                torch.tensor([self._rows[prompt] for prompt in by_prompt], device=device),
                padded(columns, max(lengths)).to(device),
                capacity=max(lengths) + _SPARE,
                lengths=lengths,
            )
        else:
            self._cache = RowCache(0, 0)
        self._rows = {prompt: row for row, prompt in enumerate(by_prompt)}

    def _rows_of(self, nodes: Sequence[_Node]) -> list[int]:
        """The cache row of each node."""
        return [self._rows[node.prompt] for node in nodes]

    def _origins(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]]
    ) -> list[tuple[int, int]]:
        """The prompt of each run and the number of tokens before it."""
        found: list[tuple[int, int]] = []
        for parent in parents:
            if parent >= 0:
                node = self._nodes[parent]
                found.append((node.prompt, len(node.path)))
            else:
                prompt, known = found[~parent]
                found.append((prompt, known + len(runs[~parent])))
        return found

    def _rows_pay(self, parents: Sequence[int], runs: Sequence[Sequence[int]]) -> bool:
        """Whether runs cost less as rows of their own than in one pass over the trees."""
        origins = self._origins(parents, runs)
        return rows_cost_less(
            self._cache,
            [self._rows[prompt] for prompt, _ in origins],
            [known for _, known in origins],
            [len(run) for run in runs],
            hidden_size=self._kept.width,
        )

    def _feed_trees(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]]
    ) -> tuple[list[int], States]:
        """Feeds runs in one forward pass, with one row per prompt."""
        prompts = [prompt for prompt, _ in self._origins(parents, runs)]
        rows = [self._rows[prompt] for prompt in prompts]
        columns, _ = self._free(rows, [len(run) for run in runs])
        paths: list[np.ndarray] = []
        for parent, own in zip(parents, columns, strict=True):
            known = self._nodes[parent].path if parent >= 0 else paths[~parent]
            paths.append(np.append(known, own))
        states, idle = run_trees(self.backbone, self._cache, rows, paths, runs)
        self.padding_tokens += idle
        return self._store(prompts, paths, pick(states, last_places(runs)), runs), states

    def _feed_rows(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]]
    ) -> tuple[list[int], States]:
        """Feeds runs as rows of their own, level by level."""
        handles = [-1] * len(runs)
        found: list[States] = []
        order: list[int] = []
        while waiting := [i for i in range(len(runs)) if handles[i] < 0]:
            above = {i: p if (p := parents[i]) >= 0 else handles[~p] for i in waiting}
            ready = [i for i in waiting if above[i] >= 0]
            longest = max(len(self._nodes[above[i]].path) + len(runs[i]) for i in ready)
            for batch in batches([runs[i] for i in ready], rows=max(1, _PASS // longest)):
                mine = [ready[at] for at in batch]
                nodes, fed = [self._nodes[above[i]] for i in mine], [runs[i] for i in mine]
                states, made = self._feed_batch(nodes, fed)
                found.append(states)
                order += mine
                for i, handle in zip(mine, made, strict=True):
                    handles[i] = handle
        # Back from the order in which runs were fed to their own, token by token.
        owners = np.repeat(order, [len(runs[i]) for i in order])
        return handles, pick(joined(found), torch.from_numpy(np.argsort(owners, kind="stable")))

    def _feed_batch(
        self, nodes: Sequence[_Node], runs: Sequence[Sequence[int]]
    ) -> tuple[States, list[int]]:
        """Feeds runs as the rows of one forward pass."""
        columns = self._allot(nodes, [len(run) for run in runs])
        prefixes = [node.path for node in nodes]
        states, idle = run_rows(
            self.backbone, self._cache, self._rows_of(nodes), prefixes, runs, columns=columns
        )
        self.padding_tokens += idle
        paths = [np.append(path, own) for path, own in zip(prefixes, columns, strict=True)]
        last = pick(states, last_places(runs))
        return states, self._store([node.prompt for node in nodes], paths, last, runs)

    def _free(
        self, rows: Sequence[int], counts: Sequence[int]
    ) -> tuple[list[np.ndarray], list[int]]:
        """Free columns for runs in rows, int32, and the rows' lengths with them."""
        lengths = list(self._cache.lengths)
        columns = []
        for row, count in zip(rows, counts, strict=True):
            columns.append(np.arange(lengths[row], lengths[row] + count, dtype=np.int32))
            lengths[row] += count
        return columns, lengths

    def _allot(self, nodes: Sequence[_Node], counts: Sequence[int]) -> list[np.ndarray]:
        """Reserves columns for runs behind nodes."""
        columns, lengths = self._free(self._rows_of(nodes), counts)
        self._cache.reserve(max(lengths))
        self._cache.lengths = lengths
        return columns

    def _store(
        self,
        prompts: Sequence[int],
        paths: Sequence[np.ndarray],
        states: States,
        runs: Sequence[Sequence[int]],
    ) -> list[int]:
        """Adds nodes and counts their tokens."""
        handles = []
        for prompt, path, place, run in zip(
            prompts, paths, self._kept.add(states), runs, strict=True
        ):
            self.forward_tokens[prompt] += len(run)
            handles.append(self._add(prompt, path, place))
        return handles


class RowBranches:
    """R rows that each hold one prefix and are extended token by token."""

    def __init__(self, tree: PrefixTree, parents: Sequence[int], *, room: int) -> None:
        """Copies the prefixes of `parents` into rows with room for `room` more tokens."""
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
        """See `Branches`."""
        cache, tree = self._cache, self._tree
        starts = list(cache.lengths)
        device = tree.backbone.device
        counts = [0] * len(starts)  # padding rows do not grow
        for line in live:
            counts[line] = 1
        cache.expect(counts, 1, device)
        hidden, logits = tree.backbone.run(
            tokens[:, None], RowMask(starts), torch.tensor(starts, device=device)[:, None], cache
        )
        for line in live:
            tree.forward_tokens[tree._nodes[self._parents[line]].prompt] += 1
        tree.padding_tokens += len(starts) - len(live)
        return States(hidden[:, 0], None if logits is None else logits[:, 0])

    @torch.inference_mode()
    def keep(self, lines: Sequence[int]) -> None:
        """See `Branches`."""
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
        """See `Branches`."""
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
        """See `Branches`; each row was fed at least one token."""
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
        return tree._store([node.prompt for node in nodes], paths, states, [()] * len(lines))
